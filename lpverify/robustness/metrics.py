"""Statistics of shares."""

from math import sqrt
from statistics import NormalDist


def wilson(hits: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a probability, from `hits` of `count` independent trials.

    Args:
        hits: From 0 to `count`.
        count: Trials; with none nothing is known.
        level: The share of experiments whose interval contains the probability, about.

    Source: Wilson 1927, J. Am. Stat. Assoc. 22, 209; Brown, Cai and DasGupta 2001, Stat. Science 16, 101.
    """
    if not count:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, weight = hits / count, z * z / count
    centre = (share + weight / 2) / (1 + weight)
    half = z * sqrt(share * (1 - share) / count + weight / (4 * count)) / (1 + weight)
    return (0.0 if hits == 0 else centre - half), (1.0 if hits == count else centre + half)
