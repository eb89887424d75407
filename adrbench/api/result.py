"""The result of `adrbench.evaluate`."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adrbench.config.declare import format_eps
from adrbench.errors import RecordError, UsageError
from adrbench.evaluation.adversarial import AdversarialExamples, write_examples
from adrbench.evaluation.finished import has_outputs, read_own_record, remove_outputs
from adrbench.evaluation.identity import EvaluationKey
from adrbench.results.outputs import Outputs, outputs_path, write_outputs
from adrbench.results.records import AttackRecord, StageResult, write_record


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """The result of an evaluation of n images, as returned by `evaluate`.

    `clean` and `robust` are per-example outcomes, (n,) booleans in the order of the images:
    whether the model classifies the image correctly, and whether it still does under every attack
    of the suite. `adversarial` holds the adversarial examples, (n, C, H, W) float32 in [0, 1], or
    None if they were not kept, and `outputs` those of the model on all images, clean and attacked,
    or None. `record` is the record that `adrbench attack` would write; `save` adds the file of the
    outputs to it. A result can be pickled; the model is not part of it.
    """

    clean: npt.NDArray[np.bool_]
    robust: npt.NDArray[np.bool_]
    adversarial: Tensor | None
    outputs: Outputs | None
    record: AttackRecord
    _key: EvaluationKey
    _file_name: str
    _labels: Tensor
    _examples: AdversarialExamples | None

    @property
    def clean_accuracy(self) -> float:
        """The fraction of images that are classified correctly without an attack."""
        return self.record.clean_correct / self.record.n

    @property
    def robust_accuracy(self) -> float:
        """The fraction of images that are classified correctly under every attack."""
        return self.record.robust_correct / self.record.n

    @property
    def stages(self) -> tuple[StageResult, ...]:
        """Each attack in order: its name, the number of robust images after it, its seconds."""
        return self.record.stages

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the robust accuracy may be unreliable, one sentence per reason."""
        return self.record.warnings

    def save(self, directory: str | Path = "results", *, force: bool = False) -> Path:
        """Write the record to `directory`, where `adrbench report` finds it; return its path.

        Outputs, if they were kept, are written beside it, in a file called as the record with the
        ending `.npz`.

        Raises:
            RecordError: when the file contains another record, unless `force` is true.

        """
        path = Path(directory) / self._file_name
        record = self.record
        if path.exists() and not force:
            record = read_own_record(self._key, path)
            if record.verdicts != self.record.verdicts:
                raise RecordError(
                    f"{path} contains the same evaluation with different outcomes: give "
                    "another directory, or force=True to replace it."
                )
            if self.outputs is None or has_outputs(path, record):
                return path
        if self.outputs is not None:
            record = replace(record, outputs=write_outputs(outputs_path(path), self.outputs))
        else:
            remove_outputs(path)
        write_record(path, record)
        return path

    def save_adversarial(self, path: str | Path) -> Path:
        """Write the adversarial examples as `adrbench attack` does, and return their path.

        `path` ends in `.npz` (examples, labels, outcomes, and the kind of each example) or in `.pt`
        (only the tensor of examples, which is the format that RobustBench requires).

        Raises:
            UsageError: when the examples were not kept, or `path` has another suffix.

        """
        if self._examples is None:
            raise UsageError(
                "the examples were not kept: call evaluate with keep_adversarial=True."
            )
        write_examples(
            Path(path),
            self._examples,
            labels=self._labels,
            clean=torch.from_numpy(self.clean),
            robust=torch.from_numpy(self.robust),
        )
        return Path(path)

    def __repr__(self) -> str:
        record = self.record
        threat = record.threat_model
        return (
            f"Result({record.run} {record.suite} {threat.norm} {format_eps(threat.eps)}: clean "
            f"{record.clean_correct}/{record.n}, robust {record.robust_correct}/{record.n})"
        )
