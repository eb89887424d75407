"""The standard AutoAttack on a GPU: ours beside the official package as PyTorch runs it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from adrbench import load_model
from adrbench.checkpoints import format as checkpoints
from adrbench.checkpoints.third_party import load_third_party
from adrbench.checkpoints.torch_files import read_torch_file
from adrbench.config.declare import parse_fraction
from adrbench.config.threat import ThreatModel
from adrbench.data import Images, dataset_name, load_split
from adrbench.evaluation.evaluate import Evaluation
from adrbench.models.architectures import build_model
from adrbench.runtime.arithmetic import Precision, choose_for_search
from benchmarks.autoattack import EPS, UNDEFENDED_EPS, WARMUP_SHARE, read_images
from benchmarks.gpu.sizes import Bench
from benchmarks.harness.adrbench_calls import run_suite
from benchmarks.harness.parts import Measurement, Row
from benchmarks.harness.timing import time_calls
from benchmarks.harness.workload import NUM_CLASSES, evaluation_model
from benchmarks.reference.official_autoattack import (
    WHOLE,
    evaluate_officially,
    load_undefended,
    shortened,
)
from benchmarks.train_step import default_precision

COMPARED = (
    "Seconds of the standard AutoAttack on {model}. Images: {images}; eps {eps}, batch size "
    "{batch}{share}. The official package runs with PyTorch's defaults, which are TF32 in "
    "convolutions; the others are `adrbench attack` with the flags named and, in parentheses, the "
    "arithmetic of the search. Outcomes are compared with those of the package image by image: "
    "fooled or robust only here, and the difference of the two. The columns of attacks are seconds."
)
FLAGS: dict[str, Precision] = {"no flags": "auto", "--precision float16": "float16"}


@dataclass(frozen=True, kw_only=True)
class Target:
    """A model and images (N, C, H, W) on the device, and the threat model.

    `outcomes` has those of the official package as soon as they are known, (N,) booleans, and
    `seconds` what it took.
    """

    model: nn.Module
    images: Images
    threat: ThreatModel
    outcomes: dict[str, Tensor] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def load_target(bench: Bench) -> Target:
    """Return the model and the images that were given, or those of `benchmarks.autoattack`.

    On a CPU the latter have a small random model.

    Raises:
        AdrbenchError: when a file cannot be read, or does not fit.

    """
    n = bench.sizes.images
    if bench.weights:
        model = load_weights(bench.weights, bench.sizes.arch)
    elif bench.device.type == "cpu":
        model = evaluation_model(bench.sizes.arch)
    else:
        model = load_undefended()
    if bench.images:
        images, _ = load_split(str(bench.images), "test", data_dir=Path("data"))
        images = images.first(min(n, len(images)))
    else:
        images = read_images(None, n, model)
    return Target(
        model=model.to(bench.device),
        images=images.to(bench.device),
        threat=ThreatModel(eps=parse_fraction(choose_eps(bench), "eps")),
    )


def choose_eps(bench: Bench) -> str:
    """Return the radius: a small one for a model that is not robust."""
    return EPS if bench.weights else UNDEFENDED_EPS


def load_weights(path: Path, arch: str) -> nn.Module:
    """Return the model of a checkpoint, or of a state dict of `arch`, in eval mode on the CPU.

    Raises:
        CheckpointError: when the file cannot be read, or does not fit.

    """
    file = read_torch_file(path)
    if checkpoints.is_ours(file.content):
        return load_model(path)
    model = build_model(arch, num_classes=NUM_CLASSES)
    load_third_party(file.content, model, normalize=None)
    return model.eval()


def describe(bench: Bench) -> str:
    """Return what AutoAttack is compared on."""
    n, share = bench.sizes.images, bench.sizes.share
    undefended = "the undefended ResNet-18 of the package, since no weights were given"
    model = f"a random {bench.sizes.arch}" if bench.device.type == "cpu" else undefended
    images = f"{n} random images, labeled by the model, since none were given"
    return COMPARED.format(
        model=bench.weights.name if bench.weights else model,
        images=f"the first {n} of {dataset_name(str(bench.images))}" if bench.images else images,
        eps=choose_eps(bench),
        batch=bench.sizes.attack_batch,
        share="" if share == 1 else f", {share:g} of its iterations and queries",
    )


def list_autoattack(bench: Bench, target: Target) -> Iterator[Measurement]:
    """Yield the official package, then ours without flags and with `--precision float16`."""
    yield "official package", partial(measure_officially, bench, target)
    for name, precision in FLAGS.items():
        yield name, partial(measure_ours, bench, target, name, precision)


def measure_officially(bench: Bench, target: Target) -> Row:
    """Return the row of the official package, after a warm-up on the first batch."""
    batch_size = bench.sizes.attack_batch

    def evaluate(images: Images) -> None:
        x, y = images.pixels / 255, images.labels
        with default_precision():
            target.outcomes["official"] = evaluate_officially(
                target.model, x, y, WHOLE, threat=target.threat, batch_size=batch_size
            )

    with shortened(bench.sizes.share):
        with shortened(WARMUP_SHARE):
            evaluate(target.images.first(min(batch_size, len(target.images))))
        seconds = time_calls(lambda: evaluate(target.images), 1, bench.device)
    target.seconds["official"] = seconds
    name, robust = "official package, TF32", int(target.outcomes["official"].sum())
    return Row(
        name=name,
        cells={"": name, "seconds": f"{seconds:.1f}", "ratio": "1.00", "robust": str(robust)},
        facts={"seconds": seconds, "robust_correct": robust, "n": len(target.images)},
    )


def measure_ours(bench: Bench, target: Target, name: str, precision: Precision) -> Row:
    """Return the row of ours in `precision`, beside the official package if it was measured."""
    searched = choose_for_search(precision, bench.device)
    batch_size = bench.sizes.attack_batch
    done: list[Evaluation] = []

    def evaluate(images: Images) -> None:
        done[:] = [
            run_suite(target.model, images, WHOLE, target.threat, batch_size, searched=searched)
        ]

    with shortened(bench.sizes.share):
        with shortened(WARMUP_SHARE):
            evaluate(target.images.first(min(batch_size, len(target.images))))
        seconds = time_calls(lambda: evaluate(target.images), 1, bench.device)
    (evaluation,) = done
    facts: dict[str, Any] = {
        "seconds": seconds,
        "searched": searched,
        "n": len(target.images),
        **describe_outcomes(evaluation),
    }
    cells = {"seconds": f"{seconds:.1f}"}
    if "official" in target.outcomes:
        facts["ratio"] = target.seconds["official"] / seconds
        cells["ratio"] = f"{facts['ratio']:.2f}"
    cells["robust"] = str(evaluation.robust_correct)
    if "official" in target.outcomes:
        facts |= count_changes(evaluation.robust, target.outcomes["official"])
        cells |= render_changes(facts)
    name = f"{name} ({searched})"
    stages = {one: f"{seconds:.1f}" for one, seconds in facts["stage_seconds"].items()}
    return Row(name=name, cells={"": name, **cells, **stages}, facts=facts)


def describe_outcomes(evaluation: Evaluation) -> dict[str, Any]:
    """Return the counts of an evaluation, and the seconds of its attacks."""
    return {
        "clean_correct": evaluation.clean_correct,
        "robust_correct": evaluation.robust_correct,
        "rechecked": evaluation.rechecked,
        "stage_seconds": {stage.name: stage.seconds for stage in evaluation.stages},
        "warnings": list(evaluation.warnings),
    }


def count_changes(robust: Tensor, others: Tensor) -> dict[str, int]:
    """Return how many outcomes (N,) differ from those of another evaluation, by direction."""
    robust, others = robust.cpu(), others.cpu()
    return {
        "only_here_fooled": int((others & ~robust).sum()),
        "only_here_robust": int((robust & ~others).sum()),
        "net": int(robust.sum()) - int(others.sum()),
    }


def render_changes(changes: dict[str, Any]) -> dict[str, str]:
    """Return the cells of `count_changes`."""
    return {
        "only here fooled": str(changes["only_here_fooled"]),
        "only here robust": str(changes["only_here_robust"]),
        "net": f"{changes['net']:+d}" if changes["net"] else "0",
    }
