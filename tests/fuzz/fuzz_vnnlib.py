"""Fuzzes the reader of properties: any text gives a query, or an error that it documents."""

import sys
import warnings

import atheris

with atheris.instrument_imports(include=["lpverify.io", "lpverify.query"]):
    from lpverify.errors import InputError, UnsupportedError
    from lpverify.io.vnnlib import parse_query

SEEDS = (
    "(declare-const X_0 Real)\n(declare-const Y_0 Real)\n"
    "(assert (>= X_0 -1))\n(assert (<= X_0 1.5e0))\n(assert (<= Y_0 0))",
    "(declare-fun X_0 () Real)(declare-const Y_0 Real)(declare-const Y_1 Real)\n"
    "(assert (or (and (>= X_0 0) (<= X_0 1) (>= Y_0 Y_1)) "
    "(and (>= X_0 2) (<= X_0 3) (<= Y_0 (+ Y_1 (* 2 X_0) -1)))))",
    "; comment\n(set-logic QF_LRA)(declare-const X_0 Real)(declare-const Y_0 Real)"
    "(assert (=> (not (< X_0 1)) (= Y_0 (/ 1 3))))(check-sat)",
    "(vnnlib-version <2.0>)\n(declare-network N\n "
    "(declare-input X real [1, 2])\n (declare-output Y real [2])\n)\n"
    "(assert (and (>= X[0,0] 0) (<= X[0,1] 1)))\n(assert (or (<= Y[0] Y[1]) (>= Y[1] 2.5)))",
)


def one_input(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape" if data[:1] == b"\xff" else "replace")
    try:
        parse_query(text)
    except (InputError, UnsupportedError) as error:
        message = str(error)
        if not message or len(message) > 10_000:
            raise RuntimeError(f"a message of {len(message)} characters") from error


def main() -> None:
    warnings.simplefilter("error")
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
