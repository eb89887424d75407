"""Frozen gradients on a GPU, by the arithmetic of the search."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from adrbench.evaluation.search import make_search
from adrbench.models.frozen import (
    formats_for,
    freeze,
    gradient_difference,
    logits_and_gradient,
    relative_difference,
)
from adrbench.runtime.arithmetic import (
    ARITHMETICS,
    Arithmetic,
    full_precision,
    has_tensor_cores,
    searching_in,
)
from benchmarks.attack_gradient import WARMUP, Pass, compute_input_gradient, run_forward
from benchmarks.gpu.sizes import LAYOUTS, Bench
from benchmarks.harness.document import render_seconds
from benchmarks.harness.hardware import count_operations
from benchmarks.harness.parts import Measurement, Row
from benchmarks.harness.timing import Contender, Work, compare
from benchmarks.harness.workload import evaluation_model, random_images

COMPARED = (
    "Seconds per batch of {batch_size} images of the frozen model as `adrbench attack` runs it, by "
    "the arithmetic of the search: the forward pass, and the forward pass with the gradient with "
    "respect to the images. Differences are those from float32: the largest of a logit, relative "
    "to the largest logit, and the L2 norm of that of the gradient, relative to the L2 norm of the "
    "gradient."
)
PASSES: dict[str, Pass] = {"forward": run_forward, "forward + gradient": compute_input_gradient}


def describe(bench: Bench) -> str:
    """Return what is compared."""
    return COMPARED.format(batch_size=bench.sizes.gradient_batch)


def list_gradients(bench: Bench) -> Iterator[Measurement]:
    """Yield the passes of a frozen network in each arithmetic that the device has."""
    images = random_images(bench.sizes.gradient_batch).to(bench.device)
    x, y = images.pixels / 255, images.labels
    model = evaluation_model(bench.sizes.arch).to(bench.device)
    with full_precision():
        operations = count_operations(lambda: run_forward(model, x, y))
    network = Network(bench=bench, model=model, x=x, y=y, operations=operations)
    for arithmetic in ARITHMETICS:
        if arithmetic != "tf32" or has_tensor_cores(bench.device):
            name = f"{bench.sizes.arch} {arithmetic}"
            yield name, partial(network.measure, name, arithmetic)


@dataclass(frozen=True, kw_only=True)
class Network:
    """A model in float32, and a batch of images (N, C, H, W) and labels (N,) for it.

    `operations` are the floating-point operations of a forward pass.
    """

    bench: Bench
    model: nn.Module
    x: Tensor
    y: Tensor
    operations: int

    def measure(self, name: str, arithmetic: Arithmetic) -> Row:
        """Return the row of an arithmetic."""
        x, device = self.x, self.bench.device
        with full_precision():
            frozen = freeze(self.model, x, formats_for(x, arithmetic))
            exact = logits_and_gradient(frozen.model, x)
            model = make_search(frozen.model, arithmetic, x, graphed=x.is_cuda).model

        def build(run: Pass) -> Work:
            return lambda: run(model, x, self.y)

        contenders = [
            Contender(name=one, build=partial(build, run), warmup=WARMUP[device.type])
            for one, run in PASSES.items()
        ]
        with searching_in(arithmetic):
            timings = compare(contenders, rounds=self.bench.rounds, device=device)
            found = logits_and_gradient(model, x)
        # A gradient with respect to the images costs as much again as the forward pass.
        rates = {
            one: factor * self.operations / timings[one].median / 1e12
            for factor, one in enumerate(PASSES, start=1)
        }
        differences = {
            "logits": relative_difference(exact[0], found[0]),
            "gradients": gradient_difference(exact[1], found[1]),
        }
        return Row(
            name=name,
            cells={
                "": name,
                "layout": LAYOUTS[frozen.memory_format],
                **{one: render_seconds(timing.median) for one, timing in timings.items()},
                "TFLOP/s": " / ".join(f"{rate:.3g}" for rate in rates.values()),
                **{one: f"{difference:.0e}" for one, difference in differences.items()},
            },
            facts={
                "arithmetic": arithmetic,
                "layout": LAYOUTS[frozen.memory_format],
                "batch_size": len(x),
                "forward_operations": self.operations,
                "teraflops": rates,
                "differences": differences,
                "timings": [timing.to_json() for timing in timings.values()],
            },
        )
