"""Records with outputs for the report's tests, in a directory as `adrbench attack` leaves it."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adrbench.results.outputs import Outputs, write_outputs
from adrbench.results.records import (
    AttackRecord,
    Outcomes,
    StageResult,
    pack_outcomes,
    write_record,
)
from report_records import attack_record


def make_outputs(
    seed: int = 0, n: int = 60, num_classes: int = 4, *, sharpness: float = 1.0, **changes: Any
) -> Outputs:
    """Return the outputs of a model trained with `seed`; labels and difficulty are the same."""
    images = np.random.default_rng(0)
    labels = images.integers(0, num_classes, n)
    logits = images.normal(size=(n, num_classes))
    logits[np.arange(n), labels] += 2
    own = np.random.default_rng([seed, 1])
    clean = sharpness * (logits + 0.3 * own.normal(size=logits.shape))
    adversarial = clean + 0.3 * own.normal(size=logits.shape)
    adversarial[np.arange(n), labels] -= sharpness
    values: dict[str, Any] = {
        "labels": labels,
        "clean_logits": clean.astype(np.float32),
        "adversarial_logits": adversarial.astype(np.float32),
        "linf": np.full(n, 8 / 255, np.float32),
        "l2": own.random(n, np.float32),
        "images": own.random((2, 3, 4, 4), np.float32),
        "adversarial_images": own.random((2, 3, 4, 4), np.float32),
        "class_names": tuple(f"class {i}" for i in range(num_classes)),
    }
    return Outputs(**(values | changes))


def outcomes(outputs: Outputs) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return the clean and robust outcomes that the outputs suggest."""
    is_right = outputs.clean_logits.argmax(axis=1) == outputs.labels
    return is_right, is_right & (outputs.adversarial_logits.argmax(axis=1) == outputs.labels)


def save(
    directory: Path,
    outputs: Outputs,
    seed: int = 0,
    robust: npt.NDArray[np.bool_] | None = None,
    **changes: Any,
) -> AttackRecord:
    """Write `outputs` and the record of PGD-20 that they belong to, and return the record.

    `robust` are its outcomes, by default those that the outputs suggest.
    """
    is_clean, is_robust = outcomes(outputs)
    is_robust = is_robust if robust is None else robust
    values: dict[str, Any] = {"suite": "pgd-20", "seed": seed, "method": "at"} | changes
    name = f"{values['method']}-{values.get('selection', 'best')}-{seed}-{values['suite']}"
    n = len(outputs.labels)
    record = attack_record(
        int(is_clean.sum()),
        int(is_robust.sum()),
        n=n,
        num_test=n,
        published_test_set=False,
        num_classes=outputs.num_classes,
        weights_sha256=name,
        stages=(StageResult(name="pgd-20", survivors=int(is_robust.sum()), seconds=1.0),),
        verdicts=Outcomes(clean=pack_outcomes(is_clean), robust=pack_outcomes(is_robust)),
        outputs=write_outputs(directory / f"{name}.npz", outputs),
        **values,
    )
    write_record(directory / f"{name}.json", record)
    return record


def save_two_methods(directory: Path, **shape: Any) -> None:
    """Write three seeds of `at` and of `adr`, whose outputs are less sharp, at both epochs."""
    for method, sharpness in (("at", 2.0), ("adr", 1.0)):
        for seed in range(3):
            own = make_outputs(seed, sharpness=sharpness, **shape)
            save(directory, own, seed, method=method)
            save(directory, own, seed, method=method, selection="last", epoch=200)
