"""The original model in onnxruntime: what its outputs are taken from."""

import ctypes
from typing import Any

import numpy as np

from lpverify.errors import OnnxError, UnsupportedError
from lpverify.io.element_types import type_number
from lpverify.io.model import Model, Tensor
from lpverify.io.tensors import all_exact


def runtime_of(model: Model) -> "Runtime | AssembledRuntime":
    """What evaluates a model, assembled or not."""
    return AssembledRuntime(model) if model.parts else Runtime(model)


class AssembledRuntime:
    """Evaluates the parts of an assembled model, each on its own inputs; equal ones share a session."""

    def __init__(self, model: Model) -> None:
        self.model = model
        runtimes: dict[int, Runtime] = {}
        for part in model.parts:
            runtimes.setdefault(id(part.model), Runtime(part.model))
        self._runtimes = [runtimes[id(part.model)] for part in model.parts]

    @property
    def failure(self) -> str:
        """Why onnxruntime could not run a part when it was last asked; empty if it could."""
        return next((r.failure for r in self._runtimes if r.failure), "")

    def __call__(self, inputs: np.ndarray) -> np.ndarray | None:
        """Evaluates a flat point; see `Runtime`."""
        results = []
        for part, runtime in zip(self.model.parts, self._runtimes, strict=True):
            outputs = runtime(inputs[part.inputs])
            if outputs is None:
                return None
            results.append(outputs[part.outputs])
        return np.concatenate(results)


class Runtime:
    """Evaluates a model on the CPU; the session is made at the first use.

    Attributes:
        failure: Why onnxruntime could not run the model when it was last asked; empty if it could.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.failure = ""
        self._inputs, self._outputs = model.inputs.tensors, model.outputs.tensors
        self._session: Any = None
        self._usable = True

    def __call__(self, inputs: np.ndarray) -> np.ndarray | None:
        """Evaluates a flat point `(n,)` that consists of numbers of the model's types.

        Returns:
            The outputs, flat: of the model's type if that is float32 or float64, otherwise in float64.
            None when onnxruntime can't compute them, or when one is not exactly a float64 number.

        Raises:
            OnnxError: onnxruntime finds the model malformed.
            UnsupportedError: It can't load it.
        """
        if self._session is None and self._usable:
            self._load()
        if not self._usable:
            return None
        results = self._run(inputs)
        if results is None or not all(all_exact(r) for r in results):
            return None
        if {r.dtype for r in results} not in ({np.dtype(np.float32)}, {np.dtype(np.float64)}):
            results = [r.astype(np.float64) for r in results]
        return np.concatenate([r.reshape(-1) for r in results])

    def _load(self) -> None:
        import onnxruntime  # noqa: PLC0415  (only needed for witnesses)
        from onnxruntime.capi import onnxruntime_pybind11_state as state  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        path, data = self.model.path, self.model.serialized
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except state.NotImplemented as error:  # an op has no version for the CPU and the element type
            self._usable, self.failure = False, str(error)
        except (state.InvalidGraph, state.InvalidArgument, state.InvalidProtobuf) as error:
            raise OnnxError(f"{path}: onnxruntime refuses the network: {error}") from None
        except (state.Fail, state.RuntimeException) as error:
            raise UnsupportedError(f"{path}: onnxruntime can't load the network: {error}") from None

    def _run(self, inputs: np.ndarray) -> list[np.ndarray] | None:
        from onnxruntime.capi import onnxruntime_pybind11_state as state  # noqa: PLC0415

        feeds: dict[str, np.ndarray] = {
            t.name: inputs[t.part].astype(t.dtype).reshape(t.shape) for t in self._inputs
        }
        names = [tensor.name for tensor in self._outputs]
        raw = any(np.dtype(t.dtype).kind == "V" for t in (*self._inputs, *self._outputs))
        try:
            if not raw:
                return [np.asarray(result) for result in self._session.run(names, feeds)]
            given = {name: _as_value(array) for name, array in feeds.items()}
            results = self._session.run_with_ort_values(names, given)
        except (state.Fail, state.InvalidArgument, state.RuntimeException, state.NotImplemented) as error:
            self.failure = str(error)
            return None
        return [_as_array(result, t) for result, t in zip(results, self._outputs, strict=True)]


def _as_value(array: np.ndarray) -> Any:
    """An array as a tensor of onnxruntime; bfloat16 is passed by its bits, as NumPy does not know it."""
    from onnxruntime import OrtValue  # noqa: PLC0415

    if array.dtype.kind != "V":
        return OrtValue.ortvalue_from_numpy(array)
    number = type_number(array.dtype.name)
    return OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), number)


def _as_array(value: Any, tensor: Tensor) -> np.ndarray:
    """The other way round."""
    if np.dtype(tensor.dtype).kind != "V" or value.data_type() != "tensor(bfloat16)":
        return np.asarray(value.numpy())
    data = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(data, tensor.dtype).reshape(value.shape())
