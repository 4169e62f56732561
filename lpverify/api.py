"""The Python interface: load a network, decide a query, bound a network. NumPy in, NumPy out."""

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from lpverify.bounding import BoundsResult, ValueBounds, bounds
from lpverify.compiling import compile_query
from lpverify.config import DEVICES, SEARCHES, Config, Deadline
from lpverify.errors import InputError, InternalError, LpverifyError, UnsupportedError
from lpverify.io.onnx import Model
from lpverify.io.results import Answer, answer_of
from lpverify.io.vnnlib import read_query
from lpverify.loading import LoadedNetwork, Path, load, path_of, split_outputs
from lpverify.models import Models
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
        inputs: For each input of the model the array to feed to onnxruntime, in the model's type; by the
            model's names, or by those that a query of version 2 declares.
        outputs: For each output what onnxruntime returned; hidden tensors of the query as well.
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
        semantics: What `unsat` is about: `real` numbers, or computation in the float types that a VNN-LIB 2
            query declares, in any order of summation.
    """

    verdict: Literal["sat", "unsat", "unknown", "timeout"]
    witness: Counterexample | None
    reason: str
    stage: str
    seconds: float
    proof: Proof | None = field(default=None, repr=False)
    semantics: str = "real"


Networks: TypeAlias = LoadedNetwork | Path | Mapping[str, LoadedNetwork | Path]


def verify(
    network: Networks,
    query: Query | Path,
    *,
    timeout: float = 60.0,
    seed: int = 0,
    record_proof: bool = False,
    method: Literal["auto", "lp", "milp"] = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    lenient: bool = False,
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
        network: From `load`, or a path; for a query that declares several networks, one of these for each
            name that is not declared equal to another.
        query: Parsed, or the path of a VNN-LIB file of version 1 or 2, packed with gzip or not.
        timeout: Wall-clock limit in seconds; may be overrun by the length of one step.
        seed: Of all random choices.
        record_proof: Keep what an `unsat` is proven with.
        method: `auto` lets several searches compete; `lp` takes branch and bound by linear programs alone,
            `milp` has a mixed-integer solver look for counterexamples first. Both are for ReLU networks.
        device: Where large networks are bounded and searched; `auto`: a GPU that CUDA finds, else the CPU.
        lenient: Accept a query whose element types are not the model's; those of the model count.

    Raises:
        InputError: A file or an argument is not usable, or query and network do not fit.
        UnsupportedError: Something in them can't be treated, or there is no such device.

    Source: branch and bound over backward linear bounds, Bunel et al. 2020, arXiv:1909.06588, and Wang et
    al. 2021, arXiv:2103.06624; witnesses count after a replay with onnxruntime.
    """
    start = time.monotonic()
    config = _config(timeout, seed, record_proof, start, method, device)
    parsed = _parsed(query, lenient)
    return _decide(_models(network, lenient).fitting(parsed).model, parsed, config, start)


def verify_many(
    network: Networks,
    queries: Iterable[Query | Path],
    *,
    timeout: float = 60.0,
    seed: int = 0,
    record_proof: bool = False,
    method: Literal["auto", "lp", "milp"] = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    lenient: bool = False,
) -> list[Result]:
    """Decides several queries about one network, which is loaded once.

    All queries are read before the first is decided, so that one that can't be used is told at once.

    >>> import lpverify
    >>> results = lpverify.verify_many("model.onnx", ["holds.vnnlib", "violated.vnnlib"], timeout=10)
    >>> [result.verdict for result in results]
    ['unsat', 'sat']

    Args:
        network: As for `verify`.
        queries: Each as for `verify`.
        timeout: Wall-clock limit of each query, in seconds.
        seed: Of all random choices; each query's are those of a `verify` of its own.
        record_proof: Keep what each `unsat` is proven with.
        method: As for `verify`.
        device: As for `verify`.
        lenient: As for `verify`.

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
    _config(timeout, seed, record_proof, start, method, device)
    models = _models(network, lenient)
    prepared = [_prepared(models, query) for query in queries]
    results: list[Result] = []
    for model, query, reading in prepared:
        start = time.monotonic() - reading
        config = _config(timeout, seed, record_proof, start, method, device)
        results.append(_decide(model, query, config, start))
    return results


def _models(network: Networks, lenient: bool) -> Models:
    given = network if isinstance(network, Mapping) else {"": network}
    sources = {
        name: one.model if isinstance(one, LoadedNetwork) else path_of(one, "network")
        for name, one in given.items()
    }
    return Models(sources, lenient)


def _parsed(query: Query | Path, lenient: bool) -> Query:
    return query if isinstance(query, Query) else read_query(path_of(query, "query"), lenient=lenient)


def _prepared(models: Models, query: Query | Path) -> tuple[Model, Query, float]:
    """The query and the model that fits it, and the seconds that it took to see that."""
    start = time.monotonic()
    parsed = _parsed(query, models.lenient)
    model = models.fitting(parsed).model
    compile_query(model, parsed)
    return model, parsed, time.monotonic() - start


def _decide(model: Model, query: Query, config: Config, start: float) -> Result:
    verdict = verify_query(model, query, config)
    proof = verdict.proof if isinstance(verdict, Unsat) and config.record_proof else None
    witness = _counterexample(verdict.witness, model) if isinstance(verdict, Sat) else None
    return _result(answer_of(verdict), witness, proof, time.monotonic() - start, query.semantics)


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


def _result(
    answer: Answer, witness: Counterexample | None, proof: Proof | None, seconds: float, semantics: str
) -> Result:
    if answer.verdict == "error":
        raise InternalError(answer.reason)
    return Result(answer.verdict, witness, answer.reason, answer.stage, seconds, proof, semantics)


def _counterexample(witness: Witness, model: Model) -> Counterexample:
    """The witness' flat arrays cut into the model's tensors."""
    tables: list[dict[str, np.ndarray]] = []
    for flat, signature in ((witness.inputs, model.inputs), (witness.outputs, model.outputs)):
        arrays = split_outputs(flat[None], signature, "one")
        rows = zip(signature.names, arrays, signature.dtypes, strict=True)
        tables.append({name: array.astype(dtype) for name, array, dtype in rows})
    return Counterexample(tables[0], tables[1], witness.x)
