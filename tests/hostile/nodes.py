"""Attributes and element types of nodes."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto

from hostile.cases import FLOAT, REFUSED, add, folded, ints, net, node, one

# --- Convolutions and pools ---

KERNEL = np.ones((1, 1, 3), np.float32)
SIGNAL = [1, 1, 8]
for given in (
    {"strides": [0]},
    {"strides": [-1]},
    {"strides": [2**62], "pads": [2**62, 2**62]},
    {"dilations": [0]},
    {"dilations": [-1]},
    {"dilations": [2**40], "pads": [2**40, 2**40]},
    {"dilations": [2**62]},
    {"pads": [-1, -1]},
    {"pads": [2**40, 2**40], "strides": [2**40]},
    {"pads": [2**62, 2**62]},
    {"pads": [1]},
    {"pads": [1] * 40},
    {"group": 0},
    {"group": -1},
    {"group": 2**40},
    {"group": 3},
    {"kernel_shape": [5]},
    {"kernel_shape": [3, 3]},
    {"kernel_shape": [0]},
    {"strides": [1, 1, 1]},
    {"auto_pad": "NONSENSE"},
    {"strides": "text"},
    {"strides": 1.5},
    {"group": [1]},
    {"nonsense": 1},
):
    text = ", ".join(f"{k} {v}" for k, v in given.items())
    error = "" if given == {"pads": [1, 1]} else REFUSED
    add(f"Conv with {text}", one("Conv", KERNEL, shape=SIGNAL, **given), error)
    add(f"ConvTranspose with {text}", one("ConvTranspose", KERNEL, shape=SIGNAL, **given), error)
    if "group" not in given and "kernel_shape" not in given:
        pooled = given | {"kernel_shape": [3]}
        add(f"MaxPool with {text}", one("MaxPool", shape=SIGNAL, **pooled), error)
        add(f"AveragePool with {text}", one("AveragePool", shape=SIGNAL, opset=19, **pooled), error)
for kernel in ([0], [-1], [9], [2**40], [2**62], [3, 3]):
    add(f"MaxPool of kernel {kernel}", one("MaxPool", shape=SIGNAL, kernel_shape=kernel), REFUSED)
    add(f"AveragePool of kernel {kernel}", one("AveragePool", shape=SIGNAL, kernel_shape=kernel), REFUSED)
add("MaxPool without a kernel", one("MaxPool", shape=SIGNAL), REFUSED)
add(
    "MaxPool of 2^14 positions, padded",
    one("MaxPool", shape=[1, 1, 2**14], kernel_shape=[2**14], pads=[2**13, 2**13]),
    REFUSED,
)
add("kernel larger than the input", one("Conv", np.ones((1, 1, 9), np.float32), shape=SIGNAL), REFUSED)
add("Conv of a kernel of 0", one("Conv", np.ones((1, 1, 0), np.float32), shape=SIGNAL), REFUSED)
add("Conv of 7 axes", one("Conv", np.ones([1] * 7, np.float32), shape=[1] * 7), "")
add("Conv of the wrong rank", one("Conv", np.ones((1, 1, 3, 3), np.float32), shape=SIGNAL), REFUSED)
add("Conv of the wrong bias", one("Conv", KERNEL, np.ones(7, np.float32), shape=SIGNAL), REFUSED)
add("Gemm of the wrong shape", one("Gemm", np.ones((5, 5), np.float32)), REFUSED)
add("Gemm of a vector", one("Gemm", np.ones(2, np.float32)), REFUSED)
add("Add of 2 and 3", one("Add", np.ones(3, np.float32)), REFUSED)
add("Add of float and double", one("Add", np.ones(2)), REFUSED)
add(
    "BatchNormalization of a negative variance",
    one("BatchNormalization", *(np.float32([v, v]) for v in (1, 0, 0, -1))),
    REFUSED,
)
add("Div by 0", one("Div", np.float32([0, 1])), REFUSED)
add("Sqrt of a negative constant", folded("Sqrt", np.float32([-1])), "")
add("Cast to type 999", one("Cast", to=999), REFUSED)
add("Cast to strings", one("Cast", to=8), REFUSED)
add(
    "LSTM of nonsense",
    one(
        "LSTM",
        np.ones((1, 4, 2), np.float32),
        np.ones((1, 4, 1), np.float32),
        shape=[2**18, 1, 2],
        hidden_size=1,
    ),
    REFUSED,
)
add(
    "Constant without a value",
    lambda: net([node("Constant", [], ["k"]), node("Add", ["x", "k"], ["y"])]),
    REFUSED,
)
add(
    "Constant with two values",
    lambda: net([node("Constant", [], ["k"], value_float=1.0, value_int=2), node("Add", ["x", "k"], ["y"])]),
    REFUSED,
)


def _constant_of_wrong_type() -> onnx.ModelProto:
    made = node("Constant", [], ["k"], value_float=1.0)
    made.attribute[0].type = onnx.AttributeProto.INT
    return net([made, node("Add", ["x", "k"], ["y"])])


def _whole_number_for_a_tensor() -> onnx.ModelProto:
    made = node("ConstantOfShape", ["n"], ["k"], value=1)
    return net([made, node("Add", ["x", "k"], ["y"])], {"n": ints(1)})


add("Constant of the wrong type", _constant_of_wrong_type, REFUSED)
add("whole number for a tensor", _whole_number_for_a_tensor, REFUSED)

# --- Element types ---


def _typed(number: int, declared: int) -> Callable[[], onnx.ModelProto]:
    def make() -> onnx.ModelProto:
        proto = one("Relu", kind=number, opset=14 if number in _FLOATS else 13)()
        proto.graph.output[0].type.tensor_type.elem_type = declared
        return proto

    return make


_FLOATS = (TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
for number, accepted in (
    (TensorProto.DOUBLE, True),
    (TensorProto.FLOAT16, True),
    (TensorProto.BFLOAT16, True),
    (TensorProto.INT8, False),
    (TensorProto.BOOL, False),
    (TensorProto.COMPLEX64, False),
    (TensorProto.FLOAT8E4M3FN, False),
    (TensorProto.INT4, False),
):
    name = TensorProto.DataType.Name(number)
    add(f"Relu of {name}", _typed(number, number), "" if accepted else REFUSED)
    add(f"Relu of {name}, said to be float", _typed(number, FLOAT), REFUSED)
