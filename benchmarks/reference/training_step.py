"""The plain reference: ADR's training step as its published code computes it, unoptimized.

float32, NCHW, eager; the model's parameters require gradients while examples are crafted, its
BatchNorm stays in train mode, and every loop over parameters is a Python loop. Written from a
description of the method; `tests/test_parity.py` compares it with recorded runs of the published
code.
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adrbench.config.settings import TrainConfig

TRADES_NOISE = 0.001
TINY = 1e-20


class Trainer:
    """A model in training, its weight average where the method has one, and its optimizer.

    `start` replaces the random start of the attack, for a run whose starts were recorded.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        *,
        total_steps: int,
        start: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.model = model.train()
        self.config = config
        self.method = config.parsed_method()
        self.total_steps = total_steps
        self.start = start
        self.average = copy.deepcopy(model).eval() if self.method.has_average else None
        self.optimizer = torch.optim.SGD(
            model.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
        )

    def step(self, x: Tensor, y: Tensor, step: int) -> Tensor:
        """Train on images `x` (N, C, H, W) with labels `y` (N,); return the loss, a scalar."""
        milestones = [round(share * self.total_steps) for share in self.config.milestones]
        num_passed = sum(step >= milestone for milestone in milestones)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * self.config.lr_factor**num_passed
        targets = self.make_targets(x, y, step)
        x_adv = self.craft(x, targets)
        self.optimizer.zero_grad()
        loss = self.compute_loss(x, x_adv, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        if "awp" in self.method.tokens:
            self.recompute_gradients_with_awp(x, x_adv, targets)
        self.optimizer.step()
        if self.average is not None:
            update_average(self.average, self.model, self.config.method_settings["ema_decay"])
        return loss.detach()

    def make_targets(self, x: Tensor, y: Tensor, step: int) -> Tensor:
        """Return the labels (N,), or ADR's mixtures of them and the average's output (N, K)."""
        if "adr" not in self.method.tokens:
            return y
        assert self.average is not None
        settings = self.config.method_settings
        annealed = (1 + math.cos(math.pi * step / self.total_steps)) / 2
        low, high = settings["temperature_low"], settings["temperature_high"]
        temperature = low + (high - low) * annealed
        low, high = settings["interpolation_low"], settings["interpolation_high"]
        interpolation = high + (low - high) * annealed
        with torch.no_grad():
            teacher = F.softmax(self.average(x) / temperature, dim=1)
            error = teacher.max(dim=1, keepdim=True).values - teacher.gather(1, y.unsqueeze(1))
            factor = torch.clamp(interpolation - error, 0, 1)
            return factor * teacher + (1 - factor) * F.one_hot(y, teacher.shape[1])

    def craft(self, x: Tensor, targets: Tensor) -> Tensor:
        """Return adversarial examples by PGD on the objective's inner loss."""
        if "trades" in self.method.tokens:
            with torch.no_grad():
                clean = F.softmax(self.model(x), dim=1)

            def loss(x_adv: Tensor) -> Tensor:
                log_adversarial = F.log_softmax(self.model(x_adv), dim=1)
                return F.kl_div(log_adversarial, clean, reduction="batchmean")
        else:

            def loss(x_adv: Tensor) -> Tensor:
                return F.cross_entropy(self.model(x_adv), targets)

        return run_pgd(self.config, x, self.draw_start(x), loss)

    def draw_start(self, x: Tensor) -> Tensor:
        """Return the start of the attack."""
        if self.start is not None:
            return self.start(x)
        if "trades" in self.method.tokens:
            return x + TRADES_NOISE * torch.rand_like(x)
        return draw_uniform_start(self.config, x)

    def compute_loss(self, x: Tensor, x_adv: Tensor, targets: Tensor) -> Tensor:
        """Return the outer loss, a scalar."""
        if "trades" not in self.method.tokens:
            return F.cross_entropy(self.model(x_adv), targets)
        clean, adversarial = self.model(torch.cat([x, x_adv])).chunk(2)
        consistency = F.kl_div(
            F.log_softmax(adversarial, dim=1), F.softmax(clean, dim=1), reduction="batchmean"
        )
        beta = float(self.config.method_settings["beta"])
        return F.cross_entropy(clean, targets) + beta * consistency

    def recompute_gradients_with_awp(self, x: Tensor, x_adv: Tensor, targets: Tensor) -> None:
        """Replace the gradients by those at adversarially perturbed weights (AWP)."""
        rho = self.config.method_settings["awp_rho"]
        originals: list[tuple[nn.Parameter, Tensor]] = []
        with torch.no_grad():
            for parameter in self.model.parameters():
                if parameter.grad is None:
                    continue
                originals.append((parameter, parameter.clone()))
                scale = rho * parameter.norm() / (parameter.grad.norm() + TINY)
                parameter.add_(scale * parameter.grad)
        momenta = freeze_running_statistics(self.model)
        self.optimizer.zero_grad()
        self.compute_loss(x, x_adv, targets).backward()  # type: ignore[no-untyped-call]
        for layer, momentum in momenta.items():
            layer.momentum = momentum
        with torch.no_grad():
            for parameter, original in originals:
                parameter.copy_(original)


def draw_uniform_start(config: TrainConfig, x: Tensor) -> Tensor:
    """Return `x` with uniform noise within eps, inside [0, 1]."""
    noise = torch.empty_like(x).uniform_(-config.eps, config.eps)
    return torch.clamp(x + noise, 0, 1)


def run_pgd(
    config: TrainConfig, x: Tensor, start: Tensor, loss: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the result of PGD from `start` that maximizes `loss` in the Linf ball around `x`."""
    x_adv = start.detach()
    for _ in range(config.steps):
        x_adv.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(x_adv), [x_adv])
        x_adv = x_adv.detach() + config.alpha * torch.sign(gradient)
        x_adv = torch.min(torch.max(x_adv, x - config.eps), x + config.eps)
        x_adv = torch.clamp(x_adv, 0, 1)
    return x_adv.detach()


def freeze_running_statistics(model: nn.Module) -> dict[nn.BatchNorm2d, float | None]:
    """Set the momentum of BatchNorm's running statistics to 0; return the momenta to restore."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = {layer: layer.momentum for layer in layers}
    for layer in layers:
        layer.momentum = 0.0
    return momenta


def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the average towards the model, entry by entry of the state dict."""
    with torch.no_grad():
        current = model.state_dict()
        for name, value in average.state_dict().items():
            if value.is_floating_point():
                value.copy_(decay * value + (1 - decay) * current[name])
            else:
                value.copy_(current[name])
