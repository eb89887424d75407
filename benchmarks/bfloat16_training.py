"""Training in bfloat16 beside float32, judged by a margin attack.

    python -m benchmarks.bfloat16_training cifar10-first.npz --out DIRECTORY

Each run is `adrbench.train` on an .npz file of CIFAR-10 images; the final weights are judged in
float32. bfloat16 is emulated (see `benchmarks.emulation`), so that a CPU without bfloat16 products
can make the comparison; `--native` uses `precision="bfloat16"` instead. Finished runs are not
repeated, and the table of all of them is printed at the end.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any

import typer
from torch import nn

import adrbench
from adrbench.models.architectures import build_model
from benchmarks.emulation import Emulated, EmulatedNetwork

METHODS = ("at", "adr+wa", "adr+awp")
ARITHMETICS: tuple[Emulated, ...] = ("float32", "bfloat16")
SEEDS = range(3)
ARCH = "small-cnn"
#: About 400 steps on 5,000 images, with an inner attack of three steps.
SETTINGS: Mapping[str, Any] = {
    "epochs": 10,
    "batch_size": 128,
    "steps": 3,
    "alpha": 4 / 255,
    "lr": 0.1,
    "val_size": 100,
}
EPS = 8 / 255


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One run of the comparison."""

    method: str
    seed: int
    arithmetic: Emulated

    @property
    def name(self) -> str:
        """The name of the run and of its results."""
        return f"{self.method}-{self.arithmetic}-{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """The accuracies of one set of weights, fractions of all test images."""

    method: str
    weights: str
    seed: int
    arithmetic: Emulated
    clean: float
    robust: float


def main(
    images: Path,
    out: Annotated[Path, typer.Option(help="Directory of runs and results.")],
    native: Annotated[bool, typer.Option(help="Train with precision=bfloat16.")] = False,
) -> None:
    """Train and judge what is missing, and print the table."""
    rows: list[Row] = []
    for seed, method, arithmetic in product(SEEDS, METHODS, ARITHMETICS):
        arm = Arm(method=method, seed=seed, arithmetic=arithmetic)
        done = out / f"{arm.name}.json"
        if not done.exists():
            found = [asdict(row) for row in measure(images, out, arm, native=native)]
            done.write_text(json.dumps(found, indent=1) + "\n")
        rows += [Row(**row) for row in json.loads(done.read_text())]
    typer.echo("\n".join(tabulate(rows)))


def build_float32(num_classes: int, in_channels: int) -> nn.Module:
    """Return the network that is trained."""
    return EmulatedNetwork(
        build_model(ARCH, num_classes=num_classes, in_channels=in_channels), "float32"
    )


def build_bfloat16(num_classes: int, in_channels: int) -> nn.Module:
    """Return the network that is trained, rounding as in bfloat16."""
    return EmulatedNetwork(
        build_model(ARCH, num_classes=num_classes, in_channels=in_channels), "bfloat16"
    )


def measure(images: Path, out: Path, arm: Arm, *, native: bool) -> Iterator[Row]:
    """Train one run, and judge its final weights on all test images."""
    method, seed, arithmetic = arm.method, arm.seed, arm.arithmetic
    run = adrbench.train(
        images,
        method=method,
        arch=build_float32 if native or arithmetic == "float32" else build_bfloat16,
        seed=seed,
        precision=arithmetic if native else "float32",
        name=arm.name,
        out=out / "checkpoints",
        results=out / "results",
        **SETTINGS,
    )
    x, y = adrbench.load_examples(str(images))
    for weights in ("student", "average") if "wa" in method.split("+") else ("student",):
        model = run.load_model(weights, selection="last")
        for module in model.modules():
            if isinstance(module, EmulatedNetwork):
                module.arithmetic = "float32"
        result = adrbench.evaluate(
            model, x, y, suite="cw", norm="Linf", eps=EPS, name=run.record.run
        )
        yield Row(
            method=method,
            weights=weights,
            seed=seed,
            arithmetic=arithmetic,
            clean=result.clean_accuracy,
            robust=result.robust_accuracy,
        )


def tabulate(rows: Sequence[Row]) -> Iterator[str]:
    """Return a Markdown table: accuracies in percent, clean / robust, a column per arithmetic."""
    by_arm: dict[tuple[str, str], dict[Emulated, list[Row]]] = {}
    for row in rows:
        of_arm = by_arm.setdefault((row.method, row.weights), {one: [] for one in ARITHMETICS})
        of_arm[row.arithmetic].append(row)
    yield f"| method | weights | seed | {' | '.join(ARITHMETICS)} |"
    yield f"|---|---|---:|{'---:|' * len(ARITHMETICS)}"
    for (method, weights), of_arm in by_arm.items():
        for same_seed in zip(*of_arm.values(), strict=True):
            cells = " | ".join(show([row]) for row in same_seed)
            yield f"| {method} | {weights} | {same_seed[0].seed} | {cells} |"
        yield f"| {method} | {weights} | mean | {' | '.join(map(show, of_arm.values()))} |"
    differences = [
        100 * (bfloat16.robust - float32.robust)
        for of_arm in by_arm.values()
        for float32, bfloat16 in zip(of_arm["float32"], of_arm["bfloat16"], strict=True)
    ]
    yield ""
    yield (
        f"robust, bfloat16 less float32: {mean(differences):+.2f} points on average over "
        f"{len(differences)} pairs, standard deviation {stdev(differences):.2f}"
    )


def show(rows: Sequence[Row]) -> str:
    """Return the mean accuracies of some rows in percent, clean / robust."""
    clean, robust = (mean(getattr(row, name) for row in rows) for name in ("clean", "robust"))
    return f"{100 * clean:.2f} / {100 * robust:.2f}"


if __name__ == "__main__":
    typer.run(main)
