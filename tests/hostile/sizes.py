"""Tensors and results that are much larger than the file."""

import struct

import numpy as np
from onnx import TensorProto, numpy_helper

from hostile.cases import BOOL, EYE, HUGE, IMAGE, REFUSED, add, folded, ints, net, node, one, tensor, weights

# --- Sizes ---

add(
    "2^40 elements in 4 bytes",
    lambda: weights(tensor([HUGE], raw_data=b"0000")),
    "OnnxError",
    "impossible shape",
)
add("2^28 elements in 4 bytes", lambda: weights(tensor([2**28], raw_data=b"0000")), "OnnxError", "tensor 'w'")
add("2^128 elements", lambda: weights(tensor([2**32] * 4, raw_data=b"0000")), "OnnxError", "impossible shape")
add(
    "2^64 elements, of 0 by overflow",
    lambda: weights(tensor([2**32, 2**32])),
    "OnnxError",
    "impossible shape",
)
add("size -1", lambda: weights(tensor([-1], raw_data=b"0000")), "OnnxError", "impossible shape")
add("sizes -1, -1", lambda: weights(tensor([-1, -1], raw_data=b"0000")), "OnnxError", "impossible shape")
add("too few bytes", lambda: weights(tensor([2], raw_data=b"0000")), "OnnxError", "tensor 'w'")
add("odd bytes", lambda: weights(tensor([2], raw_data=b"0000000")), "OnnxError", "tensor 'w'")
add("too many bytes", lambda: weights(tensor([1], raw_data=b"00000000")), "OnnxError", "tensor 'w'")
add(
    "bytes and floats",
    lambda: weights(tensor([1], raw_data=struct.pack("f", 1), float_data=[2.0])),
    "OnnxError",
    "numbers twice",
)
add(
    "floats and whole numbers",
    lambda: weights(tensor([1], float_data=[1.0], int64_data=[2])),
    "OnnxError",
    "numbers twice",
)
add("floats of the wrong type", lambda: weights(tensor([1], int64_data=[2])), "OnnxError", "tensor 'w'")
add("type 0", lambda: weights(tensor([1], 0, raw_data=b"0000")), "UnsupportedError", "element type 0")
add("type 999", lambda: weights(tensor([1], 999, raw_data=b"0000")), "UnsupportedError", "element type 999")
add("type -1", lambda: weights(tensor([1], -1, raw_data=b"0000")), "UnsupportedError", "element type -1")
add(
    "string tensor",
    lambda: weights(tensor([1], TensorProto.STRING, string_data=[b"x"])),
    "UnsupportedError",
    "element type 8",
)
add(
    "data location 7",
    lambda: weights(tensor([1], raw_data=b"\0\0\0\0", data_location=1)),
    "OnnxError",
    "not inside",
)
add("truth value 2", lambda: weights(tensor([1], BOOL, raw_data=b"\2")), "OnnxError", "truth values")
add(
    "segment",
    lambda: weights(tensor([1], raw_data=b"\0\0\0\0", segment=TensorProto.Segment(begin=0, end=2**40))),
    "OnnxError",
    "tensor 'w'",
)
for name, value, error in (
    ("NaN weight", np.nan, "OnnxError"),
    ("infinite weight", np.inf, "UnsupportedError"),
    ("minus infinite weight", -np.inf, "UnsupportedError"),
    ("subnormal weight", 1e-45, ""),
    ("largest float as weight", 3.4028234e38, ""),
):
    add(name, lambda value=value: weights(numpy_helper.from_array(np.float32([value, 1]))), error)
for dims in (
    [HUGE],
    [2**20, 2**20],
    [2**32, 2**32],
    [2**31, 2**31, 2**31],
    [2**25 + 1],
    [-1],
    [-5, -7],
    [2**63 - 1] * 3,
):
    error = "OnnxError|UnsupportedError"
    add(f"ConstantOfShape {dims}", folded("ConstantOfShape", ints(*dims)), error)
    add(f"Expand to {dims}", one("Expand", ints(*dims), shape=[1]), error)
    add(f"Expand of a constant to {dims}", folded("Expand", np.float32([1]), ints(*dims)), error)
    if dims != [-1]:
        add(f"Reshape to {dims}", one("Reshape", ints(*dims)), error)
add(
    "2 thousand constants of 2^24",
    lambda: net(
        [*(node("ConstantOfShape", ["n"], [f"k{i}"]) for i in range(2000)), node("Relu", ["x"], ["y"])],
        {"n": ints(2**24)},
    ),
    "UnsupportedError",
    "bytes",
)
for repeats in ([HUGE, 1], [2**62 + 1, 2**62 + 1], [-1, 1], [2**32, 2**32], [0, 1]):
    add(f"Tile {repeats}", one("Tile", ints(*repeats)), REFUSED)
    add(f"Tile of a constant {repeats}", folded("Tile", EYE, ints(*repeats)), REFUSED)
add("Range to 2^40", folded("Range", ints(0)[0], ints(HUGE)[0], ints(1)[0]), REFUSED)
add("Range by 0", folded("Range", ints(0)[0], ints(5)[0], ints(0)[0]), REFUSED)
add("Range of floats", folded("Range", np.float32(0), np.float32(1e30), np.float32(1e-30)), REFUSED)
add("OneHot 2^40", folded("OneHot", ints(0, 1), ints(HUGE)[0], np.float32([0, 1])), REFUSED)
add(
    "EyeLike 2^17 x 2^17",
    lambda: net(
        [
            node("ConstantOfShape", ["n"], ["z"]),
            node("EyeLike", ["z"], ["e"]),
            node("Add", ["x", "e"], ["y"]),
        ],
        {"n": ints(2**17, 2**17)},
    ),
    REFUSED,
)
add("Pad 2^40", one("Pad", ints(0, 0, 0, HUGE)), REFUSED)
add("Pad of a constant 2^40", folded("Pad", EYE, ints(0, 0, 0, HUGE)), REFUSED)
add("Pad -2^40", one("Pad", ints(0, 0, 0, -HUGE)), REFUSED)
add("reflecting Pad 2^30", one("Pad", ints(0, 0, 0, 2**30), mode="reflect"), REFUSED)
for sizes in ((1, 1, HUGE, 1), (1, 1, 2**20, 2**20), (1, 1, 0, 1), (1, 1, -1, -1), (1, 1, 2**23, 1)):
    add(f"Resize to {sizes}", one("Resize", None, None, ints(*sizes), shape=IMAGE), REFUSED)
for scales in (
    (1, 1, 1e30, 1),
    (1, 1, np.inf, 1),
    (1, 1, np.nan, 1),
    (1, 1, -1, 1),
    (1, 1, 0, 1),
    (1, 1, 1e-30, 1),
):
    add(f"Resize by {scales}", one("Resize", None, np.float32(scales), shape=IMAGE), REFUSED)
    add(f"Upsample by {scales}", one("Upsample", np.float32(scales), shape=IMAGE, opset=9), REFUSED)
add("DepthToSpace 0", one("DepthToSpace", shape=[1, 4, 2, 2], blocksize=0), REFUSED)
add("DepthToSpace 2^40", one("DepthToSpace", shape=[1, 4, 2, 2], blocksize=HUGE), REFUSED)
add("SpaceToDepth -1", one("SpaceToDepth", shape=[1, 4, 2, 2], blocksize=-1), REFUSED)
add("HannWindow 2^40", folded("HannWindow", ints(HUGE)[0]), REFUSED)
add("Split into 2^40", one("Split", num_outputs=HUGE, axis=1), REFUSED)
add("Split into 0", one("Split", num_outputs=0, axis=1), REFUSED)
add(
    "Split into -1 and 3",
    lambda: net([node("Split", ["x", "s"], ["y", "z"], axis=1)], {"s": ints(-1, 3)}),
    REFUSED,
)
add(
    "doubling Concat",
    lambda: net(
        [
            *(node("Concat", [f"x{i}" if i else "x"] * 2, [f"x{i + 1}"], axis=0) for i in range(60)),
            node("Relu", ["x60"], ["y"]),
        ]
    ),
    REFUSED,
)
add(
    "doubling Concat of constants",
    lambda: net(
        [
            *(node("Concat", [f"k{i}"] * 2, [f"k{i + 1}"], axis=0) for i in range(60)),
            node("Add", ["x", "k60"], ["y"]),
        ],
        {"k0": EYE},
    ),
    REFUSED,
)
add("squaring Einsum", one("Einsum", shape=[2**13], equation="i->iii"), REFUSED)
add(
    "outer products",
    lambda: net([node("Einsum", ["x"] * 8, ["y"], equation="a,b,c,d,e,f,g,h->abcdefgh")], shape=[64]),
    REFUSED,
)
add("CumSum of 2^20", one("CumSum", np.array(0), shape=[2**20]), REFUSED)
add("softmax of 2^20", one("Softmax", shape=[1, 2**20]), "")
add("argmax of 2^20", one("ArgMax", shape=[1, 2**20], axis=1), REFUSED)
add("LRN of 2^20 channels", one("LRN", shape=[1, 2**20, 1, 1], size=3), REFUSED)
add(
    "MatMul of a vector and itself",
    lambda: net(
        [node("Reshape", ["x", "s"], ["r"]), node("MatMul", ["x", "r"], ["y"])],
        {"s": ints(1, -1)},
        [2**20, 1],
    ),
    REFUSED,
)
add(
    "MatMul of constants 2^22 x 2^22",
    lambda: net(
        [
            node("ConstantOfShape", ["a"], ["p"]),
            node("ConstantOfShape", ["b"], ["q"]),
            node("MatMul", ["p", "q"], ["k"]),
            node("Add", ["x", "k"], ["y"]),
        ],
        {"a": ints(2**22, 1), "b": ints(1, 2**22)},
    ),
    REFUSED,
)
add(
    "strings by Cast",
    lambda: net(
        [
            node("Cast", ["c"], ["s"], to=8),
            node("RegexFullMatch", ["s"], ["b"], pattern="(1+)+x"),
            node("Relu", ["x"], ["y"]),
        ],
        {"c": ints(int("1" * 18))},
        opset=20,
    ),
    REFUSED,
)
add(
    "image decoder",
    lambda: net(
        [node("ImageDecoder", ["c"], ["s"]), node("Relu", ["x"], ["y"])],
        {"c": np.zeros(9, np.uint8)},
        opset=20,
    ),
    REFUSED,
)
add("Gather 2^62", one("Gather", ints(2**62), axis=1), REFUSED)
add("Gather on axis 2^40", one("Gather", ints(0), axis=HUGE), REFUSED)
add("Flatten on axis -9", one("Flatten", axis=-9), REFUSED)
add("Transpose twice the same", one("Transpose", perm=[0, 0]), REFUSED)
add("Transpose -1", one("Transpose", perm=[-1, 0]), REFUSED)
add("Concat on axis 9", lambda: net([node("Concat", ["x", "x"], ["y"], axis=9)]), REFUSED)
add("Squeeze of an axis of 2", one("Squeeze", ints(1)), REFUSED)
add("Unsqueeze 2^62", one("Unsqueeze", ints(2**62)), REFUSED)
add("Unsqueeze twice the same", one("Unsqueeze", ints(0, 0)), REFUSED)
add("Slice by 0", one("Slice", ints(0), ints(2), ints(1), ints(0)), REFUSED)
add("Slice of every number", one("Slice", ints(-(2**63)), ints(2**63 - 1), ints(1), ints(1)), "")
add("ReduceSum on axis 7", one("ReduceSum", ints(7)), REFUSED)
add("TopK 2^40", lambda: net([node("TopK", ["x", "k"], ["y", "i"])], {"k": ints(HUGE)}), REFUSED)
