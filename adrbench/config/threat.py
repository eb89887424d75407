"""Threat models: the allowed perturbations, and the steps of an attack within them.

A norm is four functions: a uniform draw from the unit ball, the steepest-ascent direction, the
projection, and the size. A new norm is one row of `NORMS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adrbench.config.declare import is_number
from adrbench.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from torch import Generator, Tensor

#: RobustBench's radii, for weights whose own threat model is unknown.
STANDARD_EPS = {"Linf": 8 / 255, "L2": 0.5}
#: The smallest norm by which a direction is divided, so that a zero gradient stays zero.
TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Norm:
    """The geometry of one norm, on batches of shape (N, ...).

    `draw` samples the unit ball uniformly, `direction` is the steepest-ascent step of unit norm,
    `project(delta, eps)` the nearest point of the ball of radius eps, `size` the norm, (N,).
    """

    draw: "Callable[[Tensor, Generator], Tensor]"
    direction: "Callable[[Tensor], Tensor]"
    project: "Callable[[Tensor, float], Tensor]"
    size: "Callable[[Tensor], Tensor]"


@dataclass(frozen=True, kw_only=True)
class ThreatModel:
    """Perturbations whose `norm` (Linf or L2) is at most `eps`, of images that stay in [0, 1].

    `eps` is a fraction of the pixel range: 8/255 is 0.03137. Images are (N, C, H, W).

    Raises:
        UsageError: for an unknown norm, or eps outside (0, 1] under Linf, or not positive.

    """

    norm: str = "Linf"
    eps: float

    def __post_init__(self) -> None:
        if not isinstance(self.norm, str) or self.norm not in NORMS:
            raise unknown_name("norm", str(self.norm), NORMS)
        check_eps(self.eps, self.norm)
        object.__setattr__(self, "eps", float(self.eps))

    def draw(self, like: "Tensor", generator: "Generator") -> "Tensor":
        """Return perturbations uniform in the ball, with the shape, dtype and device of `like`."""
        return self.eps * NORMS[self.norm].draw(like, generator)

    def step(self, x: "Tensor", x_adv: "Tensor", gradient: "Tensor", size: float) -> "Tensor":
        """Return `x_adv` after a steepest-ascent step of `size`, projected as in `project`."""
        return self.project(x, x_adv + size * NORMS[self.norm].direction(gradient))

    def project(self, x: "Tensor", x_adv: "Tensor") -> "Tensor":
        """Return `x_adv` projected onto the ball around `x`, then clipped to [0, 1]."""
        return (x + NORMS[self.norm].project(x_adv - x, self.eps)).clamp(0, 1)

    def distance(self, x: "Tensor", x_adv: "Tensor") -> "Tensor":
        """Return the norm of each perturbation, shape (N,)."""
        return NORMS[self.norm].size(x_adv - x)


def check_eps(eps: float, norm: str = "Linf") -> None:
    """Raise UsageError unless `eps` is a valid radius, as a fraction of the pixel range."""
    if not is_number(eps):
        raise UsageError(f"eps is {eps!r:.40}: give a number, such as 8/255 without quotes.")
    if not eps > 0:
        raise UsageError(f"eps is {eps:g}: give a radius above 0, such as 8/255.")
    if norm == "Linf" and not eps <= 1:
        raise UsageError(
            f"eps is {eps:g}, but pixels lie in [0, 1]: write {eps:g}/255 if you meant that."
        )
    if not eps < 1000:
        raise UsageError(f"eps is {eps:g}: give a finite radius, such as 0.5 or 128/255.")


def _draw_linf(like: "Tensor", generator: "Generator") -> "Tensor":
    import torch

    noise = torch.empty_like(like, memory_format=torch.contiguous_format)
    return noise.uniform_(-1, 1, generator=generator)


def _draw_l2(like: "Tensor", generator: "Generator") -> "Tensor":
    """Draw uniformly from the unit ball in d dimensions.

    A uniform point on the unit sphere in d + 2 dimensions, without its last two coordinates, is
    uniform in the unit ball in d dimensions (Voelker, Gosmann and Stewart 2017).
    """
    import torch

    flat = like.flatten(1)
    normal = torch.empty(
        flat.shape[0], flat.shape[1] + 2, dtype=like.dtype, device=like.device
    ).normal_(generator=generator)
    sphere: Tensor = normal / normal.norm(dim=1, keepdim=True)
    return sphere[:, :-2].reshape(like.shape)


def _size_linf(delta: "Tensor") -> "Tensor":
    return delta.flatten(1).abs().amax(1)


def _size_l2(delta: "Tensor") -> "Tensor":
    size: Tensor = delta.flatten(1).norm(dim=1)
    return size


def _per_image(sizes: "Tensor", like: "Tensor") -> "Tensor":
    """Reshape (N,) to broadcast over images."""
    return sizes.reshape(-1, *(1 for _ in like.shape[1:]))


def _direction_l2(gradient: "Tensor") -> "Tensor":
    return gradient / _per_image(_size_l2(gradient), gradient).clamp_min(TINY)


def _project_l2(delta: "Tensor", eps: float) -> "Tensor":
    return delta * (eps / _per_image(_size_l2(delta), delta).clamp_min(TINY)).clamp_max(1)


NORMS: dict[str, Norm] = {
    "Linf": Norm(
        draw=_draw_linf,
        direction=lambda gradient: gradient.sign(),
        project=lambda delta, eps: delta.clamp(-eps, eps),
        size=_size_linf,
    ),
    "L2": Norm(draw=_draw_l2, direction=_direction_l2, project=_project_l2, size=_size_l2),
}
