"""A whole epoch: data, steps, validation and checkpoint, ours beside the plain reference.

    python -m benchmarks.epoch [--method adr] [--precision bfloat16] [--quick]

On a GPU: 50,000 random images, ResNet-18, PGD-10. On a CPU: eight batches, PGD-3.
"""

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from adrbench.config.settings import TrainConfig
from adrbench.runtime.arithmetic import Arithmetic, full_precision
from benchmarks.harness import command_line
from benchmarks.harness.adrbench_calls import ARITHMETICS, make_epoch, make_step, new_run
from benchmarks.harness.document import publish
from benchmarks.harness.timing import Comparison, Contender, Timing, Work, compare
from benchmarks.harness.workload import make_batches, make_config, random_dataset, random_model
from benchmarks.reference.training_epoch import EpochTrainer
from benchmarks.reference.training_step import Trainer

COMPARED = (
    "Seconds per epoch of `adrbench train`, in the precision named, beside a data loader with the "
    "reference's step\nin float32; both validate student and average with PGD and write a "
    "checkpoint."
)
ARCH = "resnet18"


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of an epoch, the warm-up steps, and the reference's data loader processes."""

    batches: int
    batch_size: int
    steps: int
    num_val: int
    warmup: int
    workers: int


#: By device and whether to be quick. On a GPU the warm-up captures the CUDA graph of the run.
SIZES = {
    ("cpu", False): Size(batches=8, batch_size=32, steps=3, num_val=64, warmup=1, workers=0),
    ("cpu", True): Size(batches=2, batch_size=8, steps=1, num_val=16, warmup=1, workers=0),
    ("cuda", False): Size(
        batches=390, batch_size=128, steps=10, num_val=1_000, warmup=8, workers=4
    ),
}
SIZES["cuda", True] = replace(SIZES["cuda", False], batches=39)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all contenders share."""

    config: TrainConfig
    size: Size
    device: torch.device
    directory: Path

    def build_ours(self, precision: Arithmetic) -> Work:
        """Return an epoch of a run whose step has warmed up."""
        batch_size = self.config.batch_size
        dataset = random_dataset(self.size.batches * batch_size, self.size.num_val)
        run = new_run(self.config, precision, dataset, self.directory, self.device)
        take_step = make_step(run)
        ((x, y),) = make_batches(run.dataset.train.first(batch_size), self.config)
        for step in range(self.size.warmup):
            take_step(x, y, step)
        return make_epoch(run, take_step)

    def build_reference(self) -> Work:
        """Return an epoch of the plain reference, warmed up likewise, with TF32 off."""
        config, size = self.config, self.size
        dataset = random_dataset(size.batches * config.batch_size, size.num_val)
        model = random_model(config.arch).to(self.device)
        trainer = Trainer(model, config, total_steps=config.epochs * size.batches)
        first = dataset.train.first(config.batch_size).to(self.device)
        epochs = EpochTrainer(
            trainer, dataset, self.directory, workers=size.workers, device=self.device
        )
        with full_precision():
            for step in range(size.warmup):
                trainer.step(first.pixels / 255, first.labels, step)

        def work() -> object:
            with full_precision():
                return epochs.run()

        return work

    def make_row(self, precision: Arithmetic, timings: dict[str, Timing]) -> Comparison:
        """Return the row of one precision."""
        ours = replace(timings[precision], name="ours")
        num_train = self.size.batches * self.config.batch_size
        rate = num_train / ours.median
        return Comparison(
            name=f"{ARCH} {self.config.method} {precision}",
            contenders=(ours, timings["reference"]),
            shown={"images/s": f"{rate:,.0f}"},
            facts={
                "images_per_second": rate,
                "num_train": num_train,
                "num_val": self.size.num_val,
            },
        )


def measure(setup: Setup, precisions: list[Arithmetic], rounds: int) -> list[Comparison]:
    """Return a row per precision; the rows share the reference's timings."""
    contenders = [
        *(Contender(name=p, build=partial(setup.build_ours, p), warmup=0) for p in precisions),
        Contender(name="reference", build=setup.build_reference, warmup=0),
    ]
    timings = compare(contenders, rounds=rounds, device=setup.device)
    return [setup.make_row(precision, timings) for precision in precisions]


def main() -> None:
    """Measure what the flags ask for, and publish it."""
    parser = command_line.make_parser(__doc__)
    command_line.add_names(parser, "--precision", "float32, bfloat16 (default: both)")
    parser.add_argument("--method", default="adr", help="default: adr")
    parser.add_argument("--workers", type=int, help="of the reference's data loader")
    options = parser.parse_args()
    device = command_line.apply_shared_flags(options)
    size = SIZES[device.type, options.quick]
    if options.workers is not None:
        size = replace(size, workers=options.workers)
    config = make_config(
        ARCH, options.method, batch_size=size.batch_size, steps=size.steps, num_val=size.num_val
    )
    with tempfile.TemporaryDirectory() as directory:
        setup = Setup(config=config, size=size, device=device, directory=Path(directory))
        rows = measure(setup, options.precision or list(ARITHMETICS), options.rounds)
    publish(
        "epoch",
        rows,
        options,
        compared=COMPARED,
        settings={
            "images": size.batches * size.batch_size,
            "batch size": size.batch_size,
            "attack steps": size.steps,
            "validation images": size.num_val,
            "loader processes of the reference": size.workers,
        },
        device=device,
    )


if __name__ == "__main__":
    command_line.run(main)
