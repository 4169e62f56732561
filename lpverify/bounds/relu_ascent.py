"""Ascent in alpha and beta where every nonlinear node is a ReLU: proposals only, as fast as they come.

Accepts: networks of affine nodes and ReLUs with boxes, rows of one value, split constraints.
Method: projected supergradient ascent (`bounds.adam`) on the bounds of
alpha-CROWN (Xu et al. 2021, arXiv:2011.13824, section 3) and beta-CROWN (Wang et al. 2021,
arXiv:2103.06624, section 3.3).
One backward pass finds which line each neuron takes, one pass forward the point at which the linear bound is
attained; the value of the relaxed problem's objective there is the bound itself, and the point gives all
gradients (Danskin's theorem): d bound / d alpha = max(a, 0) z, d bound / d beta = -s z.
Guarantee: none for the values, which ignore rounding. The multipliers are admissible by projection, and
whoever uses them bounds the rows again (`bounds.alpha.bound_rows`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lpverify.bounds.adam import Adam
from lpverify.bounds.linear import Sides
from lpverify.interval import Array, Box, namespace
from lpverify.multipliers import Multipliers, Schedule
from lpverify.network import Network, repeat
from lpverify.ops.base import AffineOp
from lpverify.ops.piecewise import Relu


def applies(network: Network, value: int) -> bool:
    """Whether all that a value depends on are affine nodes and ReLUs."""
    ops = (network.nodes[k].op for k in network.ancestors[value] if k)
    return all(isinstance(op, (AffineOp, Relu)) for op in ops)


@dataclass(frozen=True)
class _Lines:
    """Of one ReLU, `(B, 1, *shape)`: the upper line, and which neurons have a choice of lower lines."""

    slope: Array
    intercept: Array
    free: Array


@dataclass
class Ascended:
    """Where an ascent ended.

    Attributes:
        value: The best values, `(B, R)` float64.
        multipliers: The best multipliers, row by row.
        coefficients: For each ReLU those on its result, `(B, R, *shape)`, at the last iterate.
        primal: All values `(B, R, *shape)` where the last iterate's bound is attained.
    """

    value: Array
    multipliers: Multipliers
    coefficients: Mapping[int, Array]
    primal: Mapping[int, Array]


class ReluAscent:
    """The relaxed problem of some rows of a value on a batch of regions.

    Args:
        network: Weights in the type of the coefficients.
        rows: `(B, R, *shape of the value)`.
        value: Which one.
        box: Of the inputs, `(B, n)` in the type of the coefficients, like all others.
        boxes: Of the ReLUs' operands, `(B, *shape)`.
        splits: For split values the side that each element is on.
    """

    def __init__(
        self,
        network: Network,
        rows: Array,
        value: int,
        box: Box,
        boxes: Mapping[int, Box],
        splits: Mapping[int, Sides],
    ) -> None:
        self.network, self.rows, self.value = network, rows, value
        self.order = sorted(network.ancestors[value] - {0})
        self.signs = {k: sides.sign[:, None] for k, sides in splits.items() if k in self.order}
        self.points = {
            k: namespace(rows).astype(splits[k].point, rows.dtype)[:, None]
            for k in self.signs
            if splits[k].point is not None
        }
        relus = [k for k in self.order if isinstance(network.nodes[k].op, Relu)]
        self.lines = {k: self._lines(boxes[network.nodes[k].inputs[0]]) for k in relus}
        self.ends = (box.lower[:, None], box.upper[:, None])

    @staticmethod
    def _lines(box: Box) -> _Lines:
        op, box = Relu(), Box(box.lower[:, None], box.upper[:, None])
        lines, xp = op.relax(box, None), namespace(box.lower)
        free = xp.astype(op.unstable(box), lines.upper_slope.dtype)
        return _Lines(lines.upper_slope, lines.upper_intercept, free)

    def climb(self, start: Multipliers, schedule: Schedule, done: Callable[[Array], bool]) -> Ascended:
        """Ascends from `start`; `done` is asked with the best values `(B, R)` so far."""
        alpha = {k: self._fixed(k, v) for k, v in start.alpha.items() if k in self.lines}
        beta = {k: 1.0 * v for k, v in start.beta.items() if k in self.signs}
        adam = Adam()
        best: tuple[Array, Multipliers] | None = None
        for step in range(schedule.steps + 1):
            value, coefficients, primal = self._evaluate(alpha, beta)
            best = self._best(best, value, alpha, beta)
            if step == schedule.steps or done(best[0]):
                break
            rate = schedule.decay**step
            for k in alpha.keys() & coefficients.keys():
                gradient = coefficients[k].clip(0.0, None)
                gradient *= primal[self.network.nodes[k].inputs[0]]
                gradient *= self.lines[k].free
                move = adam.direction(("alpha", k), gradient, step + 1)
                _go(alpha[k], move, schedule.alpha_rate * rate, 1.0)
            for k in beta:
                gradient = -self._beyond(k, primal) * self.signs[k]
                move = adam.direction(("beta", k), gradient, step + 1)
                _go(beta[k], move, schedule.beta_rate * rate, None)
        assert best is not None
        found = Multipliers({**start.alpha, **best[1].alpha}, {**start.beta, **best[1].beta})
        return Ascended(best[0], found, coefficients, primal)

    def values(self, multipliers: Multipliers) -> Array:
        """The bounds `(B, R)` with these multipliers, by a backward pass alone."""
        alpha = {k: self._fixed(k, v) for k, v in multipliers.alpha.items() if k in self.lines}
        beta = {k: v for k, v in multipliers.beta.items() if k in self.signs}
        xp, constant = namespace(self.rows), _Constant()
        *_, a = self._backward(alpha, beta, constant)
        return constant.total if a is None else constant.total + _sum(a, xp.where(a > 0, *self.ends))

    def _beyond(self, k: int, primal: Mapping[int, Array]) -> Array:
        """How far a split value is from the point of its split."""
        return primal[k] - self.points[k] if k in self.points else primal[k]

    def _fixed(self, k: int, alpha: Array) -> Array:
        """A copy, with the slope of the line in neurons without a choice."""
        lines, xp = self.lines[k], namespace(alpha)
        return xp.where(lines.free > 0, alpha, lines.slope)

    def _evaluate(
        self, alpha: Mapping[int, Array], beta: Mapping[int, Array]
    ) -> tuple[Array, dict[int, Array], dict[int, Array]]:
        """Bounds `(B, R)`, coefficients on the ReLUs' results and the point where the bounds are attained."""
        xp = namespace(self.rows)
        coefficients, slopes, a = self._backward(alpha, beta, None)
        corner = xp.broadcast_to(self.ends[0], (*self.rows.shape[:2], self.ends[0].shape[2]))
        corner = corner if a is None else xp.where(a > 0, *self.ends)
        primal = self._primal(corner, coefficients, slopes)
        return self._value(primal, beta), coefficients, primal

    def _backward(
        self, alpha: Mapping[int, Array], beta: Mapping[int, Array], constant: "_Constant | None"
    ) -> tuple[dict[int, Array], dict[int, Array], Array | None]:
        """Coefficients on the ReLUs' results, the slopes they take, and coefficients on the inputs."""
        xp, nodes = namespace(self.rows), self.network.nodes
        pending, coefficients, slopes = {self.value: self.rows}, dict[int, Array](), dict[int, Array]()
        for k in reversed(self.order):
            a = pending.pop(k, None)
            if k in beta:
                term = beta[k] * -self.signs[k]
                a = term if a is None else a + term
                if constant is not None and k in self.points:
                    constant.add(-term, self.points[k])
            if a is None:
                continue
            op = nodes[k].op
            if k in self.lines:
                coefficients[k] = a
                slopes[k] = xp.where(a < 0, self.lines[k].slope, alpha[k])
                parts = (a * slopes[k],)
                if constant is not None:
                    constant.add(a.clip(None, 0.0), self.lines[k].intercept)
            else:
                assert isinstance(op, AffineOp)
                flat = op.adjoint(a.reshape((-1, *a.shape[2:])))
                parts = tuple(p.reshape((*a.shape[:2], *p.shape[1:])) for p in flat)
                if constant is not None and op.offset is not None:
                    constant.add(a, op.offset)
            for i, part in zip(nodes[k].inputs, parts, strict=True):
                pending[i] = pending[i] + part if i in pending else part
        return coefficients, slopes, pending.get(0)

    def _primal(
        self, corner: Array, coefficients: Mapping[int, Array], slopes: Mapping[int, Array]
    ) -> dict[int, Array]:
        """All values `(B, R, *shape)` from a corner of the input box, ReLUs on the lines that are taken."""
        xp, lead = namespace(corner), corner.shape[:2]
        total, values = lead[0] * lead[1], {0: corner}
        for k in self.order:
            node = self.network.nodes[k]
            operands = [values[i] for i in node.inputs]
            if k in slopes:
                lines, value = self.lines[k], operands[0] * slopes[k]
                value += xp.where(coefficients[k] < 0, lines.intercept, xp.zeros_like(lines.intercept))
                values[k] = value
                continue
            flat = node.op.forward(*(v.reshape((total, *v.shape[2:])) for v in operands))  # type: ignore[union-attr]
            values[k] = repeat(flat, total).reshape((*lead, *node.shape))
        return values

    def _value(self, primal: Mapping[int, Array], beta: Mapping[int, Array]) -> Array:
        """The Lagrangian at the point."""
        value = _sum(self.rows, primal[self.value])
        for k, array in beta.items():
            value = value - _sum(array * self.signs[k], self._beyond(k, primal))
        return value

    def _best(
        self,
        best: tuple[Array, Multipliers] | None,
        value: Array,
        alpha: Mapping[int, Array],
        beta: Mapping[int, Array],
    ) -> tuple[Array, Multipliers]:
        """Per row the better of what was best and the present iterate."""
        xp = namespace(value)
        if best is None:
            copies = ({k: 1.0 * v for k, v in arrays.items()} for arrays in (alpha, beta))
            return value, Multipliers(*copies)
        better = value > best[0]
        for old, new in ((best[1].alpha, alpha), (best[1].beta, beta)):
            for k, array in new.items():
                old[k][better] = array[better]
        return xp.where(better, value, best[0]), best[1]


@dataclass
class _Constant:
    """The constant of a backward pass, `(B, R)` float64."""

    total: Array = 0.0

    def add(self, a: Array, v: Array) -> None:
        self.total = self.total + _sum(a, v)


def _sum(a: Array, v: Array) -> Array:
    """`a . v` over the value axes, `(B, R)` float64."""
    return namespace(a).sum((a * v).reshape((*a.shape[:2], -1)), axis=2, dtype=namespace(a).float64)


def _go(array: Array, move: Array, rate: float, most: float | None) -> None:
    """One projected step, in place."""
    move *= rate
    move += array
    array[...] = move.clip(0.0, most)
