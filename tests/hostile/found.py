"""What fuzzing has found."""

import numpy as np

from hostile.cases import IMAGE, INT64, REFUSED, add, ints, net, node, one
from hostile.graphs import calls

# --- Found by fuzzing ---

add("GatherND of -2 batch axes", one("GatherND", ints(0), batch_dims=-2), REFUSED)  # onnx crashed
add(
    "MaxPool of ceil_mode 64",
    one("MaxPool", shape=IMAGE, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=64),
    "OnnxError",
    "neither",
)
add("keepdims 2", one("ReduceSum", ints(1), keepdims=2), "OnnxError", "neither")
add(
    "table with a name twice",
    lambda: net(
        [node("ConstantOfShape", ["x"], ["k"]), node("Split", ["k"], ["y", "y"], num_outputs=2)],
        shape=[3],
        kind=INT64,
    ),
    REFUSED,
)
add(
    "table of unknown type",
    lambda: net([node("ConstantOfShape", ["x"], ["y"])], shape=[1000], kind=INT64),
    REFUSED,
)
add(
    "Split into 2 with 4 results",
    lambda: net([node("Split", ["x"], ["y", "a", "b", "c"], num_outputs=2)], shape=[4]),
    "OnnxError",
    "num_outputs",
)  # onnx crashed
add(
    "Einsum of other characters", one("Einsum", equation=b"\xff", shape=[]), "OnnxError", "equation"
)  # an endless loop in onnx
add(
    "Upsample of mode cubic",
    one("Upsample", np.float32([1, 1, 2, 3]), shape=[1, 1, 2, 2], opset=9, mode="cubic"),
    "UnsupportedError",
    "cubic",
)
add(
    "GridSample of 1e35",
    one("GridSample", np.full((1, 1, 1, 2), 1e35, np.float32), shape=[1, 1, 2, 2], opset=22, mode="nearest"),
    "UnsupportedError",
    "far outside",
)
add(
    "RotaryEmbedding of 2^31 - 1",
    lambda: net(
        [node("RotaryEmbedding", ["x", "c", "s"], ["y"], rotary_embedding_dim=2**31 - 1)],
        {n: np.zeros((1, 3, 4), np.float32) for n in "cs"},
        [1, 4, 3, 8],
        opset=23,
    ),
    REFUSED,
)
add(
    "function name that is no text",
    lambda: calls(("F", "F")).SerializeToString().replace(b"\x0a\x01F", b"\x0a\x01\xff"),
    "OnnxError",
)
add(
    "input name that is no text",
    lambda: one("Relu")().SerializeToString().replace(b"\x0a\x01x", b"\x0a\x01\xff"),
    "OnnxError",
)
add(
    "Expand of truth values to 2^32, as a table",
    one("Expand", ints(3, 2**31 - 1), shape=[1], kind=9),
    "UnsupportedError",
    "elements",
)
add("Clip of a scalar by vectors", one("Clip", np.float32([1, 4, 4]), shape=[]), "UnsupportedError", "scalar")
