"""A method component: its declaration, which must not import torch.

The declaration is imported whenever `adrbench train` is called, the builder only when a run starts.
"""

from dataclasses import dataclass

from adrbench import Component, setting


@dataclass(frozen=True, kw_only=True)
class SmoothSettings:
    """The settings of label smoothing."""

    smoothing: float = setting(
        default=0.1, low=0, high=1, help="SMOOTH: share of the uniform distribution in targets."
    )


SMOOTH = Component(
    token="smooth",
    slot="targets",
    summary="smoothed labels (Szegedy et al. 2016)",
    builder="adrbench_example.smoothing:build",
    settings=SmoothSettings,
)
