"""Chooses how to search, by features of the problem: size, convolutions, free inputs, ReLUs."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lpverify.bounds.condense import condense
from lpverify.bounds.evaluate import Arithmetic, double_precision
from lpverify.bounds.farkas import alternative_cases, alternatives
from lpverify.bounds.forward import NEGLIGIBLE
from lpverify.bounds.halfspaces import Table, table_of
from lpverify.bounds.subproblem import Subproblem
from lpverify.config import Config
from lpverify.errors import UnsupportedError
from lpverify.interval import Array
from lpverify.kernels.dense import DenseKernel, extension
from lpverify.multipliers import Effort, Method, Schedule
from lpverify.network import Network
from lpverify.ops.base import AffineOp
from lpverify.ops.convolution import Conv
from lpverify.ops.piecewise import Relu
from lpverify.ops.smooth import SmoothOp
from lpverify.problem import Problem
from lpverify.search.bab import Engine
from lpverify.search.branching import mixed_split, neurons_first
from lpverify.search.layout import Plan
from lpverify.search.lp import MOST_ALTERNATIVES
from lpverify.solvers.highs import Highs

ROOT_ASCENT = 10  # steps in alpha for the boxes of the root
LONG_ASCENT = 40  # those for smooth networks, where that is affordable
WORK_PER_SECOND = 3e9  # multiplications of a backward pass, roughly
DENSE_WORK_PER_SECOND = 4e10  # of products of matrices
ROOT_SHARE, NODE_SHARE = 0.25, 0.1  # of the time left, for the boxes of one batch
FORWARD_BESIDE = 100.0  # gain from which a forward pass is worth its time beside backward bounds
FORWARD_ALONE = 200.0  # and from which it replaces them
FORWARD_ELEMENTS = 2**24  # slopes of the widest value in a forward pass, at most
BATCH_ELEMENTS = 200_000  # elements of nonlinear nodes in one batch; without backward bounds ten times that
SHALLOW = Plan(inputs=False, steps=10, ahead=32, splits=64, cuts=0)  # one hidden layer, many inputs
MOST_COLUMNS, MOST_WORK = 6000, 20_000_000  # of networks whose regions are put into linear programs
FEW_ALTERNATIVES = 16
TORCH_WORK = 2_000_000  # multiplications of one evaluation from which torch pays for its import


def torch_float32(problem: Problem, limit: int, device: str = "cpu") -> Arithmetic:
    """Torch on a device, coefficients in float32."""
    import torch  # noqa: PLC0415  (slow to import)

    def place(array: np.ndarray) -> Array:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    network = problem.network.convert(place, np.float32)
    reference = problem.network.convert(place)
    return Arithmetic(network, reference, place, torch.zeros(1, device=device), limit)


def torch_device(config: Config) -> str:
    """The device that a configuration means.

    Raises:
        UnsupportedError: It asks for CUDA, and torch finds none.
    """
    if config.device == "cpu":
        return "cpu"
    import torch  # noqa: PLC0415  (slow to import)

    found = torch.cuda.is_available()
    if config.device == "cuda" and not found:
        raise UnsupportedError("device cuda: torch finds no CUDA device; use cpu or auto")
    return "cuda" if found else "cpu"


def numpy_float32(problem: Problem, limit: int) -> Arithmetic:
    """NumPy, coefficients in float32."""
    network = problem.network.convert(lambda array: array, np.float32)
    return Arithmetic(network, problem.network, np.asarray, np.zeros(1, np.float32), limit)


def choose_arithmetic(problem: Problem, config: Config) -> Arithmetic:
    """Torch float32 for large convolutional networks, NumPy float64 for the rest."""
    network = problem.network
    convolutional = any(isinstance(n.op, Conv) for n in network.nodes)
    if convolutional and network.work[network.output] > TORCH_WORK:
        return torch_float32(problem, config.max_coefficients * 4, torch_device(config))
    return double_precision(problem, config.max_coefficients)


def bounding_effort(problem: Problem, config: Config, share: float) -> Effort:
    """Forward and backward bounds as they pay; backward ones may take a share of the time left."""
    budget, gain = WORK_PER_SECOND * share * min(config.deadline.remaining, 1e6), forward_gain(problem)
    method: Method = "ibp" if gain >= FORWARD_ALONE else "crown"
    return Effort(method, budget=budget, forward=gain >= FORWARD_BESIDE)


def free_inputs(problem: Problem) -> int:
    """The most inputs that have a range in any case; beside the widest, a rounded number has none."""
    widths = (c.box.upper - c.box.lower for c in problem.cases)
    return max((int((w > NEGLIGIBLE * w.max()).sum()) for w in widths), default=0)


def forward_gain(problem: Problem) -> float:
    """How many times a backward pass for every neuron exceeds a forward pass, one column a free input.

    Zero where the forward pass would not fit into memory.
    """
    network, columns = problem.network, free_inputs(problem) + 4
    widest = max(int(np.prod(node.shape)) for node in network.nodes)
    if columns * widest > FORWARD_ELEMENTS:
        return 0.0
    rows = sum(int(np.prod(network.nodes[k].shape)) for k in network.refinable)
    return 2.0 * rows / columns


@dataclass(frozen=True)
class DenseEngine:
    """What the compiled kernel needs for one problem."""

    kernel: DenseKernel
    table: Table
    plan: Plan


def rectifying(network: Network) -> bool:
    """Whether all nonlinear nodes are ReLUs: their lines cost nothing to move."""
    return all(isinstance(n.op, (AffineOp, Relu)) for n in network.nodes[1:])


def reducible(problem: Problem, roots: Sequence[Subproblem]) -> bool:
    """Whether one root is left, of a few alternatives, of a network of stacked ReLUs: see `bounds.reduce`."""
    if len(roots) != 1 or not rectifying(problem.network) or shallow(problem):
        return False
    return alternative_cases(problem, roots[0].case) is not None


def reduction_effort(config: Config, ascent: int) -> Effort:
    """Backward bounds of unstable neurons through the reduced network, optimised or not."""
    budget = DENSE_WORK_PER_SECOND * ROOT_SHARE * min(config.deadline.remaining, 1e6)
    return Effort("crown", budget=budget, ascent=ascent)


def movable(network: Network) -> bool:
    """Whether all nonlinear nodes have lines that are cheap to move."""
    return all(isinstance(n.op, (AffineOp, Relu, SmoothOp)) for n in network.nodes[1:])


def few_inputs(problem: Problem, config: Config) -> bool:
    """Whether inputs are split rather than neurons."""
    return free_inputs(problem) <= config.input_split_limit


def shallow(problem: Problem) -> bool:
    """Whether there is one hidden layer of ReLUs."""
    return sum(isinstance(n.op, Relu) for n in problem.network.nodes) == 1


def dense_engines(problem: Problem, config: Config) -> tuple[DenseEngine, ...]:
    """The compiled kernel with each plan by which it may search better than the general engine.

    Few free inputs are split. With one hidden layer and many inputs the phases of its neurons are, where the
    row's bound depends on the multipliers alone. Many inputs are split only where atoms have to hold
    together: then each split clips the other inputs' ranges, as a unit clause would.
    """
    few, together = few_inputs(problem, config), conjunctive(problem)
    plans = (Plan(),) if few else (SHALLOW,) * shallow(problem) + (Plan(),) * together
    if extension() is None or not plans:
        return ()
    graph = condense(problem.network)
    table = None if graph is None else table_of(problem)
    if graph is None or table is None:
        return ()
    return tuple(DenseEngine(DenseKernel(graph), table, plan) for plan in plans)


def conjunctive(problem: Problem) -> bool:
    """Whether in every case all alternatives have several atoms."""
    found = (alternatives(problem, i, FEW_ALTERNATIVES) for i in range(len(problem.cases)))
    return all(a is not None and min(map(len, a), default=0) > 1 for a in found)


def suits_programs(problem: Problem, roots: Sequence[Subproblem]) -> bool:
    """Whether linear programs of whole regions are small enough to be solved thousands of times."""
    network = problem.network
    size = sum(int(np.prod(n.shape)) for n in network.nodes if isinstance(n.op, Relu)) + network.input_size
    if not rectifying(network) or size > MOST_COLUMNS or network.work[network.output] > MOST_WORK:
        return False
    return all(alternatives(problem, r.case, MOST_ALTERNATIVES) is not None for r in roots)


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_engine(problem: Problem, arithmetic: Arithmetic, config: Config) -> Engine:
    """Input bisection where few inputs are free, splits of neurons otherwise."""
    network = problem.network
    backward = bounding_effort(problem, config, NODE_SHARE)
    neurons = sum(int(np.prod(network.nodes[k].shape)) for k in network.activations)
    if few_inputs(problem, config):
        size = BATCH_ELEMENTS * (1 if backward.method == "crown" else 10)
        batch = int(np.clip(size // max(1, neurons), 1, 256))
        return Engine(arithmetic, backward, backward, mixed_split, batch, True, Highs())
    batch = int(np.clip(60_000 // max(1, neurons), 1, 32))
    root, effort = replace(backward, schedule=Schedule(steps=20)), Effort("ibp", Schedule(steps=10))
    return Engine(arithmetic, root, effort, neurons_first, batch, False, Highs())
