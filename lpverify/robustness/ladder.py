"""Complete verification of single questions, and programs for them, in this process or a worker."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from lpverify.config import Config, Deadline
from lpverify.errors import UnsupportedError
from lpverify.io.onnx import Model, import_model
from lpverify.robustness.bounders import SingleBounds
from lpverify.robustness.evidence import Adversarial, Attempt, Question
from lpverify.robustness.judge import Judge
from lpverify.robustness.margins import Margins
from lpverify.robustness.pool.workers import Task
from lpverify.robustness.samples import Samples
from lpverify.robustness.threat import Threat
from lpverify.verdict import Progress, Sat, Timeout, Unknown, Unsat, Verdict
from lpverify.verify import verify_query

LADDER = "ladder"
TIMEOUT = "out of time"
BALL_SHARE = 0.5  # of the time, for bounds that know the ball


@dataclass(frozen=True)
class Ladder:
    """All that `lpverify verify` does, for one question after the other.

    Over balls of norm 1 and 2 bounds that know the ball come first; then the box around it is verified,
    whose counterexamples count only within the ball.

    Attributes:
        margins: The network, the samples and the threat.
        model: The network.
        judge: Of counterexamples.
    """

    margins: Margins
    model: Model
    judge: Judge

    def decide(self, question: Question, seconds: float) -> list[Attempt | Adversarial]:
        """One question within so many seconds."""
        start = time.monotonic()
        deadline = Deadline().within(seconds)
        if self.margins.threat.norm in (1, 2):
            attempt = self._ball(question, BALL_SHARE * seconds)
            if attempt.verdict == "proven":
                return [replace(attempt, method=LADDER, seconds=time.monotonic() - start)]
        config = replace(self.margins.config, timeout=seconds, deadline=deadline)
        verdict = self._verify(question, config)
        return list(self._findings(question, verdict, time.monotonic() - start))

    def _ball(self, question: Question, seconds: float) -> Attempt:
        """By the dearest method that knows the ball and treats the network."""
        attempt = next(iter(SingleBounds(self.margins, "sdp-crown", seconds).answer([question])))
        if attempt.margin == attempt.margin and attempt.margin > float("-inf"):
            return attempt
        return next(iter(SingleBounds(self.margins, "alpha-crown", seconds).answer([question])))

    def _verify(self, question: Question, config: Config) -> Verdict:
        samples, threat = self.margins.samples, self.margins.threat
        label = int(samples.y[question.sample])
        try:
            query = threat.query(samples.x[question.sample], label, question.eps)
            return verify_query(self.model, query, config)
        except UnsupportedError as error:
            return Unknown(str(error), Progress(stage="unsupported"))

    def _findings(
        self, question: Question, verdict: Verdict, seconds: float
    ) -> Iterator[Attempt | Adversarial]:
        sample, eps, stage = question.sample, question.eps, verdict.progress.stage
        margin = verdict.progress.margin
        if isinstance(verdict, Unsat):
            yield Attempt(sample, LADDER, eps, "proven", stage, seconds)
        elif isinstance(verdict, Sat):
            found = self.judge.adversarial(sample, verdict.witness.inputs, stage)
            if found is not None:
                yield found
            if found is not None and found.distance <= eps:
                yield Attempt(sample, LADDER, eps, "refuted", stage, seconds)
            else:
                reason = "a counterexample in the box around the ball is outside of the ball"
                yield Attempt(sample, LADDER, eps, "unknown", stage, seconds, reason)
        else:
            reason = TIMEOUT if isinstance(verdict, Timeout) else verdict.reason
            yield Attempt(sample, LADDER, eps, "unknown", stage, seconds, reason, margin)


@dataclass(frozen=True)
class MethodJob:
    """What a worker needs to answer questions by one method.

    Attributes:
        serialized: The model, self-contained.
        path: For messages.
        samples: The data set.
        threat: The threat.
        method: `ladder`, or one of `lpverify.methods`.
        config: Seed, threads, device.
    """

    serialized: bytes
    path: str
    samples: Samples
    threat: Threat
    method: str
    config: Config

    def prepare(self) -> Callable[[Task], list[Attempt | Adversarial]]:
        """Loads the model."""
        model = import_model(self.serialized, self.path)
        margins = Margins.of(model, self.samples, self.threat, self.config)
        if self.method == LADDER:
            ladder = Ladder(margins, model, Judge(model, self.samples, self.threat))
            return lambda task: ladder.decide(task.question, task.seconds)

        def bound(task: Task) -> list[Attempt | Adversarial]:
            return list(SingleBounds(margins, self.method, task.seconds).answer([task.question]))

        return bound
