"""Directions of ascents in multipliers: Adam (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1)."""

from collections.abc import Hashable

from lpverify.interval import Array, namespace

FIRST, SECOND = 0.9, 0.999  # decay of the running means


class Adam:
    """The running means of gradients and of their squares, for several arrays.

    Args:
        epsilon: What the root of the mean square is raised by.
    """

    def __init__(self, epsilon: float = 1e-12) -> None:
        self.epsilon = epsilon
        self.means: dict[Hashable, tuple[Array, Array]] = {}

    def direction(self, key: Hashable, gradient: Array, step: int) -> Array:
        """The direction of one array's `step`-th move, from 1; zero where the gradient is not finite."""
        xp = namespace(gradient)
        gradient = xp.where(xp.isfinite(gradient), gradient, xp.zeros_like(gradient))
        if key not in self.means:
            self.means[key] = xp.zeros_like(gradient), xp.zeros_like(gradient)
        first, second = self.means[key]
        first *= FIRST  # in place: these arrays are as large as all multipliers
        first += (1 - FIRST) * gradient
        gradient *= gradient
        gradient *= 1 - SECOND
        second *= SECOND
        second += gradient
        scale = xp.sqrt(second)
        scale *= (1 - SECOND**step) ** -0.5
        scale += self.epsilon
        return first / scale * (1 / (1 - FIRST**step))
