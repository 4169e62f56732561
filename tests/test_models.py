"""Which model is for which network of a query."""

import os

import pytest
from networks import dense, header, saved, tensors

import lpverify
from lpverify.errors import InputError
from lpverify.io.vnnlib import parse_query
from lpverify.models import Models

F = "f: " + tensors(["X real [1,2]"], ["Y real [1,2]"])
G = tensors(["U real [1,2]"], ["V real [1,2]"])
END = "(assert (<= X[0,0] 0.0))"


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: saved(folder, name, dense(i, (2, 3, 2))) for i, name in enumerate("fg")}


def fitting(sources, *networks, lenient=False):
    return Models(sources, lenient).fitting(parse_query(header(*networks) + END, "q"))


def test_equal_networks_need_one_model_and_take_no_other(paths):
    equal = "g (equal-to f): " + G
    assert fitting({"": paths["f"]}, F, equal).model.path == paths["f"]
    folder, name = os.path.split(paths["f"])
    for same in (paths["f"], os.path.join(folder, ".", name)):
        assert len(fitting({"f": paths["f"], "g": same}, F, equal).model.parts) == 2
    with pytest.raises(InputError, match="g is declared equal to f, but has another model"):
        fitting({"f": paths["f"], "g": paths["g"]}, F, equal)
    loaded = lpverify.load(paths["f"]).model
    assert len(fitting({"f": loaded, "g": loaded}, F, equal).model.parts) == 2
    with pytest.raises(InputError, match="no model for network f"):
        fitting({"g": paths["f"]}, F, equal)
    chain = "h (equal-to g): " + tensors(["A real [1,2]"], ["B real [1,2]"])
    assert len(fitting({"f": paths["f"], "h": paths["f"]}, F, equal, chain).model.parts) == 3
    with pytest.raises(InputError, match="h is declared equal to f"):
        fitting({"f": paths["f"], "h": paths["g"]}, F, equal, chain)


def test_numbers_and_names_of_models(paths):
    both = F, "g: " + G
    with pytest.raises(InputError, match="declares networks f, g: give"):
        fitting({"": paths["f"]}, *both)
    with pytest.raises(InputError, match="no model for network g"):
        fitting({"f": paths["f"]}, *both)
    with pytest.raises(InputError, match="declares no network h"):
        fitting({"f": paths["f"], "g": paths["g"], "h": paths["g"]}, *both)
    with pytest.raises(InputError, match="no model for network f"):
        fitting({"h": paths["f"]}, F)
    found = fitting({"h": paths["f"]}, F, lenient=True)
    assert found.remarks == ("network f is given as h",)
    isomorphic = "g (isomorphic-to f): " + G
    assert len(fitting({"f": paths["f"], "g": paths["g"]}, F, isomorphic).model.parts) == 2
    old = parse_query("(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= X_0 0))", "old")
    with pytest.raises(InputError, match="one network, 2 are given"):
        Models(dict(paths)).fitting(old)


def test_each_file_is_loaded_once_for_what_is_wanted_of_it(paths):
    models = Models({"f": paths["f"]})
    query = parse_query(header(F) + END, "q")
    first, second = (models.fitting(query).model.parts[0].model for _ in range(2))
    assert first is second
    hidden = header("f: " + tensors(["X real [1,2]"], ["Y real [1,2]"], ['H real [1,3] "h"'])) + END
    third = models.fitting(parse_query(hidden, "q")).model.parts[0].model
    assert third is not first and third.outputs.sizes == (2, 3)
    loaded = lpverify.load(paths["f"]).model
    again = Models({"": loaded})
    assert again.fitting(query).model.parts[0].model is loaded
    assert again.fitting(parse_query(hidden, "q")).model.parts[0].model.outputs.sizes == (2, 3)
    assert again.fitting(query).model.parts[0].model.outputs.sizes == (2,)


def test_paths_are_named_once(paths):
    assert Models({"a": paths["f"], "b": paths["f"], "c": paths["g"]}).paths == (paths["f"], paths["g"])
