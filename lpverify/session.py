"""One `lpverify verify`: a network, one property or several, and two threads that may answer.

The main thread loads the network and reads all properties, then decides them in turn. Each has a limit of
its own; that of the first counts from the start of the process and stands still while the others are read.

The watchdog's thread acts when the main thread is not ready. On a signal, and when the memory budget is used
up, it answers `unknown` for the property under way and for those after it, and ends the process. At the limit
of a property it answers `timeout` for it. If there are others, the main thread has a fifth of the limit more,
at least five seconds, to come back and go on with the next one; what it found too late is dropped. A step
that takes longer may never end, and a thread can't be stopped from outside: the others are answered
`unknown`, and the process ends. Should it crash, the supervisor takes over (`lpverify.supervisor`).

Whoever answers holds the claim of the watchdog, so that no property is answered twice.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lpverify.config import Config, Deadline
from lpverify.errors import InputError, one_line, out_of_memory
from lpverify.io.results import (
    Answer,
    Word,
    answer_of,
    competition_text,
    standard_text,
)
from lpverify.limit_options import model_limits, property_limits
from lpverify.memory import Budget
from lpverify.options import networks
from lpverify.output import EXIT_STATUS, Output, Remains
from lpverify.progress import ProgressLine, describe
from lpverify.reports import Reports
from lpverify.task import Task
from lpverify.watchdog import MEMORY, Watchdog

if TYPE_CHECKING:
    from lpverify.io.onnx import Model
    from lpverify.models import Models
    from lpverify.query import Query
    from lpverify.verdict import Verdict

GRACE, LEAST_GRACE_SECONDS = 0.2, 5.0  # a share of the limit, but at least that


class Session:
    """What both the main thread and the watchdog need to answer.

    Raises:
        InputError: The options are wrong, or the report can't be written.
    """

    def __init__(self, args: argparse.Namespace, output: Output) -> None:
        self.args, self.output = args, output
        sources, files = networks(args)
        self.tasks = self._tasks(files)
        self.models: Models | None = None  # once something was loaded
        self.sources = sources
        self.position, self.task = 0, self.tasks[0]
        self.task.begin("start", output.start)
        self.answered = 0  # tasks; the watchdog may have answered for `task` already
        self.limit = self.task.hard_end
        tick = (lambda: self.task.line.draw()) if self.task.line.enabled else None
        self.budget = Budget(args.memory)
        self.watchdog = Watchdog(self.limit, self.cut_short, tick, self.budget.guard, output.alive)
        self.loaded = False  # all networks and properties
        self.words: set[Word] = set()
        self.error: Exception | None = None
        self.code = 0  # of the first error
        self.reports = Reports(args, files)
        if args.serialise_assignments is not None and self.several:
            raise InputError("--serialise-assignments is for one property")

    def _tasks(self, files: list[str]) -> list[Task]:
        """One for each property, none of them started."""
        tasks = []
        for i, path in enumerate(files, 1):
            label = f"{i} of {len(files)}, " if len(files) > 1 else ""
            line = ProgressLine(sys.stderr, 0.0, not self.args.quiet, label)
            line.stage = "starting" if i == 1 else "not started"
            tasks.append(Task(path, self.args.timeout, line))
        return tasks

    @property
    def several(self) -> bool:
        """Whether the output names the properties."""
        return len(self.tasks) > 1

    # --- the main thread ---

    def run(self) -> int:
        """Decides all properties and returns the exit code.

        Raises what loading raises, and with a single property what its verification raises.
        """
        self.watchdog.start()
        self.output.listen()
        self.budget.limit_allocations()
        if self.args.memory is not None and self.budget.guard is None:
            self.output.tell("note: --memory has no effect on this system")
        for i in range(len(self.tasks)):
            if i:
                self._turn_to(i)
                self.watchdog.resume(self.limit)
            answer = self._attempt()
            self.watchdog.claim()
            if not self.loaded or (self.error is not None and not self.several):
                return self._give_up(answer)
            if self.answered == i:
                self._answer(answer)
                self._save()
            self.error = None
            self.task.forget()
        return self.exit_code()

    def _attempt(self) -> Answer:
        """The answer for the task; an error is one too, so that the others are still decided."""
        try:
            if not self.loaded:
                self._load()
            return self._decide()
        except Exception as error:  # noqa: BLE001
            if out_of_memory(error):
                return self.task.undecided("unknown", "out of memory")
            self.error = error
            return Answer("error", one_line(error), self.task.line.stage)

    def _load(self) -> None:
        """Reads all properties and loads the networks that they declare."""
        self.task.enter("load", "loading")
        from lpverify.models import Models

        self.models = Models(self.sources, self.args.lenient, model_limits(self.args))
        for task in self.tasks:
            self._read(task, self.models)
        self.reports.gather(self.models.paths)
        if self.args.check_import:
            self._check_import()
        self.loaded = True

    def _read(self, task: Task, models: "Models") -> None:
        """Reads a property; among several it must compile as well, as that would come late for the others."""
        from lpverify.compiling import compile_query
        from lpverify.io.assignments import tensors_of
        from lpverify.io.vnnlib import read_query

        begin = time.monotonic()
        task.query = read_query(task.path, limits=property_limits(self.args), lenient=self.args.lenient)
        found = models.fitting(task.query)
        task.model, task.tensors = found.model, tensors_of(task.query, found.model)
        self._remark(task, found.remarks)
        if self.several:
            compile_query(task.model, task.query)
            task.files = self.reports.hashed(task)
        task.spent = time.monotonic() - begin
        if task is not self.task:
            self.watchdog.claim()
            self.task.shift(task.spent)
            self.limit += task.spent
            self.watchdog.resume(self.limit)

    def _remark(self, task: Task, remarks: Sequence[str]) -> None:
        """Tells what was overlooked, and with --strict every departure from the standard's letter."""
        assert task.query is not None
        if self.args.strict:
            for remark in task.query.remarks:
                self.output.tell(f"{task.path}:{remark}")
        for remark in remarks if not self.args.quiet else ():
            self.output.tell(f"{task.path}: note: {remark}")

    def _decide(self) -> Answer:
        """Verifies the task; raises what verification raises."""
        from lpverify.verify import verify_query

        task, args = self.task, self.args
        assert task.model is not None and task.query is not None
        if self.answered > self.position:  # its limit passed while the files were read
            return task.undecided("timeout", "")
        task.enter("verify", "first bounds")
        deadline = Deadline(task.end - task.margin)
        record = args.record_proof or args.recheck
        chosen = {"method": args.method, "device": args.device}
        config = Config(args.timeout, args.seed, record, **chosen, deadline=deadline)
        verdict = verify_query(task.model, task.query, config, task.line.update)
        answer = self._recheck(verdict, task.model, task.query)
        task.enter("answer", "answering")
        return answer

    def _recheck(self, verdict: "Verdict", model: "Model", query: "Query") -> Answer:
        """The answer of a verdict; an `unsat` whose proof doesn't stand a wanted re-check is `unknown`."""
        answer = answer_of(verdict)
        if answer.verdict != "unsat" or not self.args.recheck:
            return answer
        from lpverify.check import check_proof
        from lpverify.compiling import compile_query

        task = self.task
        task.enter("recheck", "re-check of the proof")
        task.line.update(replace(verdict.progress, stage="re-check of the proof"))
        found = check_proof(compile_query(model, query), verdict.proof)  # type: ignore[union-attr]
        task.rechecked = found.leaves - len(found.failures)
        if not found.valid:
            return task.undecided("unknown", f"the proof does not stand its re-check: {found.failures[0]}")
        return answer

    def _check_import(self) -> None:
        from lpverify.import_check import check_import
        from lpverify.problem import compile_problem

        query, model = self.task.query, self.task.model
        assert query is not None and model is not None
        self.task.enter("check", "comparing with onnxruntime")
        agreement = check_import(model, compile_problem(model.network, query), self.args.seed)
        if self.args.verbose:
            found = f"{agreement.difference:.2g} of {agreement.scale:.2g}"
            self.output.tell(f"differs from onnxruntime by {found}")

    def _give_up(self, answer: Answer) -> int:
        """Answers for all that is left; an error of loading or of the only property is no answer."""
        for i in range(self.answered, len(self.tasks)):
            self._turn_to(i)
            if self.error is None:
                self._answer(answer)
            else:
                self._record(answer)
        self._save()
        if self.error is not None:
            raise self.error
        return self.exit_code()

    # --- the watchdog's thread ---

    def cut_short(self, number: int) -> int | None:
        """Answers for a main thread that isn't ready; 0 stands for the limit, `MEMORY` for too much memory.

        Returns:
            The exit code, or None while the main thread has time to come back.
        """
        reason = ""
        try:
            code = self._cut_short(number)
        except MemoryError:
            code, reason = 70, "out of memory"
        except Exception as error:  # noqa: BLE001  (stdout, mostly; there is no one to raise it to)
            code = self.output.complain(error, self.args.verbose, "")
        if code is not None:
            self.output.finish(reason)
        return code

    def _cut_short(self, number: int) -> int | None:
        if number == MEMORY:
            self._answer_rest(f"the memory budget of {self.budget} is used up")
            return self.exit_code()
        if number:
            self._answer_rest("interrupted")
            return 128 + number
        if self.answered > self.position:
            self._answer_rest(f"{self.task.path} did not end in time")
            return self.exit_code()
        self._answer(self.task.undecided("timeout", f"the limit of {self.args.timeout:g} s was reached"))
        self._save()
        if self.answered == len(self.tasks):
            return self.exit_code()
        self.limit = time.monotonic() + max(LEAST_GRACE_SECONDS, GRACE * self.args.timeout)
        self.watchdog.end = self.limit
        return None

    def _answer_rest(self, reason: str) -> None:
        """Answers `unknown` for all properties without an answer."""
        for i in range(self.answered, len(self.tasks)):
            self._turn_to(i)
            self._answer(self.task.undecided("unknown", reason))
        self._save()

    # --- the supervisor ---

    def take_over(self, left: Remains) -> int:
        """Answers `unknown` for what a process that is gone left open, and returns the exit code."""
        self.answered = left.answered
        self.reports.adopt(left.reports)
        for task in self.tasks:
            task.line.stage = "lost"
        open_ = self.answered < len(self.tasks)
        if not left.interrupted and (self.args.quiet or not open_):  # else it is the reason of an answer
            self.output.tell(f"error: {left.reason}")
        if open_:
            self._answer_rest(left.reason)
        return self.exit_code() if left.code is None else left.code

    # --- the thread that has the claim ---

    def exit_code(self) -> int:
        """Of the first error; else 0, or what is most important of all verdicts; what is open is unknown."""
        if self.code or not self.args.exit_status:
            return self.code
        words = self.words | {"unknown"} if self.answered < len(self.tasks) else self.words
        return next((code for word, code in EXIT_STATUS.items() if word in words), 0)

    def _turn_to(self, position: int) -> None:
        """Makes a property the current one; its clock starts, less the time that reading it took."""
        if position != self.position:
            self.position, self.task = position, self.tasks[position]
            self.task.begin("load", time.monotonic() - self.task.spent)
            self.limit = self.task.hard_end

    def _answer(self, answer: Answer) -> None:
        """Prints the answer for the current property."""
        self.answered += 1
        self.task.line.close()
        text = self._text(answer)
        self.output.put(f"{self.task.path} {text}" if self.several else text)
        self.words.add(answer.verdict)
        self._explain(answer)
        self._record(answer)

    def _text(self, answer: Answer) -> str:
        """What goes to stdout: in the standard's form if the command has that form, or the property."""
        query, tensors, standard = self.task.query, self.task.tensors, self.args.network is not None
        if answer.witness is not None and self.args.serialise_assignments is not None:
            from lpverify.io.assignments import write_tensors

            try:
                write_tensors(self.args.serialise_assignments, tensors, answer.witness)
                return standard_text(replace(answer, witness=None), tensors, standard)
            except InputError as error:
                self.code = self.output.complain(error, self.args.verbose, "")
        if standard or (query is not None and query.networks):
            return standard_text(answer, tensors, standard)
        return competition_text(answer)

    def _explain(self, answer: Answer) -> None:
        """Why it is undecided, and what is worth a note; statistics if wanted."""
        about = f"{self.task.path}: " if self.several else ""
        if answer.verdict == "error" and self.error is not None:
            code = self.output.complain(self.error, self.args.verbose, about)
            self.code = self.code or code
            return
        if self.args.quiet:
            return
        how_far = describe(answer.closed, answer.open, answer.margin)
        if answer.reason:
            self.output.tell(f"{about}{answer.verdict}: {answer.reason}; stage: {answer.stage}; {how_far}")
        if answer.proof_nodes == 0:
            self.output.tell(f"{about}note: the input set of the property is empty")
        if self.args.verbose:
            seconds = ", ".join(f"{name} {value:.2f} s" for name, value in self.task.seconds().items())
            checked = "" if self.task.rechecked is None else f"; {self.task.rechecked} leaves re-checked"
            about_types = "" if self.task.query is None else f"; over {self.task.query.semantics} numbers"
            self.output.tell(f"{about}stage: {answer.stage}; {how_far}{checked}; {seconds}{about_types}")

    def _record(self, answer: Answer) -> None:
        """Keeps the report for `_save`."""
        self.task.line.close()
        self.output.note(self.exit_code(), self.reports.add(answer, self.task))

    def _save(self) -> None:
        """Writes the JSON file if one is wanted; a failure is told and changes nothing else."""
        try:
            self.reports.save(self.position + 1 == len(self.tasks))
        except OSError as error:
            self.output.tell(f"can't write the report: {error}")
