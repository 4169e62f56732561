"""The instances of `vnnlib_specs`: complete, reproducible, and decided as independent evidence says."""

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from lpverify.config import Config, Deadline
from lpverify.io.onnx import load_model
from lpverify.io.vnnlib import read_query
from lpverify.verdict import Sat, Timeout, Unsat
from lpverify.verify import verify_query

FOLDER = Path(__file__).parents[1] / "vnnlib_specs"
HARD = ("hard", "confident")
SECONDS, HARD_SECONDS = 20.0, 10.0


def table(name: str) -> list[list[str]]:
    with (FOLDER / name).open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


INSTANCES = table("instances.csv")
EXPECTED = {(net, prop): (verdict, evidence) for net, prop, verdict, evidence in table("expected.csv")[1:]}


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make_specs() -> ModuleType:
    return script("make_specs")


@pytest.fixture(scope="module")
def make_sat(make_specs: ModuleType) -> ModuleType:  # which imports make_specs
    return script("make_sat")


def is_hard(prop: str) -> bool:
    return any(f"_{kind}_" in prop for kind in HARD)


def family(net: str) -> str:
    """Each formula is a network of its own, with one property; all other networks are families."""
    return Path(net).stem.partition("_v")[0]


@pytest.mark.parametrize(("net", "prop"), [row[:2] for row in INSTANCES])
def test_verdict_is_the_expected_one(net: str, prop: str) -> None:
    seconds = HARD_SECONDS if is_hard(prop) else SECONDS
    config = Config(deadline=Deadline.after(seconds))
    verdict = verify_query(load_model(FOLDER / net), read_query(FOLDER / prop), config)
    if is_hard(prop) and isinstance(verdict, Timeout):
        pytest.skip(f"not decided in {seconds:.0f} s on this machine")
    assert isinstance(verdict, {"sat": Sat, "unsat": Unsat}[EXPECTED[net, prop][0]])


def test_all_files_are_listed_and_exist() -> None:
    assert [tuple(row[:2]) for row in INSTANCES] == list(EXPECTED)
    listed = {name for row in INSTANCES for name in row[:2]}
    found = {
        p.relative_to(FOLDER).as_posix() for part in ("onnx", "vnnlib") for p in (FOLDER / part).iterdir()
    }
    assert listed == found
    assert sum((FOLDER / name).stat().st_size for name in found) < 1_500_000


def test_the_set_is_varied() -> None:
    verdicts = {(family(net), verdict) for (net, _), (verdict, _) in EXPECTED.items()}
    assert verdicts == {(net, verdict) for net, _ in verdicts for verdict in ("sat", "unsat")}
    assert {net for net, prop, _ in INSTANCES if is_hard(prop)} >= {
        f"onnx/{net}.onnx" for net in ("mlp", "conv", "residual")
    }
    assert all(0 < float(timeout) <= 300 for _, _, timeout in INSTANCES)


def test_models_are_plain_onnx() -> None:
    for name in {row[0] for row in INSTANCES}:
        model = onnx.load(FOLDER / name)
        onnx.checker.check_model(model)
        assert (model.ir_version, model.opset_import[0].version) == (8, 13)


def test_regenerating_changes_nothing(make_specs: ModuleType) -> None:
    assert (FOLDER / "onnx/toy.onnx").read_bytes() == make_specs.toy_net().onnx
    for item in [*make_specs.toy_instances(), *make_specs.digit_instances()]:
        inputs, outputs = (2, 2) if item.net == "toy" else (64, 10)
        text = make_specs.vnnlib(item, inputs, outputs)
        assert (FOLDER / "vnnlib" / f"{item.name}.vnnlib").read_text(encoding="utf-8") == text


def test_regenerating_formulas_changes_nothing(make_specs: ModuleType, make_sat: ModuleType) -> None:
    for formula, deep in make_sat.spec_formulas():
        name = make_sat.name_of(formula, deep)
        assert (FOLDER / "onnx" / f"{name}.onnx").read_bytes() == make_sat.encode(formula, name, deep).onnx
        text = make_specs.vnnlib(make_sat.property_of(formula, deep), formula.variables, 2)
        assert (FOLDER / "vnnlib" / f"{name}.vnnlib").read_text(encoding="utf-8") == text


def test_points_of_sat_instances_replay(make_specs: ModuleType, make_sat: ModuleType) -> None:
    instances = {i.name: i for i in [*make_specs.toy_instances(), *make_specs.digit_instances()]}
    instances |= {i.name: i for i in (make_sat.property_of(*pair) for pair in make_sat.spec_formulas())}
    for (net, prop), (verdict, evidence) in EXPECTED.items():
        assert verdict in ("sat", "unsat")
        assert evidence.split()[0] == {"sat": "point", "unsat": "milp,"}[verdict]
        if verdict == "sat":
            x = np.array([float(v) for v in evidence.split()[1:]], np.float32)
            y = make_specs.replay((FOLDER / net).read_bytes(), x)
            options = instances[Path(prop).stem].alternatives
            assert any(make_specs.satisfied(box, rows, x, y) for box, rows in options)


@pytest.mark.parametrize("deep", [False, True])
def test_networks_of_formulas_tell_satisfying_assignments(
    make_specs: ModuleType, make_sat: ModuleType, deep: bool
) -> None:
    rng = np.random.default_rng(5)
    formula = make_sat.draw(6, 9, 5)
    ((box, rows),) = make_sat.property_of(formula, deep).alternatives
    onnx_bytes = make_sat.encode(formula, "formula", deep).onnx
    found = set()
    for bits in np.ndindex(*[2] * formula.variables):
        holds = all(make_sat.holds(clause, bits) for clause in formula.clauses)
        x = np.array(bits, np.float32)
        assert make_specs.satisfied(box, rows, x, make_specs.replay(onnx_bytes, x)) == holds
        x[rng.integers(formula.variables)] = rng.uniform(0.1, 0.9)
        assert not make_specs.satisfied(box, rows, x, make_specs.replay(onnx_bytes, x))
        found.add(holds)
    assert found == {False, True}


def test_search_for_assignments_agrees_with_trying_all(make_sat: ModuleType) -> None:
    verdicts = set()
    for seed in range(60):
        formula = make_sat.draw(4 + seed % 6, (4 + seed % 6) * (3 + seed % 5), seed, seed % 4 == 0)
        assignment = make_sat.solve(formula)
        assert (assignment is not None) == (make_sat.enumerate_all(formula) > 0)
        assert assignment is not None or not formula.planted
        verdicts.add(assignment is not None)
    assert verdicts == {False, True}
    for formula, deep in make_sat.spec_formulas():
        name = make_sat.name_of(formula, deep)
        verdict = EXPECTED[f"onnx/{name}.onnx", f"vnnlib/{name}.vnnlib"][0]
        assert verdict == ("sat" if make_sat.enumerate_all(formula) else "unsat")
