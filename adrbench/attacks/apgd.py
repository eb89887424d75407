"""The loop of APGD (Croce and Hein 2020), for a device that is slow to launch and to wait.

It replaces the loop of an official APGD object and has the same outcomes: the same numbers are
drawn, and every iterate is rounded as there. It launches fewer kernels, and does not wait for the
device; the model that it calls may.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from adrbench.attacks.autoattack_package import import_package, is_known_source

#: The official code that this loop reproduces (pyautoattack 0.2.0).
MODULES, FINGERPRINT = ("autopgd_base", "checks"), "2d54446f3f9179c8"
#: The weight of the new step beside that of the last change (alpha in Algorithm 1 of the paper).
STEP_WEIGHT = 0.75


def replace_apgd_loop(attack: Any) -> None:
    """Make an official APGD object run the loop of this module, on the model that it has then.

    An object of an unknown version of the package keeps its own.
    """
    if not is_known_source(MODULES, FINGERPRINT):
        return

    def attack_single_run(x: Tensor, y: Tensor, x_init: Tensor | None = None) -> Any:
        assert x_init is None
        with torch.no_grad():
            return _Search(attack, x, y).run()

    attack.attack_single_run = attack_single_run


def _cross_entropies(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def _dlr(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """Return the difference-of-logits ratios, equation 6 of the paper, (N,)."""
    ordered, order = logits.sort(dim=1)
    third, second, first = ordered[:, -3:].unbind(1)
    is_first = (order[:, -1] == labels).to(logits.dtype)
    lead = _pick(logits, labels) - second * is_first - first * (1 - is_first)
    return -lead / (first - third + 1e-12)


def _targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """Return the targeted difference-of-logits ratios, equation 7 of the paper, (N,)."""
    assert targets is not None
    fourth, third, _, first = logits.sort(dim=1)[0][:, -4:].unbind(1)
    lead = _pick(logits, labels) - _pick(logits, targets)
    return -lead / (first - 0.5 * (third + fourth) + 1e-12)


def _pick(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels.unsqueeze(1)).squeeze(1)


#: (logits (N, K), labels (N,), targets (N,) or None) -> the loss of each image, (N,).
_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "ce": _cross_entropies,
    "dlr": _dlr,
    "dlr-targeted": _targeted_dlr,
}


class _Linf:
    """Steps along the sign of the gradient, in the ball around images `x` (N, C, H, W)."""

    def __init__(self, attack: Any, x: Tensor) -> None:
        eps: float = attack.eps
        self.low, self.high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)

    @staticmethod
    def draw(shape: torch.Size) -> Tensor:
        return 2 * torch.rand(shape) - 1

    def project(self, x_adv: Tensor) -> Tensor:
        return torch.clamp(x_adv, self.low, self.high)

    def step(self, x_adv: Tensor, gradient: Tensor, size: Tensor) -> Tensor:
        return torch.addcmul(x_adv, size, gradient.sign())


class _L2:
    """Steps along the gradient, in the ball around images `x` (N, C, H, W)."""

    def __init__(self, attack: Any, x: Tensor) -> None:
        self.x, self.eps = x, attack.eps

    @staticmethod
    def draw(shape: torch.Size) -> Tensor:
        return torch.randn(shape)

    def project(self, x_adv: Tensor) -> Tensor:
        change = x_adv - self.x
        length = _lengths(change)
        return (self.x + change / (length + 1e-12) * length.clamp(max=self.eps)).clamp(0, 1)

    def step(self, x_adv: Tensor, gradient: Tensor, size: Tensor) -> Tensor:
        return x_adv + size * (gradient / (_lengths(gradient) + 1e-12))


def _lengths(values: Tensor) -> Tensor:
    """Return the L2 norm of each image (N, C, H, W), as (N, 1, 1, 1)."""
    return values.pow(2).flatten(1).sum(-1).sqrt().view(-1, *(1 for _ in values.shape[1:]))


_BALLS: dict[str, type[_Linf | _L2]] = {"Linf": _Linf, "L2": _L2}


class _Search:
    """The iterates of APGD from a random start around images `x` (N, C, H, W) with labels `y`."""

    def __init__(self, attack: Any, x: Tensor, y: Tensor) -> None:
        self.attack, self.x, self.y = attack, x, y
        self.loss = _LOSSES[attack.loss]
        self.ball = _BALLS[attack.norm](attack, x)
        noise = self.ball.draw(x.shape).to(x.device)
        self.x_adv = (x + attack.eps * attack.normalize(noise)).clamp(0, 1)
        self.before = self.fooling = self.x_adv
        self.gradient, self.losses, is_correct = self._evaluate()
        if attack.loss != "ce":
            checks = import_module(f"{import_package().__name__}.checks")
            checks.check_zero_gradients(self.gradient, logger=attack.logger)
        self.is_robust = is_correct
        self.best = self.x_adv, self.gradient, self.losses
        #: The losses of the iterates; before the first, APGD has a loss of zero.
        self.history = [torch.zeros_like(self.losses)]
        self.size = torch.full_like(x[:, :1, :1, :1], 2 * attack.eps)
        self.checked = self.losses
        self.was_halved = torch.ones_like(is_correct)

    def run(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return (images of highest loss, whether none was misclassified, losses, examples).

        An example is the iterate that was misclassified last.
        """
        period, until_check = self.attack.n_iter_2, self.attack.n_iter_2
        for iteration in range(self.attack.n_iter):
            self._move(STEP_WEIGHT if iteration > 0 else 1.0)
            self.gradient, self.losses, is_correct = self._evaluate()
            self._keep(is_correct)
            until_check -= 1
            if until_check == 0:
                self._check(period)
                period = max(period - self.attack.size_decr, self.attack.n_iter_min)
                until_check = period
        return self.best[0], self.is_robust, self.best[2], self.fooling

    def _move(self, weight: float) -> None:
        change = self.x_adv - self.before
        step = self.ball.project(self.ball.step(self.x_adv, self.gradient, self.size)) - self.x_adv
        moved = torch.add(self.x_adv + step * weight, change, alpha=1 - weight)
        self.before, self.x_adv = self.x_adv, self.ball.project(moved)

    def _evaluate(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradient (N, C, H, W), the losses and whether predictions are right, (N,).

        The gradient is a mean over passes, and the others are those of the last.
        """
        images = self.x_adv.detach().requires_grad_()
        gradient: Tensor | None = None
        for _ in range(self.attack.eot_iter):
            with torch.enable_grad():
                logits = self.attack.model(images)
                losses = self.loss(logits, self.y, self.attack.y_target)
                total = losses.sum()
            (one,) = torch.autograd.grad(total, images)
            gradient = one if gradient is None else gradient + one
        assert gradient is not None
        if self.attack.eot_iter > 1:
            gradient = gradient / float(self.attack.eot_iter)
        is_correct = logits.detach().max(dim=1)[1] == self.y
        return gradient.contiguous(), losses.detach(), is_correct

    def _keep(self, is_correct: Tensor) -> None:
        """Keep the iterates that are misclassified, and those of the highest loss."""
        self.is_robust = self.is_robust & is_correct
        self.fooling = torch.where(_per_image(is_correct), self.fooling, self.x_adv)
        self.history.append(self.losses)
        is_better = self.losses > self.best[2]
        self.best = _select(is_better, (self.x_adv, self.gradient, self.losses), self.best)

    def _check(self, period: int) -> None:
        """Halve the step size of images whose loss rarely increased, and return to their best.

        These are conditions 1 and 2 of section 3 of the paper.
        """
        recent = torch.stack(self.history[-period - 1 :])
        increases = (recent[1:] > recent[:-1]).sum(0)
        is_stuck = ~self.was_halved & (self.checked >= self.best[2])
        is_halved = (increases <= period * self.attack.thr_decr) | is_stuck
        self.was_halved, self.checked = is_halved, self.best[2]
        self.size = torch.where(_per_image(is_halved), self.size / 2, self.size)
        current = self.x_adv, self.gradient, self.losses
        self.x_adv, self.gradient, _ = _select(is_halved, self.best, current)


def _select(
    condition: Tensor, values: tuple[Tensor, ...], others: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return images, gradients and losses of `values` where `condition` (N,), else of `others`."""
    x_adv, gradient = (
        torch.where(_per_image(condition), one, other)
        for one, other in zip(values[:2], others[:2], strict=True)
    )
    return x_adv, gradient, torch.where(condition, values[2], others[2])


def _per_image(values: Tensor) -> Tensor:
    """Return values (N,) as (N, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)
