"""What VNN-COMP's scorer says of a result file; shares no code with lpverify.

After VNN-COMP/vnncomp2026_results, folder SCORING (`counterexamples.py`, `counterexamples_v2.py`): outputs
in the file are ignored and computed anew with onnxruntime on the CPU; inputs are cast to the model's type
first, and compared with bounds in that type, which is what NumPy 2 does. It differs in two ways: version-1
properties may have any form here, and hidden tensors are computed too where the competition gives up.
"""

import ast
import gzip
import math
import operator
import re
from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import vnnlib

TOLERANCE = 1e-4  # of inputs; credited, but proves nothing
VERDICTS = ("unsat", "timeout", "timed-out", "error", "unknown")
COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
KINDS = {
    "LessEqual": "<=",
    "GreaterEqual": ">=",
    "LessThan": "<",
    "GreaterThan": ">",
    "Equal": "==",
    "NotEqual": "!=",
}
TYPES = {"F16": "float16", "F32": "float32", "F64": "float64", "I32": "int32", "I64": "int64", "Real": "real"}
RUNTIME_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
HEADER = re.compile(r"(\S+)\s+(\S+)\s+\[([0-9,\s]*)\]")


class MalformedError(Exception):
    """The witness is not of the form that the competition wants."""


def score(result: str, onnx_field: str, query: Path) -> str:
    """A verdict other than `sat` as it is; else correct, tolerated, wrong, missing or malformed.

    Args:
        result: Contents of the result file.
        onnx_field: Path of the network, or the literal of several.
        query: The property.
    """
    first, _, witness = result.partition("\n")
    if first.strip() != "sat":
        return first.strip() if first.strip() in VERDICTS else "malformed"
    if len(witness.strip()) < 2:
        return "missing"
    text = contents(query).decode()
    check = check_second if "(vnnlib-version" in text else check_first
    try:
        holds = check(witness, onnx_field, text)
    except (MalformedError, ValueError) as error:
        return f"malformed: {error}"
    if holds(0.0):
        return "correct"
    return "tolerated" if holds(TOLERANCE) else "wrong"


def contents(path: Path | str) -> bytes:
    """Of a file that may be packed, or be there packed only."""
    path = Path(path)
    path = path if path.exists() else path.with_name(f"{path.name}.gz")
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


# Version 1.


def check_first(witness, onnx_field, text):
    """Whether a witness `((X_0 v) ... (Y_0 v))` holds, by tolerance."""
    numbers = first_witness(witness)
    session = onnxruntime.InferenceSession(contents(onnx_field), providers=["CPUExecutionProvider"])
    (signature,) = session.get_inputs()
    shape = [d if isinstance(d, int) and d > 0 else 1 for d in signature.shape]
    if len(numbers) != math.prod(shape):
        raise MalformedError(f"{len(numbers)} inputs, the network has {math.prod(shape)}")
    x = np.array(numbers, RUNTIME_TYPES[signature.type])
    y = session.run(None, {signature.name: x.reshape(shape)})[0].ravel()
    values = {f"X_{i}": v for i, v in enumerate(x)} | {f"Y_{i}": v for i, v in enumerate(y)}
    statements = read(text)
    assertions = [s[1] for s in statements if s[0] == "assert"]
    declared = {s[1] for s in statements if s[0] == "declare-const"}
    if declared != set(values):
        raise MalformedError("the property declares other variables than the network has")
    return lambda tolerance: all(holds_first(a, values, tolerance) for a in assertions)


def first_witness(witness: str) -> list[float]:
    """The inputs."""
    lines = read(witness)
    if len(lines) != 1 or not isinstance(lines[0], list):
        raise MalformedError("not one list")
    found: dict[str, list[float]] = {"X": [], "Y": []}
    for pair in lines[0]:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(word, str) for word in pair)):
            raise MalformedError(f"{pair} is not a variable and its value")
        kind, _, place = pair[0].partition("_")
        if kind not in found or place != str(len(found[kind])):
            raise MalformedError(f"{pair[0]} is not the next variable")
        found[kind].append(float(pair[1]))
    return found["X"]


def read(text: str) -> list:
    """All s-expressions: words, and lists of such."""
    stack: list[list] = [[]]
    for word in re.findall(r"[()]|[^\s()]+", re.sub(r";[^\n]*", "", text)):
        if word == "(":
            stack.append([])
        elif word == ")":
            if len(stack) < 2:
                raise MalformedError("a bracket too many")
            stack[-2].append(stack.pop())
        else:
            stack[-1].append(word)
    if len(stack) > 1:
        raise MalformedError("a bracket is not closed")
    return stack[0]


def holds_first(formula, values, tolerance):
    """Of a formula of version 1; the tolerance is for comparisons of inputs alone."""
    head, *parts = formula
    if head in ("and", "or"):
        return (all if head == "and" else any)(holds_first(part, values, tolerance) for part in parts)
    left, right = (term(part, values) for part in parts)
    if "Y_" in str(parts):
        tolerance, left, right = 0.0, float(left), float(right)
    if head in ("<=", "<"):
        return COMPARISONS[head](left, right + tolerance)
    return COMPARISONS[head](left, right - tolerance)


def term(part, values):
    """A number, of the model's type if a variable is in it; floats adapt to that as in NumPy 2."""
    if isinstance(part, str):
        return values[part] if part in values else float(part)
    head, *rest = part
    numbers = [term(word, values) for word in rest]
    if head == "-" and len(numbers) == 1:
        return -numbers[0]
    return reduce({"+": operator.add, "-": operator.sub, "*": operator.mul}[head], numbers)


# Version 2.


def check_second(witness, onnx_field, text):
    """Whether a witness in the standard's text form holds, by tolerance."""
    query = vnnlib.parse_query_string(text)
    values = second_witness(witness, query)
    paths = network_paths(query, onnx_field)
    for network in query.networks:
        values |= evaluate(network, contents(paths[network.name]), values)
    inputs = {d.name for network in query.networks for d in network.inputs}
    return lambda tolerance: all(
        holds_second(a.expr, values, tolerance if names(a.expr) <= inputs else 0.0) for a in query.assertions
    )


def second_witness(witness, query):
    """Every declared tensor, in order, with its exact type and shape."""
    lines = [line.strip() for line in witness.splitlines() if line.strip()]
    values, place = {}, 0
    definitions = [d for n in query.networks for d in (*n.inputs, *n.hidden, *n.outputs)]
    for definition in definitions:
        found = HEADER.fullmatch(lines[place]) if place < len(lines) else None
        if found is None or found[1] != definition.name:
            raise MalformedError(f"expected {definition.name}")
        kind = TYPES[definition.dtype.name]
        if found[2].lower() not in {kind, "real" if "float" in kind else kind}:
            raise MalformedError(f"{definition.name} has type {found[2]}, expected {kind}")
        if [int(d) for d in found[3].split(",") if d.strip()] != list(definition.shape):
            raise MalformedError(f"{definition.name} has shape [{found[3]}]")
        size = math.prod(definition.shape)
        numbers = lines[place + 1 : place + 1 + size]
        if len(numbers) < size:
            raise MalformedError(f"too few values of {definition.name}")
        exact = int if "int" in kind else float
        numpy_type = {"real": "float64"}.get(kind, kind)
        values[definition.name] = np.array([exact(n) for n in numbers], numpy_type).reshape(definition.shape)
        place += 1 + size
    if place < len(lines):
        raise MalformedError(f"unexpected: {lines[place]}")
    return values


def network_paths(query, onnx_field):
    """The file of each network."""
    if not onnx_field.startswith("["):
        return {network.name: onnx_field for network in query.networks}
    given = dict(ast.literal_eval(onnx_field))
    if not set(given) <= {network.name for network in query.networks}:
        raise MalformedError("a network that is not declared")
    return given | {n.name: given[n.equal_to] for n in query.networks if n.equal_to}


def evaluate(network, model, values):
    """Inputs in the model's type, and all other tensors as onnxruntime computes them."""
    hidden = [definition.onnx_name.strip('"') for definition in network.hidden]
    outputs = [end.name for end in onnx.load_model_from_string(model).graph.output]
    session = onnxruntime.InferenceSession(with_outputs(model, hidden), providers=["CPUExecutionProvider"])
    signatures = session.get_inputs()
    if len(signatures) != len(network.inputs) or len(outputs) != len(network.outputs):
        raise MalformedError(f"{network.name} has other inputs or outputs")
    found = {
        d.name: values[d.name].astype(RUNTIME_TYPES[signature.type])
        for d, signature in zip(network.inputs, signatures, strict=True)
    }
    feeds = {s.name: found[d.name] for d, s in zip(network.inputs, signatures, strict=True)}
    results = session.run([*hidden, *outputs], feeds)
    for definition, array in zip((*network.hidden, *network.outputs), results, strict=True):
        found[definition.name] = np.asarray(array).reshape(definition.shape)
    return found


def with_outputs(model: bytes, tensors: Sequence[str]) -> bytes:
    """The model with some tensors as further outputs."""
    if not tensors:
        return model
    proto = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model))
    known = {value.name: value for value in proto.graph.value_info}
    present = {end.name for end in proto.graph.output}
    proto.graph.output.extend(known[name] for name in tensors if name not in present)
    return proto.SerializeToString()


def names(expression) -> set[str]:
    """Of the tensors in an expression."""
    if type(expression).__name__ == "Var":
        return {expression.name}
    return set().union(*(names(child) for child in expression.children()))


def holds_second(formula, values, tolerance):
    """Of a formula of the reference parser."""
    kind = type(formula).__name__
    if kind in ("And", "Or"):
        parts = (holds_second(part, values, tolerance) for part in formula.args)
        return (all if kind == "And" else any)(parts)
    left, right = number(formula.lhs, values), number(formula.rhs, values)
    word = KINDS[kind]
    if word in ("==", "!="):
        return bool(abs(left - right) <= tolerance) == (word == "==")
    return bool(COMPARISONS[word](left, right + tolerance if "<" in word else right - tolerance))


def number(expression, values):
    """Of an arithmetic expression."""
    kind = type(expression).__name__
    if kind == "Var":
        return values[expression.name][tuple(expression.indices)]
    if kind == "Negate":
        return -number(expression.expr, values)
    if kind == "Minus":
        return reduce(operator.sub, [number(e, values) for e in (expression.head, *expression.rest)])
    if kind in ("Plus", "Multiply"):
        parts = [number(e, values) for e in expression.args]
        return reduce(operator.add if kind == "Plus" else operator.mul, parts)
    return float(expression.lexeme) if kind == "Literal" else expression.value
