"""Losses that are kept on the device and read later."""

import pytest
import torch

from adrbench.training.loss_buffer import LossBuffer
from training_runs import CPU


def test_losses_arrive_in_order_and_at_once_on_the_cpu() -> None:
    losses = LossBuffer(4, CPU)
    assert losses.arrived() == []
    losses.record(torch.tensor(2.0))
    losses.record(torch.tensor(3.0))
    assert losses.arrived() == [(0, 2.0), (1, 3.0)]
    losses.record(torch.tensor(torch.inf))
    assert losses.arrived(wait=True) == [(2, torch.inf)]
    assert losses.arrived(wait=True) == []
    losses.record(torch.tensor(1.0))
    assert losses.mean() == torch.inf


def test_losses_of_a_resumed_epoch_follow_the_earlier_ones() -> None:
    losses = LossBuffer(4, CPU, torch.tensor([1.0, 2.0]))
    assert losses.arrived(wait=True) == []
    losses.record(torch.tensor(6.0))
    assert losses.arrived() == [(2, 6.0)]
    assert losses.so_far().tolist() == [1.0, 2.0, 6.0]
    assert losses.mean() == 3.0


@pytest.mark.gpu
def test_losses_of_a_gpu_all_arrive() -> None:
    device = torch.device("cuda")
    losses = LossBuffer(50, device)
    seen = []
    for step in range(50):
        torch.cuda._sleep(10**6)  # type: ignore[no-untyped-call]  # the device is behind, so that reading too early would show
        losses.record(torch.full((), float(step), device=device))
        seen += losses.arrived()
    assert len(seen) < 50
    seen += losses.arrived(wait=True)
    assert seen == [(step, float(step)) for step in range(50)]
    assert losses.mean() == 24.5
