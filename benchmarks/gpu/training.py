"""Training on a GPU: steps beside the published style, and the validation of an epoch."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from adrbench.config.settings import Compile, TrainConfig
from adrbench.results.history import HistoryRow
from adrbench.training.callbacks import NoCallbacks
from benchmarks.gpu.sizes import Bench
from benchmarks.harness.adrbench_calls import make_epoch, make_step, new_run
from benchmarks.harness.document import make_cells, render_seconds
from benchmarks.harness.parts import Measurement, Row
from benchmarks.harness.timing import (
    Comparison,
    Contender,
    Timing,
    Work,
    compare,
    synchronize,
    time_calls,
)
from benchmarks.harness.workload import make_batches, make_config, random_dataset
from benchmarks.train_step import NUM_BATCHES, build_reference, repeat

STEPS_COMPARED = (
    "Seconds per training step. Ours is the step of `adrbench train` without flags, which compiles "
    "the networks only in long runs: in the rows marked compiled, whose first step includes the "
    "compilation. The reference is eager PyTorch in NCHW, as the published code, with PyTorch's "
    "default of TF32 in convolutions."
)
WIDE_COMPARED = "Seconds per training step, as above."
VALIDATION_COMPARED = (
    "Seconds of an epoch of `adrbench train` without flags on random images (training / "
    "validation), not compiled, without its checkpoint. Student and average are validated. The "
    "first epoch includes preparing the steps and the validation."
)
METHODS = ("adr", "adr+awp")
CHOICES: tuple[Compile, ...] = ("off", "on")
EPOCHS = 2
#: A step of the reference takes seconds for a wide network, and nothing of it is captured.
WIDE_ROUNDS, REFERENCE_WARMUP = 2, 3
OURS, REFERENCE = "ours", "reference"


@dataclass(kw_only=True)
class OurStep:
    """The step of a run without flags, and what its first call showed.

    It is built once, or on a CPU twice, of which the first one compiles.
    """

    config: TrainConfig
    directory: Path
    device: torch.device
    facts: dict[str, Any] = field(default_factory=dict)

    def build(self) -> Work:
        """Return a step of a new run, which has taken one."""
        dataset = random_dataset(NUM_BATCHES * self.config.batch_size, self.config.val_size)
        run = new_run(self.config, self.config.precision, dataset, self.directory, self.device)
        step = make_step(run)
        work = repeat(step, make_batches(run.dataset.train, self.config))
        self.facts.setdefault("first_step_seconds", time_calls(work, 1, self.device))
        self.facts["precision"] = run.config.precision
        self.facts["compiled"] = bool(step.compiled and step.compiled.is_compiled)
        return work


def list_steps(bench: Bench) -> Iterator[Measurement]:
    """Yield the step of each method and batch size: first as in short runs, then compiled."""
    for choice, method, batch_size in product(CHOICES, METHODS, bench.sizes.batch_sizes):
        name = f"{bench.sizes.arch} {method}, batch {batch_size}{mark(choice)}"
        config = configure(bench, bench.sizes.arch, method, batch_size, choice)
        yield name, partial(measure_step, bench, name, config, bench.rounds)


def list_wide_steps(bench: Bench) -> Iterator[Measurement]:
    """Yield the step of a wide network."""
    arch, (batch_size, *_) = bench.sizes.wide_arch, bench.sizes.batch_sizes
    name = f"{arch} adr, batch {batch_size}"
    config = configure(bench, arch, "adr", batch_size, "off")
    yield name, partial(measure_step, bench, name, config, min(bench.rounds, WIDE_ROUNDS))


def mark(choice: Compile) -> str:
    """Return what is appended to the name of a row."""
    return ", compiled" if choice == "on" else ""


def configure(
    bench: Bench, arch: str, method: str, batch_size: int, choice: Compile
) -> TrainConfig:
    """Return the configuration of a step, or of an epoch."""
    steps, num_val = bench.sizes.steps, bench.sizes.num_val
    config = make_config(arch, method, batch_size=batch_size, steps=steps, num_val=num_val)
    return config.with_settings(compile=choice)


def measure_step(bench: Bench, name: str, config: TrainConfig, rounds: int) -> Row:
    """Return the row of a configuration."""
    with tempfile.TemporaryDirectory() as directory:
        ours = OurStep(config=config, directory=Path(directory), device=bench.device)
        warmup = bench.sizes.warmup
        reference = partial(build_reference, config, bench.device, tf32=True)
        contenders = [
            Contender(name=OURS, build=ours.build, warmup=warmup),
            Contender(name=REFERENCE, build=reference, warmup=min(warmup, REFERENCE_WARMUP)),
        ]
        timings = compare(contenders, rounds=rounds, device=bench.device)
    return make_step_row(name, config.batch_size, timings, ours.facts)


def make_step_row(
    name: str, batch_size: int, timings: Mapping[str, Timing], facts: Mapping[str, Any]
) -> Row:
    """Return the row of two timings of a step; `facts` are those of ours."""
    images = {one: batch_size / timing.median for one, timing in timings.items()}
    comparison = Comparison(
        name=name,
        contenders=(timings[OURS], timings[REFERENCE]),
        shown={
            "images/s": f"{images[OURS]:,.0f} / {images[REFERENCE]:,.0f}",
            "precision": facts["precision"],
            "compiled": "yes" if facts["compiled"] else "no",
            "first step": render_seconds(facts["first_step_seconds"]),
        },
        facts={"images_per_second": images, **facts},
    )
    written = comparison.to_json()
    return Row(name=name, cells=make_cells(written), facts=written)


class WaitForSteps(NoCallbacks):
    """Waits for the device after the last step of an epoch, whose time is then exact."""

    def __init__(self, device: torch.device, num_steps: int) -> None:
        self.device, self.num_steps = device, num_steps

    def step(self, epoch: int, step: int, loss: float, annealed: Mapping[str, float]) -> None:
        """Wait if `step` is the last one."""
        if step == self.num_steps:
            synchronize(self.device)


def list_epochs(bench: Bench) -> Iterator[Measurement]:
    """Yield the epochs of one run."""
    num_batches, (batch_size, *_) = bench.sizes.num_batches, bench.sizes.batch_sizes
    config = configure(bench, bench.sizes.arch, "adr", batch_size, "off")
    with tempfile.TemporaryDirectory() as directory:
        dataset = random_dataset(num_batches * batch_size, bench.sizes.num_val)
        run = new_run(config, config.precision, dataset, Path(directory), bench.device)
        take_epoch = make_epoch(run, make_step(run), WaitForSteps(bench.device, num_batches))
        for epoch in range(1, EPOCHS + 1):
            name = f"{bench.sizes.arch} adr {run.config.precision}, epoch {epoch}"
            yield (
                name,
                lambda name=name: make_epoch_row(  # type: ignore[misc]
                    name, take_epoch(), num_batches * batch_size
                ),
            )


def make_epoch_row(name: str, row: HistoryRow, num_train: int) -> Row:
    """Return the row of a finished epoch on `num_train` images."""
    training = num_train / row.images_per_second
    validation = row.seconds - training
    share = validation / row.seconds
    return Row(
        name=name,
        cells={
            "": name,
            "epoch": render_seconds(row.seconds),
            "validation": render_seconds(validation),
            "share": f"{share:.1%}",
            "images": f"{num_train:,} / {row.select_n:,}",
            "images/s": f"{row.images_per_second:,.0f}",
        },
        facts={
            "seconds": row.seconds,
            "validation_seconds": validation,
            "share": share,
            "num_train": num_train,
            "num_val": row.select_n,
            "images_per_second": row.images_per_second,
        },
    )
