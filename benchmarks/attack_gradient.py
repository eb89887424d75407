"""An evaluated model's forward pass and input gradient, frozen by us beside the model as it is.

    python -m benchmarks.attack_gradient [--arch resnet18] [--batch-size 64] [--quick]

This is all that an evaluation's attacks ask of a model. Everything is float32, with TF32 off.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adrbench.runtime.devices import full_precision
from benchmarks import page
from benchmarks.floor import count_forward, show_shares
from benchmarks.harness import Contender, Measured, Row, Work, compare
from benchmarks.inputs import random_images, seasoned_model
from benchmarks.machine import Rates, measure_rates
from benchmarks.ours import make_attacked

COMPARED = (
    "Seconds per batch, float32. Ours is the model as `adrbench attack` runs it; the reference is "
    "the model in eval mode,\neager, NCHW, its parameters requiring gradients: once by "
    "loss.backward(), which takes those of the\nparameters too (as FAB does), once by "
    "torch.autograd.grad(loss, x), which does not (as APGD does)."
)
ARCHS = {"cpu": ("resnet18",), "cuda": ("resnet18", "wrn-34-10")}
BATCH_SIZE, QUICK_BATCH_SIZE = {"cpu": 64, "cuda": 256}, {"cpu": 8, "cuda": 256}
WARMUP = {"cpu": 1, "cuda": 5}
REFERENCE = "reference"
#: What the reference takes the gradient of the images with.
WAYS = ("backward", "autograd.grad")

Gradient = Callable[[nn.Module, Tensor, Tensor], Tensor]


def run_forward(model: nn.Module, x: Tensor) -> Tensor:
    """Return the logits, without gradients."""
    with torch.no_grad():
        logits: Tensor = model(x)
    return logits


def spare_parameters(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of the loss by the images alone."""
    x = x.detach().requires_grad_()
    loss = F.cross_entropy(model(x), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    return gradient


def go_backward(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of the loss by the images, and leave those of the parameters too."""
    x = x.detach().requires_grad_()
    model.zero_grad()
    F.cross_entropy(model(x), y, reduction="sum").backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    return x.grad


class Subject:
    """A model, as it is and frozen, and a batch for it."""

    def __init__(self, arch: str, batch_size: int, device: torch.device) -> None:
        self.arch = arch
        self.device = device
        images = random_images(batch_size).to(device)
        self.x, self.y = images.pixels / 255, images.labels
        self.model = seasoned_model(arch).to(device)

    def freeze(self) -> nn.Module:
        """Return our frozen copy of the model."""
        return make_attacked(self.model, self.x)

    def compare_forward(self, rounds: int) -> list[Measured]:
        """Time the forward passes."""

        def build(model: nn.Module) -> Work:
            return lambda: run_forward(model, self.x)

        contenders = {"ours": lambda: build(self.freeze()), REFERENCE: lambda: build(self.model)}
        return self._compare(contenders, rounds)

    def compare_gradient(self, rounds: int) -> list[Measured]:
        """Time the passes forward and back to the images."""

        def build(model: nn.Module, gradient: Gradient) -> Work:
            return lambda: gradient(model, self.x, self.y)

        contenders = {
            "ours": lambda: build(self.freeze(), spare_parameters),
            "backward": lambda: build(self.model, go_backward),
            "autograd.grad": lambda: build(self.model, spare_parameters),
        }
        return self._compare(contenders, rounds)

    def _compare(self, builds: dict[str, Callable[[], Work]], rounds: int) -> list[Measured]:
        warmup = WARMUP[self.device.type]
        contenders = [Contender(name=n, build=b, warmup=warmup) for n, b in builds.items()]
        return list(compare(contenders, rounds=rounds, device=self.device).values())

    def find_differences(self) -> tuple[float, float]:
        """Return the largest difference of a logit, and of a gradient relative to the largest."""
        frozen = self.freeze()
        logits = run_forward(frozen, self.x), run_forward(self.model, self.x)
        ours, theirs = (spare_parameters(model, self.x, self.y) for model in (frozen, self.model))
        gradient = (ours - theirs).abs().max() / theirs.abs().max()
        return float((logits[0] - logits[1]).abs().max()), float(gradient)


def make_row(
    name: str, measured: list[Measured], operations: float, difference: float, rates: Rates
) -> Row:
    """Return a row; `difference` is that of the two results."""
    rate = rates["float32"].best
    shares = {c.name: operations / rate / c.median for c in measured}
    return Row(
        name=name,
        contenders=tuple(measured),
        shown={"of floor": show_shares(shares), "difference": f"{difference:.0e}"},
        facts={
            "floor_operations": operations,
            "share_of_floor": shares,
            "largest_difference": difference,
        },
    )


def measure(
    arch: str, options: argparse.Namespace, rates: Rates, device: torch.device
) -> list[Row]:
    """Measure one model: forward, and forward with the gradient of the images."""
    subject = Subject(arch, options.batch_size, device)
    forward = count_forward(subject.model) * options.batch_size
    of_logits, of_gradient = subject.find_differences()
    rows = [
        make_row(
            f"{arch} forward",
            subject.compare_forward(options.rounds),
            forward,
            of_logits,
            rates,
        )
    ]
    ours, *references = subject.compare_gradient(options.rounds)
    for way, reference in zip(WAYS, references, strict=True):
        pair = [ours, replace(reference, name=REFERENCE)]
        name = f"{arch} gradient, beside {way}"
        rows.append(make_row(name, pair, 2 * forward, of_gradient, rates))
    return rows


def main() -> None:
    """Measure what the flags ask for, and publish it."""
    parser = page.make_parser(__doc__)
    page.add_names(parser, "--arch", "resnet18, wrn-34-10, ... (default: by device)")
    parser.add_argument("--batch-size", type=int, help="default: 256 on a GPU, 64 on a CPU")
    options = parser.parse_args()
    device = page.start(options)
    sizes = QUICK_BATCH_SIZE if options.quick else BATCH_SIZE
    options.batch_size = options.batch_size or sizes[device.type]
    archs = options.arch or ARCHS["cpu" if options.quick else device.type]
    rates = measure_rates(device, "float32")
    with full_precision():
        rows = [row for arch in archs for row in measure(arch, options, rates, device)]
    document = page.describe(
        "attack_gradient",
        rows,
        compared=COMPARED,
        settings={"batch size": options.batch_size} | page.common_settings(options),
        device=device,
        rates=rates,
    )
    page.publish(document, options)


if __name__ == "__main__":
    page.run(main)
