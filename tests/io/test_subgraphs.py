"""Branches and loops: replaced by their nodes, or refused."""

import time
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import agrees, branch, calling, graph_proto, model_proto, refused
from onnx import TensorProto, helper, numpy_helper

from lpverify.errors import OnnxError, UnsupportedError
from lpverify.io.limits import ModelLimits
from lpverify.io.onnx import import_model

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
node = helper.make_node


# --- If ---


def choice(condition: Any, then: Any, other: Any, **constants: np.ndarray) -> Any:
    nodes = [
        node("Neg", ["x"], ["z"]),
        node("If", ["c"], ["t"], then_branch=then, else_branch=other),
        node("Add", ["t", "z"], ["y"]),
    ]
    return calling(nodes, constants={"c": np.asarray(condition), **constants})


@pytest.mark.parametrize("condition", [True, False, [True], [[False]]])
def test_the_branch_that_is_taken(condition: Any) -> None:
    then = branch([node("Mul", ["x", "k"], ["s"]), node("Relu", ["s"], ["r"])], "r", {"k": np.float32(3)})
    other = branch([node("Mul", ["z", "k"], ["s"]), node("Exp", ["s"], ["r"])], "r", {"k": np.float32(2)})
    agrees(choice(condition, then, other))


def test_a_branch_inside_of_a_branch_sees_all_names_around() -> None:
    inner = branch([node("Add", ["s", "x"], ["q"]), node("Mul", ["q", "k"], ["r2"])], "r2")
    unused = branch([node("RandomNormalLike", ["x"], ["r3"])], "r3")  # is not looked at
    nodes = [
        node("Mul", ["x", "z"], ["s"]),
        node("If", ["c"], ["r"], then_branch=inner, else_branch=unused),
    ]
    agrees(choice(True, branch(nodes, "r", {"k": np.float32(3)}), unused))


def test_a_condition_from_shapes_and_a_branch_of_constants() -> None:
    nodes = [
        node("Shape", ["x"], ["s"], end=1),
        node("Equal", ["s", "two"], ["c"]),
        node("If", ["c"], ["t"], then_branch=branch([], "k", {"k": np.float32(3)}), else_branch=branch([])),
        node("Mul", ["x", "t"], ["y"]),
    ]
    model = import_model(calling(nodes, constants={"two": np.array([2])}).SerializeToString())
    np.testing.assert_array_equal(model.network(np.ones((1, 6))), np.full((1, 6), 3.0))


def test_a_computed_condition_is_refused() -> None:
    nodes = [
        node("Cast", ["x"], ["i"], to=INT64),
        node("Cast", ["i"], ["b"], to=BOOL),
        node("If", ["b"], ["y"], then_branch=branch([node("Neg", ["x"], ["r"])]), else_branch=branch([])),
    ]
    graph = graph_proto(nodes, {"x": (FLOAT, [1])}, {"y": FLOAT})
    refused(model_proto(graph), UnsupportedError, "If.*depends on the network's input")


@pytest.mark.parametrize(
    ("then", "message"),
    [
        (branch([node("Abs", ["x"], ["z"]), node("Neg", ["z"], ["r"])]), "'z', which is defined before"),
        (branch([node("Neg", ["z"], ["r"])], "r", {"z": np.float32(1)}), "'z', which is defined before"),
        (branch([node("Neg", ["later"], ["r"])]), "defined nowhere"),
        (branch([node("Neg", ["x"], ["s"])]), "defined nowhere"),
        (graph_proto([], {"i": (FLOAT, [1])}, {"i": FLOAT}), "does not fit"),
    ],
)
def test_malformed_branches(then: Any, message: str) -> None:
    refused(choice(True, then, branch([])), OnnxError, message)


def test_a_missing_branch_and_no_condition() -> None:
    proto = calling([node("If", ["c"], ["y"], else_branch=branch([]))], constants={"c": np.array(True)})
    refused(proto, OnnxError, "no 'then_branch'")
    empty = node("If", [], ["y"], then_branch=branch([]), else_branch=branch([]))
    refused(calling([empty]), OnnxError, "malformed")


def test_unsupported_nodes_in_branches_and_after_them() -> None:
    then = branch([node("BernoulliX", ["x"], ["s"]), node("Neg", ["s"], ["r"])])
    refused(
        choice(True, then, then),
        UnsupportedError,
        r"1 unsupported node.*\n.*\(If\), inside: BernoulliX, opset 18",
    )


def test_a_branch_in_a_function_refers_to_its_attributes() -> None:
    relu = node("LeakyRelu", ["a"], ["r"])
    attribute = relu.attribute.add()
    attribute.name, attribute.ref_attr_name, attribute.type = "alpha", "slope", onnx.AttributeProto.FLOAT
    body = [
        node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True))),
        node("If", ["c"], ["b"], then_branch=branch([relu]), else_branch=branch([])),
    ]
    imports = [helper.make_opsetid("", 18)]
    proto = calling(
        [node("F", ["x"], ["y"], domain="own", slope=0.5)],
        helper.make_function("own", "F", ["a"], ["b"], body, imports, ["slope"]),
    )
    model = import_model(proto.SerializeToString())
    np.testing.assert_array_equal(model.network(np.full((1, 6), -1.0)), np.full((1, 6), -0.5))


# --- Loop ---


def body(
    nodes: list[Any], states: list[str], outputs: list[str], condition: str = "ci", **constants: Any
) -> Any:
    """Of a loop: counter i, condition ci, states."""
    inputs = {"i": (INT64, []), "ci": (BOOL, []), **{s: (FLOAT, None) for s in states}}
    tail = [] if condition != "ci" else [node("Identity", ["ci"], ["co"])]
    condition = "co" if condition == "ci" else condition
    kinds = {condition: BOOL, **dict.fromkeys(outputs, FLOAT)}
    return graph_proto([*nodes, *tail], inputs, kinds, constants)


def looping(loop: Any, trips: Any = 4, condition: Any = True, extra: tuple[Any, ...] = ()) -> Any:
    constants = {"m": np.asarray(trips), "go": np.asarray(condition)}
    return calling([loop, *extra], constants=constants)


def test_states_go_from_one_iteration_to_the_next() -> None:
    steps = body(
        [node("Mul", ["s", "k"], ["p"]), node("Add", ["p", "x"], ["q"])], ["s"], ["q"], k=np.float32(2)
    )
    model = agrees(looping(node("Loop", ["m", "go", "x"], ["y"], body=steps)))
    np.testing.assert_array_equal(model.network(np.ones((1, 6))), np.full((1, 6), 31.0))


def test_states_may_change_places_and_shapes() -> None:
    steps = body([node("Concat", ["a", "b"], ["c"], axis=1)], ["a", "b"], ["b", "c"])
    loop = node("Loop", ["m", "go", "x", "x"], ["u", "v"], body=steps)
    extra = (node("Concat", ["u", "v"], ["y"], axis=1),)
    assert agrees(looping(loop, 5, extra=extra)).outputs.shapes[0][0] == 2


def test_results_of_all_iterations_are_stacked() -> None:
    nodes = [
        node("Cast", ["i"], ["f"], to=FLOAT),
        node("Mul", ["s", "f"], ["scan"]),
        node("Add", ["s", "x"], ["q"]),
    ]
    loop = node("Loop", ["m", "go", "x"], ["e", "y"], body=body(nodes, ["s"], ["q", "scan"]))
    assert agrees(looping(loop)).outputs.shapes == ((4, 2, 3),)
    assert agrees(looping(loop, 1)).outputs.shapes == ((1, 2, 3),)
    refused(looping(loop, 0), UnsupportedError, "a stack of no iterations")
    constant = node("Loop", ["m", "go"], ["t"], body=body([node("Cast", ["i"], ["f"], to=FLOAT)], [], ["f"]))
    extra = (node("Slice", ["t", "one", "m"], ["s"]), node("Mul", ["x", "s"], ["y"]))
    proto = looping(constant, 4, extra=extra)
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1]), "one"))
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([4]), "m"))
    agrees(proto)


def test_a_condition_ends_the_loop() -> None:
    nodes = [node("Less", ["i", "two"], ["on"]), node("Add", ["s", "x"], ["q"])]
    steps = body(nodes, ["s"], ["q"], "on", two=np.array(2))
    for trips in (2, 10, 2**62):
        agrees(looping(node("Loop", ["m", "go", "x"], ["y"], body=steps), trips))
    agrees(looping(node("Loop", ["", "go", "x"], ["y"], body=steps)))
    agrees(looping(node("Loop", ["m", "go", "x"], ["y"], body=steps), 5, condition=False))
    # The standard ignores this condition, onnxruntime does not:
    refused(
        looping(node("Loop", ["m", "", "x"], ["y"], body=steps), 5), UnsupportedError, "that its body ends"
    )
    agrees(looping(node("Loop", ["m", "", "x"], ["y"], body=steps), 2))


def test_loops_inside_of_loops() -> None:
    inside = graph_proto(
        [node("Add", ["t", "s"], ["t2"]), node("Identity", ["cj"], ["cj2"])],
        {"j": (INT64, []), "cj": (BOOL, []), "t": (FLOAT, None)},
        {"cj2": BOOL, "t2": FLOAT},
    )
    nodes = [node("Add", ["i", "one"], ["n"]), node("Loop", ["n", "go", "x"], ["q"], body=inside)]
    agrees(looping(node("Loop", ["m", "go", "x"], ["y"], body=body(nodes, ["s"], ["q"], one=np.array(1))), 3))


@pytest.mark.parametrize("trips", [1001, 10**9])
def test_endless_loops_are_refused(trips: int) -> None:
    loop = node("Loop", ["m", "go", "x"], ["y"], body=body([node("Add", ["s", "x"], ["q"])], ["s"], ["q"]))
    start = time.monotonic()
    refused(looping(loop, trips), UnsupportedError, r"node 0 \(Loop\), opset 18: more than 1000 iterations")
    assert time.monotonic() - start < 20
    endless = node("Loop", ["", "", "x"], ["y"], body=body([node("Neg", ["s"], ["q"])], ["s"], ["q"]))
    refused(looping(endless), UnsupportedError, "more than 1000 iterations")


def test_endless_loops_in_endless_loops_are_refused() -> None:
    inside = graph_proto(
        [node("Add", ["t", "s"], ["t2"]), node("Identity", ["cj"], ["cj2"])],
        {"j": (INT64, []), "cj": (BOOL, []), "t": (FLOAT, None)},
        {"cj2": BOOL, "t2": FLOAT},
    )
    steps = body([node("Loop", ["m", "go", "x"], ["q"], body=inside)], ["s"], ["q"])
    refused(
        looping(node("Loop", ["m", "go", "x"], ["y"], body=steps), 900),
        UnsupportedError,
        "more than 2000 nodes",
        ModelLimits(max_steps=2000),
    )


def test_doubling_ends() -> None:
    limits = ModelLimits(max_elements=2**16)
    steps = body([node("Concat", ["s", "s"], ["q"], axis=0)], ["s"], ["q"])
    loop = node("Loop", ["m", "go", "x"], ["y"], body=steps)
    refused(looping(loop, 900), UnsupportedError, "elements, more than 65536", limits)
    loop = node("Loop", ["m", "go", "w"], ["t"], body=steps)
    proto = looping(loop, 900, extra=(node("Add", ["x", "t"], ["y"]),))
    proto.graph.initializer.append(numpy_helper.from_array(np.float32([1]), "w"))
    refused(proto, UnsupportedError, "it needs 131072 elements, more than 65536", limits)


def test_computed_trip_counts_and_conditions_are_refused() -> None:
    steps = body([node("Neg", ["s"], ["q"])], ["s"], ["q"])
    nodes = [node("Cast", ["x"], ["n"], to=INT64), node("Loop", ["n", "go", "x"], ["y"], body=steps)]
    graph = graph_proto(nodes, {"x": (FLOAT, [1])}, {"y": FLOAT}, {"go": np.array(True)})
    refused(model_proto(graph), UnsupportedError, "the trip count of Loop depends on the network's input")
    nodes = [node("ReduceSum", ["s"], ["r"], keepdims=0), node("Cast", ["r"], ["on"], to=BOOL)]
    steps = body([*nodes, node("Neg", ["s"], ["q"])], ["s"], ["q"], "on")
    with pytest.raises(UnsupportedError):
        import_model(looping(node("Loop", ["m", "go", "x"], ["y"], body=steps)).SerializeToString())


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (body([node("Neg", ["s"], ["x"])], ["s"], ["x"]), "'x', which is defined before"),
        (body([node("Neg", ["x"], ["q"])], ["x"], ["q"]), "'x', which is defined before"),
        (body([node("Neg", ["s"], ["q"])], ["s"], []), "does not fit"),
        (body([node("Neg", ["s"], ["q"])], ["s", "t"], ["q"]), "does not fit"),
    ],
)
def test_malformed_loops(steps: Any, message: str) -> None:
    refused(looping(node("Loop", ["m", "go", "x"], ["y"], body=steps)), OnnxError, message)


def test_a_problem_in_a_body_is_told_once() -> None:
    steps = body([node("BernoulliX", ["x"], ["d"]), node("Neg", ["s"], ["q"])], ["s"], ["q", "d"])
    loop = node("Loop", ["m", "go", "x"], ["y", "d"], body=steps, name="again")
    refused(
        looping(loop),
        UnsupportedError,
        r"1 unsupported node\(s\)\n  node 0 'again' \(Loop\), inside: BernoulliX",
    )


# --- Scan ---


@pytest.mark.parametrize("backward", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_scans(axis: int, backward: int) -> None:
    steps = graph_proto(
        [node("Add", ["s", "v"], ["t"]), node("Mul", ["t", "v"], ["o"])],
        {"s": (FLOAT, None), "v": (FLOAT, None)},
        {"t": FLOAT, "o": FLOAT},
    )
    scan = node(
        "Scan",
        ["w", "x"],
        ["e", "y"],
        body=steps,
        num_scan_inputs=1,
        scan_input_axes=[axis],
        scan_input_directions=[backward],
        scan_output_directions=[1 - backward],
        scan_output_axes=[axis],
    )
    proto = calling([scan], constants={"w": np.ones(2 if axis else 3, np.float32)})
    proto.graph.output.append(helper.make_tensor_value_info("e", FLOAT, None))
    agrees(proto)


def test_malformed_scans() -> None:
    steps = graph_proto([node("Neg", ["v"], ["o"])], {"v": (FLOAT, None)}, {"o": FLOAT})
    refused(calling([node("Scan", ["x"], ["y"], body=steps)]), OnnxError, "num_scan_inputs is 0")
    scan = node("Scan", ["x", "x"], ["y"], body=steps, num_scan_inputs=2, scan_input_axes=[0, 1])
    refused(calling([scan]), OnnxError, "different lengths")
    scan = node("Scan", ["x"], ["y"], body=steps, num_scan_inputs=1, scan_input_axes=[7])
    refused(calling([scan]), OnnxError, "malformed")
