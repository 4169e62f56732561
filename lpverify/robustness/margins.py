"""The leads of labels over their rivals as the last value of a network, bounded for many samples at once.

A case of the problem stands for a label: its atoms are `output of the label - output of a rival <= 0`. Where
samples lie is up to the regions that are bounded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from math import prod

import numpy as np

from lpverify.bounds.evaluate import Arithmetic, to_numpy
from lpverify.bounds.propagate import Region, propagate
from lpverify.condition import OR, Condition
from lpverify.config import Config
from lpverify.errors import InputError, UnsupportedError
from lpverify.forms import Forms, append_forms
from lpverify.interval import Box
from lpverify.io.onnx import Model
from lpverify.multipliers import Effort
from lpverify.problem import Case, Problem, Range
from lpverify.query import And, Query
from lpverify.robustness.samples import Samples
from lpverify.robustness.threat import Threat, lead
from lpverify.search.engines import choose_arithmetic
from lpverify.simplify import simplify
from lpverify.simplify.fold_differences import fold_differences

BATCH_ELEMENTS = 4_000_000  # of all values, in all regions of a batch
LARGEST_BATCH = 256


def classes_of(model: Model) -> int:
    """The number of outputs of a classifier.

    Raises:
        InputError: The model has several inputs or outputs, or a single number as its output.
    """
    if len(model.inputs.shapes) != 1 or len(model.outputs.shapes) != 1:
        found = f"{len(model.inputs.shapes)} inputs and {len(model.outputs.shapes)} outputs"
        raise InputError(
            f"a classifier has one input and one output, {model.path or 'this network'} has {found}"
        )
    size = model.outputs.sizes[0]
    if size < 2:
        raise InputError(
            f"a classifier has an output for each class, {model.path or 'this network'} has {size}"
        )
    return size


@dataclass(frozen=True)
class Margins:
    """A network whose result has the leads, and where to compute.

    Attributes:
        problem: A case for each label that occurs; their boxes mean nothing.
        samples: The data set.
        threat: Balls and rivals.
        config: Where to compute.
    """

    problem: Problem
    samples: Samples
    threat: Threat
    config: Config

    @classmethod
    def of(cls, model: Model, samples: Samples, threat: Threat, config: Config) -> "Margins":
        """Of a model and what is asked about it.

        Raises:
            InputError: The model is no classifier, or the samples or the threat are not made for it.
            UnsupportedError: It can't be bounded.
        """
        network, n = model.network, model.network.input_size
        if classes_of(model) != threat.classes:
            raise InputError(f"the threat has {threat.classes} classes, the network {classes_of(model)}")
        if samples.x.shape[1] != n:
            raise InputError(f"samples have {samples.x.shape[1]} elements, the network takes {n}")
        if len(network.nodes[network.output].shape) != 1:
            raise UnsupportedError("the output is not flat")
        if network.ranked is not None:  # such as what a softmax is applied to: leads have the same signs
            network = replace(network, output=network.ranked)
        forms, labels = Forms(), sorted(set(samples.y.tolist()))
        rows = [[forms.number(lead(n, label, r)) for r in threat.rivals(label)] for label in labels]
        query = Query(n, threat.classes, And(()))
        extended = simplify(append_forms(network, forms, query))
        return cls(Problem(extended, tuple(map(_case, rows)), query), samples, threat, config)

    @cached_property
    def arithmetic(self) -> Arithmetic:
        """Where and how precisely coefficients are computed."""
        return choose_arithmetic(self.problem, self.config)

    @cached_property
    def _elided(self) -> Arithmetic:
        """For intervals."""
        network = fold_differences(self.problem.network)
        return choose_arithmetic(replace(self.problem, network=network), self.config)

    @cached_property
    def _places(self) -> dict[int, int]:
        return {label: i for i, label in enumerate(sorted(set(self.samples.y.tolist())))}

    def cases(self, samples: Sequence[int]) -> np.ndarray:
        """The case of each sample's label."""
        return np.array([self._places[int(self.samples.y[i])] for i in samples], np.int64)

    @property
    def batch(self) -> int:
        """How many regions to bound together."""
        size = sum(prod(node.shape) for node in self.problem.network.nodes)
        return int(np.clip(BATCH_ELEMENTS // max(size, 1), 1, LARGEST_BATCH))

    def region(self, samples: Sequence[int], eps: Sequence[Fraction]) -> Region:
        """Where adversaries may go, a region for each sample."""
        region = self.threat.region(self.samples.x[list(samples)], eps)
        box = self.arithmetic.box(region.box.lower, region.box.upper)
        ball = region.ball
        if ball is not None and not isinstance(self.arithmetic.like, np.ndarray):
            place = self.arithmetic.place
            ball = replace(ball, centre=place(ball.centre), radius=place(ball.radius))
        return Region(box, ball=ball)

    @np.errstate(over="ignore", invalid="ignore")  # boxes may be unbounded; what is undefined proves nothing
    def intervals(self, samples: Sequence[int], eps: Sequence[Fraction]) -> np.ndarray:
        """Certified lower bounds `(B,)` of the smallest leads by interval arithmetic.

        Where the last layer is a matrix, leads are differences of its rows: the elision of IBP training.
        """
        arithmetic, region = self._elided, self.region(samples, eps)
        parts = (arithmetic.limit, arithmetic.reference, arithmetic.like)
        frame = propagate(arithmetic.network, region, Effort("ibp"), *parts)
        lower = to_numpy(frame.boxes[frame.network.output].lower)
        cases = [self.problem.cases[c] for c in self.cases(samples)]
        return np.array([low[case.forms].min() for low, case in zip(lower, cases, strict=True)])


def _case(rows: Sequence[int]) -> Case:
    """The case in which some of the forms is not positive."""
    count = len(rows)
    condition = Condition((*((i, 0) for i in range(count)), (OR, count)))
    nowhere = Box(np.zeros(0), np.zeros(0))
    bounds, strict = np.zeros(count), np.zeros(count, bool)
    return Case(nowhere, Range((), ()), condition, np.array(rows, np.int64), bounds, strict)
