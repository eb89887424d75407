"""One training step: ours in float32 and bfloat16 beside the plain reference in float32.

    python -m benchmarks.train_step [--arch resnet18] [--method adr,adr+awp] [--quick]

Both take the same batches through the whole step: targets, attack, gradients, optimizer, average.
"""

import argparse
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from adrbench.config.settings import PRECISIONS, Precision, TrainConfig
from adrbench.runtime.devices import full_precision
from adrbench.training.state import prepare
from benchmarks import page
from benchmarks.floor import count_forward, count_step, show_shares
from benchmarks.harness import Contender, Measured, Row, Work, compare
from benchmarks.inputs import make_batches, make_config, random_dataset, random_model
from benchmarks.machine import Rates, measure_rates
from benchmarks.ours import make_step
from benchmarks.reference import Trainer

COMPARED = (
    "Seconds per training step. Ours is the step of `adrbench train` in the precision named; the "
    "reference is\neager PyTorch in float32, NCHW, as the published code."
)
METHODS = ("at", "adr", "adr+awp", "trades+adr")
ARCHS = {"cpu": ("resnet18",), "cuda": ("resnet18", "wrn-34-10")}
BATCH_SIZE, QUICK_BATCH_SIZE = {"cpu": 32, "cuda": 128}, {"cpu": 8, "cuda": 128}
STEPS, QUICK_STEPS = {"cpu": 3, "cuda": 10}, {"cpu": 1, "cuda": 10}
#: On a GPU a run captures a CUDA graph in its first steps; they are over after this many.
WARMUP = {"cpu": 1, "cuda": 8}
NUM_BATCHES = 4
REFERENCE, REFERENCE_TF32 = "reference", "TF32"


@dataclass(frozen=True, kw_only=True)
class Setup:
    """One model and method, the same for every contender."""

    config: TrainConfig
    device: torch.device
    directory: Path

    def contenders(self, precisions: list[Precision]) -> list[Contender]:
        """Return ours in every precision, then the reference; on a GPU also with TF32."""
        builds: dict[str, Callable[[], Work]] = {
            precision: partial(build_ours, self, precision) for precision in precisions
        }
        builds[REFERENCE] = partial(build_reference, self, tf32=False)
        if self.device.type == "cuda":
            builds[REFERENCE_TF32] = partial(build_reference, self, tf32=True)
        warmup = WARMUP[self.device.type]
        return [Contender(name=name, build=build, warmup=warmup) for name, build in builds.items()]


def build_ours(setup: Setup, precision: Precision) -> Work:
    """Return a step of a run that is prepared as `adrbench train` does."""
    config = replace(setup.config, precision=precision)
    dataset = random_dataset(NUM_BATCHES * config.batch_size, config.val_size)
    run = prepare(config, dataset, setup.directory / precision, setup.device)
    batches = make_batches(run.dataset.train, config)
    take_step = make_step(run)
    steps = itertools.count()

    def work() -> object:
        step = next(steps)
        x, y = batches[step % NUM_BATCHES]
        return take_step(x, y, step)

    return work


def build_reference(setup: Setup, *, tf32: bool) -> Work:
    """Return a step of the plain reference, its convolutions in TF32 or not."""
    config = setup.config
    dataset = random_dataset(NUM_BATCHES * config.batch_size, config.val_size)
    batches = make_batches(dataset.train.to(setup.device), config)
    model = random_model(config.arch).to(setup.device)
    trainer = Trainer(model, config, total_steps=config.epochs * NUM_BATCHES)
    arithmetic = default_precision if tf32 else full_precision
    steps = itertools.count()

    def work() -> object:
        step = next(steps)
        x, y = batches[step % NUM_BATCHES]
        with arithmetic():
            return trainer.step(x, y, step)

    return work


@contextmanager
def default_precision() -> Iterator[None]:
    """Let convolutions use TF32, as PyTorch does unless told otherwise."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def make_row(
    setup: Setup, precision: Precision, measured: Mapping[str, Measured], rates: Rates
) -> Row:
    """Return the row of one precision, from figures that the rows of a method share."""
    config = setup.config
    ours = replace(measured[precision], name="ours")
    references = [measured[name] for name in (REFERENCE, REFERENCE_TF32) if name in measured]
    operations = count_step(config, count_forward(random_model(config.arch))) * config.batch_size
    images = {c.name: config.batch_size / c.median for c in (ours, *references)}
    shares = {
        "ours": operations / rates[precision].best / ours.median,
        REFERENCE: operations / rates["float32"].best / references[0].median,
    }
    return Row(
        name=f"{config.arch} {config.method} {precision}",
        contenders=(ours, *references),
        shown={"images/s": f"{images['ours']:,.0f}", "of floor": show_shares(shares)},
        facts={
            "images_per_second": images,
            "floor_operations": operations,
            "share_of_floor": shares,
        },
    )


def measure(
    arch: str, method: str, options: argparse.Namespace, rates: Rates, device: torch.device
) -> list[Row]:
    """Measure one model and method; return a row for every precision asked for."""
    precisions = options.precision or list(PRECISIONS)
    with tempfile.TemporaryDirectory() as directory:
        config = make_config(
            arch, method, batch_size=options.batch_size, steps=options.steps, num_val=1
        )
        setup = Setup(config=config, device=device, directory=Path(directory))
        measured = compare(setup.contenders(precisions), rounds=options.rounds, device=device)
    return [make_row(setup, precision, measured, rates) for precision in precisions]


def main() -> None:
    """Measure what the flags ask for, and publish it."""
    parser = page.make_parser(__doc__)
    page.add_names(parser, "--arch", "resnet18, wrn-34-10, ... (default: by device)")
    page.add_names(parser, "--method", f"default: {','.join(METHODS)}")
    page.add_names(parser, "--precision", "float32, bfloat16 (default: both)")
    parser.add_argument("--batch-size", type=int, help="default: 128 on a GPU, 32 on a CPU")
    parser.add_argument("--steps", type=int, help="of the attack; default: 10 on a GPU, 3 on a CPU")
    options = parser.parse_args()
    device = page.start(options)
    kind = device.type
    options.batch_size = (
        options.batch_size or (QUICK_BATCH_SIZE if options.quick else BATCH_SIZE)[kind]
    )
    options.steps = options.steps or (QUICK_STEPS if options.quick else STEPS)[kind]
    rates = measure_rates(device)
    rows = [
        row
        for arch in options.arch or (ARCHS["cpu"] if options.quick else ARCHS[kind])
        for method in options.method or METHODS
        for row in measure(arch, method, options, rates, device)
    ]
    settings = {"batch size": options.batch_size, "attack steps": options.steps}
    page.publish(
        page.describe(
            "train_step",
            rows,
            compared=COMPARED,
            settings=settings | page.common_settings(options),
            device=device,
            rates=rates,
        ),
        options,
    )


if __name__ == "__main__":
    page.run(main)
