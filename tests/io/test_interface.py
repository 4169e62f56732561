"""What a query wants of a model, put into the model: sizes of open dimensions and hidden tensors."""

import numpy as np
import onnx
import pytest
from helpers import graph_proto, model_proto, runtime_outputs
from networks import FLOAT, dense, node

from lpverify.errors import InputError
from lpverify.io.interface import Interface, adapt
from lpverify.io.onnx import import_model
from lpverify.io.runtime import Runtime


def model(x_shape, u_shape=(2,)):
    """`y = x + u` and `z = 2 u`."""
    nodes = [node("Add", ["x", "u"], ["y"]), node("Mul", ["u", "two"], ["z"])]
    inputs = {"x": (FLOAT, list(x_shape)), "u": (FLOAT, list(u_shape))}
    outputs = {"y": FLOAT, "z": FLOAT}
    return model_proto(graph_proto(nodes, inputs, outputs, {"two": np.float32(2)}), 13)


def test_nothing_wanted_changes_nothing():
    proto = model((1, 2))
    before = proto.SerializeToString()
    wanted = Interface((("x", (1, 2)), ("u", (2,))))
    assert not adapt(proto, Interface()) and not adapt(proto, wanted)
    assert proto.SerializeToString() == before
    assert not adapt(model(("N", 2)), Interface((("", (1, 2)),)))  # 1 is what it counts as anyway


@pytest.mark.parametrize("names", [("x", "u"), ("", "")])
def test_open_sizes_are_set_by_name_or_order(names):
    proto = model(("N", None), ("N", 2))
    shapes = (3, 2), (3, 2)
    interface = Interface(tuple(zip(names, shapes, strict=True)))
    found = import_model(proto.SerializeToString(), "m", None, interface)
    assert found.inputs.shapes == shapes and found.outputs.shapes == shapes
    x = np.random.default_rng(0).normal(size=12).astype(np.float32)
    expected = np.concatenate([x[:6] + x[6:], 2 * x[6:]])
    assert np.allclose(found.network(x[None].astype(np.float64))[0], expected, atol=1e-6)
    assert np.allclose(Runtime(found)(x), expected, atol=1e-6)


def test_names_of_sizes_have_one_size():
    interface = Interface((("x", (3, 2)), ("u", (2, 2))))
    with pytest.raises(InputError, match="dimension 'N' is 3 and 2"):
        import_model(model(("N", 2), ("N", 2)).SerializeToString(), "m", None, interface)
    with pytest.raises(InputError, match="dimension 'N' is 3 and 1"):
        adapt(model(("N", 2), ("N", 2)), Interface((("x", (3, 2)), ("u", (1, 2)))))
    free = import_model(
        model((None, 2), (None, 2)).SerializeToString(), "m", None, Interface((("x", (1, 2)), ("u", (3, 2))))
    )
    assert free.outputs.shapes == ((3, 2), (3, 2))


def test_fixed_sizes_stay():
    found = import_model(
        model((1, 2)).SerializeToString(), "m", None, Interface((("x", (5, 2)), ("no", (7,))))
    )
    assert found.inputs.shapes == ((1, 2), (2,))


@pytest.mark.parametrize("name", ["h", "r", "x", "b", "V", "y"])
def test_hidden_tensors_follow_the_outputs(name):
    proto = dense(3, (2, 3, 2))
    found = import_model(proto.SerializeToString(), "m", None, Interface((), (name, "r", name)))
    assert len(found.outputs.sizes) == 4 and found.outputs.names[0] == "y"
    assert onnx.ModelProto.FromString(found.serialized).graph.output[1].name != name
    x = np.random.default_rng(0).normal(size=2).astype(np.float32)
    mine, theirs = (
        found.network(x[None].astype(np.float64))[0],
        runtime_outputs(found.serialized, {"x": x[None]}),
    )
    assert np.allclose(mine, np.concatenate([t.reshape(-1) for t in theirs]), atol=1e-5)
    assert [t.shape for t in theirs] == list(found.outputs.shapes)
    assert np.array_equal(theirs[1], theirs[3]) and np.array_equal(theirs[2], np.maximum(theirs[2], 0))
    assert len(proto.graph.output) == 1


def test_hidden_tensors_that_are_not_there():
    for name in ("", "none", "lpverify.hidden.0"):
        with pytest.raises(InputError, match="the model has no tensor"):
            import_model(dense(0, (2, 3, 2)).SerializeToString(), "m", None, Interface((), (name,)))
