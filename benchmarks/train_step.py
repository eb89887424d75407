"""One training step: ours in float32 and bfloat16 beside the plain reference in float32.

    python -m benchmarks.train_step [--arch resnet18] [--method adr,adr+awp] [--quick]

Both take the same batches through a whole step: targets, attack, gradients, optimizer, average.
"""

import argparse
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from adrbench.config.settings import TrainConfig
from adrbench.runtime.arithmetic import Arithmetic, full_precision
from benchmarks.harness import command_line, hardware
from benchmarks.harness.adrbench_calls import ARITHMETICS, make_step, new_run
from benchmarks.harness.document import publish
from benchmarks.harness.hardware import Rates
from benchmarks.harness.timing import Comparison, Contender, Timing, Work, compare
from benchmarks.harness.workload import (
    make_batches,
    make_config,
    random_dataset,
    random_images,
    random_model,
)
from benchmarks.reference.training_step import Trainer

COMPARED = (
    "Seconds per training step. Ours is the step of `adrbench train` in the precision named; the "
    "reference is\neager PyTorch in float32, NCHW, as the published code."
)
METHODS = ("at", "adr", "adr+awp", "trades+adr")
ARCHS = {"cpu": ("resnet18",), "cuda": ("resnet18", "wrn-34-10")}
#: By device and whether to be quick: the batch size and the number of attack steps.
SIZES = {("cpu", False): (32, 3), ("cpu", True): (8, 1), ("cuda", False): (128, 10)}
SIZES["cuda", True] = SIZES["cuda", False]
#: On a GPU a run captures a CUDA graph within this many steps.
WARMUP = {"cpu": 1, "cuda": 8}
NUM_BATCHES = 4
REFERENCE, REFERENCE_TF32 = "reference", "TF32"


def build_ours(
    config: TrainConfig, precision: Arithmetic, directory: Path, device: torch.device
) -> Work:
    """Return a step of a run in `precision`."""
    dataset = random_dataset(NUM_BATCHES * config.batch_size, config.val_size)
    run = new_run(config, precision, dataset, directory, device)
    return repeat(make_step(run), make_batches(run.dataset.train, config))


def build_reference(config: TrainConfig, device: torch.device, *, tf32: bool) -> Work:
    """Return a step of the plain reference, with convolutions in TF32 or not."""
    dataset = random_dataset(NUM_BATCHES * config.batch_size, config.val_size)
    model = random_model(config.arch).to(device)
    trainer = Trainer(model, config, total_steps=config.epochs * NUM_BATCHES)
    arithmetic = default_precision if tf32 else full_precision
    return repeat(trainer.step, make_batches(dataset.train.to(device), config), arithmetic)


def repeat(
    take_step: Callable[[Tensor, Tensor, int], object],
    batches: list[tuple[Tensor, Tensor]],
    arithmetic: Callable[[], AbstractContextManager[None]] | None = None,
) -> Work:
    """Return a function that takes one step per call, cycling through the batches."""
    steps = itertools.count()

    def work() -> object:
        step = next(steps)
        x, y = batches[step % NUM_BATCHES]
        if arithmetic is None:
            return take_step(x, y, step)
        with arithmetic():
            return take_step(x, y, step)

    return work


@contextmanager
def default_precision() -> Iterator[None]:
    """Allow TF32 in convolutions, which is PyTorch's default."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def count_step(config: TrainConfig) -> int:
    """Return the floating-point operations per image of the reference's training step."""
    trainer = Trainer(random_model(config.arch), config, total_steps=1)
    images = random_images(2)
    x, y = images.pixels / 255, images.labels
    return hardware.count_operations(lambda: trainer.step(x, y, 0)) // len(images)


def make_row(
    config: TrainConfig,
    precision: Arithmetic,
    timings: Mapping[str, Timing],
    operations: float,
    rates: Rates,
) -> Comparison:
    """Return the row of one precision; `operations` are those of a step."""
    ours = replace(timings[precision], name="ours")
    references = [timings[name] for name in (REFERENCE, REFERENCE_TF32) if name in timings]
    shares = {
        name: hardware.compute_share_of_floor(operations, rate, timing.median)
        for name, rate, timing in (
            ("ours", rates[precision], ours),
            (REFERENCE, rates["float32"], references[0]),
        )
    }
    images = {one.name: config.batch_size / one.median for one in (ours, *references)}
    return Comparison(
        name=f"{config.arch} {config.method} {precision}",
        contenders=(ours, *references),
        shown={
            "images/s": f"{images['ours']:,.0f}",
            "of floor": hardware.render_shares(shares),
        },
        facts={
            "images_per_second": images,
            "floor_operations": operations,
            "share_of_floor": shares,
        },
    )


def measure(
    config: TrainConfig, options: argparse.Namespace, rates: Rates, device: torch.device
) -> list[Comparison]:
    """Return a row per precision; the rows share the reference's timings."""
    precisions = options.precision or list(ARITHMETICS)
    with tempfile.TemporaryDirectory() as name:
        builds: dict[str, Callable[[], Work]] = {
            precision: partial(build_ours, config, precision, Path(name), device)
            for precision in precisions
        }
        builds[REFERENCE] = partial(build_reference, config, device, tf32=False)
        if device.type == "cuda":
            builds[REFERENCE_TF32] = partial(build_reference, config, device, tf32=True)
        warmup = WARMUP[device.type]
        contenders = [Contender(name=n, build=b, warmup=warmup) for n, b in builds.items()]
        timings = compare(contenders, rounds=options.rounds, device=device)
    operations = count_step(config) * config.batch_size
    return [make_row(config, one, timings, operations, rates) for one in precisions]


def main() -> None:
    """Measure what the flags ask for, and publish it."""
    parser = command_line.make_parser(__doc__)
    command_line.add_names(parser, "--arch", "resnet18, wrn-34-10, ... (default: by device)")
    command_line.add_names(parser, "--method", f"default: {','.join(METHODS)}")
    command_line.add_names(parser, "--precision", "float32, bfloat16 (default: both)")
    parser.add_argument("--batch-size", type=int, help="default: 128 on a GPU, 32 on a CPU")
    parser.add_argument("--steps", type=int, help="of the attack; default: 10 on a GPU, 3 on a CPU")
    options = parser.parse_args()
    device = command_line.apply_shared_flags(options)
    batch_size, steps = SIZES[device.type, options.quick]
    batch_size, steps = options.batch_size or batch_size, options.steps or steps
    archs = options.arch or ARCHS["cpu" if options.quick else device.type]
    rates = hardware.measure_rates(device, quick=options.quick)
    rows = []
    for arch, method in itertools.product(archs, options.method or METHODS):
        config = make_config(arch, method, batch_size=batch_size, steps=steps, num_val=1)
        rows += measure(config, options, rates, device)
    publish(
        "train_step",
        rows,
        options,
        compared=COMPARED,
        settings={"batch size": batch_size, "attack steps": steps},
        device=device,
        rates=rates,
    )


if __name__ == "__main__":
    command_line.run(main)
