import time
from decimal import Decimal
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from helpers import box_assertions, dense_model, graph_proto, model_proto, query_of, runtime_outputs
from onnx import TensorProto, helper

import lpverify
from lpverify.errors import OnnxError, UnsupportedError
from lpverify.io.onnx import import_model
from lpverify.io.runtime import Runtime
from lpverify.problem import Range, compile_problem
from lpverify.query import And, Atom, Query
from lpverify.replay import Replayer, _Limits, atom_holds, inner_box, nearest

WHOLE = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]
FLOATS = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
node = helper.make_node


@pytest.fixture(scope="module")
def model():
    return dense_model([(np.eye(2), np.zeros(2))])  # y = x


def replayer(model, body, box=((0, 0), (1, 1))):
    query = query_of(model, box_assertions(*map(list, box)) + body)
    return Replayer(model, compile_problem(model.network, query))


def test_witness_is_exactly_inside(model):
    replay = replayer(model, "(assert (<= Y_0 0.2))", ((0.1, 0.3), (0.2, 0.3)))
    witness = replay(np.array([0.15, 0.0]), 0)
    assert Fraction("0.1") <= Fraction(witness.x[0]) <= Fraction("0.2")
    assert Fraction(witness.x[0]) == Fraction(float(witness.inputs[0]))


def test_a_range_without_floats_keeps_its_exact_number(model):
    replay = replayer(model, "(assert (<= Y_0 0.2))", ((0.1, "0.3"), (0.2, "0.3")))
    witness = replay(np.array([0.15, 0.3]), 0)
    assert witness.x[1] == Decimal("0.3") and witness.inputs[1] == np.float32(0.3)


def test_no_tolerance_at_the_threshold(model):
    """float32(0.1) is above 0.1, so the point at the end of the box must move below it."""
    assert replayer(model, "(assert (>= Y_0 0.1))", ((0, 0), ("0.1", 1)))(np.array([0.1, 0]), 0) is None
    assert (
        replayer(model, "(assert (>= Y_0 0.0999999))", ((0, 0), ("0.1", 1)))(np.array([0.1, 0]), 0)
        is not None
    )


def test_strict_atoms(model):
    assert replayer(model, "(assert (< Y_0 0.5))")(np.array([0.5, 0]), 0) is None
    assert replayer(model, "(assert (<= Y_0 0.5))")(np.array([0.5, 0]), 0) is not None


def test_all_assertions_count(model):
    replay = replayer(model, "(assert (<= Y_0 0.5)) (assert (or (>= Y_1 2) (>= X_1 0.75)))")
    assert replay(np.array([0.25, 0.5]), 0) is None
    assert replay(np.array([0.25, 0.8]), 0) is not None


@pytest.mark.parametrize("dtype", FLOATS)
def test_inner_box(dtype):
    texts = ["0.1", "-0.1", "0.5", "1e-50", "-1e-50", "12345.123456789", "-0.000061"]
    numbers = tuple(Decimal(t) for t in texts)
    lower, upper = inner_box(Range(numbers, numbers), dtype)
    for number, low, high in zip(numbers, lower, upper, strict=True):
        assert Fraction(float(low)) >= Fraction(number) > Fraction(float(np.nextafter(low, dtype(-np.inf))))
        assert Fraction(float(high)) <= Fraction(number) < Fraction(float(np.nextafter(high, dtype(np.inf))))


@pytest.mark.parametrize("strict", [False, True])
def test_atom_holds_is_exact(strict):
    atom = Atom(((0, 1),), Decimal("0.1"), strict)
    assert not atom_holds(atom, [0.1])  # the double is above
    assert atom_holds(atom, [np.nextafter(0.1, 0)])
    assert atom_holds(Atom(((0, 1),), Decimal("0.1"), False), [Decimal("0.1")])
    assert not atom_holds(Atom(((0, 1),), Decimal("0.1"), True), [Decimal("0.1")])
    assert atom_holds(Atom(((0, 3), (1, -1)), 0, False), [Fraction(1, 3), 1.0])
    assert atom_holds(Atom(((0, -1),), Decimal("-0.5"), False), [0.5])


def text_range(low, high):
    return Range((Decimal(low),), (Decimal(high),))


@pytest.mark.parametrize("dtype", FLOATS)
def test_inner_box_beyond_the_largest_number(dtype):
    largest = float(ml_dtypes.finfo(dtype).max)
    low, high = inner_box(text_range("-1e999999", "1e999999"), dtype)
    assert (float(low[0]), float(high[0])) == (-largest, largest)
    low, high = inner_box(text_range("1e400", "1e401"), dtype)
    assert low[0] > high[0]
    ends = Range((Fraction(-(10**400)),), (Fraction(10**400, 3),))
    low, high = inner_box(ends, dtype)
    assert (float(low[0]), float(high[0])) == (-largest, largest)


@pytest.mark.parametrize("dtype", WHOLE)
@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        (("0.1", "3.9"), (1, 3)),
        (("2", "2"), (2, 2)),
        (("1e-999999", "4e0"), (1, 4)),
        (("99.0000000000000000000000001", "101"), (100, 101)),
        (("0.2", "0.8"), None),
        (("-1e999999", "-1e999998"), None),
        (("9007199254740992.5", "9007199254740993"), None),
        (("1e999998", "1e999999"), None),
    ],
)
def test_inner_box_of_whole_numbers(dtype, ends, expected):
    low, high = inner_box(text_range(*ends), dtype)
    assert low.dtype == high.dtype == dtype
    assert (low[0] > high[0]) if expected is None else (low[0], high[0]) == expected


@pytest.mark.parametrize("dtype", WHOLE)
def test_ends_of_whole_types(dtype):
    low, high = inner_box(text_range("-1e30", "1e30"), dtype)
    assert int(low[0]) == max(np.iinfo(dtype).min, -(2**53))
    assert int(high[0]) == min(np.iinfo(dtype).max, 2**53)
    beyond = Decimal(int(np.iinfo(dtype).max)) + Decimal("0.5")
    low, high = inner_box(Range((beyond,), (beyond * 2,)), dtype)
    assert low[0] > high[0]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [(("-3", "7"), (False, True)), (("0.5", "1"), (True, True)), (("-1", "0.5"), (False, False))],
)
def test_inner_box_of_truth_values(ends, expected):
    low, high = inner_box(text_range(*ends), np.bool_)
    assert low.dtype == bool
    assert (low[0], high[0]) == expected
    low, high = inner_box(text_range("0.25", "0.75"), np.bool_)
    assert low[0] > high[0]


def test_nearest_numbers():
    point = np.array([-1e300, -1.5, 0.4, 0.6, 2.5, 254.6, 1e300])
    assert nearest(point, np.uint8).tolist() == [0, 0, 0, 1, 2, 255, 255]
    assert nearest(point, np.int64).tolist() == [-(2**53), -2, 0, 1, 2, 255, 2**53]
    assert nearest(point, np.bool_).tolist() == [False, False, False, True, True, True, True]
    assert nearest(point, ml_dtypes.bfloat16).astype(float)[5] == 255.0


# --- models of other types ---


def typed(kinds, nodes, outputs, constants=None, opset=18):
    """A model with inputs x0, x1, ... of shapes (1, 2), (2, 2), (3, 2), ..."""
    inputs = {f"x{i}": (kind, [i + 1, 2]) for i, kind in enumerate(kinds)}
    return import_model(
        model_proto(graph_proto(nodes, inputs, outputs, constants), opset).SerializeToString()
    )


@pytest.mark.parametrize("dtype", [*WHOLE, *FLOATS, np.bool_])
def test_models_of_every_type(dtype):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = typed([kind], [node("Identity", ["x0"], ["y"])], {"y": kind})
    replay = replayer(model, "(assert (>= Y_0 0.9))", ((0.1, 0.25), (1.4, 1)))
    witness = replay(np.array([1.2, 0.7]), 0)
    assert witness.inputs.dtype == dtype
    assert [float(v) for v in witness.inputs] == [float(v) for v in witness.x] == witness.outputs.tolist()
    assert witness.x[1] == 1 or dtype in FLOATS
    assert witness.outputs.dtype in (np.float32, np.float64)
    assert all(isinstance(v, (bool, int, float)) for v in witness.inputs.tolist())


def test_a_range_without_a_whole_number_has_no_witness():
    model = typed([TensorProto.INT32], [node("Identity", ["x0"], ["y"])], {"y": TensorProto.INT32})
    assert replayer(model, "(assert (>= Y_0 -5))", ((0.3, 0), (0.4, 1)))(np.array([0.35, 1.0]), 0) is None
    assert replayer(model, "(assert (>= Y_0 -5))", ((0.3, 0), (1.4, 1)))(np.array([0.35, 1.0]), 0) is not None


def test_a_range_without_a_float16_keeps_its_exact_number_unless_it_is_infinite():
    kind = TensorProto.FLOAT16
    model = typed([kind], [node("Clip", ["x0", "", "c"], ["y"])], {"y": kind}, {"c": np.float16(1)})
    replay = replayer(model, "(assert (>= Y_0 0))", (("0.1", 0), ("0.1", 1)))
    witness = replay(np.array([0.1, 0.5]), 0)
    assert witness.x[0] == Decimal("0.1")
    assert witness.inputs[0] == np.float16(0.1)
    replay = replayer(model, "(assert (>= Y_0 0))", ((70000, 0), (70000, 1)))
    assert replay(np.array([70000.0, 0.5]), 0) is None


def mixed():
    """Inputs of float32, int64, bool and float16; outputs of float32, int64 and bool."""
    kinds = [TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT16]
    nodes = [
        node("Cast", ["x1"], ["f1"], to=TensorProto.FLOAT),
        node("Cast", ["x2"], ["f2"], to=TensorProto.FLOAT),
        node("Cast", ["x3"], ["f3"], to=TensorProto.FLOAT),
        *(node("ReduceSum", [f"f{i}"], [f"s{i}"], keepdims=0) for i in (1, 2, 3)),
        node("ReduceSum", ["x0"], ["s0"], keepdims=0),
        node("Sum", ["s0", "s1", "s2", "s3"], ["total"]),
        node("Mul", ["x1", "two"], ["doubled"]),
        node("Identity", ["x2"], ["same"]),
    ]
    outputs = {"total": TensorProto.FLOAT, "doubled": TensorProto.INT64, "same": TensorProto.BOOL}
    return typed(kinds, nodes, outputs, {"two": np.array(2)})


def declared(model):
    """A property file's declarations: all inputs and outputs in order, flat."""
    names = [f"X_{i}" for i in range(sum(model.inputs.sizes))] + [
        f"Y_{i}" for i in range(sum(model.outputs.sizes))
    ]
    return "\n".join(f"(declare-const {name} Real)" for name in names)


def decide(tmp_path, model, assertions):
    (tmp_path / "m.onnx").write_bytes(model.serialized)
    (tmp_path / "p.vnnlib").write_text(declared(model) + assertions)
    return lpverify.verify(str(tmp_path / "m.onnx"), str(tmp_path / "p.vnnlib"), timeout=30)


BOX = box_assertions(
    [0.25] * 2 + [-3] * 4 + [0] * 6 + ["0.1"] * 8, [0.5] * 2 + ["2.9"] * 4 + [1] * 6 + ["0.3"] * 8
)


def test_several_inputs_and_outputs_of_different_types(tmp_path):
    model = mixed()
    assert model.inputs.sizes == (2, 4, 6, 8)
    assert [np.dtype(d).name for d in model.inputs.dtypes] == ["float32", "int64", "bool", "float16"]
    assert [np.dtype(d).name for d in model.outputs.dtypes] == ["float32", "int64", "bool"]
    result = decide(tmp_path, model, BOX + "(assert (>= Y_0 14)) (assert (>= Y_2 4)) (assert (<= Y_9 0.5))")
    assert result.verdict == "sat"
    inputs = result.witness.inputs
    assert [inputs[f"x{i}"].dtype for i in range(4)] == [np.float32, np.int64, bool, np.float16]
    assert [inputs[f"x{i}"].shape for i in range(4)] == [(i + 1, 2) for i in range(4)]
    expected = runtime_outputs(model.serialized, inputs)
    for name, value in zip(model.outputs.names, expected, strict=True):
        np.testing.assert_array_equal(result.witness.outputs[name], value)
        assert result.witness.outputs[name].dtype == value.dtype
    assert inputs["x1"].max() <= 2
    assert (inputs["x3"].astype(float) >= 0.1).all()
    flat = np.concatenate([inputs[f"x{i}"].reshape(-1).astype(float) for i in range(4)])
    assert [Fraction(v) for v in flat.tolist()] == [Fraction(v) for v in result.witness.exact]
    assert decide(tmp_path, model, BOX + "(assert (>= Y_0 21.1))").verdict == "unsat"
    assert decide(tmp_path, model, BOX + "(assert (>= Y_1 5.9)) (assert (<= X_2 2))").verdict == "unsat"


def test_the_order_of_inputs_is_that_of_the_model():
    model = mixed()
    query = query_of(model, box_assertions(list(range(20)), list(range(20))))
    case = compile_problem(model.network, query)
    replay = Replayer(model, case)
    point = np.arange(20.0)
    _, inputs = replay.round_into(point, 0)
    assert inputs.dtype == np.float64
    assert inputs[:6].tolist() == [0, 1, 2, 3, 4, 5]
    x = [np.arange(20.0)[t.part].astype(t.dtype).reshape(t.shape) for t in model.inputs.tensors]
    expected = runtime_outputs(model.serialized, dict(zip(model.inputs.names, x, strict=True)))
    flat = np.concatenate([v.reshape(-1).astype(float) for v in expected])
    np.testing.assert_array_equal(Runtime(model)(np.arange(20.0)), flat)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_verdicts_of_other_floats(tmp_path, kind):
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    constants = {"w": np.array([[1, -1], [0.5, 2]], dtype), "b": np.array([0.125, -1], dtype)}
    nodes = [node("Gemm", ["x0", "w", "b"], ["z"]), node("Relu", ["z"], ["y"])]
    model = typed([kind], nodes, {"y": kind}, constants)
    box = box_assertions([0, 0], [1, 1])
    result = decide(tmp_path, model, box + "(assert (>= Y_0 1.6))")
    assert result.verdict == "sat"
    assert result.witness.inputs["x0"].dtype == dtype
    assert result.witness.outputs["y"].dtype == dtype
    assert decide(tmp_path, model, box + "(assert (>= Y_0 1.626))").verdict == "unsat"


def test_whole_numbers_beyond_floats_are_no_outputs():
    kind = TensorProto.INT64
    model = typed([kind], [node("Add", ["x0", "w"], ["y"])], {"y": kind}, {"w": np.array(2**53)})
    replay = replayer(model, "(assert (>= Y_0 0))", ((0, 0), (3, 3)))
    assert replay(np.array([0.0, 2.0]), 0) is not None
    assert replay(np.array([1.0, 0.0]), 0) is None  # 2^53 + 1
    assert Runtime(model)(np.array([1, 0])) is None


def test_bfloat16_passes_through_onnxruntime_by_its_bits():
    kind = TensorProto.BFLOAT16
    nodes = [
        node("Cast", ["x0"], ["f"], to=TensorProto.FLOAT),
        node("Exp", ["f"], ["y"]),
        node("Identity", ["x0"], ["z"]),
    ]
    model = typed([kind], nodes, {"y": TensorProto.FLOAT, "z": kind})
    witness = replayer(model, "(assert (>= Y_0 1))", (("0.1", 0), ("0.3", 1)))(np.array([0.2, 0.7]), 0)
    inputs = witness.inputs.astype(np.float64)
    np.testing.assert_allclose(witness.outputs, [*np.exp(inputs), *inputs], rtol=1e-6)
    assert abs(inputs - [0.2, 0.7]).max() < 0.002


def test_what_onnxruntime_can_not_run_has_no_witness(tmp_path):
    kind = TensorProto.BFLOAT16  # there is no Max of this type for the CPU
    model = typed([kind], [node("Relu", ["x0"], ["y"])], {"y": kind})
    runtime = Runtime(model)
    assert runtime(np.zeros(2)) is None
    assert "implementation" in runtime.failure
    box = box_assertions([0, 0], [1, 1])
    assert decide(tmp_path, model, box + "(assert (>= Y_0 2))").verdict == "unsat"
    assert decide(tmp_path, model, box + "(assert (>= Y_0 0.5))").verdict in ("unknown", "timeout")


def test_models_that_onnxruntime_refuses():
    proto = model_proto(graph_proto([node("Relu", ["x"], ["y"])], {"x": (1, [1, 2])}, {"y": 1}))
    proto.ir_version = 10**6
    with pytest.raises(UnsupportedError, match=r"^m: onnxruntime can't load"):
        Runtime(import_model(proto.SerializeToString(), "m"))(np.zeros(2))
    proto.ir_version = 10
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT8
    with pytest.raises(OnnxError, match=r"^m: output 'y' is declared with another element type"):
        import_model(proto.SerializeToString(), "m")


def test_an_error_of_onnxruntime_at_a_point_is_no_witness():
    kind = TensorProto.INT64
    nodes = [node("Gather", ["w", "x0"], ["y"])]
    graph = graph_proto(nodes, {"x0": (kind, [1, 2])}, {"y": TensorProto.FLOAT}, {"w": np.float32([1, 2, 3])})
    from lpverify.io.model import Model, Signature
    from lpverify.network import Network, Node

    ends = Signature(("x0",), ((1, 2),), (np.int64,)), Signature(("y",), ((1, 2),), (np.float32,))
    network = Network((Node(None, (), (2,)),), 0)
    runtime = Runtime(Model(network, *ends, model_proto(graph).SerializeToString()))
    assert runtime(np.array([0, 2])).tolist() == [1, 3]
    assert runtime(np.array([0, 7])) is None
    assert "7" in runtime.failure
    assert runtime(np.array([2, 1])).tolist() == [3, 2]


def test_rounding_stays_fast():
    model = dense_model([(np.eye(1000), np.zeros(1000))])
    query = query_of(model, box_assertions([0] * 1000, [1] * 1000))
    replay = Replayer(model, compile_problem(model.network, query))
    points = np.random.default_rng(0).uniform(size=(200, 1000))
    replay.round_into(points[0], 0)
    start = time.monotonic()
    for point in points:
        replay.round_into(point, 0)
    assert time.monotonic() - start < 2.0


@pytest.mark.parametrize("text", ["0.1", "0.7"])
def test_strict_comparisons_hold_for_readers_that_round_as_well(model, text):
    """One of the two constants is below its float32 number, the other above."""
    nearest = np.float32(text)
    above, below = (np.nextafter(nearest, np.float32(end)) for end in (1, 0))
    for variable in ("X_0", "Y_0"):
        more, fewer = (replayer(model, f"(assert ({op} {variable} {text}))") for op in "><")
        negated = replayer(model, f"(assert (< (- {variable}) -{text}))")
        for point in (above, nearest, below):
            for replay, side in ((more, 1), (fewer, -1), (negated, 1)):
                witness = replay(np.array([point, 0.0]), 0)  # moved into the box where that is the constraint
                assert witness is not None or point != (above if side > 0 else below)
                assert witness is None or side * (witness.inputs[0] - nearest) > 0
        closed = replayer(
            model, f"(assert ({'>=' if float(nearest) > float(text) else '<='} {variable} {text}))"
        )
        assert closed(np.array([nearest, 0.0]), 0) is not None


def test_strict_comparison_of_a_number_that_is_no_float(model):
    """The exact 0.3 is below the float that readers see, whose comparison is with itself."""
    box = ((0, "0.3"), (1, "0.3"))
    assert replayer(model, "(assert (<= Y_0 1))", box)(np.array([0.5, 0.3]), 0) is not None
    assert replayer(model, "(assert (< X_1 0.30000000000001))", box)(np.array([0.5, 0.3]), 0) is None
    assert replayer(model, "(assert (< X_1 0.31))", box)(np.array([0.5, 0.3]), 0) is not None


def test_merged_inputs_are_replayed_with_the_same_number(model):
    replay = replayer(model, "(assert (= X_0 X_1)) (assert (> (+ Y_0 Y_1) 0.1))", ((0, "0.05"), (1, 1)))
    assert replay.problem.merged.tolist() == [0, 0]
    for value in (0.1, 1 / 3, 0.7000000001):
        witness = replay(np.array([value]), 0)
        assert witness.inputs[0].tobytes() == witness.inputs[1].tobytes() and witness.x[0] == witness.x[1]


@pytest.mark.parametrize("sign", [-1, 0, 1])
def test_products_are_compared_exactly(model, sign):
    """`x0 x1 y0 y0` at floats has more digits than any float."""
    x = np.float32([1 / 3, 0.7])
    exact = Fraction(float(x[0])) ** 3 * Fraction(float(x[1]))
    bound = exact + Fraction(sign, 10**60)
    ends = [Atom(((i, s),), 1) for i in range(2) for s in (1, -1)]
    query = Query(2, 2, And((*ends, Atom(((4, 1),), bound))), monomials=((0, 1, 2, 2),))
    witness = Replayer(model, compile_problem(model.network, query))(x.astype(np.float64), 0)
    assert (witness is not None) == (sign >= 0)


NEAR = [0.1, -0.1, 1.0, 0.0, 5e-324, -5e-324, 1e300, 1.7976931348623157e308, float(np.float32(0.1))]


def test_limits_are_exact():
    """Bounds at, just beside and far from floats, strict and not, of both signs."""
    numbers = [
        Fraction(v) + Fraction(step) for v in NEAR for step in (0, 1e-30, -1e-30, Fraction(1, 10**400))
    ]
    numbers += [Decimal("0.1"), Decimal("-0.1"), Decimal("1e400"), Decimal("-1e400"), Decimal("1e-400"), 3]
    atoms = [
        Atom(((0, factor),), b, strict) for b in numbers for factor in (1, -1) for strict in (True, False)
    ]
    limits = _Limits.of(atoms, 1)
    for value in [v for near in NEAR for v in (near, -near, np.nextafter(near, 9), np.nextafter(near, -9))]:
        expected = [int(atom_holds(atom, [Fraction(float(value))])) for atom in atoms]
        assert limits.truth(np.array([float(value)]), np.zeros(0, np.int64), len(atoms)) == expected


def test_limits_leave_the_rest_open():
    atoms = [
        Atom(((0, 1),), 1),
        Atom(((1, 1),), 1),
        Atom(((0, 2),), 1),
        Atom(((0, 1), (1, 1)), 1),
        Atom(((2, 1),), 1),
    ]
    limits = _Limits.of(atoms, 2)
    assert limits.truth(np.array([0.5, 2.0]), np.array([0]), len(atoms)) == [-1, 0, -1, -1, -1]
    assert limits.truth(np.array([0.5, 2.0]), np.array([], int), len(atoms)) == [1, 0, -1, -1, -1]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_inner_boxes_are_the_nearest_numbers_inside(dtype):
    numbers = [Fraction(v) for v in NEAR] + [
        Decimal("0.1"),
        Decimal("-70000"),
        Decimal("1e400"),
        Fraction(1, 3),
    ]
    low, high = inner_box(Range(tuple(numbers), tuple(numbers)), dtype)
    with np.errstate(over="ignore"):
        for number, up, down in zip(numbers, low, high, strict=True):
            assert np.isinf(up) or Fraction(float(up)) >= Fraction(number)
            assert np.isinf(down) or Fraction(float(down)) <= Fraction(number)
            before, after = np.nextafter(up, dtype(-np.inf)), np.nextafter(down, dtype(np.inf))
            assert np.isinf(before) or Fraction(float(before)) < Fraction(number)
            assert np.isinf(after) or Fraction(float(after)) > Fraction(number)
