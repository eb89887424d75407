"""AutoAttack, attack by attack: ours beside the official package's own evaluation.

    python -m benchmarks.autoattack [--npz cifar10.npz] [--weights CHECKPOINT] [--quick]

Same model, images, seed and batch size; float32, with TF32 off on both sides. Without --weights
the model is the undefended ResNet-18 of the official package, attacked with a small eps so that
some images are robust. Without --npz the images are random, labeled by the model.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import adrbench
from adrbench.config.declare import parse_fraction
from adrbench.config.threat import ThreatModel
from adrbench.data import Images
from adrbench.errors import AdrbenchError
from adrbench.runtime.arithmetic import full_precision
from benchmarks.harness import command_line
from benchmarks.harness.adrbench_calls import run_suite
from benchmarks.harness.document import publish
from benchmarks.harness.timing import Comparison, Contender, Timing, Work, compare
from benchmarks.harness.workload import random_images
from benchmarks.reference.official_autoattack import (
    STAGES,
    WHOLE,
    evaluate_officially,
    load_undefended,
    shortened,
)

COMPARED = (
    "Seconds per evaluation of all images. Ours is what `adrbench attack` does; the reference is "
    "the package's own\nrun_standard_evaluation on the model as it is. Robust images and "
    "per-image agreement are those of the last round."
)
EPS, UNDEFENDED_EPS = "8/255", "1/255"
NUM_IMAGES = {("cpu", False): 16, ("cpu", True): 2, ("cuda", False): 1_000, ("cuda", True): 64}
SHARE = {("cpu", False): 0.1, ("cpu", True): 0.01, ("cuda", False): 1.0, ("cuda", True): 0.1}
BATCH_SIZE = 250
#: The warm-up has this fraction of the share.
WARMUP_SHARE = 0.02


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A model with images, and the per-example outcomes of each side's last evaluation."""

    model: nn.Module
    images: Images
    threat: ThreatModel
    batch_size: int
    outcomes: dict[str, Tensor] = field(default_factory=dict)

    def run_ours(self, name: str, images: Images) -> None:
        """Evaluate with adrbench."""
        evaluation = run_suite(self.model, images, name, self.threat, self.batch_size)
        self.outcomes["ours"], self.outcomes["clean"] = evaluation.robust, evaluation.clean

    def run_reference(self, name: str, images: Images) -> None:
        """Evaluate with the official package."""
        x, y = images.pixels / 255, images.labels
        with full_precision():
            self.outcomes["reference"] = evaluate_officially(
                self.model, x, y, name, threat=self.threat, batch_size=self.batch_size
            )

    def build(self, side: str, name: str) -> Work:
        """Warm up a side on its first batch and a fraction of each attack; return the work."""
        run = self.run_ours if side == "ours" else self.run_reference
        with shortened(WARMUP_SHARE):
            run(name, self.images.first(min(self.batch_size, len(self.images))))
        return lambda: run(name, self.images)

    def measure(self, name: str, rounds: int) -> Comparison:
        """Compare the two sides on one attack, or on the whole suite."""
        contenders = [
            Contender(name=side, build=partial(self.build, side, name), warmup=0)
            for side in ("ours", "reference")
        ]
        timings = compare(contenders, rounds=rounds, device=self.images.pixels.device)
        counts = {side: int(outcomes.sum()) for side, outcomes in self.outcomes.items()}
        num_clean = counts.pop("clean")
        agreement = float((self.outcomes["ours"] == self.outcomes["reference"]).float().mean())
        return Comparison(
            name=name,
            contenders=tuple(timings.values()),
            shown={
                "robust": f"{counts['ours']} / {counts['reference']}",
                "agreement": f"{agreement:.1%}",
            },
            facts={
                "n": len(self.images),
                "clean_correct": num_clean,
                "robust_correct": {side: counts[side] for side in ("ours", "reference")},
                "agreement": agreement,
            },
        )


def add_up(rows: Sequence[Comparison]) -> Comparison:
    """Return the row of all attacks, whose samples are the sums of each round."""
    timings = []
    for parts in zip(*(row.contenders for row in rows), strict=True):
        peaks = [part.peak_mib for part in parts if part.peak_mib is not None]
        rounds = zip(*(part.samples for part in parts), strict=True)
        timings.append(
            Timing(
                name=parts[0].name,
                samples=tuple(map(sum, rounds)),
                peak_mib=max(peaks, default=None),
            )
        )
    facts = {"sum_of": [row.name for row in rows]}
    return Comparison(name="sum of the above", contenders=tuple(timings), facts=facts)


def read_images(npz: Path | None, n: int, model: nn.Module) -> Images:
    """Return the first `n` test images of a file, or random ones labeled by `model`."""
    if npz is None:
        pixels = random_images(n).pixels
        with torch.no_grad():
            return Images(pixels, model(pixels / 255).argmax(1))
    with np.load(npz) as stored:
        if not {"x_test", "y_test"} <= set(stored.files):
            raise AdrbenchError(f"{npz} has no x_test and y_test: give a file that has them.")
        pixels, labels = stored["x_test"][:n], stored["y_test"][:n]
    return Images(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(labels.astype(np.int64)),
    )


def make_setup(options: argparse.Namespace, device: torch.device) -> Setup:
    """Return the model and the images that the flags ask for."""
    model = adrbench.load_model(options.weights) if options.weights else load_undefended()
    images = read_images(options.npz, options.n, model)
    eps = options.eps or (EPS if options.weights else UNDEFENDED_EPS)
    return Setup(
        model=model.to(device),
        images=images.to(device),
        threat=ThreatModel(eps=parse_fraction(eps, "eps")),
        batch_size=options.batch_size,
    )


def measure(setup: Setup, options: argparse.Namespace) -> list[Comparison]:
    """Measure the stages one by one, their sum if all four ran, and the whole suite."""
    with shortened(options.share):
        rows = [setup.measure(name, options.rounds) for name in options.stage if name != WHOLE]
        if {row.name for row in rows} == set(STAGES):
            rows.append(add_up(rows))
        if WHOLE in options.stage:
            rows.append(setup.measure(WHOLE, options.whole_rounds))
    return rows


def describe_settings(setup: Setup, options: argparse.Namespace) -> dict[str, Any]:
    """Return what was attacked, and how."""
    whole = {"rounds of the whole": options.whole_rounds} if WHOLE in options.stage else {}
    origin = "real" if options.npz else "random, labeled by the model"
    return {
        "model": options.weights.name if options.weights else "undefended ResNet-18",
        "images": f"{len(setup.images)} {origin}",
        "eps": f"{setup.threat.eps * 255:.3g}/255",
        "batch size": setup.batch_size,
        "share of iterations and queries": options.share,
        **whole,
    }


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the flags."""
    parser = command_line.make_parser(__doc__)
    parser.add_argument("--npz", type=Path, help="real images: x_test (N, H, W, C) uint8, y_test")
    parser.add_argument("--weights", type=Path, help="an adrbench checkpoint, for a robust model")
    parser.add_argument("--eps", help=f"default: {UNDEFENDED_EPS}, or {EPS} with --weights")
    parser.add_argument(
        "--n", type=command_line.positive, help="images; default: 1,000 on a GPU, 16 on a CPU"
    )
    parser.add_argument("--batch-size", type=command_line.positive, default=BATCH_SIZE)
    parser.add_argument(
        "--share", type=command_line.fraction, help="of iterations; default: 1, 0.1 on a CPU"
    )
    command_line.add_names(parser, "--stage", f"{', '.join(STAGES)}, or {WHOLE} for all as a suite")
    parser.add_argument("--whole-rounds", type=int, default=1, help=f"of {WHOLE} (default: 1)")
    return parser


def main() -> None:
    """Measure what the flags ask for, and publish it."""
    parser = make_parser()
    options = parser.parse_args()
    device = command_line.apply_shared_flags(options)
    if unknown := set(options.stage) - {*STAGES, WHOLE}:
        parser.error(f"--stage {', '.join(sorted(unknown))}: choose {', '.join(STAGES)}, {WHOLE}")
    size = device.type, options.quick
    options.n = options.n or NUM_IMAGES[size]
    options.share = options.share or SHARE[size]
    options.stage = options.stage or [*STAGES, *([WHOLE] if device.type == "cuda" else [])]
    setup = make_setup(options, device)
    publish(
        "autoattack",
        measure(setup, options),
        options,
        compared=COMPARED,
        settings=describe_settings(setup, options),
        device=device,
    )


if __name__ == "__main__":
    command_line.run(main)
