"""Nearer counterexamples on the segment from a sample to a known one."""

from fractions import Fraction

import numpy as np

from lpverify.robustness.attack.leads import Leads
from lpverify.robustness.evidence import Adversarial
from lpverify.robustness.judge import Judge

BISECTIONS = 12  # of one segment, by the judge
FLOAT_BISECTIONS = 16  # of many together, by floating point


def closer(judge: Judge, found: Adversarial, bisections: int = BISECTIONS) -> Adversarial:
    """The nearest counterexample that bisection finds on the segment from the sample, `found` if none is."""
    centre, best = judge.samples.x[found.sample], found
    low, high = 0.0, 1.0
    for _ in range(bisections):
        middle = 0.5 * (low + high)
        point = judge.towards(centre + middle * (found.point - centre), centre)
        nearer = judge.adversarial(found.sample, point, found.source)
        low, high = (middle, high) if nearer is None else (low, middle)
        if nearer is not None and nearer.distance < best.distance:
            best = nearer
    return best


def crossings(leads: Leads, centre: np.ndarray, label: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """How far along displacements `(R, n)` from centres the label still loses, `(R,)` in (0, 1].

    Only floating point says so; 1 where it is not even known to lose at the end.
    """
    low, high = np.zeros(len(moved)), np.ones(len(moved))
    for _ in range(FLOAT_BISECTIONS):
        middle = 0.5 * (low + high)
        loses = leads.lead(leads.outputs(centre + middle[:, None] * moved), label) <= 0
        low, high = np.where(loses, low, middle), np.where(loses, middle, high)
    return high


def accepted(
    judge: Judge, sample: int, moved: np.ndarray, share: float, source: str, below: Fraction | None
) -> Adversarial | None:
    """The judge's counterexample at or little beyond a share of a displacement `(n,)`.

    None if there is none nearer than `below`.
    """
    centre = judge.samples.x[sample]
    for beyond in (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2):
        end = share * (1.0 + beyond)
        found = judge.adversarial(sample, judge.towards(centre + end * moved, centre), source)
        if found is not None:
            return found if below is None or found.distance < below else None
    return None
