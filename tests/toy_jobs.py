"""Jobs for the tests of worker processes, which have to be able to import them."""

import os
import signal
import sys
import time
from dataclasses import dataclass

import numpy as np

from lpverify import errors
from lpverify.robustness.evidence import Adversarial, Attempt


def proven(task, reason=""):
    question = task.question
    return Attempt(question.sample, "ladder", question.eps, "proven", "toy", 0.0, reason, 1.0)


class UnmakeableError(Exception):
    """Can be pickled but not made again."""

    def __init__(self, first, second):
        super().__init__(first)


class UnmakeableFinding:
    def __reduce__(self):
        return UnmakeableError, ("one",)


@dataclass(frozen=True)
class Toy:
    """Does what is planned for a sample, or proves it.

    Attributes:
        plan: An action for some samples.
        loading: One while it is prepared.
        ballast: Makes the job large.
    """

    plan: dict
    loading: str = ""
    ballast: bytes = b""
    method: str = "ladder"

    def prepare(self):
        self.act(self.loading, None)
        return self.answer

    def answer(self, task):
        found = self.act(self.plan.get(task.question.sample, ""), task)
        return [proven(task)] if found is None else found

    def act(self, action, task):
        kind, _, text = action.partition(" ")
        return getattr(self, f"do_{kind or 'nothing'}")(text, task)

    def do_nothing(self, text, task):
        return None

    def do_raise(self, text, task):
        kind = getattr(errors, text, None) or getattr(__import__("builtins"), text)
        raise kind("so it is")

    def do_exit(self, text, task):
        os._exit(int(text))

    def do_leave(self, text, task):
        sys.exit(text)

    def do_signal(self, text, task):
        os.kill(os.getpid(), getattr(signal, text))
        time.sleep(60)

    def do_sleep(self, text, task):
        time.sleep(float(text))

    def do_spin(self, text, task):
        end = time.monotonic() + float(text)
        while time.monotonic() < end:
            pass

    def do_print(self, text, task):
        print("stray", flush=True)
        os.write(1, b"\0" * 100)
        sys.__stdout__.flush()
        return None if sys.stdin.read() == "" else []

    def do_tell(self, text, task):
        return [proven(task, text) for text in (str(os.getpid()), os.environ["OMP_NUM_THREADS"])]

    def do_points(self, text, task):
        point = np.arange(float(text))
        return [Adversarial(task.question.sample, point, 1, task.question.eps, "toy"), proven(task)]

    def do_unpicklable(self, text, task):
        return [lambda: None]

    def do_unmakeable(self, text, task):
        return [UnmakeableFinding()]
