"""Forward pass and input gradient of an evaluated model: our frozen form beside the model itself.

    python -m benchmarks.attack_gradient [--arch resnet18] [--batch-size 64] [--quick]

Attacks need nothing else of a model. Everything is float32, with TF32 off.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adrbench.runtime.arithmetic import full_precision
from benchmarks.harness import command_line, hardware
from benchmarks.harness.adrbench_calls import make_attacked
from benchmarks.harness.document import publish
from benchmarks.harness.hardware import Rates
from benchmarks.harness.timing import Comparison, Contender, Timing, Work, compare
from benchmarks.harness.workload import evaluation_model, random_images

COMPARED = (
    "Seconds per batch, float32. Ours is the model as `adrbench attack` runs it; the reference is "
    "the model in eval mode,\neager, NCHW, its parameters requiring gradients: once by "
    "loss.backward(), which takes those of the\nparameters too (as FAB does), once by "
    "torch.autograd.grad(loss, x), which does not (as APGD does)."
)
ARCHS = {"cpu": ("resnet18",), "cuda": ("resnet18", "wrn-34-10")}
#: By device and whether to be quick.
BATCH_SIZES = {("cpu", False): 64, ("cpu", True): 8, ("cuda", False): 256, ("cuda", True): 256}
WARMUP = {"cpu": 1, "cuda": 5}
OURS, REFERENCE = "ours", "reference"

#: A function of a model, images (N, C, H, W) and labels (N,).
Pass = Callable[[nn.Module, Tensor, Tensor], Tensor]


def run_forward(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the logits, without gradients."""
    with torch.no_grad():
        logits: Tensor = model(x)
    return logits


def compute_input_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of the loss with respect to the images alone."""
    x = x.detach().requires_grad_()
    loss = F.cross_entropy(model(x), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    return gradient


def run_backward(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient with respect to the images, computing those of the parameters too."""
    x = x.detach().requires_grad_()
    model.zero_grad()
    F.cross_entropy(model(x), y, reduction="sum").backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    return x.grad


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A model, a batch of images (N, C, H, W) and labels (N,) for it, and how to time passes."""

    model: nn.Module
    x: Tensor
    y: Tensor
    rounds: int
    rates: Rates

    def freeze(self) -> nn.Module:
        """Return our frozen form of the model."""
        return make_attacked(self.model, self.x)

    def time_passes(self, passes: Mapping[str, Pass]) -> list[Timing]:
        """Time passes by name: "ours" of the frozen form, others of the model itself."""

        def build(name: str, run: Pass) -> Work:
            model = self.freeze() if name == OURS else self.model
            return lambda: run(model, self.x, self.y)

        warmup = WARMUP[self.x.device.type]
        contenders = [
            Contender(name=name, build=partial(build, name, run), warmup=warmup)
            for name, run in passes.items()
        ]
        return list(compare(contenders, rounds=self.rounds, device=self.x.device).values())

    def run_both(self, run: Pass) -> list[Tensor]:
        """Return the result of a pass of the frozen form and of the model."""
        return [run(model, self.x, self.y) for model in (self.freeze(), self.model)]

    def make_row(
        self, name: str, timings: Sequence[Timing], operations: float, difference: Tensor
    ) -> Comparison:
        """Return a row; `difference` is that of the two results."""
        shares = {
            one.name: hardware.compute_share_of_floor(operations, self.rates["float32"], one.median)
            for one in timings
        }
        return Comparison(
            name=name,
            contenders=tuple(timings),
            shown={"of floor": hardware.render_shares(shares), "difference": f"{difference:.0e}"},
            facts={
                "floor_operations": operations,
                "share_of_floor": shares,
                "largest_difference": float(difference),
            },
        )


def measure(arch: str, setup: Setup) -> Iterator[Comparison]:
    """Yield the rows of one model: the forward pass, and the gradient beside two references."""
    forward = hardware.count_operations(lambda: run_forward(setup.model, setup.x, setup.y))
    logits, expected_logits = setup.run_both(run_forward)
    timings = setup.time_passes({OURS: run_forward, REFERENCE: run_forward})
    difference = (logits - expected_logits).abs().max()
    yield setup.make_row(f"{arch} forward", timings, forward, difference)
    gradient, expected = setup.run_both(compute_input_gradient)
    difference = (gradient - expected).abs().max() / expected.abs().max()
    ours, *references = setup.time_passes(
        {
            OURS: compute_input_gradient,
            "backward": run_backward,
            "autograd.grad": compute_input_gradient,
        }
    )
    for reference in references:
        pair = (ours, replace(reference, name=REFERENCE))
        name = f"{arch} gradient, beside {reference.name}"
        yield setup.make_row(name, pair, 2 * forward, difference)


def make_setup(
    arch: str, batch_size: int, device: torch.device, rounds: int, rates: Rates
) -> Setup:
    """Return a random model and a random batch on `device`."""
    images = random_images(batch_size).to(device)
    model = evaluation_model(arch).to(device)
    return Setup(model=model, x=images.pixels / 255, y=images.labels, rounds=rounds, rates=rates)


def main() -> None:
    """Measure what the flags ask for, and publish it."""
    parser = command_line.make_parser(__doc__)
    command_line.add_names(parser, "--arch", "resnet18, wrn-34-10, ... (default: by device)")
    parser.add_argument("--batch-size", type=int, help="default: 256 on a GPU, 64 on a CPU")
    options = parser.parse_args()
    device = command_line.apply_shared_flags(options)
    batch_size = options.batch_size or BATCH_SIZES[device.type, options.quick]
    archs = options.arch or ARCHS["cpu" if options.quick else device.type]
    rates = hardware.measure_rates(device, "float32", quick=options.quick)
    with full_precision():
        rows = [
            row
            for arch in archs
            for row in measure(arch, make_setup(arch, batch_size, device, options.rounds, rates))
        ]
    publish(
        "attack_gradient",
        rows,
        options,
        compared=COMPARED,
        settings={"batch size": batch_size},
        device=device,
        rates=rates,
    )


if __name__ == "__main__":
    command_line.run(main)
