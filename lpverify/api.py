"""The Python interface: load a network, decide a query, bound a network. NumPy in, NumPy out."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from lpverify.bounding import BoundsResult, ValueBounds, bounds
from lpverify.config import DEVICES, SEARCHES, Config, Deadline
from lpverify.errors import InputError, InternalError, LpverifyError, UnsupportedError
from lpverify.io.onnx import Model
from lpverify.io.results import Answer, answer_of
from lpverify.io.vnnlib import read_query
from lpverify.loading import LoadedNetwork, Path, load, model_of, path_of, split_outputs
from lpverify.problem import compile_problem
from lpverify.proof import Proof
from lpverify.query import Number, Query
from lpverify.verdict import Sat, Unsat, Witness
from lpverify.verify import verify_query

__all__ = [
    "BoundsResult",
    "Counterexample",
    "InputError",
    "LoadedNetwork",
    "LpverifyError",
    "Result",
    "UnsupportedError",
    "ValueBounds",
    "bounds",
    "load",
    "verify",
    "verify_many",
]


@dataclass(frozen=True)
class Counterexample:
    """An input that has the property's violation, replayed with onnxruntime.

    Attributes:
        inputs: For each input of the model the array to feed to onnxruntime, in the model's float type.
        outputs: For each output what onnxruntime returned.
        exact: The inputs as exact numbers inside the query's ranges, flat; they differ from `inputs`
            only where a range contains no float of that type.
    """

    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    exact: tuple[Number, ...]


@dataclass(frozen=True)
class Result:
    """What is known about a query.

    Attributes:
        verdict: `sat`: the violation exists, see `witness`. `unsat`: it does not, over the real numbers.
        witness: With `sat`.
        reason: Why it is `unknown` or `timeout`, else empty.
        stage: The technique that decided, or that was at work last.
        seconds: Wall-clock time, loading included; of `verify_many` see there.
        proof: With `unsat`, if it was recorded.
    """

    verdict: Literal["sat", "unsat", "unknown", "timeout"]
    witness: Counterexample | None
    reason: str
    stage: str
    seconds: float
    proof: Proof | None = field(default=None, repr=False)


def verify(
    network: LoadedNetwork | Path,
    query: Query | Path,
    *,
    timeout: float = 60.0,
    seed: int = 0,
    record_proof: bool = False,
    method: Literal["auto", "lp", "milp"] = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> Result:
    """Decides whether the violation that a VNN-LIB query describes exists.

    >>> import lpverify
    >>> lpverify.verify("model.onnx", "holds.vnnlib").verdict
    'unsat'
    >>> result = lpverify.verify("model.onnx", "violated.vnnlib", timeout=10)
    >>> result.verdict
    'sat'
    >>> network = lpverify.load("model.onnx")
    >>> bool(network(result.witness.inputs["x"]) >= 0.25)
    True

    Args:
        network: From `load`, or a path.
        query: Parsed, or the path of a VNN-LIB 1 file, packed with gzip or not.
        timeout: Wall-clock limit in seconds; may be overrun by the length of one step.
        seed: Of all random choices.
        record_proof: Keep what an `unsat` is proven with.
        method: `auto` lets several searches compete; `lp` takes branch and bound by linear programs alone,
            `milp` has a mixed-integer solver look for counterexamples first. Both are for ReLU networks.
        device: Where large networks are bounded and searched; `auto`: a GPU that CUDA finds, else the CPU.

    Raises:
        InputError: A file or an argument is not usable, or query and network do not fit.
        UnsupportedError: Something in them can't be treated, or there is no such device.

    Source: branch and bound over backward linear bounds, Bunel et al. 2020, arXiv:1909.06588, and Wang et
    al. 2021, arXiv:2103.06624; witnesses count after a replay with onnxruntime.
    """
    start = time.monotonic()
    config = _config(timeout, seed, record_proof, start, method, device)
    model = model_of(network)
    return _decide(model, _parsed(query), config, start)


def verify_many(
    network: LoadedNetwork | Path,
    queries: Iterable[Query | Path],
    *,
    timeout: float = 60.0,
    seed: int = 0,
    record_proof: bool = False,
) -> list[Result]:
    """Decides several queries about one network, which is loaded once.

    All queries are read before the first is decided, so that one that can't be used is told at once.

    >>> import lpverify
    >>> results = lpverify.verify_many("model.onnx", ["holds.vnnlib", "violated.vnnlib"], timeout=10)
    >>> [result.verdict for result in results]
    ['unsat', 'sat']

    Args:
        network: From `load`, or a path.
        queries: Each as for `verify`.
        timeout: Wall-clock limit of each query, in seconds.
        seed: Of all random choices; each query's are those of a `verify` of its own.
        record_proof: Keep what each `unsat` is proven with.

    Returns:
        A result for each query, in their order. `seconds` is the time of that query, with its reading; the
        first one's has the loading of the network as well.

    Raises:
        InputError: A file or an argument is not usable, or a query and the network do not fit.
        UnsupportedError: Something in them can't be treated.
    """
    if isinstance(queries, (str, os.PathLike, Query)) or not isinstance(queries, Iterable):
        raise InputError(f"queries: expected several, as in a list, got {type(queries).__name__}")
    start = time.monotonic()
    _config(timeout, seed, record_proof, start)
    model = model_of(network)
    loading = time.monotonic() - start
    results: list[Result] = []
    for query, reading in [_prepared(model, query) for query in queries]:
        start = time.monotonic() - reading - (0.0 if results else loading)
        results.append(_decide(model, query, _config(timeout, seed, record_proof, start), start))
    return results


def _parsed(query: Query | Path) -> Query:
    return query if isinstance(query, Query) else read_query(path_of(query, "query"))


def _prepared(model: Model, query: Query | Path) -> tuple[Query, float]:
    """The query, which fits the network, and the seconds that it took to see that."""
    start = time.monotonic()
    parsed = _parsed(query)
    compile_problem(model.network, parsed)
    return parsed, time.monotonic() - start


def _decide(model: Model, query: Query, config: Config, start: float) -> Result:
    verdict = verify_query(model, query, config)
    proof = verdict.proof if isinstance(verdict, Unsat) and config.record_proof else None
    witness = _counterexample(verdict.witness, model) if isinstance(verdict, Sat) else None
    return _result(answer_of(verdict), witness, proof, time.monotonic() - start)


def _config(
    timeout: float,
    seed: int,
    record_proof: bool,
    start: float,
    method: str = "auto",
    device: str = "auto",
) -> Config:
    number = isinstance(timeout, (int, float, np.integer, np.floating)) and not isinstance(timeout, bool)
    if not (number and timeout > 0):
        raise InputError(f"timeout: expected a positive number of seconds, got {timeout!r}")
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InputError(f"seed: expected a whole number from 0, got {seed!r}")
    if method not in SEARCHES:
        raise InputError(f"method: expected one of {', '.join(SEARCHES)}, got {method!r}")
    if device not in DEVICES:
        raise InputError(f"device: expected one of {', '.join(DEVICES)}, got {device!r}")
    deadline = Deadline(start + float(timeout))
    limits = (float(timeout), int(seed), bool(record_proof))
    return Config(*limits, method=method, device=device, deadline=deadline)


def _result(answer: Answer, witness: Counterexample | None, proof: Proof | None, seconds: float) -> Result:
    if answer.verdict == "error":
        raise InternalError(answer.reason)
    return Result(answer.verdict, witness, answer.reason, answer.stage, seconds, proof)


def _counterexample(witness: Witness, model: Model) -> Counterexample:
    """The witness' flat arrays cut into the model's tensors."""
    tables: list[dict[str, np.ndarray]] = []
    for flat, signature in ((witness.inputs, model.inputs), (witness.outputs, model.outputs)):
        arrays = split_outputs(flat[None], signature, "one")
        rows = zip(signature.names, arrays, signature.dtypes, strict=True)
        tables.append({name: array.astype(dtype) for name, array, dtype in rows})
    return Counterexample(tables[0], tables[1], witness.x)
