"""The identity of an evaluation, by which its record and its saved progress are recognized.

A record is found by its file name, and believed only if everything that its outcomes depend on is
as in the evaluation at hand. Weights alone do not identify code, so the clean logits of the first
images count too.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from adrbench.config.declare import format_eps
from adrbench.config.threat import ThreatModel
from adrbench.data import Images, to_float
from adrbench.errors import RecordError
from adrbench.models.modes import device_of, in_mode
from adrbench.results.records import AttackRecord, unpack_logits
from adrbench.runtime.arithmetic import FLOAT32, RANKED, full_precision
from adrbench.runtime.hashing import hash_json

#: How many images identify a model by their clean logits.
NUM_IMAGES = 8
#: By how much their logits may differ on another machine, as a fraction of the largest.
TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The model, the images and the attack of an evaluation; names are those of a record.

    `batch_size` is None where the outcomes do not depend on it. `searched` is the arithmetic of the
    attacks. `model_code` is a fingerprint of the user's source code behind the model, and null in
    records of early versions.
    """

    run: str
    method: str
    seed: int | None
    selection: str
    epoch: int | None
    weights: str
    weights_sha256: str
    arch: str
    activation: str
    dataset: str
    n: int
    num_test: int
    data_sha256: str
    threat_model: ThreatModel
    suite: str
    parameters: Mapping[str, Any]
    attack_seed: int
    batch_size: int | None
    searched: str = FLOAT32
    model_code: str | None = None

    @classmethod
    def of_record(cls, record: AttackRecord, *, batch_dependent: bool) -> "Identity":
        """Return the identity of the evaluation that a record belongs to."""
        values = {field.name: getattr(record, field.name) for field in fields(cls)}
        return cls(**values | ({} if batch_dependent else {"batch_size": None}))

    def fingerprint(self) -> str:
        """Return the SHA-256 of what the outcomes depend on."""
        return hash_json(
            {
                "model": [
                    self.weights_sha256,
                    self.arch,
                    self.activation,
                    *([self.model_code] if self.model_code else []),
                ],
                "weights": self.weights,
                "data": self.data_sha256,
                "norm": self.threat_model.norm,
                "eps": self.threat_model.eps,
                "suite": self.suite,
                "parameters": dict(self.parameters),
                "seed": self.attack_seed,
                "batch_size": self.batch_size,
                **({} if self.searched in RANKED else {"searched": self.searched}),
            }
        )

    def describe_difference(self, ours: "Identity") -> str | None:
        """Return the first field in which this is not `ours`, with both values; None if none is.

        Searches whose outcomes are ranked together do not differ.
        """
        for field in fields(self):
            own, other = getattr(self, field.name), getattr(ours, field.name)
            if field.name == "searched" and {own, other} <= RANKED:
                continue
            if field.name == "model_code":
                if None not in (own, other) and own != other:
                    return "the code of the model has changed"
            elif own != other:
                return f"{field.name} {_show(own)}, not {_show(other)}"
        return None


@dataclass(frozen=True, kw_only=True)
class EvaluationKey:
    """What a record must agree with to be that of an evaluation.

    `clean_logits` are those of the first images, (N, num_classes); `batch_dependent` is whether the
    outcomes depend on the batch size.
    """

    identity: Identity
    clean_logits: Tensor
    batch_dependent: bool

    def describe_difference(self, record: AttackRecord) -> str | None:
        """Return in words how the evaluation of a record differs; None if it does not."""
        identity, is_dependent = self.identity, self.batch_dependent
        ours = identity if is_dependent else replace(identity, batch_size=None)
        theirs = Identity.of_record(record, batch_dependent=is_dependent)
        if difference := theirs.describe_difference(ours):
            return difference
        if record.clean_logits is not None:
            try:
                held = torch.from_numpy(unpack_logits(record.clean_logits, record.num_classes))
            except RecordError as error:
                return str(error)
            if not are_same_logits(held, self.clean_logits):
                return "the model has the same weights but different outputs"
        return None


def _show(value: object) -> str:
    """Return a value in at most 80 characters; a fingerprint by its first 12."""
    if isinstance(value, ThreatModel):
        return f"{value.norm} {format_eps(value.eps)}"
    text = str(value)
    return text[:12] if re.fullmatch("[0-9a-f]{64}", text) else text[:80]


def first_logits(model: nn.Module, images: Images) -> Tensor:
    """Return what a model returns for the first clean images: its logits, (N, num_classes).

    They are computed where the model is. A randomized model draws the same numbers every time.
    """
    x = to_float(images.first(min(NUM_IMAGES, len(images))).pixels).to(device_of(model))
    devices = [x.device] if x.is_cuda else []
    with (
        torch.random.fork_rng(devices),
        torch.no_grad(),
        in_mode(model, training=False),
        full_precision(),
    ):
        torch.default_generator.manual_seed(0)
        if x.is_cuda:
            torch.cuda.manual_seed(0)
        logits: Tensor = model(x)
    return logits


def are_same_logits(one: Tensor, other: Tensor) -> bool:
    """Return whether two (N, num_classes) tensors are the logits of one model on two machines."""
    if one.shape != other.shape:
        return False
    largest = torch.maximum(one.abs().max(), other.abs().max())
    return bool((one - other).abs().max() <= TOLERANCE * largest)
