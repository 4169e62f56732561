"""The two forms of `verify` and the options that both take."""

import pytest

from lpverify.errors import InputError, UnsupportedError
from lpverify.options import USAGE, info_parser, paths, verify_parser


def parse(*words):
    return verify_parser().parse_intermixed_args(words)


@pytest.mark.parametrize(
    "words", [("n", "q"), ("q", "--network", "f=n"), ("--network", "f=n", "q"), ("n", "--seed", "2", "q")]
)
def test_both_forms_mean_the_same(words):
    assert paths(parse(*words)) == ("n", "q")


def test_a_path_may_contain_equals_signs():
    assert paths(parse("q", "--network", "f=a=b.onnx")) == ("a=b.onnx", "q")


def test_several_properties_keep_their_order():
    for words in (("n", "b", "a", "b"), ("b", "a", "b", "--network", "f=n"), ("n", "b", "-v", "a", "b")):
        assert paths(parse(*words)) == ("n", "b", "a", "b")


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
        paths(parse(*words))


@pytest.mark.parametrize("value", ["0", "-3", "inf", "nan", "five", ""])
def test_wrong_limits(value):
    with pytest.raises(InputError, match="not a positive number of seconds"):
        parse("n", "q", f"--timeout={value}")


@pytest.mark.parametrize("words", [("--quie",), ("--seed", "x"), ("--json",), ("--network",)])
def test_wrong_options(words):
    with pytest.raises(InputError, match="--help"):
        parse("n", "q", *words)


def test_several_networks_are_not_supported():
    with pytest.raises(UnsupportedError, match="2 networks"):
        paths(parse("q", "--network", "f=a", "--network", "g=b"))


def test_usage_names_every_command(capsys):
    assert "lpverify verify" in USAGE
    assert "lpverify info" in USAGE
    for parser in (verify_parser(), info_parser()):
        with pytest.raises(SystemExit):
            parser.parse_args(["--help"])
        assert parser.prog in capsys.readouterr().out
