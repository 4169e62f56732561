"""Several models as one network: against onnxruntime on each of them."""

import numpy as np
import pytest
from helpers import runtime_outputs
from networks import dense, header, saved, tensors, two_by_two

from lpverify.errors import InputError
from lpverify.io.runtime import AssembledRuntime, runtime_of
from lpverify.io.vnnlib import parse_query
from lpverify.models import Models

ANY = "(assert (<= {0} 0.0))"


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    protos = {
        "f": dense(0, (2, 3, 2)),
        "g": dense(1, (2, 4, 2)),
        "open": dense(2, (2, 3, 1), "N"),
        "mixed": two_by_two(),
    }
    return {name: saved(folder, name, proto) for name, proto in protos.items()}


def fitted(sources, text, lenient=False):
    query = parse_query(text, "q.vnnlib", lenient=lenient)
    return query, Models(sources, lenient).fitting(query)


def feeds(path, x):
    """Each part's own run."""
    with open(path, "rb") as file:
        return runtime_outputs(file.read(), x)


def hidden_of(path, names, x):
    """Tensors inside of a model, by onnx's own evaluator."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    proto = onnx.load(path)
    for name in names:
        proto.graph.output.append(onnx.ValueInfoProto(name=name))
    return ReferenceEvaluator(proto).run(list(names), x)


def compared(model, expected_of, count=6, seed=0):
    """The network and the runtime against expected values at random points."""
    runtime = runtime_of(model)
    assert isinstance(runtime, AssembledRuntime)
    for x in np.random.default_rng(seed).normal(size=(count, sum(model.inputs.sizes))).astype(np.float32) * 2:
        expected = np.concatenate([np.asarray(e, np.float64).reshape(-1) for e in expected_of(x)])
        assert np.allclose(model.network(x[None].astype(np.float64))[0], expected, atol=1e-5)
        assert np.allclose(runtime(x), expected, atol=1e-5) and not runtime.failure
        assert len(runtime(x)) == sum(model.outputs.sizes)


def test_two_dense_networks(paths):
    text = header(
        "f: " + tensors(["X real [1,2]"], ["Y real [1,2]"]),
        "g: " + tensors(["U real [1,2]"], ["V real [1,2]"]),
    )
    query, found = fitted({"f": paths["f"], "g": paths["g"]}, text + ANY.format("V[0,1]"))
    assert (query.inputs, query.outputs) == (4, 4) and not found.remarks
    assert found.model.inputs.names == ("X", "U") and found.model.outputs.names == ("Y", "V")

    def expected(x):
        parts = (("f", x[:2]), ("g", x[2:]))
        return [out for name, part in parts for out in feeds(paths[name], {"x": part[None]})]

    compared(found.model, expected)


def test_three_networks_of_two_inputs_and_several_types(paths):
    plain = tensors(["A real [2]", "S real []"], ["P real [2]", "C int64 []", "B bool [2]"])
    turned = tensors(
        ['S2 real [] "s"', 'A2 real [2] "a"'],
        ['B2 bool [2] "flag"', 'P2 real [2] "sum"', 'C2 int64 [] "count"'],
    )
    text = header("m: " + plain, "f: " + tensors(["X real [1,2]"], ["Y real [1,2]"]), "n: " + turned)
    sources = {"m": paths["mixed"], "f": paths["f"], "n": paths["mixed"]}
    _, found = fitted(sources, text + ANY.format("P2[1]"))
    assert found.model.inputs.names == ("A", "S", "X", "S2", "A2")
    assert found.model.outputs.names == ("P", "C", "B", "Y", "B2", "P2", "C2")
    assert found.model.outputs.dtypes[1] is np.int64 and found.model.outputs.shapes[1] == ()

    def expected(x):
        one = feeds(paths["mixed"], {"a": x[:2], "s": np.asarray(x[2])})
        two = feeds(paths["mixed"], {"a": x[6:8], "s": np.asarray(x[5])})
        return [*one, *feeds(paths["f"], {"x": x[None, 3:5]}), two[2], two[0], two[1]]

    compared(found.model, expected)


def test_hidden_tensors_and_equal_networks(paths):
    """Before and behind a rectifier, an input, an initialiser, an output; used twice; of the copy alone."""
    shown = [
        'H real [1,3] "h"',
        'I real [1,2] "x"',
        'K real [3] "b"',
        'O real [1,2] "y"',
        'H2 real [1,3] "h"',
    ]
    text = header(
        "f: " + tensors(["X real [1,2]"], ["Y real [1,2]"], shown),
        "g (equal-to f): "
        + tensors(["U real [1,2]"], ["V real [1,2]"], ['R real [1,3] "r"', 'H3 real [1,3] "h"']),
    )
    query, found = fitted({"f": paths["f"]}, text + ANY.format("R[0,1]"))
    assert [v.name for _, v in query.tensors("hidden", "output")] == list(found.model.outputs.names)
    assert found.model.outputs.names == ("H", "I", "K", "O", "H2", "Y", "R", "H3", "V")
    assert found.model.parts[0].model is found.model.parts[1].model

    def expected(x):
        first = hidden_of(paths["f"], ["h", "x", "b", "y", "h"], {"x": x[None, :2]})
        second = hidden_of(paths["f"], ["r", "h", "y"], {"x": x[None, 2:]})
        return [*first, first[3], *second]

    compared(found.model, expected)


def test_a_hidden_tensor_of_the_copy_alone(paths):
    text = header(
        "f: " + tensors(["X real [1,2]"], ["Y real [1,2]"]),
        "g (equal-to f): " + tensors(["U real [1,2]"], ["V real [1,2]"], ['R real [1,3] "r"']),
        "h (equal-to g): " + tensors(["Q real [1,2]"], ["W real [1,2]"]),
    )
    sources = {"f": paths["f"], "g": paths["f"], "h": paths["f"]}
    _, found = fitted(sources, text + ANY.format("R[0,1]"))

    def expected(x):
        second = hidden_of(paths["f"], ["r", "y"], {"x": x[None, 2:4]})
        outer = [feeds(paths["f"], {"x": x[None, i : i + 2]})[0] for i in (0, 4)]
        return [outer[0], *second, outer[1]]

    compared(found.model, expected)


def test_open_dimensions_take_the_size_of_the_query(paths):
    text = header("f: " + tensors(["X real [3,2]"], ["Y real [3,1]"], ['R real [3,3] "r"']))
    _, found = fitted({"f": paths["open"]}, text + ANY.format("R[2,1]"))

    def expected(x):
        return hidden_of(paths["open"], ["r", "y"], {"x": x.reshape(3, 2)})

    compared(found.model, expected)


def test_sums_of_softmax_outputs_are_known_in_several_networks(tmp_path):
    from helpers import graph_proto, model_proto
    from networks import FLOAT, node

    from lpverify.sums import output_groups

    graph = graph_proto([node("Softmax", ["x"], ["y"])], {"x": (FLOAT, [1, 2])}, {"y": FLOAT})
    path = saved(tmp_path, "soft", model_proto(graph, 13))
    text = header(
        "f: " + tensors(["X real [1,2]"], ["Y real [1,2]"], ['H real [1,2] "x"']),
        "g (equal-to f): " + tensors(["U real [1,2]"], ["V real [1,2]"]),
    )
    _, found = fitted({"f": path}, text + ANY.format("V[0,1]"))
    assert sorted(output_groups(found.model.network)) == [(2, 3), (4, 5)]


def _one(inputs="X real [1,2]", outputs="Y real [1,2]", hidden=()):
    return header("f: " + tensors([inputs], [outputs], hidden)) + ANY.format(
        "X[0,0]" if "," in inputs else "X[0]"
    )


def test_dimensions_of_size_one_may_differ(paths):
    _, found = fitted({"": paths["f"]}, _one("X real [2]"))
    assert len(found.remarks) == 1 and "[2]" in found.remarks[0] and "[1, 2]" in found.remarks[0]
    assert found.model.inputs.shapes == ((2,),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_one("X real [2,2]"), r"X has shape \[2, 2\], in the model \[1, 2\]"),
        (_one("X real [1,3]"), r"X has shape \[1, 3\]"),
        (_one(outputs="Y real [2,2]"), r"Y has shape \[2, 2\]"),
        (_one(outputs="Y float64 [1,2]"), "Y has element type float64, in the model float32"),
        (_one("X int64 [1,2]").replace("0.0", "0"), "X has element type int64, in the model float32"),
        (_one(hidden=['H real [1,3] "none"']), "no tensor 'none'"),
        (_one(hidden=['H real [1,4] "h"']), r"H has shape \[1, 4\]"),
        (_one('X real [1,2] "z"', 'Y real [1,2] "y"'), "inputs z are declared, the model has x"),
        (_one('X real [1,2] "x"', 'Y real [1,2] "h"'), "outputs h are declared, the model has y"),
        (
            header("f: " + tensors(["X real [1,2]", "Z real [1]"], ["Y real [1,2]"])) + ANY.format("Z[0]"),
            "2 input",
        ),
        (
            header("f: " + tensors(["X real [1,2]"], ["Y real [1,2]", "Z real []"])) + ANY.format("Z"),
            "2 output",
        ),
    ],
)
def test_what_does_not_fit_is_an_error(paths, text, message):
    with pytest.raises(InputError, match=message) as caught:
        fitted({"": paths["f"]}, text)
    assert paths["f"] in str(caught.value)


def test_other_element_types_are_accepted_when_asked_for(paths):
    _, found = fitted({"": paths["f"]}, _one(outputs="Y float64 [1,2]"), lenient=True)
    assert found.model.outputs.dtypes == (np.float32,) and "float64" in found.remarks[0]
