"""`If`, `Loop` and `Scan`: their bodies are put into the graph around them, once for each iteration.

That needs conditions and numbers of iterations that are constant; others are refused.
"""

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from lpverify.errors import OnnxError, UnsupportedError
from lpverify.io.scopes import Scope, Step, Steps
from lpverify.io.symbols import Symbols


def if_steps(step: Step, symbols: Symbols) -> Steps:
    """The branch that a constant condition takes."""
    taken = bool(_scalar(symbols, step.node.input[0], "the condition of If"))
    branch = step.graph("then_branch" if taken else "else_branch")
    if branch.input or len(branch.output) != len(step.node.output):
        raise OnnxError(f"{step.label}: the branch does not fit its results")
    scope = step.scope.inner(symbols.names.fresh())
    yield from _body(branch, scope, step, symbols)
    for output, target in zip(branch.output, step.node.output, strict=True):
        if target:
            yield scope.alias(scope.use(output.name), target, step.label)


def loop_steps(step: Step, symbols: Symbols) -> Steps:
    """The iterations one after the other, scan outputs stacked.

    Without a condition at the start the standard ignores the one that the body computes, and onnxruntime
    does not; there it must stay true.
    """
    limit, start, *carried = [*step.node.input, "", ""][: max(2, len(step.node.input))]
    trips = int(_scalar(symbols, limit, "the trip count of Loop")) if limit else None
    going = bool(_scalar(symbols, start, "the condition of Loop")) if start else True
    run = _Iterations(step, symbols, carried, leading=1)
    while going and (trips is None or run.done < trips):
        counters = [
            run.constant(np.full(_rank(formal), value))
            for formal, value in zip(run.body.input, (run.done, True), strict=False)
        ]
        condition = yield from run.once([*counters, *run.carried])
        going = bool(_scalar(symbols, condition[0], "the condition of Loop"))
        if not (going or start):
            raise UnsupportedError("a Loop that its body ends, without a condition at the start")
    yield from run.finish([0] * len(run.stacks))


def scan_steps(step: Step, symbols: Symbols) -> Steps:
    """The iterations over slices of the scan inputs, one after the other."""
    if step.opset < 9:
        raise UnsupportedError("Scan before opset 9")
    count = sum(a.i for a in step.node.attribute if a.name == "num_scan_inputs")
    given = {a.name: list(a.ints) for a in step.node.attribute}
    if not 0 < count <= len(step.node.input):
        raise OnnxError(f"{step.label}: num_scan_inputs is {count}")
    carried, inputs = list(step.node.input[:-count]), list(step.node.input[-count:])
    run = _Iterations(step, symbols, carried, leading=0)
    zeros = [0] * max(count, len(run.stacks))
    axes = given.get("scan_input_axes") or zeros[:count]
    lengths = {symbols.shape(name)[axis] for name, axis in zip(inputs, axes, strict=True)}
    if len(lengths) != 1:
        raise OnnxError(f"{step.label}: the scan inputs have different lengths")
    backward = given.get("scan_input_directions") or zeros[:count]
    length = lengths.pop()
    for position in range(length):
        slices = []
        for name, axis, back in zip(inputs, axes, backward, strict=True):
            index = run.constant(np.array(length - 1 - position if back else position))
            slices.append(symbols.names.fresh())
            yield step.scope.emit("Gather", [name, index], slices[-1], step.label, axis=axis)
        yield from run.once([*run.carried, *slices])
    run.turn(given.get("scan_output_directions") or zeros[: len(run.stacks)])
    yield from run.finish(given.get("scan_output_axes") or zeros[: len(run.stacks)])


class _Iterations:
    """The iterations of one node so far.

    Args:
        step: The node.
        symbols: The importer's.
        carried: Tensors that an iteration hands to the next.
        leading: Results of the body before those.

    Attributes:
        body: The graph that is repeated.
        stacks: For each result that is collected the tensors of all iterations.
        done: How many iterations there were.
    """

    def __init__(self, step: Step, symbols: Symbols, carried: Sequence[str], leading: int) -> None:
        self.step, self.symbols, self.body = step, symbols, step.graph("body")
        self.carried, self.leading, self.done = list(carried), leading, 0
        collected = len(self.body.output) - len(carried) - leading
        if collected < 0 or len(step.node.output) > len(carried) + collected:
            raise OnnxError(f"{step.label}: the body does not fit operands and results")
        self.stacks: list[list[str]] = [[] for _ in range(collected)]

    def constant(self, array: np.ndarray) -> str:
        """Adds a constant and returns its name."""
        name = self.symbols.names.fresh()
        self.symbols.define(name, array)
        return name

    def once(self, inputs: Sequence[str]) -> Generator[Step, None, list[str]]:
        """One more iteration; returns the leading results."""
        most = self.symbols.budget.limits.max_trips
        if self.done == most:
            raise UnsupportedError(f"more than {most} iterations")
        if len(self.body.input) != len(inputs):
            raise OnnxError(f"{self.step.label}: the body does not fit its operands")
        scope = self.step.scope.inner(self.symbols.names.fresh())
        for formal, actual in zip(self.body.input, inputs, strict=True):
            scope.bind(formal.name, actual)
        yield from _body(self.body, scope, self.step, self.symbols)
        results = [scope.use(output.name) for output in self.body.output]
        first, last = self.leading, self.leading + len(self.carried)
        self.carried = results[first:last]
        for stack, name in zip(self.stacks, results[last:], strict=True):
            stack.append(name)
        self.done += 1
        return results[:first]

    def turn(self, directions: Sequence[int]) -> None:
        """Reverses the stacks whose direction is 1."""
        for stack, direction in zip(self.stacks, directions, strict=True):
            stack[:] = stack[::-1] if direction else stack

    def finish(self, axes: Sequence[int]) -> Steps:
        """Gives the results their names in the graph around; each stack along its axis."""
        targets = self.step.node.output
        label, scope = self.step.label, self.step.scope
        for name, target in zip(self.carried, targets, strict=False):
            if target:
                yield scope.alias(name, target, label)
        for stack, axis, target in zip(self.stacks, axes, targets[len(self.carried) :], strict=False):
            if target and not stack:
                raise UnsupportedError("a stack of no iterations")
            parts = []
            for name in stack if target else ():
                shape = self.symbols.shape(name)
                place = axis % (len(shape) + 1)
                form = self.constant(np.array([*shape[:place], 1, *shape[place:]], np.int64))
                parts.append(self.symbols.names.fresh())
                yield scope.emit("Reshape", [name, form], parts[-1], label)
            if parts:
                yield scope.emit("Concat", parts, target, label, axis=axis)


def _body(graph: Any, scope: Scope, step: Step, symbols: Symbols) -> Steps:
    """The nodes of a subgraph."""
    symbols.define_initializers(graph, scope)
    for node in graph.node:
        yield scope.step(node, step.label)


def _rank(formal: Any) -> tuple[int, ...]:
    """The shape of a counter: a scalar, or one element if the body declares it so."""
    return (1,) if len(formal.type.tensor_type.shape.dim) == 1 else ()


def _scalar(symbols: Symbols, name: str, what: str) -> Any:
    """The only element of an exact constant."""
    constant = symbols.constant(name, what)
    if constant.array.size != 1 or constant.error:
        raise UnsupportedError(f"{what} is not one exact constant")
    return constant.array.reshape(()).item()
