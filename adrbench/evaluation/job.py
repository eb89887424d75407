"""One evaluation to run, and the fingerprints by which its files are recognized."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from adrbench.attacks.suites import Suite
from adrbench.config.declare import format_eps
from adrbench.config.settings import AttackConfig
from adrbench.data import Images, Source
from adrbench.evaluation.identity import EvaluationKey, Identity
from adrbench.evaluation.targets import TargetModel
from adrbench.runtime.arithmetic import AUTO, FLOAT32, Arithmetic
from adrbench.runtime.hashing import hash_json


@dataclass(frozen=True, kw_only=True)
class Job:
    """One evaluation to run: a model, its images, a suite, and the path of the record.

    A record or saved progress belongs to the evaluation if its `identity` and the model's
    `clean_logits` on the first images are the same. `is_automatic` is whether "auto" chose the
    arithmetic of the search.
    """

    target_model: TargetModel
    config: AttackConfig
    images: Images
    info: Source
    suite: Suite
    path: Path
    identity: Identity
    clean_logits: Tensor
    is_automatic: bool

    @property
    def label(self) -> str:
        """A short name for displays and messages."""
        threat = self.target_model.threat_model
        return f"{self.target_model.label} {self.suite.name} {threat.norm} {format_eps(threat.eps)}"

    @property
    def title(self) -> str:
        """The label, and the arithmetic."""
        how = "in float32" if self.searched == FLOAT32 else f"searched in {self.searched}"
        return f"{self.label}, {how}"

    @property
    def searched(self) -> Arithmetic:
        """The arithmetic of the attacks."""
        assert self.config.precision != AUTO, "plan decides it"
        return self.config.precision

    @property
    def key(self) -> EvaluationKey:
        """What a record must agree with to be that of this evaluation."""
        return EvaluationKey(
            identity=self.identity,
            clean_logits=self.clean_logits,
            batch_dependent=self.suite.batch_dependent,
        )

    @property
    def fingerprint(self) -> str:
        """A fingerprint of everything that the outcomes of a batch depend on, up to rounding."""
        return self.identity.fingerprint()

    @property
    def state_fingerprint(self) -> str:
        """A fingerprint of everything that the saved state of the evaluation depends on."""
        fingerprint, searched = self.fingerprint, self.identity.searched
        return fingerprint if searched == "float32" else hash_json([fingerprint, searched])
