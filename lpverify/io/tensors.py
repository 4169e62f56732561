"""Tensors of an ONNX file as arrays: every number exactly, or refused."""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from lpverify.errors import OnnxError, UnsupportedError
from lpverify.io.element_types import element_type
from lpverify.io.limits import DEFAULT_LIMITS, MAX_RANK, ModelLimits

EXACT = 2**53  # all whole numbers up to this one are floats
_BOOL = 9
_DATA = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


def read_tensor(tensor: Any, name: str, limits: ModelLimits = DEFAULT_LIMITS) -> np.ndarray:
    """The array that a TensorProto stands for, in its own type (bfloat16: that of `ml_dtypes`).

    Raises:
        OnnxError: It is malformed or contains NaN.
        UnsupportedError: Its type has numbers that are not treated exactly.
    """
    from onnx import numpy_helper  # noqa: PLC0415  (slow to import)

    if tensor.data_location:
        raise OnnxError(f"{name!r} is stored in an external file, and the network was given without a folder")
    try:
        element_type(tensor.data_type)
    except UnsupportedError as error:
        raise UnsupportedError(f"tensor {name!r}: {error}") from None
    if (
        any(d < 0 for d in tensor.dims)
        or prod(tensor.dims) > limits.max_stored
        or len(tensor.dims) > MAX_RANK
    ):
        raise OnnxError(f"{name!r} has an impossible shape {list(tensor.dims)}")
    if tensor.data_type == _BOOL and tensor.raw_data.strip(b"\0\1"):
        raise OnnxError(f"{name!r} has truth values other than 0 and 1")
    fields = [f for f in _DATA if getattr(tensor, f)]
    if len(fields) > 1:
        raise OnnxError(f"{name!r} has its numbers twice, in {' and '.join(fields)}")
    try:
        array = np.asarray(numpy_helper.to_array(tensor))
    except Exception as error:  # noqa: BLE001  (onnx raises many types on malformed tensors)
        raise OnnxError(f"tensor {name!r}: {error}") from None
    if has(np.isnan, array):
        raise OnnxError(f"{name!r} contains NaN")
    return array


def read_sparse(sparse: Any, name: str, limits: ModelLimits = DEFAULT_LIMITS) -> np.ndarray:
    """The dense array that a SparseTensorProto stands for; raises as `read_tensor`."""
    values = read_tensor(sparse.values, name, limits)
    indices = read_tensor(sparse.indices, f"{name} (indices)", limits)
    dims = tuple(sparse.dims)
    if any(d <= 0 for d in dims) or len(dims) > MAX_RANK:
        raise OnnxError(f"{name!r} has an impossible shape {list(dims)}")
    if prod(dims) > limits.max_elements:
        raise UnsupportedError(f"{name!r} has {prod(dims)} elements")
    if indices.dtype != np.int64 or indices.shape not in ((values.size,), (values.size, len(dims))):
        raise OnnxError(f"{name!r} has malformed indices")
    if indices.size and not ((indices >= 0).all() and (indices < _limits(indices, dims)).all()):
        raise OnnxError(f"{name!r} has indices out of range")
    flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), dims)
    if len(np.unique(flat)) != flat.size:
        raise OnnxError(f"{name!r} has an index twice")
    dense = np.zeros(prod(dims), values.dtype)
    dense[flat] = values.reshape(-1)
    return dense.reshape(dims)


def _limits(indices: np.ndarray, dims: tuple[int, ...]) -> np.ndarray:
    """Ends of the ranges of indices: of the flat array, or by axis."""
    return np.asarray(prod(dims) if indices.ndim == 1 else dims)


def exact_floats(array: np.ndarray) -> np.ndarray:
    """The same numbers in float64.

    Raises:
        UnsupportedError: A whole number among them is no float.
    """
    floats = array.astype(np.float64)
    if not all_exact(array):
        raise UnsupportedError("a constant has whole numbers that are not exact as floats")
    return floats


def all_exact(array: np.ndarray) -> bool:
    """Whether all elements are float64 numbers; false can only be said of 64-bit whole numbers."""
    if array.dtype.kind not in "iu" or array.dtype.itemsize < 8:
        return True
    large = array[(array > EXACT) | (array < -EXACT)] if array.dtype.kind == "i" else array[array > EXACT]
    return all(int(float(v)) == v for v in large.tolist())


def has(test: Callable[[np.ndarray], np.ndarray], array: np.ndarray) -> bool:
    """Whether the test is true of any float in the array, also in types that NumPy does not know."""
    kind = array.dtype.kind
    return kind in "fV" and bool(test(array if kind == "f" else array.astype(np.float64)).any())
