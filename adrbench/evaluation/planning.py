"""Planning an evaluation: from a target to a job, with the path of its record."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from adrbench.attacks.builtin_suites import find_builtin, find_options
from adrbench.attacks.find_suite import bind_own, build_suite
from adrbench.attacks.suites import Suite
from adrbench.config.settings import AttackConfig
from adrbench.data import Images, Source
from adrbench.errors import UsageError, argument
from adrbench.evaluation.identity import NUM_IMAGES, Identity, first_logits
from adrbench.evaluation.job import Job
from adrbench.evaluation.outputs import AFTERWARDS, check_fits, check_offers_outputs
from adrbench.evaluation.state_files import output_files, progress_files
from adrbench.evaluation.targets import TargetModel
from adrbench.printable import get_logger
from adrbench.registry import calling_user_code
from adrbench.results.outputs import outputs_path
from adrbench.runtime.arithmetic import AUTO, FLOAT32, choose_for_search
from adrbench.runtime.files import check_name, check_replaceable
from adrbench.runtime.locks import GLOBAL_STATE

logger = get_logger(__name__)


def plan(
    target_model: TargetModel,
    config: AttackConfig,
    *,
    test: Images,
    info: Source,
    out: Path,
    clean_logits: Tensor,
    device: torch.device,
    suite: Suite | None = None,
) -> Job:
    """Return the evaluation of `target_model` on the `test` images of `info`, recorded in `out`.

    `clean_logits` are those of `check_fit`, and `device` is the one to compute on; `suite` is the
    one that `config` names, by default.

    Raises:
        UsageError: when the suite does not fit the classes, or the device lacks the arithmetic.
        AdrbenchError: when the name of the record is too long.

    """
    info = replace(info, num_classes=clean_logits.shape[1])
    is_automatic = config.precision == AUTO
    searched = choose_for_search(config.precision, device)
    if config.n is not None and config.n > len(test):
        logger.warning(
            f"{info.name} has {len(test):,} test images, fewer than {config.n:,}: all of them are "
            "used."
        )
    images = test.first(min(config.n or len(test), len(test)))
    if suite is None:
        suite = build_suite(config, target_model.threat_model, info.num_classes)
        warn_of_ignored(config, suite)
    else:
        suite = bind_own(suite, target_model.threat_model, info.num_classes, config.seed)
    config = replace(config, precision=searched if suite.stages else FLOAT32)
    identity = identify(target_model, config, images, suite, info=info, num_test=len(test))
    job = Job(
        target_model=target_model,
        config=config,
        images=images,
        info=info,
        suite=suite,
        path=out / record_name(identity, suite, target_model.training.is_known),
        identity=identity,
        clean_logits=clean_logits[: len(images)],
        is_automatic=is_automatic,
    )
    check_name(progress_files(job, 0).own_file)
    return job


def identify(
    target_model: TargetModel,
    config: AttackConfig,
    images: Images,
    suite: Suite,
    *,
    info: Source,
    num_test: int,
) -> Identity:
    """Return the identity of an evaluation."""
    training = target_model.training
    return Identity(
        run=target_model.run,
        method=training.method,
        seed=training.seed,
        selection=training.selection,
        epoch=training.epoch,
        weights=training.weights,
        weights_sha256=target_model.weights_sha256,
        arch=target_model.arch,
        activation=target_model.activation,
        dataset=info.name,
        n=len(images),
        num_test=num_test,
        data_sha256=images.sha256(),
        threat_model=target_model.threat_model,
        suite=suite.name,
        parameters=suite.describe(),
        attack_seed=config.seed,
        batch_size=config.batch_size,
        searched=config.precision,
        model_code=target_model.code,
    )


def record_name(identity: Identity, suite: Suite, is_known: bool) -> str:
    """Return the file name of a record: readable, and unique to the evaluation."""
    parts = [identity.selection, identity.weights] if is_known else []
    stem = "-".join([identity.run, *parts, suite.name]).replace(":", "-").replace("/", "-")
    if stem.startswith("."):  # a report does not read hidden files
        stem = f"_{stem}"
    unique = identity if suite.batch_dependent else replace(identity, batch_size=None)
    return f"{stem}-{unique.fingerprint()[:8]}.json"


def check_fit(target_model: TargetModel, images: Images, info: Source) -> Tensor:
    """Return the clean logits of the first images, (N, num_classes).

    Raises:
        UsageError: when the model does not take these images or has another number of classes.

    """
    logits = compute_logits(target_model, images, info.name)
    num_classes = logits.shape[1]
    if not info.classes_are_known and num_classes < info.num_classes:
        raise UsageError(
            f"{target_model.label} has {num_classes} classes, but the labels of {info.name} go up "
            f"to {info.num_classes - 1}: give the {argument('dataset')} it was trained for."
        )
    if info.classes_are_known and num_classes != info.num_classes:
        raise UsageError(
            f"{target_model.label} has {num_classes} classes, but {info.name} has "
            f"{info.num_classes}: give the {argument('dataset')} it was trained for."
        )
    return logits


def compute_logits(target_model: TargetModel, images: Images, dataset: str) -> Tensor:
    """Return the clean logits of the first images, (N, num_classes) float32 on the CPU.

    Raises:
        UserCodeError: when the model raises on these images.
        UsageError: when it does not return logits.

    """
    model, label = target_model.model, target_model.label
    shape = tuple(images.pixels.shape[1:])
    with (
        GLOBAL_STATE,
        calling_user_code(
            lambda raised: (
                f"{label} does not take images of shape {shape} (channels, height, width) from "
                f"{dataset}, on which it {raised}: {_advise(model)}."
            )
        ),
    ):
        logits: object = first_logits(model, images)
    if not isinstance(logits, Tensor):
        raise UsageError(
            f"{label} returned a {type(logits).__name__}, not a tensor: give a network that "
            "returns only logits (N, number of classes), such as one that wraps it."
        )
    if not logits.is_floating_point():
        raise UsageError(
            f"{label} returned outputs of type {logits.dtype}: it must return floating-point "
            "logits (N, number of classes)."
        )
    if logits.dim() != 2 or len(logits) != min(NUM_IMAGES, len(images)) or logits.shape[1] < 2:
        raise UsageError(
            f"{target_model.label} returned a tensor of shape {tuple(logits.shape)} for "
            f"{min(NUM_IMAGES, len(images))} images: it must return logits (N, number of classes)."
        )
    return logits.float().cpu()


def _advise(model: nn.Module) -> str:
    """Return what to do about a model that raises on images, which are float32."""
    types = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    if types - {torch.float32}:
        return "convert its weights to float32, as model.float() does"
    return f"give the {argument('dataset')} it was trained for, or correct the network"


def check_outputs(job: Job, save_adversarial: Path | None = None) -> None:
    """Check, before any attack, that an evaluation can keep the outputs of the model.

    Raises:
        UsageError: when its suite offers none, they are too large, or the examples are to be saved
            in their file.
        AdrbenchError: when the name of a file is too long.

    """
    check_offers_outputs(job.suite)
    check_fits(job.images, job.info.num_classes)
    check_name(output_files(job).path_of(AFTERWARDS, len(job.images)))
    check_replaceable(outputs_path(job.path))
    if save_adversarial and save_adversarial.absolute() == outputs_path(job.path).absolute():
        raise UsageError(
            f"the adversarial examples cannot be saved as {save_adversarial}, which is the file of "
            "the outputs: give another name."
        )


def warn_of_ignored(config: AttackConfig, suite: Suite) -> None:
    """Log a warning for each given setting that `suite` does not use."""
    builder = find_builtin(config.suite)
    used = [] if builder is None else find_options(builder)
    given = {"alpha": config.alpha is not None, "restarts": config.restarts > 1}
    for name, is_given in given.items():
        if is_given and name not in used:
            logger.warning(f"{argument(name)} is ignored: suite {suite.name} does not use it.")
