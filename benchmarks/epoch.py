"""A whole epoch: data, steps, validation and checkpoint, ours beside the plain reference.

    python -m benchmarks.epoch [--method adr] [--precision bfloat16] [--quick]

On a GPU: a full CIFAR-10 of random images, ResNet-18, PGD-10. On a CPU: eight batches, PGD-3.
"""

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from adrbench.config.settings import PRECISIONS, Precision, TrainConfig
from adrbench.runtime.devices import full_precision
from adrbench.training.state import prepare
from benchmarks import page
from benchmarks.harness import Contender, Measured, Row, Work, compare
from benchmarks.inputs import make_batches, make_config, random_dataset, random_model
from benchmarks.ours import make_epoch, make_step
from benchmarks.reference import Trainer
from benchmarks.reference_epoch import Epochs

COMPARED = (
    "Seconds per epoch of `adrbench train`, in the precision named, beside a data loader with the "
    "reference's step\nin float32; both validate student and average with PGD and write a "
    "checkpoint."
)
ARCH = "resnet18"


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large an epoch is, and how many steps warm up for it."""

    batches: int
    batch_size: int
    steps: int
    num_val: int
    warmup: int


#: By device and whether it has to be quick. A GPU's warm-up captures the CUDA graph of the run.
SIZES = {
    ("cpu", False): Size(batches=8, batch_size=32, steps=3, num_val=64, warmup=1),
    ("cpu", True): Size(batches=2, batch_size=8, steps=1, num_val=16, warmup=1),
    ("cuda", False): Size(batches=390, batch_size=128, steps=10, num_val=1_000, warmup=8),
    ("cuda", True): Size(batches=39, batch_size=128, steps=10, num_val=1_000, warmup=8),
}
WORKERS = {"cpu": 0, "cuda": 4}


@dataclass(frozen=True, kw_only=True)
class Setup:
    """One configuration, the same for every contender."""

    config: TrainConfig
    size: Size
    device: torch.device
    directory: Path
    workers: int

    def build_ours(self, precision: Precision) -> Work:
        """Return an epoch of a run whose step has warmed up."""
        config = replace(self.config, precision=precision)
        dataset = random_dataset(self.size.batches * config.batch_size, self.size.num_val)
        run = prepare(config, dataset, self.directory / precision, self.device)
        take_step = make_step(run)
        batches = make_batches(run.dataset.train.first(config.batch_size), config)
        for step in range(self.size.warmup):
            take_step(*batches[0], step)
        return make_epoch(run, take_step)

    def build_reference(self) -> Work:
        """Return an epoch of the plain reference, warmed up likewise, with TF32 off."""
        config = self.config
        dataset = random_dataset(self.size.batches * config.batch_size, self.size.num_val)
        model = random_model(config.arch).to(self.device)
        trainer = Trainer(model, config, total_steps=config.epochs * self.size.batches)
        first = dataset.train.first(config.batch_size).to(self.device)
        epochs = Epochs(trainer, dataset, self.directory, workers=self.workers, device=self.device)

        def work() -> object:
            with full_precision():
                return epochs.run()

        with full_precision():
            for step in range(self.size.warmup):
                trainer.step(first.pixels / 255, first.labels, step)
        return work


def measure(setup: Setup, precisions: list[Precision], rounds: int) -> list[Row]:
    """Return a row for every precision; they share the reference's figures."""
    ours = [Contender(name=p, build=partial(setup.build_ours, p), warmup=0) for p in precisions]
    reference = Contender(name="reference", build=setup.build_reference, warmup=0)
    measured = compare([*ours, reference], rounds=rounds, device=setup.device)
    return [make_row(setup, precision, measured) for precision in precisions]


def make_row(setup: Setup, precision: Precision, measured: dict[str, Measured]) -> Row:
    """Return the row of one precision."""
    ours = replace(measured[precision], name="ours")
    num_images = setup.size.batches * setup.config.batch_size
    rate = num_images / ours.median
    return Row(
        name=f"{ARCH} {setup.config.method} {precision}",
        contenders=(ours, measured["reference"]),
        shown={"images/s": f"{rate:,.0f}"},
        facts={"images_per_second": rate, "num_train": num_images, "num_val": setup.size.num_val},
    )


def main() -> None:
    """Measure what the flags ask for, and publish it."""
    parser = page.make_parser(__doc__)
    page.add_names(parser, "--precision", "float32, bfloat16 (default: both)")
    parser.add_argument("--method", default="adr", help="default: adr")
    parser.add_argument("--workers", type=int, help="of the reference's data loader")
    options = parser.parse_args()
    device = page.start(options)
    size = SIZES[device.type, options.quick]
    workers = WORKERS[device.type] if options.workers is None else options.workers
    with tempfile.TemporaryDirectory() as directory:
        setup = Setup(
            config=make_config(
                ARCH,
                options.method,
                batch_size=size.batch_size,
                steps=size.steps,
                num_val=size.num_val,
            ),
            size=size,
            device=device,
            directory=Path(directory),
            workers=workers,
        )
        rows = measure(setup, options.precision or list(PRECISIONS), options.rounds)
    settings = {
        "images": size.batches * size.batch_size,
        "batch size": size.batch_size,
        "attack steps": size.steps,
        "validation images": size.num_val,
        "loader processes of the reference": workers,
    }
    document = page.describe(
        "epoch",
        rows,
        compared=COMPARED,
        settings=settings | page.common_settings(options),
        device=device,
    )
    page.publish(document, options)


if __name__ == "__main__":
    page.run(main)
