"""Property files that someone might send to do harm, for a network from x (1, 2) to y (1, 2)."""

import gzip
from collections.abc import Callable

DECLARED = "".join(f"(declare-const {v}_{i} Real)\n" for v in "XY" for i in (0, 1))
BOX = "".join(f"(assert (>= X_{i} -1))\n(assert (<= X_{i} 1))\n" for i in (0, 1))
HEAD = DECLARED + BOX


def _both(count: int, left: str, right: str) -> str:
    """`and` of many binary `or`s."""
    return "(assert (and " + " ".join(f"(or {left} {right})".format(i) for i in range(count)) + "))"


PROPERTIES: dict[str, Callable[[], bytes | str]] = {
    "brackets, 10^6 deep": lambda: HEAD + "(assert " + "(and " * 10**6 + "(>= Y_0 0)" + ")" * 10**6 + ")",
    "open brackets, 10^6": lambda: "(" * 10**6,
    "or of 10^6 atoms": lambda: (
        HEAD + "(assert (or " + " ".join(f"(>= Y_0 {i})" for i in range(10**6)) + "))"
    ),
    "or of 10^5 boxes": lambda: (
        HEAD + "(assert (or " + " ".join(f"(and (<= X_0 0.{i}) (>= Y_0 9))" for i in range(10**5)) + "))"
    ),
    "and of 40 ors of outputs": lambda: HEAD + _both(40, "(<= Y_0 {0})", "(>= Y_1 -{0})"),
    "and of 40 ors of inputs": lambda: HEAD + _both(40, "(<= X_0 -0.{0})", "(>= X_1 0.{0})"),
    "1e999999": lambda: HEAD + "(assert (>= Y_0 1e999999))",
    "1e-999999": lambda: HEAD + "(assert (>= Y_0 1e-999999))",
    "literal of 10^7 digits": lambda: HEAD + "(assert (>= Y_0 " + "1" * 10**7 + "))",
    "products of large numbers": lambda: HEAD + "(assert (>= Y_0 (* " + "9e999 " * 10**4 + ")))",
    "name of 10^7 characters": lambda: HEAD + "(assert (>= " + "Y" * 10**7 + " 1))",
    "gzip bomb": lambda: gzip.compress(b" " * 2**28, 9),
    "truncated gzip": lambda: gzip.compress(HEAD.encode())[:-9],
    "unbalanced, open": lambda: HEAD + "(assert (>= Y_0 0)",
    "unbalanced, closed": lambda: HEAD + "(assert (>= Y_0 0)))",
    "NUL bytes": lambda: HEAD.replace(" ", "\0"),
    "not UTF-8": lambda: HEAD.encode() + b"(assert (>= Y_0 \xff\xfe))",
    "UTF-16": lambda: HEAD.encode("utf-16"),
    "escape sequences": lambda: HEAD + "(assert (>= \x1b[2J 0))",
    "empty": lambda: "",
    "blanks": lambda: " " * 10**7,
    "comments": lambda: ";\n" * 5 * 10**6,
    "contradictory bounds": lambda: HEAD + "(assert (>= X_0 2))(assert (>= Y_0 0))",
    "no bounds": lambda: DECLARED + "(assert (>= Y_0 100))",
    "one bound is missing": lambda: HEAD.replace("(assert (<= X_1 1))\n", "") + "(assert (>= Y_0 100))",
    "undeclared variable": lambda: HEAD + "(assert (>= Y_7 0))",
    "variable twice": lambda: DECLARED + HEAD,
    "no assertion": lambda: DECLARED,
    "wrong number of variables": lambda: HEAD.replace("Y_1", "Y_3") + "(assert (>= Y_0 0))",
    "division by 0": lambda: HEAD + "(assert (>= Y_0 (/ 1 0)))",
    "product of variables": lambda: HEAD + "(assert (>= Y_0 (* Y_0 Y_1)))",
    "NaN": lambda: HEAD + "(assert (>= Y_0 nan))",
    "infinity": lambda: HEAD + "(assert (>= Y_0 inf))",
    "not of not, 10^6": lambda: HEAD + "(assert " + "(not " * 10**6 + "(>= Y_0 9)" + ")" * 10**6 + ")",
    "10^6 declarations": lambda: "".join(f"(declare-const X_{i} Real)\n" for i in range(10**6)) + HEAD,
}
