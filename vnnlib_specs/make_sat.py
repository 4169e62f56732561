"""Random 3-SAT formulas as ReLU networks: "is there a satisfying assignment" as a query.

    python vnnlib_specs/make_sat.py --variables N --clauses M --seed S [--planted] [--deep] --out DIR
    python vnnlib_specs/make_sat.py --specs [--out DIR]

The first form writes `DIR/onnx/NAME.onnx` and `DIR/vnnlib/NAME.vnnlib` and prints the verdict; the second
writes the instances `sat_*` of this folder and replaces their lines in its two tables.

Both encodings have inputs x in [0, 1]^N, an output Y_0 that is largest where all clauses hold, and an output
`Y_1 = sum of relu(x) - relu(2 x - 1)`, the sum of min(x, 1 - x): at most 0 only where every x is 0 or 1.

- Shallow (Manino et al., NeuroCodeBench, 2023): one hidden layer. A clause is
  `relu(1 - sum of its literals)`, a negated literal being `1 - x`; `Y_0 = 1 - sum of clauses`, asked to be
  at least 1.
- Deep (Katz et al., Reluplex, CAV 2017, the proof of NP-completeness): the disjunction
  `1 - relu(1 - sum of literals)` has a layer of its own; `Y_0 = sum of disjunctions - M`, asked to be at
  least 0.

All weights are small whole numbers: at a satisfying assignment nothing is rounded. The verdict is that of a
search over assignments which knows nothing of networks, confirmed for up to 20 variables by trying them all.
"""

import argparse
import csv
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
from make_specs import MARGIN, Instance, Net, Row, dense_net, refuted, replay, satisfied, vnnlib, write_table

Clause = frozenset[int]  # literals: i + 1 for variable i, -(i + 1) for its negation
ENUMERATED = 20  # variables up to which every assignment is tried


@dataclass(frozen=True)
class Formula:
    """A conjunction of clauses with three different variables each, and how it was drawn.

    Attributes:
        planted: Whether the clauses were drawn so that a hidden assignment satisfies them.
    """

    variables: int
    clauses: tuple[Clause, ...]
    seed: int
    planted: bool = False


def draw(variables: int, clauses: int, seed: int, planted: bool = False) -> Formula:
    """A random formula; every clause is one of the possible ones with the same probability.

    Raises:
        ValueError: There are fewer than three variables or no clause.
    """
    if variables < 3 or clauses < 1:
        raise ValueError("three variables and one clause at least")
    rng = random.Random(seed)
    hidden = [rng.random() < 0.5 for _ in range(variables)]
    drawn: list[Clause] = []
    while len(drawn) < clauses:
        places = rng.sample(range(variables), 3)
        clause = frozenset((i + 1) * (1 if rng.random() < 0.5 else -1) for i in places)
        if not planted or holds(clause, hidden):
            drawn.append(clause)
    return Formula(variables, tuple(drawn), seed, planted)


def holds(clause: Clause, assignment: Sequence[bool]) -> bool:
    """Whether an assignment satisfies a clause."""
    return any(assignment[abs(literal) - 1] == (literal > 0) for literal in clause)


# Deciding a formula.


def solve(formula: Formula) -> list[bool] | None:
    """A satisfying assignment, or None: depth-first search with unit propagation (DPLL).

    Raises:
        RuntimeError: The search contradicts a direct check of its answer.
    """
    model = _search(list(formula.clauses))
    if model is None:
        if formula.variables <= ENUMERATED and enumerate_all(formula):
            raise RuntimeError("the search missed a satisfying assignment")
        return None
    assignment = [i + 1 in model for i in range(formula.variables)]
    if not all(holds(clause, assignment) for clause in formula.clauses):
        raise RuntimeError("the search found an assignment that is none")
    return assignment


def enumerate_all(formula: Formula) -> int:
    """The number of satisfying assignments, by trying all."""
    codes = np.arange(2**formula.variables)
    alive = np.ones(len(codes), bool)
    for clause in formula.clauses:
        alive &= np.any([(codes >> (abs(v) - 1) & 1) == (v > 0) for v in clause], axis=0)
    return int(alive.sum())


def _search(clauses: list[Clause]) -> frozenset[int] | None:
    """True literals that satisfy all clauses, or None."""
    pending = [(clauses, frozenset[int]())]
    while pending:
        left, model = pending.pop()
        while left and (unit := next((c for c in left if len(c) <= 1), None)) is not None:
            if not unit:
                break
            left, model = _assign(left, next(iter(unit))), model | unit
        if not left:
            return model
        if frozenset() not in left:
            literal = _choose(left)
            pending += [(_assign(left, v), model | {v}) for v in (-literal, literal)]
    return None


def _assign(clauses: Iterable[Clause], literal: int) -> list[Clause]:
    """What is left of clauses when a literal is true."""
    return [clause - {-literal} for clause in clauses if literal not in clause]


def _choose(clauses: Iterable[Clause]) -> int:
    """A literal of the variable in most clauses, short ones first: where both branches shrink most."""
    weight: Counter[int] = Counter()
    for clause in clauses:
        for literal in clause:
            weight[literal] += 5 if len(clause) == 2 else 1
    return max(weight, key=lambda v: ((weight[v] + 1) * (weight[-v] + 1), weight[v], v))


# Networks and properties.


def clause_layer(formula: Formula) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `1 - sum of literals`, of x and of `2 x - 1`, before their ReLUs."""
    n, m = formula.variables, len(formula.clauses)
    weight, bias = np.zeros((m, n), np.float32), np.ones(m, np.float32)
    for j, clause in enumerate(formula.clauses):
        for literal in clause:
            weight[j, abs(literal) - 1] = -1 if literal > 0 else 1
            bias[j] -= literal < 0
    one = np.eye(n, dtype=np.float32)
    zero = np.zeros(n, np.float32)
    return np.concatenate([weight, one, 2 * one]), np.concatenate([bias, zero, zero - 1])


def encode(formula: Formula, name: str, deep: bool) -> Net:
    """The network of a formula."""
    n, m = formula.variables, len(formula.clauses)
    layers = [clause_layer(formula)]
    if deep:
        sign = np.repeat(np.array([-1, 1], np.float32), [m, 2 * n])
        layers.append((np.diag(sign), (sign < 0).astype(np.float32)))
    last = np.zeros((2, m + 2 * n), np.float32)
    last[0, :m] = 1 if deep else -1
    last[1, m:] = np.repeat([1, -1], n)
    layers.append((last, np.array([-m if deep else 1, 0], np.float32)))
    return dense_net(name, layers)


def name_of(formula: Formula, deep: bool) -> str:
    """The name of the network and of the property."""
    kind = "sat_deep" if deep else "sat"
    plan = "_planted" if formula.planted else ""
    return f"{kind}_v{formula.variables}_c{len(formula.clauses)}_s{formula.seed}{plan}"


def property_of(formula: Formula, deep: bool) -> Instance:
    """Violated where the formula is satisfied."""
    rows: list[Row] = [({"Y_0": Decimal(-1)}, Decimal(0 if deep else -1)), ({"Y_1": Decimal(1)}, Decimal(0))]
    box = [(Decimal(0), Decimal(1))] * formula.variables
    comment = f"3-SAT: {formula.variables} variables, {len(formula.clauses)} clauses, seed {formula.seed}"
    comment += ", a solution planted" if formula.planted else ""
    name = name_of(formula, deep)
    return Instance(name, name, [(box, [rows])], comment=comment)


def confirm(net: Net, instance: Instance, assignment: Sequence[bool]) -> np.ndarray:
    """The assignment as a point.

    Raises:
        RuntimeError: The network, run by onnxruntime, does not satisfy the property there.
    """
    x = np.array(assignment, np.float32)
    (box, rows), *_ = instance.alternatives
    if not satisfied(box, rows, x, replay(net.onnx, x)):
        raise RuntimeError(f"{net.name}: the encoding is wrong")
    return x


def write(folder: Path, formula: Formula, deep: bool) -> tuple[Net, Instance, list[bool] | None]:
    """Writes network and property; returns them and a satisfying assignment if there is one."""
    name, instance = name_of(formula, deep), property_of(formula, deep)
    net, assignment = encode(formula, name, deep), solve(formula)
    if assignment is not None:
        confirm(net, instance, assignment)
    for part in ("onnx", "vnnlib"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "onnx" / f"{name}.onnx").write_bytes(net.onnx)
    text = vnnlib(instance, net.inputs, net.outputs)
    (folder / "vnnlib" / f"{name}.vnnlib").write_text(text, encoding="utf-8")
    return net, instance, assignment


# The instances of this folder.


def spec_formulas() -> list[tuple[Formula, bool]]:
    """Formulas and whether each is encoded deep; those with a satisfying assignment have only one."""
    chosen = [(14, 60, 1, False), (14, 60, 2, False), (10, 50, 5, True), (10, 50, 1, True)]
    return [(draw(variables, clauses, seed), deep) for variables, clauses, seed, deep in chosen]


def evidence(net: Net, instance: Instance, assignment: Sequence[bool] | None) -> tuple[str, str]:
    """Verdict and what it rests on, in the words of `make_specs`.

    Raises:
        RuntimeError: The MILP does not confirm that there is no point.
    """
    if assignment is not None:
        return "sat", "point " + " ".join(str(float(v)) for v in assignment)
    if not refuted(net, instance):
        raise RuntimeError(f"{instance.name}: not refuted")
    return "unsat", f"milp, every threshold relaxed by {MARGIN}"


def write_specs(folder: Path) -> None:
    """Writes the instances `sat_*` and their lines in both tables; needs the tables of `make_specs`."""
    runs: list[Sequence[object]] = []
    expected: list[Sequence[object]] = []
    for formula, deep in spec_formulas():
        net, instance, assignment = write(folder, formula, deep)
        files = f"onnx/{net.name}.onnx", f"vnnlib/{instance.name}.vnnlib"
        verdict, reason = evidence(net, instance, assignment)
        print(f"{instance.name}: {verdict}")
        runs.append((*files, instance.timeout))
        expected.append((*files, verdict, reason))
    for table, rows in (("instances.csv", runs), ("expected.csv", expected)):
        with (folder / table).open(newline="", encoding="utf-8") as file:
            kept = [row for row in csv.reader(file) if not row[0].startswith("onnx/sat_")]
        write_table(folder / table, [*kept, *rows])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Random 3-SAT formulas as ReLU networks.")
    parser.add_argument("--variables", type=int, default=12)
    parser.add_argument("--clauses", type=int, default=51)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--planted", action="store_true", help="only clauses that a hidden assignment satisfies"
    )
    parser.add_argument("--deep", action="store_true", help="disjunctions in a second hidden layer")
    parser.add_argument("--specs", action="store_true", help="write the instances of this folder")
    parser.add_argument("--out", type=Path, metavar="DIR", help="with --specs this folder if not given")
    options = parser.parse_args(arguments)
    if options.specs:
        write_specs(options.out or Path(__file__).parent)
        return
    if options.out is None:
        parser.error("--out is needed")
    formula = draw(options.variables, options.clauses, options.seed, options.planted)
    _, instance, assignment = write(options.out, formula, options.deep)
    print(f"{instance.name}: {'unsat' if assignment is None else 'sat'}")


if __name__ == "__main__":
    main()
