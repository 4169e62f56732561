"""The two forms of `verify` and the options that both take."""

import argparse
import math
from dataclasses import fields
from decimal import Decimal
from fractions import Fraction

import pytest

from lpverify.errors import InputError
from lpverify.io.limits import ModelLimits
from lpverify.io.vnnlib_text import Limits
from lpverify.limit_options import LIMITS, model_limits, property_limits
from lpverify.methods import METHODS
from lpverify.options import (
    BOUND_METHODS,
    USAGE,
    bounds_parser,
    exact,
    info_parser,
    networks,
    verify_parser,
)


def parse(*words):
    return verify_parser().parse_intermixed_args(words)


@pytest.mark.parametrize(
    "words", [("n", "q"), ("q", "--network", "f=n"), ("--network", "f=n", "q"), ("n", "--seed", "2", "q")]
)
def test_both_forms_mean_the_same(words):
    found, queries = networks(parse(*words))
    assert (list(found.values()), queries) == (["n"], ["q"])
    assert list(found) == (["f"] if "f=n" in words else [""])


def test_a_path_may_contain_equals_signs():
    assert networks(parse("q", "--network", "f=a=b.onnx")) == ({"f": "a=b.onnx"}, ["q"])


def test_several_properties_keep_their_order():
    for words in (("n", "b", "a", "b"), ("b", "a", "b", "--network", "f=n"), ("n", "b", "-v", "a", "b")):
        found, queries = networks(parse(*words))
        assert (list(found.values()), queries) == (["n"], ["b", "a", "b"])


def test_defaults_and_values():
    args = parse("n", "q")
    assert (args.timeout, args.seed, args.json, args.quiet, args.exit_status) == (60.0, 0, None, False, False)
    args = parse("n", "q", "--timeout", "1e3", "--seed", "7", "-v", "--json", "r")
    assert (args.timeout, args.seed, args.verbose, args.json) == (1000.0, 7, True, "r")


@pytest.mark.parametrize(
    "words", [("n",), (), ("a", "b", "--network", "f="), ("--network", "f=n"), ("q", "--network", "=n")]
)
def test_wrong_files(words):
    with pytest.raises(InputError):
        networks(parse(*words))


@pytest.mark.parametrize("value", ["0", "-3", "inf", "nan", "five", ""])
def test_wrong_limits(value):
    with pytest.raises(InputError, match="not a positive number of seconds"):
        parse("n", "q", f"--timeout={value}")


@pytest.mark.parametrize("words", [("--quie",), ("--seed", "x"), ("--json",), ("--network",)])
def test_wrong_options(words):
    with pytest.raises(InputError, match="--help"):
        parse("n", "q", *words)


def test_several_networks():
    assert networks(parse("q", "--network", "f=a", "--network", "g=b")) == ({"f": "a", "g": "b"}, ["q"])
    with pytest.raises(InputError, match="f is given twice"):
        networks(parse("q", "--network", "f=a", "--network", "f=b"))


def test_limits_of_files():
    args = parse("n", "q", "--max-elements", "7", "--max-depth", "9")
    assert model_limits(args) == ModelLimits(max_elements=7)
    assert property_limits(args) == Limits(max_elements=7, max_depth=9)
    assert (model_limits(parse("n", "q")), property_limits(parse("n", "q"))) == (ModelLimits(), Limits())
    assert {name.replace("-", "_") for name in LIMITS} == {
        f.name for k in (ModelLimits, Limits) for f in fields(k)
    }
    for value in ("0", "-1", "1e3", "x"):
        with pytest.raises(InputError, match="whole number from 1"):
            parse("n", "q", f"--max-depth={value}")


def test_usage_names_every_command(capsys):
    assert "lpverify verify" in USAGE
    assert "lpverify info" in USAGE
    assert "lpverify bounds" in USAGE
    assert max(map(len, USAGE.splitlines())) <= 110
    for parser in (verify_parser(), bounds_parser(), info_parser()):
        with pytest.raises(SystemExit):
            parser.parse_args(["--help"])
        assert parser.prog in capsys.readouterr().out


# --- bounds ---


def bound_options(*words):
    return bounds_parser().parse_intermixed_args(["n", *words])


def test_help_tells_every_method_in_order(capsys):
    assert list(BOUND_METHODS) == list(METHODS)
    with pytest.raises(SystemExit):
        bounds_parser().parse_args(["--help"])
    shown = capsys.readouterr().out
    for name, text in BOUND_METHODS.items():
        assert f"  {name} " in shown
        assert text.splitlines()[0] in shown


@pytest.mark.parametrize(
    "text", ["8/255", "0.03", "1e-3", "1/3", "0.1", "2", "1e-400", "12345678901234567890/7"]
)
def test_a_radius_is_the_smallest_float_that_is_not_below(text):
    top, _, bottom = text.partition("/")
    number = Fraction(top) / Fraction(bottom or 1)
    eps = bound_options("--eps", text).eps
    assert Fraction(eps) >= number
    assert Fraction(math.nextafter(eps, -math.inf)) < number


def test_numbers_are_exact():
    assert exact("8/255") == Fraction(8, 255)
    assert exact("-0.5/255") == -Fraction(1, 510)
    assert exact("-0.1") == Decimal("-0.1")
    assert bound_options("--clip", "-0.1", "1/3").clip == [Decimal("-0.1"), Fraction(1, 3)]


@pytest.mark.parametrize(
    "text", ["", "x", "nan", "inf", "1/0", "1/2/3", "/3", "3/", "1e5/2", "1/-2", "9" * 5000 + "/2"]
)
def test_what_is_no_number(text):
    with pytest.raises(argparse.ArgumentTypeError, match="not a finite number"):
        exact(text)


def test_methods_and_layers_of_bounds():
    args = bound_options("--method", "lp", "--layers", "a", "b", "--method", "ibp", "--threads", "3")
    assert (args.method, args.layers, args.threads) == (["lp", "ibp"], ["a", "b"], 3)
    assert [bound_options("--norm", text).norm for text in ("inf", "2", "1")] == [float("inf"), 2, 1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--eps", "-0.1"), "not a number from 0"),
        (("--eps=-8/255",), "not a number from 0"),
        (("--eps", "1e400"), "not a number from 0"),
        (("--eps", "nan"), "not a finite number"),
        (("--norm", "3"), "none of inf, 2, 1"),
        (("--method", "magic"), "choose from"),
        (("--threads", "0"), "not a whole number from 1"),
        (("--timeout", "0"), "not a positive number"),
        (("--clip", "0"), "expected 2 arguments"),
        (("--layers",), "expected at least one argument"),
    ],
)
def test_wrong_options_of_bounds(words, message):
    with pytest.raises(InputError, match=message):
        bound_options(*words)
