"""A model in onnxruntime for many points at once; fast, and no substitute for `io.runtime` in replays."""

from typing import Any

import numpy as np

from lpverify.io.model import Model

_BATCH = "lpverify.batch"


class BatchedRuntime:
    """Evaluates a model of one input and one output on batches, one session for all.

    Use `batched_runtime` to make one. That each row of the result is what the model makes of that row alone
    is not certain: a model may mix the rows. The caller compares.
    """

    def __init__(self, model: Model, session: Any) -> None:
        self._session = session
        (self._input,), (self._output,) = model.inputs.tensors, model.outputs.tensors

    def __call__(self, points: np.ndarray) -> np.ndarray | None:
        """The outputs `(N, m)` at points `(N, n)`; None where onnxruntime fails or gives another shape."""
        points = points.astype(self._input.dtype, copy=False)
        feed = {self._input.name: points.reshape((len(points), *self._input.shape[1:]))}
        try:
            result = np.asarray(self._session.run([self._output.name], feed)[0])
        except Exception:  # noqa: BLE001  (onnxruntime's exceptions have no common base)
            return None
        if result.size != len(points) * self._output.size or result.shape[:1] != (len(points),):
            return None
        return result.reshape(len(points), -1)


def batched_runtime(model: Model) -> BatchedRuntime | None:
    """A runtime for batches; None where the model has no leading axis for them.

    That axis has an open size or the size 1; a size of 1 is opened in a copy of the model.
    """
    if model.parts or len(model.inputs.names) != 1 or len(model.outputs.names) != 1:
        return None
    if model.inputs.shapes[0][:1] != (1,) or np.dtype(model.inputs.dtypes[0]).kind != "f":
        return None
    import onnxruntime  # noqa: PLC0415  (slow to import)

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(_opened(model), options, providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001  (as above; the nodes may insist on a size of 1)
        return None
    return BatchedRuntime(model, session)


def _opened(model: Model) -> bytes:
    """The model with an open leading size of its input and output."""
    import onnx  # noqa: PLC0415  (slow to import)

    proto = onnx.ModelProto.FromString(model.serialized)
    infos = {info.name: info for info in (*proto.graph.input, *proto.graph.output)}
    changed = False
    for name in (*model.inputs.names, *model.outputs.names):
        dims = infos[name].type.tensor_type.shape.dim
        if dims and dims[0].HasField("dim_value"):
            dims[0].dim_param, changed = _BATCH, True
    if not changed:
        return model.serialized
    del proto.graph.value_info[:]  # they may repeat the size of 1
    return proto.SerializeToString()
