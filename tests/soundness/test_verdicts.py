"""Verdicts on random tiny networks against the oracle: both engines, every arithmetic.

A contradiction is an `unsat` where the oracle proves `sat`, or a `sat` whose witness does not hold or
where the oracle says `unsat` by more than what float32 replays can blur.
"""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
import oracle
import pytest
from oracle import Layers, Row, row

from lpverify.bounds.evaluate import Arithmetic, double_precision
from lpverify.check import check_proof
from lpverify.config import Config, Deadline
from lpverify.io.onnx import Model, import_model
from lpverify.io.vnnlib import parse_query
from lpverify.problem import Problem, compile_problem
from lpverify.query import Query
from lpverify.replay import Replayer
from lpverify.search.bab import Search
from lpverify.search.engines import choose_engine, numpy_float32, suits_programs, torch_float32
from lpverify.search.lp import LpSearch
from lpverify.search.tree import Subproblem, Tree
from lpverify.verdict import Sat, Unsat, Verdict
from lpverify.verify import verify_query

SEEDS = 180
CHUNK = 10
ARITHMETICS = {
    "double": double_precision,
    "numpy32": lambda problem: numpy_float32(problem, 2**21),
    "torch32": lambda problem: torch_float32(problem, 2**21),
}
MOST_NEURONS = {1: 24, 2: 20, 3: 12, 4: 8}


@dataclass(frozen=True)
class Instance:
    """A network and a query, as the oracle and as lpverify see them."""

    layers: Layers
    tree: oracle.Tree
    model: Model
    query: Query


def instance(layers: Layers, tree: oracle.Tree, style: str = "gemm") -> Instance:
    sizes = layers[0][0].shape[1], layers[-1][0].shape[0]
    text = oracle.vnnlib_text(tree, *sizes)
    return Instance(layers, tree, import_model(oracle.onnx_bytes(layers, style)), parse_query(text))


# Networks.


def random_layers(rng: np.random.Generator) -> Layers:
    inputs = int(rng.integers(1, 5))
    hidden = [int(n) for n in rng.integers(2, 9, rng.integers(1, 4))]
    while sum(hidden) > MOST_NEURONS[inputs]:
        hidden = [int(n) for n in rng.integers(2, 9, rng.integers(1, 4))]
    sizes = [inputs, *hidden, int(rng.integers(1, 4))]
    layers = [_random_layer(rng, a, b) for a, b in pairwise(sizes)]
    for place in range(len(layers) - 1):
        if rng.random() < 0.3:
            _twin(rng, layers, place)
        if rng.random() < 0.3:
            _kinks(rng, layers, place)
    return layers


def _random_layer(rng: np.random.Generator, inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    kind = rng.choice(["normal", "normal", "integer", "sparse", "scaled"])
    weight = rng.normal(size=(outputs, inputs))
    bias = 0.5 * rng.normal(size=outputs) * (rng.random() < 0.8)
    if kind == "integer":
        weight, bias = rng.integers(-3, 4, weight.shape), rng.integers(-2, 3, outputs)
    elif kind == "sparse":
        weight = weight * (rng.random(weight.shape) < 0.5)
    elif kind == "scaled":
        weight = weight * 10.0 ** rng.uniform(-3, 2, (outputs, 1))
    return weight.astype(np.float32), np.asarray(bias, np.float32)


def _twin(rng: np.random.Generator, layers: list[tuple[np.ndarray, np.ndarray]], place: int) -> None:
    """Two equal (or opposite) neurons whose contributions cancel, or nearly do."""
    (weight, bias), (after, _) = layers[place], layers[place + 1]
    first, second = rng.choice(len(bias), 2, replace=False)
    sign = 1 if rng.random() < 0.7 else -1
    weight[second], bias[second] = sign * weight[first], sign * bias[first]
    noise = 1.0 + rng.choice([0.0, 2.0**-20])
    after[:, second] = (-after[:, first] * noise).astype(np.float32)


def _kinks(rng: np.random.Generator, layers: list[tuple[np.ndarray, np.ndarray]], place: int) -> None:
    """Biases such that some neurons are near zero at a point of the box that is likely special."""
    weight, bias = layers[place]
    point = [Fraction(int(v), 4) for v in rng.integers(-4, 5, layers[0][0].shape[1])]
    value = oracle.forward([*layers[:place], (weight, 0 * bias)], point)
    chosen = rng.random(len(bias)) < 0.5
    bias[chosen] = -np.array(value, dtype=np.float32)[chosen]


# Queries.


def random_box(rng: np.random.Generator, inputs: int) -> list[tuple[Fraction, Fraction]]:
    kind, ends = rng.choice(["unit", "grid", "decimal"]), []
    for _ in range(inputs):
        low, high = Fraction(-1), Fraction(1)
        if kind == "grid":
            low, high = (Fraction(int(v), 4) for v in np.sort(rng.integers(-4, 5, 2)))
        elif kind == "decimal":
            centre, radius = (Fraction(f"{v:.3f}") for v in (rng.uniform(-1, 1), rng.uniform(0, 0.7)))
            low, high = centre - radius, centre + radius
        ends.append((low, low) if rng.random() < 0.1 else (low, high))
    return ends


def random_terms(rng: np.random.Generator, inputs: int, outputs: int) -> dict[int, Fraction]:
    """A linear form: one output, a difference of outputs, or anything with inputs too."""
    kind = rng.random()
    first, second = (inputs + int(rng.integers(outputs)) for _ in range(2))
    if kind < 0.45 or (kind < 0.8 and first == second):
        return {first: Fraction(int(rng.choice([-1, 1])))}
    if kind < 0.8:
        return {first: Fraction(1), second: Fraction(-1)}
    mixed = {v: Fraction(f"{rng.normal():.2f}") for v in rng.choice(inputs + outputs, 2, replace=False)}
    return mixed if any(mixed.values()) else {first: Fraction(1)}


def sampled_bound(rng: np.random.Generator, layers: Layers, ends: list, terms: dict) -> Fraction:
    """A bound at a low quantile of the form over the box, where properties are neither clear nor hopeless."""
    points = [[low + (high - low) * int(rng.integers(0, 9)) / 8 for low, high in ends] for _ in range(12)]
    values = [row(terms, 0).value([*x, *oracle.forward(layers, x)]) for x in points]
    low, high = float(min(values)), float(max(values))
    bound = low + (high - low + 0.01) * float(rng.choice([-0.6, -0.3, -0.1, 0.0, 0.1, 0.5]))
    return Fraction(f"{bound:.6f}")


def optimal_bound(rng: np.random.Generator, layers: Layers, ends: list, terms: dict) -> Fraction:
    """The exact minimum over the box, or next to it."""
    try:
        optimum = oracle.minimum(layers, tuple(ends), terms, 600)
    except oracle.TooManyCellsError:
        return sampled_bound(rng, layers, ends, terms)
    size = oracle.sizes(layers, tuple(ends))
    share = Fraction(sum(abs(float(c)) * size[v] for v, c in terms.items()))
    offset = rng.choice([0.0, 1e-15, -1e-15, 1e-9, -1e-9, 1e-4, -1e-4, 1e-3, -1e-3])
    return optimum + share * Fraction(float(offset))


def random_condition(rng: np.random.Generator, layers: Layers, ends: list, depth: int) -> Row | oracle.Tree:
    if depth == 0 or rng.random() < 0.3:
        terms = random_terms(rng, len(ends), layers[-1][0].shape[0])
        choose = optimal_bound if rng.random() < 0.3 else sampled_bound
        return row(terms, choose(rng, layers, ends, terms), bool(rng.random() < 0.3))
    children = tuple(random_condition(rng, layers, ends, depth - 1) for _ in range(rng.integers(1, 4)))
    return oracle.Tree(str(rng.choice(["and", "or"])), children)


def random_query(rng: np.random.Generator, layers: Layers) -> oracle.Tree:
    inputs = layers[0][0].shape[1]
    ends = random_box(rng, inputs)
    shape = rng.random()
    if shape < 0.35:
        terms = random_terms(rng, inputs, layers[-1][0].shape[0])
        bound = optimal_bound(rng, layers, ends, terms)
        return oracle.Tree("and", (*oracle.box_rows(ends), row(terms, bound, bool(rng.random() < 0.3))))
    if shape < 0.7:
        return oracle.Tree("and", (*oracle.box_rows(ends), random_condition(rng, layers, ends, 2)))
    boxes = [random_box(rng, inputs) for _ in range(rng.integers(2, 4))]
    options = [
        oracle.Tree("and", (*oracle.box_rows(box), random_condition(rng, layers, box, 1))) for box in boxes
    ]
    return oracle.Tree("or", tuple(options))


def random_instance(seed: int) -> Instance:
    rng = np.random.default_rng(seed)
    layers = random_layers(rng)
    return instance(layers, random_query(rng, layers), str(rng.choice(["gemm", "matmul"])))


# Runs.


def run_ladder(item: Instance, phases: bool, seconds: float) -> Verdict:
    limit = 0 if phases else 16
    config = Config(seed=1, input_split_limit=limit, deadline=Deadline.after(seconds))
    return verify_query(item.model, item.query, config)


def run_search(item: Instance, name: str, phases: bool, seconds: float) -> Verdict:
    """Branch and bound alone, in the chosen arithmetic."""
    problem = compile_problem(item.model.network, item.query)
    if not problem.cases:
        return run_ladder(item, phases, seconds)
    arithmetic: Arithmetic = ARITHMETICS[name](problem)
    config = Config(input_split_limit=0 if phases else 16, deadline=Deadline.after(seconds))
    tree = Tree(False)
    search = Search(
        problem,
        choose_engine(problem, arithmetic, config),
        Replayer(item.model, problem),
        tree,
        _roots(problem, tree),
    )
    return search.run(config.deadline)


def run_programs(item: Instance, seconds: float, threads: int) -> Verdict:
    """Branch and bound by linear programs alone; its proofs must re-check."""
    problem = compile_problem(item.model.network, item.query)
    if not problem.cases or not suits_programs(problem, _roots(problem, Tree(False))):
        return run_ladder(item, True, seconds)
    tree = Tree(True)
    search = LpSearch(problem, Replayer(item.model, problem), tree, _roots(problem, tree), threads)
    verdict = search.run(Deadline.after(seconds))
    if isinstance(verdict, Unsat):
        report = check_proof(problem, verdict.proof)
        assert report.valid, report.failures
    return verdict


def _roots(problem: Problem, tree: Tree) -> list[Subproblem]:
    cases = enumerate(problem.cases)
    return [Subproblem(tree.root(i), i, case.box.lower, case.box.upper) for i, case in cases]


def contradiction(item: Instance, answer: oracle.Answer, verdict: Verdict) -> str | None:
    """Why the verdict can't be right; None when it may be."""
    if isinstance(verdict, Unsat):
        return "unsat, but the oracle says sat" if answer.verdict == "sat" else None
    if not isinstance(verdict, Sat):
        return None
    witness = verdict.witness
    if not oracle.holds(item.tree, [*witness.x, *witness.outputs.tolist()]):
        return "sat, but the witness does not satisfy the query"
    exact = oracle.forward(item.layers, [Fraction(v) for v in witness.inputs.tolist()])
    ends = tuple((Fraction(v), Fraction(v)) for v in witness.inputs.tolist())
    size = oracle.sizes(item.layers, ends)[len(ends) :]
    for y, z, s in zip(exact, witness.outputs.tolist(), size, strict=True):
        if abs(float(y) - z) > 1e-5 * s + 1e-30:
            return "sat, but the witness' outputs are not the network's"
    return "sat, but the oracle says unsat" if answer.verdict == "unsat" and not answer.close else None


def complaint(seed: int) -> list[str]:
    """All that is wrong on one instance."""
    item = random_instance(seed)
    answer = oracle.decide(item.layers, item.tree)
    name = list(ARITHMETICS)[seed % 3]
    seconds = 0.5 if answer.close else 60.0
    runs = {
        "ladder, inputs": lambda: run_ladder(item, False, seconds),
        "ladder, phases": lambda: run_ladder(item, True, seconds),
        f"search, {name}, inputs": lambda: run_search(item, name, False, seconds),
        f"search, {name}, phases": lambda: run_search(item, name, True, seconds),
        "programs": lambda: run_programs(item, seconds, 1 + seed % 2),
    }
    found = []
    for title, call in runs.items():
        verdict = call()
        problem = contradiction(item, answer, verdict)
        decided = isinstance(verdict, Sat | Unsat) or answer.close or (name != "double" and "search" in title)
        if problem is None and not decided:
            problem = f"{verdict} but the oracle says {answer}"
        if problem is not None:
            found.append(f"seed {seed}, {title}: {problem}")
    return found


@pytest.mark.parametrize("start", range(0, SEEDS, CHUNK))
def test_verdicts_agree_with_the_oracle(start: int) -> None:
    complaints = [c for seed in range(start, start + CHUNK) for c in complaint(seed)]
    assert not complaints, "\n".join(complaints)


def test_instances_are_of_all_kinds() -> None:
    answers = [oracle.decide(item.layers, item.tree) for item in map(random_instance, range(60))]
    verdicts = [a.verdict for a in answers]
    assert min(verdicts.count("sat"), verdicts.count("unsat")) >= 15
    assert sum(a.exact for a in answers) >= 50
    assert sum(a.close for a in answers) >= 3


@pytest.mark.parametrize("seed", range(20))
def test_oracle_agrees_with_its_fallback(seed: int) -> None:
    item = random_instance(seed)
    exact, milp = oracle.decide(item.layers, item.tree), oracle.decide(item.layers, item.tree, most=0)
    assert exact.exact
    assert milp.verdict == "close" or exact.close or milp.verdict == exact.verdict
