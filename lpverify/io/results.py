"""Verdicts as text and as report; the only home of both spellings of a timeout.

Light on purpose: the watchdog needs it before NumPy is loaded.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from lpverify.errors import InputError
from lpverify.io.files import check_writable, is_special, write_atomically

if TYPE_CHECKING:
    from lpverify.verdict import Progress, Verdict, Witness

Word: TypeAlias = Literal["sat", "unsat", "unknown", "timeout", "error"]
SCHEMA = 1
SEMANTICS = "real"
STANDARD_SPELLING = {"timeout": "timed-out"}  # VNN-LIB 2, command-line chapter; VNN-COMP says timeout
ROUNDED_DIGITS = 50
_WORDS: dict[str, Word] = {"Sat": "sat", "Unsat": "unsat", "Timeout": "timeout", "Unknown": "unknown"}


@dataclass(frozen=True)
class Tensor:
    """A variable as it is printed.

    Attributes:
        name: Of the variable.
        element_type: As the query declares it.
        shape: Empty for a scalar.
        start: Where its numbers begin among those of the witness, inputs and then outputs.
        dtype: The NumPy type of the model's tensor.
    """

    name: str
    element_type: str
    shape: tuple[int, ...]
    start: int
    dtype: type


@dataclass(frozen=True)
class Answer:
    """What is said about a query.

    Attributes:
        verdict: `error` occurs in reports only.
        reason: Why it is undecided; empty for `sat` and `unsat`.
        stage: What decided, or what was under way.
        closed: Subproblems refuted.
        open: Subproblems left.
        margin: The worst proven bound of an open subproblem (negative: not refuted), None if there is none.
        witness: With `sat`.
        proof_nodes: Size of the proof tree, with `unsat`; 0 when the input set is empty.
    """

    verdict: Word
    reason: str = ""
    stage: str = ""
    closed: int = 0
    open: int = 0
    margin: float | None = None
    witness: "Witness | None" = None
    proof_nodes: int | None = None


def answer_of(verdict: "Verdict") -> Answer:
    """The answer that a verdict stands for."""
    word = _WORDS[type(verdict).__name__]
    reason = getattr(verdict, "reason", "the time limit was reached" if word == "timeout" else "")
    proof = getattr(verdict, "proof", None)
    nodes = None if proof is None else len(proof.nodes)
    return undecided(word, reason, verdict.progress, "", getattr(verdict, "witness", None), nodes)


def undecided(
    word: Word,
    reason: str,
    progress: "Progress | None",
    stage: str = "",
    witness: "Witness | None" = None,
    proof_nodes: int | None = None,
) -> Answer:
    """An answer with the progress made, if any is known; `stage` is used where it names none."""
    if progress is None:
        return Answer(word, reason, stage)
    margin = progress.margin if math.isfinite(progress.margin) else None
    stage = progress.stage or stage
    return Answer(word, reason, stage, progress.closed, progress.open, margin, witness, proof_nodes)


def competition_text(answer: Answer) -> str:
    """Verdict, and for `sat` the assignment in VNN-COMP's form; ends in a newline."""
    lines: list[str] = [answer.verdict]
    if answer.witness is not None:
        inputs = [f"(X_{i} {exact_decimal(v)})" for i, v in enumerate(answer.witness.x)]
        outputs = [f"(Y_{i} {exact_decimal(v)})" for i, v in enumerate(answer.witness.outputs.tolist())]
        lines.append("(" + "\n".join([*inputs, *outputs]) + ")")
    return "\n".join(lines) + "\n"


def standard_text(answer: Answer, tensors: Sequence[Tensor], standard_words: bool = True) -> str:
    """Verdict and assignment as the VNN-LIB 2 standard has them (chapter 5, command-line format).

    Args:
        answer: To be printed.
        tensors: Every declared variable, in the order of the file.
        standard_words: Whether the verdict, too, is spelled as there.
    """
    word: str = answer.verdict
    lines = [STANDARD_SPELLING.get(word, word) if standard_words else word]
    if answer.witness is not None:
        numbers = [*answer.witness.x, *answer.witness.outputs.tolist()]
        for t in tensors:
            lines.append(f"{t.name} {t.element_type} [{','.join(map(str, t.shape))}]")
            lines.extend(map(exact_decimal, numbers[t.start : t.start + math.prod(t.shape)]))
    return "\n".join(lines) + "\n"


def exact_decimal(number: Decimal | Fraction | int | float) -> str:
    """The number's exact decimal expansion, without an exponent.

    A fraction that has none (1/3) is rounded to `ROUNDED_DIGITS` digits.
    """
    if isinstance(number, Fraction):
        top, bottom = number.numerator, number.denominator
        digits = top.bit_length() + bottom.bit_length() + 1 if _terminates(bottom) else ROUNDED_DIGITS
        number = Context(prec=digits).divide(Decimal(top), Decimal(bottom))
    return format(Decimal(number), "f")


def _terminates(denominator: int) -> bool:
    """Whether fractions with that denominator have a finite expansion."""
    rest = denominator >> ((denominator & -denominator).bit_length() - 1)
    while rest % 5 == 0:
        rest //= 5
    return rest == 1


def report(answer: Answer, **facts: object) -> dict[str, object]:
    """The machine-readable report of one run; keys of `facts` are added at its end."""
    witness = answer.witness
    shown = None
    if witness is not None:
        shown = {
            "inputs": witness.inputs.tolist(),
            "exact_inputs": [exact_decimal(v) for v in witness.x],
            "outputs": witness.outputs.tolist(),
        }
    return {
        "schema": SCHEMA,
        "verdict": answer.verdict,
        "reason": answer.reason or None,
        "stage": answer.stage or None,
        "semantics": SEMANTICS,
        "subproblems": {"closed": answer.closed, "open": answer.open},
        "margin": answer.margin,
        "witness": shown,
        "proof_nodes": answer.proof_nodes,
        **facts,
    }


def report_text(content: dict[str, object]) -> str:
    """A report as JSON; raises ValueError if a number is not finite."""
    return json.dumps(content, indent=1, allow_nan=False)


class ReportFile:
    """A JSON file that is there whole or not at all.

    A target that exists and is no plain file, such as `/dev/stderr`, is written to and not replaced.

    Args:
        path: The file.
        several: Whether it holds a list of reports, under the key `queries`.

    Attributes:
        direct: Whether the target is no plain file.
    """

    def __init__(self, path: str, several: bool = False) -> None:
        self.direct = is_special(path)
        absolute = os.path.abspath if self.direct else os.path.realpath  # a pipe has no real path
        self.path = Path(absolute(path))
        self._several = several
        self._texts: list[str] = []

    def check(self) -> None:
        """Finds out whether `write` could work.

        Raises:
            InputError: It could not.
        """
        try:
            check_writable(self.path)
        except OSError as error:
            raise InputError(f"{self.path}: can't write the report: {error.strerror or error}") from None

    def adopt(self, texts: Sequence[str]) -> None:
        """Takes over reports that another process had for the list, as it had them."""
        self._texts += texts

    def write(self, *reports: dict[str, object]) -> None:
        """Writes a report, or adds some to the list; raises OSError when that fails after all."""
        self._texts += [report_text(content) for content in reports]
        text = '{"queries": [\n' + ",\n".join(self._texts) + "\n]}" if self._several else self._texts[-1]
        write_atomically(self.path, (text + "\n").encode(errors="surrogateescape"))
