"""Threat models: projection, steps, random draws and valid radii."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adrbench.config.threat import ThreatModel
from adrbench.errors import UsageError

NORMS = ("Linf", "L2")


def images(seed: int, n: int = 4) -> Tensor:
    return torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 10_000), eps=st.floats(0.001, 1), size=st.floats(0.001, 10))
@settings(max_examples=40, deadline=None)
def test_draws_and_steps_stay_in_the_ball_and_in_the_pixel_range(
    norm: str, seed: int, eps: float, size: float
) -> None:
    threat = ThreatModel(norm=norm, eps=eps)
    x, generator = images(seed), torch.Generator().manual_seed(seed)
    start = threat.project(x, x + threat.draw(x, generator))
    moved = threat.step(x, start, images(seed + 1) - 0.5, size)
    for x_adv in (start, moved):
        assert threat.distance(x, x_adv).max() <= eps * (1 + 1e-5) + 1e-6
        assert x_adv.min() >= 0
        assert x_adv.max() <= 1


@pytest.mark.parametrize("norm", NORMS)
def test_projection_leaves_points_inside_the_ball_unchanged(norm: str) -> None:
    threat = ThreatModel(norm=norm, eps=0.5)
    x = torch.full((2, 1, 2, 2), 0.5)
    inside = x + 0.1
    torch.testing.assert_close(threat.project(x, inside), inside)


def test_l2_projection_by_hand() -> None:
    """(0.3, 0.4) has length 0.5; on the ball of radius 0.1 it becomes (0.06, 0.08)."""
    x = torch.full((1, 1, 1, 2), 0.2)
    delta = torch.tensor([[[[0.3, 0.4]]]])
    moved = ThreatModel(norm="L2", eps=0.1).project(x, x + delta)
    torch.testing.assert_close(moved - x, torch.tensor([[[[0.06, 0.08]]]]))


def test_the_distance_is_the_norm() -> None:
    x = torch.zeros(1, 1, 1, 2)
    x_adv = torch.tensor([[[[0.3, 0.4]]]])
    assert ThreatModel(norm="Linf", eps=1.0).distance(x, x_adv).item() == pytest.approx(0.4)
    assert ThreatModel(norm="L2", eps=1.0).distance(x, x_adv).item() == pytest.approx(0.5)


def test_a_zero_gradient_changes_nothing() -> None:
    x = images(0)
    for norm in NORMS:
        x_adv = ThreatModel(norm=norm, eps=0.1).step(x, x, torch.zeros_like(x), 0.05)
        torch.testing.assert_close(x_adv, x)


def test_l2_draws_are_uniform_in_the_ball() -> None:
    """In d dimensions the share of draws within radius r is r**d: 1/8 at r = 1/2 for d = 3."""
    like = torch.empty(20_000, 3, 1, 1)
    draws = ThreatModel(norm="L2", eps=1.0).draw(like, torch.Generator().manual_seed(0))
    radii = draws.flatten(1).norm(dim=1)
    assert radii.max() <= 1
    assert (radii <= 0.5).float().mean().item() == pytest.approx(1 / 8, abs=0.01)
    assert draws.mean().abs() < 0.01


@pytest.mark.parametrize(
    ("norm", "eps", "words"),
    [
        ("Linf", 0.0, "above 0"),
        ("Linf", -0.1, "above 0"),
        ("Linf", float("nan"), "above 0"),
        ("Linf", 8.0, "8/255"),
        ("L2", float("inf"), "finite"),
        ("linf", 0.1, "did you mean Linf"),
        ("L7", 0.1, "unknown norm"),
        (2, 0.1, "unknown norm '2'"),
        ("Linf", "8/255", "such as 8/255 without quotes"),
        ("Linf", True, "eps is True: give a number"),
        ("Linf", [0.1], "give a number"),
    ],
)
def test_invalid_threat_models_are_refused(norm: object, eps: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ThreatModel(norm=norm, eps=eps)  # type: ignore[arg-type]


def test_a_radius_may_be_any_real_number() -> None:
    assert type(ThreatModel(eps=np.float32(0.5)).eps) is float  # type: ignore[arg-type]
    assert ThreatModel(eps=1) == ThreatModel(eps=1.0)


def test_a_radius_above_one_is_valid_under_l2() -> None:
    assert ThreatModel(norm="L2", eps=3.0).eps == 3.0
