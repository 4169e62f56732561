"""The instances of `vnnlib_specs`: complete, reproducible, and decided as independent evidence says."""

import ast
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
FIRST = [
    row for row in INSTANCES if not row[1].startswith("vnnlib/v2_")
]  # of VNN-LIB 1; see also test_scorer.py


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
def make_v2(make_specs: ModuleType) -> ModuleType:  # which imports make_specs
    return script("make_v2")


@pytest.fixture(scope="module")
def make_sat(make_specs: ModuleType) -> ModuleType:  # which imports make_specs
    return script("make_sat")


def is_hard(prop: str) -> bool:
    return any(f"_{kind}_" in prop for kind in HARD)


def nets_of(field: str) -> list[str]:
    """Files in the first column: one, or the Python literal of pairs of a name and a file."""
    return [path for _, path in ast.literal_eval(field)] if field.startswith("[") else [field]


def family(net: str) -> str:
    """Each formula is a network of its own, with one property; all other networks, or pairs, are families."""
    return Path(nets_of(net)[0]).stem.partition("_v")[0]


@pytest.mark.parametrize(("net", "prop"), [row[:2] for row in FIRST])
def test_verdict_is_the_expected_one(net: str, prop: str) -> None:
    seconds = HARD_SECONDS if is_hard(prop) else SECONDS
    config = Config(deadline=Deadline.after(seconds))
    verdict = verify_query(load_model(FOLDER / net), read_query(FOLDER / prop), config)
    if is_hard(prop) and isinstance(verdict, Timeout):
        pytest.skip(f"not decided in {seconds:.0f} s on this machine")
    assert isinstance(verdict, {"sat": Sat, "unsat": Unsat}[EXPECTED[net, prop][0]])


def test_all_files_are_listed_and_exist() -> None:
    assert [tuple(row[:2]) for row in INSTANCES] == list(EXPECTED)
    listed = {name for row in INSTANCES for name in (*nets_of(row[0]), row[1])}
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
    for name in {name for row in INSTANCES for name in nets_of(row[0])}:
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
    for net, prop, _ in FIRST:
        verdict, evidence = EXPECTED[net, prop]
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


def test_regenerating_version_2_changes_nothing(make_v2: ModuleType, tmp_path: Path) -> None:
    for part in ("onnx", "vnnlib"):
        (tmp_path / part).mkdir()
    for name in ("instances.csv", "expected.csv"):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    make_v2.main(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    nets = len(make_v2.NETS) - 1  # `toy` is there already
    assert len(files) == len(INSTANCES) - len(FIRST) + nets + 2
    for path in files:
        assert path.read_bytes() == (FOLDER / path.relative_to(tmp_path)).read_bytes()


def test_version_2_has_both_verdicts_of_everything(make_v2: ModuleType) -> None:
    verdicts = {Path(prop).stem: verdict for (_, prop), (verdict, _) in EXPECTED.items()}
    names = [query.name for query in make_v2.queries() if not query.name.endswith("_never")]
    assert len(names) >= 10
    for name in names:
        assert (verdicts[name], verdicts.get(f"{name}_never", "unsat")) == ("sat", "unsat")


def test_intervals_of_networks_contain_what_onnxruntime_computes(make_v2: ModuleType) -> None:
    import onnxruntime

    rng = np.random.default_rng(3)
    for make in make_v2.NETS.values():
        model = onnx.load_model_from_string(make())
        session = onnxruntime.InferenceSession(make(), providers=["CPUExecutionProvider"])
        names = [end.name for end in session.get_outputs()]
        for _ in range(20):
            low = {
                end.name: np.asarray(rng.integers(-16, 17, end.shape) / 16) for end in session.get_inputs()
            }
            high = {name: value + rng.integers(0, 17, value.shape) / 16 for name, value in low.items()}
            boxes = {name: (value[None], high[name][None]) for name, value in low.items()}
            points = {name: (value[None], value[None]) for name, value in low.items()}
            inner = {name: np.asarray((value + high[name]) / 2, np.float32) for name, value in low.items()}
            spans, exact = make_v2.tensors(model, boxes), make_v2.tensors(model, points)
            at_low = session.run(names, {name: np.asarray(value, np.float32) for name, value in low.items()})
            for name, y, z in zip(names, at_low, session.run(names, inner), strict=True):
                assert (exact[name][0][0] == y).all()
                assert (exact[name][1][0] == y).all()
                assert (spans[name][0][0] <= z).all()
                assert (z <= spans[name][1][0]).all()
