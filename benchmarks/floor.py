"""The arithmetic floor: the least that a method has to compute, at the rate measured here.

A backward pass costs as much as a forward pass for the gradients of the activations, and as much
again for those of the weights. Everything that is no convolution and no matrix product is left
out of the count, as is what an implementation computes beyond need.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from adrbench.config.settings import TrainConfig


def count_forward(model: nn.Module, image: tuple[int, ...] = (3, 32, 32)) -> int:
    """Return the floating-point operations of one image's forward pass, counted by running it."""
    training = model.training
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *image, device=device))
    model.train(training)
    return int(counter.get_total_flops())


def count_step(config: TrainConfig, forward: int) -> int:
    """Return the operations per image of one training step, from those of a forward pass.

    Crafting: a forward and an input gradient per attack step, and for TRADES one clean pass. ADR:
    one pass of the teacher. The update: three passes' worth, twice for TRADES, whose loss looks
    at the clean image too, and twice again for AWP, which takes the gradients twice.
    """
    method = config.parsed_method()
    trades = "trades" in method.tokens
    craft = config.steps * 2 + (1 if trades else 0)
    update = 3 * (2 if trades else 1) * (2 if "awp" in method.tokens else 1)
    return forward * (craft + (1 if "adr" in method.tokens else 0) + update)


def show_shares(shares: Mapping[str, float]) -> str:
    """Return shares of the floor as percentages, ours first."""
    return " / ".join(f"{share:.0%}" for share in shares.values())
