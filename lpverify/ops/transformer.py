"""Attention, rotary embeddings and gated activations: graphs of simpler ops."""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.ops.activations import Swish, Tanh
from lpverify.ops.base import Constant, GraphBuilder, OnnxNode, importer
from lpverify.ops.bilinear import product
from lpverify.ops.composite import softmax
from lpverify.ops.linear import ROUNDING, Combine, align, divide_constant, multiply_constant, shift
from lpverify.ops.matrix import matrix_product
from lpverify.ops.shape import Concat, Gather, Transpose, operand_value, reshape_to, take_range

SWAPPED = (0, 2, 1, 3)  # sequence and heads


@importer("SwiGLU", 28)
def swiglu(node: OnnxNode, graph: GraphBuilder) -> int:
    """`swish(a) b`."""
    alpha = float(np.float32(node.attribute("alpha", 1.0)))
    if not alpha > 0:
        raise UnsupportedError("alpha must be positive")
    gate, linear = operand_value(node, 0, graph), operand_value(node, 1, graph)
    return product(graph.add(Swish(alpha), [gate]), linear, graph)


def _with_heads(value: int, heads: int | None, graph: GraphBuilder) -> int:
    """A value `(batch, sequence, heads * size)` as `(batch, heads, sequence, size)`; others as they are."""
    shape = graph.shape(value)
    if len(shape) == 4:
        return value
    if not heads or shape[2] % heads:
        raise ValueError(f"{shape[2]} elements for {heads} heads")
    split = reshape_to(value, (*shape[:2], heads, shape[2] // heads), graph)
    return graph.add(Transpose(SWAPPED), [split])


def _without_heads(value: int, graph: GraphBuilder) -> int:
    batch, heads, length, size = graph.shape(value)
    joined = graph.add(Transpose(SWAPPED), [value])
    return reshape_to(joined, (batch, length, heads * size), graph)


@importer("RotaryEmbedding", 23)
def rotary_embedding(node: OnnxNode, graph: GraphBuilder) -> int:
    """Pairs of elements rotated by constant angles."""
    flat = len(graph.shape(node.value())) == 3
    value = _with_heads(node.value(), node.attribute("num_heads"), graph)
    size = node.attribute("rotary_embedding_dim", 0) or graph.shape(value)[3]
    tables = [node.constant(1), node.constant(2)]
    positions = node.optional(3)
    if positions is not None:
        tables = [Constant(t.array[positions.array], t.error) for t in tables]
    cosine, sine = (Constant(t.array[:, None], t.error) for t in tables)
    step = 2 if node.attribute("interleaved", 0) else 1
    first = range(0, size, 2) if step == 2 else range(size // 2)
    second = range(1, size, 2) if step == 2 else range(size // 2, size)
    x, y = (take_range(value, 3, part, graph) for part in (first, second))
    turned = [
        _combined(sign, (x, one), (y, two), graph)
        for sign, one, two in ((-1, cosine, sine), (1, sine, cosine))
    ]
    rest = range(size, graph.shape(value)[3])
    turned += [take_range(value, 3, rest, graph)] if rest else []
    result = graph.add(Concat(3, tuple(graph.shape(t)[3] for t in turned)), turned)
    order = np.argsort(np.r_[np.array(first), np.array(second), np.array(rest, np.int64)], kind="stable")
    if step == 2:
        result = graph.add(Gather(tuple(order.tolist()), 3, graph.shape(result)), [result])
    return _without_heads(result, graph) if flat else result


def _combined(sign: int, one: tuple[int, Constant], two: tuple[int, Constant], graph: GraphBuilder) -> int:
    """`c x + sign s y`."""
    terms = [multiply_constant(value, constant, graph) for value, constant in (one, two)]
    return graph.add(Combine((1, sign)), terms)


@dataclass(frozen=True)
class _Masks:
    """Which keys a query may attend to.

    Attributes:
        allowed: Booleans that broadcast against the scores; None: all.
        summand: An operand of the node that is added to the scores, None if there is none.
    """

    allowed: np.ndarray | None
    summand: Constant | int | None


def _near(node: OnnxNode, queries: int, keys: int, past: int) -> np.ndarray:
    """The keys that causality, windows and padding leave to each query."""
    valid = node.optional(6)
    lengths = None if valid is None else valid.array.reshape(-1, 1, 1, 1)
    offset = np.full((1, 1, 1, 1), past) if lengths is None or past else lengths - queries
    ahead = np.arange(keys) - (np.arange(queries)[:, None] + offset)
    left, right = node.attribute("left_window_size", -1), node.attribute("right_window_size", -1)
    allowed = np.ones(ahead.shape, bool)
    if node.attribute("is_causal", 0):
        allowed = allowed & (ahead <= 0)
    if left >= 0:
        allowed = allowed & (ahead >= -left)
    if right >= 0:
        allowed = allowed & (ahead <= right)
    return allowed if lengths is None else allowed & (np.arange(keys) < lengths)


def _masks(node: OnnxNode, queries: int, keys: int, past: int) -> _Masks:
    """From the mask operand and all that is near."""
    allowed, mask = _near(node, queries, keys, past), node.operand(3)
    width = keys if mask is None else node.shapes[3][-1]
    if mask is not None and width != keys:
        allowed = allowed & (np.arange(keys) < width)
        mask = _padded(mask, keys - width)
    if isinstance(mask, Constant) and mask.array.dtype == bool:
        allowed, mask = allowed & mask.array, None
    if not allowed.any(-1).all():
        raise UnsupportedError("a query that attends to nothing")
    return _Masks(None if allowed.all() else allowed, mask)


def _padded(mask: Constant | int, count: int) -> Constant:
    """Zeros after the mask, where nothing is allowed."""
    if not isinstance(mask, Constant):
        raise UnsupportedError("a computed mask shorter than the keys")
    pads = [(0, 0)] * (mask.array.ndim - 1) + [(0, count)]
    return Constant(np.pad(mask.array, pads), mask.error)


def _cached(node: OnnxNode, index: int, value: int, graph: GraphBuilder) -> tuple[int, int]:
    """Past keys or values before the new ones, and how many there are."""
    if node.operand(index) is None:
        return value, 0
    past = operand_value(node, index, graph)
    sizes = graph.shape(past)[2], graph.shape(value)[2]
    return graph.add(Concat(2, sizes), [past, value]), sizes[0]


def _repeated(value: int, heads: int, graph: GraphBuilder) -> int:
    """Each head of keys or values for several heads of queries."""
    have = graph.shape(value)[1]
    if have == heads:
        return value
    if heads % have:
        raise ValueError(f"{heads} heads of queries for {have} of keys")
    chosen = tuple(h // (heads // have) for h in range(heads))
    return graph.add(Gather(chosen, 1, graph.shape(value)), [value])


def _capped(scores: int, node: OnnxNode, graph: GraphBuilder) -> int:
    """`cap tanh(scores / cap)`."""
    cap = float(np.float32(node.attribute("softcap", 0.0)))
    if cap <= 0:
        return scores
    constant = Constant(np.asarray(cap))
    return multiply_constant(graph.add(Tanh(), [divide_constant(scores, constant, graph)]), constant, graph)


def _biased(scores: int, summand: Constant | int | None, graph: GraphBuilder) -> int:
    if summand is None:
        return scores
    if isinstance(summand, Constant):
        return graph.add(shift(np.asarray(summand.array, np.float64), summand.error), [scores])
    return graph.add(Combine((1, 1)), [scores, align(summand, graph.shape(scores), graph)])


@importer("Attention", 23, 24, 25)
def attention(node: OnnxNode, graph: GraphBuilder) -> list[int]:
    """`softmax(q k' scale + mask) v` a head; also the cached keys and values, and some scores."""
    heads = node.attribute("q_num_heads"), node.attribute("kv_num_heads"), node.attribute("kv_num_heads")
    query, key, value = (_with_heads(operand_value(node, i, graph), heads[i], graph) for i in range(3))
    key, past = _cached(node, 4, key, graph)
    value, _ = _cached(node, 5, value, graph)
    present = [key, value]
    key, value = (_repeated(v, graph.shape(query)[1], graph) for v in present)
    scale = node.attribute("scale")
    factor = Constant(np.asarray(1 / sqrt(graph.shape(query)[3])), ROUNDING)
    factor = factor if scale is None else Constant(np.asarray(float(np.float32(scale))))
    query = multiply_constant(query, factor, graph)
    stages = [matrix_product(query, graph.add(Transpose((0, 1, 3, 2)), [key]), graph)]
    stages.append(_capped(stages[0], node, graph))
    queries, keys = graph.shape(stages[0])[2:]
    masks = _masks(node, queries, keys, past)
    stages.append(_biased(stages[1], masks.summand, graph))
    stages.append(softmax(stages[2], graph, masks.allowed))
    mode = node.attribute("qk_matmul_output_mode", 0)
    if mode == 2 and masks.allowed is not None and node.outputs > 3:
        raise UnsupportedError("infinite scores as an output")
    result = matrix_product(stages[3], value, graph)
    if len(node.shapes[0]) == 3:
        result = _without_heads(result, graph)
    return [result, *present, stages[mode]]
