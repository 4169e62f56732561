"""Networks of `training` as ONNX files, written layer by layer."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from training import Normalise

OPSET, IR_VERSION = 17, 8
TOLERANCE = 1e-5  # relative to the largest output: float32 sums in another order


class Graph:
    """A chain of nodes that grows; each takes the value of the one before."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.value = "image"

    def add(self, operator: str, *constants: Tensor, **attributes: object) -> None:
        """A node with constants as its further inputs."""
        inputs = [self.value]
        for constant in constants:
            inputs.append(f"constant_{len(self.constants)}")
            self.constants.append(numpy_helper.from_array(constant.detach().numpy(), inputs[-1]))
        self.value = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [self.value], name=self.value, **attributes))

    def add_layer(self, layer: nn.Module) -> None:
        """A layer of torch as one or two nodes.

        Raises:
            TypeError: It is of no kind that is known here.
        """
        if isinstance(layer, Normalise):
            self.add("Sub", layer.mean)
            self.add("Div", layer.std)
        elif isinstance(layer, nn.Flatten):
            self.add("Flatten", axis=1)
        elif isinstance(layer, nn.Linear):
            self.add("Gemm", layer.weight, layer.bias, transB=1)
        elif isinstance(layer, nn.Conv2d):
            self.add("Conv", layer.weight, layer.bias, strides=layer.stride, pads=[*layer.padding] * 2)
        elif isinstance(layer, nn.ReLU):
            self.add("Relu")
        else:
            raise TypeError(f"a {type(layer).__name__} layer can't be exported")


def model_of(net: nn.Sequential, shape: tuple[int, ...], classes: int) -> onnx.ModelProto:
    """The network as an ONNX model with one input of `(N, *shape)` and one output of `(N, classes)`.

    Raises:
        TypeError: A layer is of no kind that is known here.
    """
    graph = Graph()
    for layer in net:
        graph.add_layer(layer)
    ends = [("image", ["N", *shape]), (graph.value, ["N", classes])]
    inputs, outputs = ([helper.make_tensor_value_info(n, TensorProto.FLOAT, s)] for n, s in ends)
    body = helper.make_graph(graph.nodes, "classifier", inputs, outputs, graph.constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def export(net: nn.Sequential, images: np.ndarray, path: Path) -> Path:
    """Writes a network to a file that onnxruntime runs with the same outputs as torch.

    Args:
        net: Layers of the kinds that `training` makes.
        images: What to compare on, `(N, C, H, W)`, float32.
        path: Of the file.

    Raises:
        TypeError: A layer is of no kind that is known here.
        ValueError: The outputs differ by more than rounding.
    """
    with torch.no_grad():
        expected = net(torch.from_numpy(images)).numpy()
    onnx.save(model_of(net, images.shape[1:], expected.shape[1]), path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    gap = np.abs(session.run(None, {"image": images})[0] - expected).max()
    if not gap <= TOLERANCE * max(1.0, np.abs(expected).max()):
        raise ValueError(f"{path}: onnxruntime's outputs differ from torch's by {gap:.3g}")
    return path
