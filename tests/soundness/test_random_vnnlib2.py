"""Random queries of VNN-LIB 2 on random networks: no answer that a scorer or a sample contradicts.

The text is read by the reference parser and evaluated with onnxruntime, neither of which lpverify's proofs
know of. A query is `unsat` only if none of many points satisfies it, corners of the box among them.
"""

import itertools

import numpy as np
import onnx
import pytest
import scorer
import vnnlib
from networks import dense

import lpverify
from lpverify.io.assignments import tensors_of
from lpverify.io.results import Answer, standard_text
from lpverify.io.vnnlib import parse_query
from lpverify.models import Models
from lpverify.verdict import Witness

COUNT, POINTS = 40, 50


class Text:
    """Draws the assertions of a query about `X`, `H`, `Y` of f and, of two networks, `A`, `B` of g."""

    def __init__(self, seed: int, kind: str, pair: bool, hidden: bool) -> None:
        self.rng, self.kind, self.pair = np.random.default_rng(seed), kind, pair
        self.inputs = ["X[0,0]", "X[0,1]", *(("A[0,0]", "A[0,1]") if pair else ())]
        self.others = ["Y[0,0]", "Y[0,1]", *(("B[0,0]", "B[0,1]") if pair else ())]
        self.others += ["H[0,0]", "H[0,2]"] if hidden else []

    def pick(self, choices):
        return choices[self.rng.integers(len(choices))]

    def number(self) -> str:
        return self.pick(["0.0", "0.5", "-0.25", "1.0", "0.1", "-1.3", "2.0", f"{self.rng.normal():.3f}"])

    def side(self) -> str:
        first = self.pick(self.others)
        second = self.pick([name for name in (*self.others, *self.inputs) if name != first])
        return self.pick(
            [
                first,
                first,
                f"(+ {first} {second})",
                f"(- {first} {second})",
                f"(* 0.5 {first})",
                f"(* {first} {second})",
                f"(+ (* {second} {second}) {first} 0.1)",
            ]
        )

    def comparison(self) -> str:
        left = self.side()
        free = [name for name in self.others if name not in left]  # terms that cancel are refused
        right = self.number() if not free or self.rng.random() < 0.7 else self.pick(free)
        return f"({self.pick(['<=', '>=', '<', '>', '<=', '>=', '!='])} {left} {right})"

    def formula(self, depth: int) -> str:
        if depth == 0 or self.rng.random() < 0.3:
            return self.comparison()
        parts = " ".join(self.formula(depth - 1) for _ in range(self.rng.integers(2, 4)))
        return f"({self.pick(['and', 'or'])} {parts})"

    def assertions(self) -> list[str]:
        found = []
        for name in self.inputs:
            low, high = sorted(float(self.rng.integers(-8, 9)) / 4 for _ in range(2))
            found.append(f"(and (>= {name} {low}) (<= {name} {high}))")
        if self.pair and self.rng.random() < 0.7:
            found[2:] = [f"(== {x} {a})" for x, a in zip(self.inputs[:2], self.inputs[2:], strict=True)]
        if self.rng.random() < 0.3:
            found.append(f"(<= (+ {self.inputs[0]} {self.inputs[1]}) {self.number()})")
        return [*found, *(self.formula(2) for _ in range(self.rng.integers(1, 3)))]


def declared(kind: str, pair: bool, hidden: bool, equal: bool) -> str:
    inside = f'(declare-hidden H {kind} [1,3] "h")' if hidden else ""
    text = f"(declare-network f (declare-input X {kind} [1,2]) {inside} (declare-output Y {kind} [1,2]))"
    if pair:
        relation = "(equal-to f)" if equal else ""
        text += (
            f"(declare-network g {relation} (declare-input A {kind} [1,2]) (declare-output B {kind} [1,2]))"
        )
    return f"(vnnlib-version <2.0>) {text}"


@pytest.mark.parametrize("seed", range(COUNT))
def test_answers_are_not_contradicted(seed, tmp_path):
    rng = np.random.default_rng([seed, 7])
    kind = "float32" if seed % 2 else "real"
    pair, hidden, equal = (bool(rng.random() < p) for p in (0.5, 0.3, 0.5))
    paths = {}
    for name in ("f", "g") if pair and not equal else ("f",):
        paths[name] = str(tmp_path / f"{name}.onnx")
        onnx.save(dense(int(rng.integers(1000)), (2, 3, 2)), paths[name])
    body = Text(seed, kind, pair, hidden).assertions()
    text = "\n".join([declared(kind, pair, hidden, equal), *(f"(assert {part})" for part in body)])
    query = parse_query(text)
    result = lpverify.verify(paths, query, timeout=3)
    assert result.semantics == kind
    named = [*paths.items(), *([("g", paths["f"])] if pair and equal else [])]
    field = repr(named) if pair else paths["f"]
    if result.verdict == "sat":
        model = Models(paths).fitting(query).model
        arrays = [
            np.concatenate([v.reshape(-1) for v in t.values()])
            for t in (result.witness.inputs, result.witness.outputs)
        ]
        witness = Witness(result.witness.exact, *arrays)
        answer = standard_text(Answer("sat", witness=witness), tensors_of(query, model))
        (tmp_path / "q.vnnlib").write_text(text)
        assert scorer.score(answer, field, tmp_path / "q.vnnlib") == "correct"
    if result.verdict == "unsat":
        assert not any(violations(text, field, body, rng))


def violations(text, field, body, rng):
    """Truth of the query at corners and random points of the box of its first assertions."""
    query = vnnlib.parse_query_string(text)
    names = ["X", "A"] if "[('" in field else ["X"]
    boxes = {}
    for name in names:
        own = [part for part in body if part.startswith(f"(and (>= {name}[")]
        ends = [[float(word.rstrip(")")) for word in part.split()[3::3]] for part in own]
        boxes[name] = np.array(ends if own else boxes["X"])
    paths = scorer.network_paths(query, field)
    corners = itertools.product((0.0, 1.0), repeat=2 * len(names))
    shares = [*corners, *rng.random((POINTS, 2 * len(names)))]
    tied = "A" in boxes and not any("(>= A[" in part for part in body)
    for share in shares:
        values = {}
        for i, name in enumerate(names):
            part = np.array(share[:2] if tied else share[2 * i : 2 * i + 2])
            low, high = boxes[name].T
            values[name] = (low + part * (high - low)).astype(np.float32).reshape(1, 2)
        yield satisfied(query, paths, values)


def satisfied(query, paths, values):
    known = dict(values)
    for network in query.networks:
        known |= scorer.evaluate(network, scorer.contents(paths[network.name]), known)
    return all(scorer.holds_second(assertion.expr, known, 0.0) for assertion in query.assertions)
