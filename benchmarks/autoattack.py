"""AutoAttack, attack by attack: ours beside the official package's own run.

    python -m benchmarks.autoattack [--npz cifar10.npz] [--weights CHECKPOINT] [--quick]

Same model, images, seed and batch size; float32, with TF32 off on both sides. Without --weights
the model is the undefended ResNet-18 that the package brings, attacked with a small eps so that
some images stand. Without --npz the images are random, labelled by the model.
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
from adrbench.runtime.devices import full_precision
from benchmarks import page
from benchmarks.harness import Contender, Measured, Row, Work, compare
from benchmarks.inputs import random_images
from benchmarks.official import STAGES, WHOLE, load_undefended, run_package, shortened
from benchmarks.ours import run_suite

COMPARED = (
    "Seconds per evaluation of all images. Ours is what `adrbench attack` does; the reference is "
    "the package's own\nrun_standard_evaluation on the model as it is. Images that stand and "
    "agreement, image by image, are of the last round."
)
EPS, UNDEFENDED_EPS = "8/255", "1/255"
NUM_IMAGES = {("cpu", False): 16, ("cpu", True): 2, ("cuda", False): 1_000, ("cuda", True): 64}
SHARE = {("cpu", False): 0.1, ("cpu", True): 0.01, ("cuda", False): 1.0, ("cuda", True): 0.1}
BATCH_SIZE = 250
#: What warms up, on top of the share.
WARMUP_SHARE = 0.02


@dataclass(frozen=True, kw_only=True)
class Match:
    """One model and its images, and the verdicts of the last evaluation of each side."""

    model: nn.Module
    images: Images
    threat: ThreatModel
    batch_size: int
    verdicts: dict[str, Tensor] = field(default_factory=dict)

    def run_ours(self, name: str, images: Images) -> None:
        """Evaluate with adrbench."""
        found = run_suite(self.model, images, name, self.threat, self.batch_size)
        self.verdicts["ours"], self.verdicts["clean"] = found.robust, found.clean

    def run_reference(self, name: str, images: Images) -> None:
        """Evaluate with the package."""
        x, y = images.pixels / 255, images.labels
        with full_precision():
            self.verdicts["reference"] = run_package(
                self.model, x, y, name, threat=self.threat, batch_size=self.batch_size
            )

    def build(self, side: str, name: str) -> Work:
        """Warm a side up on its first batch and a fraction of each attack; return its work."""
        run = self.run_ours if side == "ours" else self.run_reference
        first = self.images.first(min(self.batch_size, len(self.images)))
        with shortened(WARMUP_SHARE):
            run(name, first)
        return lambda: run(name, self.images)

    def measure(self, name: str, rounds: int) -> Row:
        """Compare the two sides on one attack, or on all."""
        contenders = [
            Contender(name=side, build=partial(self.build, side, name), warmup=0)
            for side in ("ours", "reference")
        ]
        measured = compare(contenders, rounds=rounds, device=self.images.pixels.device)
        counts = {side: int(verdicts.sum()) for side, verdicts in self.verdicts.items()}
        same = (self.verdicts["ours"] == self.verdicts["reference"]).float().mean()
        return Row(
            name=name,
            contenders=tuple(measured.values()),
            shown={
                "stand": f"{counts['ours']} / {counts['reference']}",
                "agreement": f"{float(same):.1%}",
            },
            facts={
                "n": len(self.images),
                "clean_correct": counts["clean"],
                "robust_correct": {side: counts[side] for side in ("ours", "reference")},
                "agreement": float(same),
            },
        )


def add_up(rows: Sequence[Row]) -> Row:
    """Return the row of all attacks one by one: its samples are the sums of each round."""
    sides = zip(*(row.contenders for row in rows), strict=True)
    return Row(
        name="sum of the above",
        contenders=tuple(
            Measured(
                name=side[0].name,
                samples=tuple(map(sum, zip(*(c.samples for c in side), strict=True))),
                peak_mib=max((c.peak_mib for c in side if c.peak_mib is not None), default=None),
            )
            for side in sides
        ),
        facts={"sum_of": [row.name for row in rows]},
    )


def share(text: str) -> float:
    """Return a number above 0, up to 1; a type for flags."""
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return number


def read_images(npz: Path | None, n: int, model: nn.Module) -> Images:
    """Return the first `n` test images of a file, or random ones that `model` has labelled."""
    if npz is None:
        pixels = random_images(n).pixels
        with torch.no_grad():
            return Images(pixels, model(pixels / 255).argmax(1))
    with np.load(npz) as stored:
        if not {"x_test", "y_test"} <= set(stored.files):
            raise AdrbenchError(f"{npz} has no x_test and y_test: give images that have labels.")
        pixels, labels = stored["x_test"][:n], stored["y_test"][:n]
    return Images(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(labels.astype(np.int64)),
    )


def make_match(options: argparse.Namespace, device: torch.device) -> Match:
    """Return the model and the images that the flags ask for."""
    model = adrbench.load_model(options.weights) if options.weights else load_undefended()
    images = read_images(options.npz, options.n, model)
    eps = options.eps or (EPS if options.weights else UNDEFENDED_EPS)
    return Match(
        model=model.to(device),
        images=images.to(device),
        threat=ThreatModel(eps=parse_fraction(eps, "eps")),
        batch_size=options.batch_size,
    )


def measure(match: Match, options: argparse.Namespace) -> list[Row]:
    """Measure the stages one by one, their sum where all four ran, and the whole suite."""
    rows = [match.measure(name, options.rounds) for name in options.stage if name != WHOLE]
    if {row.name for row in rows} == set(STAGES):
        rows.append(add_up(rows))
    if WHOLE in options.stage:
        rows.append(match.measure(WHOLE, options.whole_rounds))
    return rows


def describe_settings(match: Match, options: argparse.Namespace) -> dict[str, Any]:
    """Return what was attacked, and how."""
    whole = {"rounds of the whole": options.whole_rounds} if WHOLE in options.stage else {}
    origin = "real" if options.npz else "random, labelled by the model"
    return {
        "model": options.weights.name if options.weights else "undefended ResNet-18",
        "images": f"{len(match.images)} {origin}",
        "eps": f"{match.threat.eps * 255:.3g}/255",
        "batch size": match.batch_size,
        "share of iterations and queries": options.share,
        **whole,
        **page.common_settings(options),
    }


def main() -> None:
    """Measure what the flags ask for, and publish it."""
    parser = page.make_parser(__doc__)
    parser.add_argument("--npz", type=Path, help="real images: x_test (N, H, W, C) uint8, y_test")
    parser.add_argument("--weights", type=Path, help="an adrbench checkpoint, for a robust model")
    parser.add_argument("--eps", help=f"default: {UNDEFENDED_EPS}, or {EPS} with --weights")
    parser.add_argument(
        "--n", type=page.positive, help="images; default: 1,000 on a GPU, 16 on a CPU"
    )
    parser.add_argument("--batch-size", type=page.positive, default=BATCH_SIZE)
    parser.add_argument("--share", type=share, help="of iterations; default: 1, 0.1 on a CPU")
    page.add_names(parser, "--stage", f"{', '.join(STAGES)}, or {WHOLE} for all as a suite")
    parser.add_argument("--whole-rounds", type=int, default=1, help=f"of {WHOLE} (default: 1)")
    options = parser.parse_args()
    device = page.start(options)
    kind = device.type, options.quick
    unknown = set(options.stage) - {*STAGES, WHOLE}
    if unknown:
        parser.error(f"--stage {', '.join(sorted(unknown))}: choose {', '.join(STAGES)}, {WHOLE}")
    options.n = options.n or NUM_IMAGES[kind]
    options.share = options.share or SHARE[kind]
    options.stage = options.stage or [*STAGES, *([WHOLE] if device.type == "cuda" else [])]
    match = make_match(options, device)
    with shortened(options.share):
        rows = measure(match, options)
    document = page.describe(
        "autoattack",
        rows,
        compared=COMPARED,
        settings=describe_settings(match, options),
        device=device,
    )
    page.publish(document, options)


if __name__ == "__main__":
    page.run(main)
