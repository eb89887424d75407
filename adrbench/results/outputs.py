"""Outputs of a model on clean and adversarial images: the `.npz` file beside a record.

A record holds counts; what a model puts out, image by image, is in this file, from which reports
compute calibration and consistency.
"""

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adrbench.errors import RecordError
from adrbench.runtime.files import check_regular_file, write_atomically

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

SUFFIX = ".npz"
#: Larger files, in bytes, are not read: 10,000 images of 1,000 classes take 80 MB.
MAX_BYTES = 2**30


@dataclass(frozen=True, kw_only=True, eq=False)
class Outputs:
    """The outputs of a model on n images of K classes, in test-set order.

    `labels` is (n,) int64; `clean_logits` and `adversarial_logits` are (n, K) float32, the latter
    on the image with which the attack ended, whether it succeeded or not. `linf` and `l2`, (n,)
    float32, are the sizes of the perturbations of images in [0, 1]. `images` and
    `adversarial_images`, (m, C, H, W) float32, are the first m images, which a report can show.
    `class_names` is empty where they are unknown.

    Raises:
        ValueError: for shapes that do not fit together.

    """

    labels: "npt.NDArray[np.int64]"
    clean_logits: "Floats"
    adversarial_logits: "Floats"
    linf: "Floats"
    l2: "Floats"
    images: "Floats"
    adversarial_images: "Floats"
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n, num_classes = len(self.labels), self.num_classes
        expected = {
            "labels": (n,),
            "clean_logits": (n, num_classes),
            "adversarial_logits": (n, num_classes),
            "linf": (n,),
            "l2": (n,),
            "adversarial_images": self.images.shape,
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, not {shape}")
        if not n or self.images.ndim != 4 or len(self.images) > n:
            raise ValueError(f"there are {n} labels and images of shape {self.images.shape}")
        if self.labels.min() < 0 or self.labels.max() >= num_classes:
            raise ValueError(f"the labels are not those of {num_classes} classes")
        if len(self.class_names) not in (0, num_classes):
            raise ValueError(f"there are {len(self.class_names)} names of {num_classes} classes")

    @property
    def num_classes(self) -> int:
        """The number of classes, K."""
        return int(self.clean_logits.shape[-1])


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputsFile:
    """The file of a record's outputs: its name, in the directory of the record, and its SHA-256."""

    name: str
    sha256: str


def outputs_path(record: Path) -> Path:
    """Return the path of the file of outputs beside a record."""
    return record.with_suffix(SUFFIX)


def write_outputs(path: Path, outputs: Outputs) -> OutputsFile:
    """Write `outputs` to `path`, by rename."""
    import numpy as np

    arrays = {**vars(outputs), "class_names": np.array(outputs.class_names, dtype=np.str_)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    content = buffer.getvalue()
    write_atomically(path, content)
    return OutputsFile(name=path.name, sha256=hashlib.sha256(content).hexdigest())


def read_outputs(path: Path, file: OutputsFile) -> Outputs:
    """Return the outputs that `write_outputs` wrote to `path`.

    Raises:
        RecordError: when the file is missing, damaged, or not the one that `file` describes.

    """
    import numpy as np

    try:
        check_regular_file(path)
        if path.stat().st_size > MAX_BYTES:
            raise OSError("it is too large")
        content = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path} is not readable ({error}).") from error
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise RecordError(f"{path} has changed since its record was written.")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            found: dict[str, Any] = {name: arrays[name] for name in _ARRAYS}
            names = tuple(str(name) for name in arrays["class_names"])
        return Outputs(**found, class_names=names)
    except Exception as error:  # numpy may raise anything for a damaged file
        raise RecordError(f"{path} does not contain the outputs of a model ({error}).") from error


_ARRAYS = tuple(name for name in Outputs.__dataclass_fields__ if name != "class_names")


@dataclass(frozen=True, kw_only=True)
class OutputsFinder:
    """The files of outputs under the paths of a report, by name."""

    paths: dict[str, list[Path]] = field(default_factory=dict)

    @classmethod
    def search(cls, paths: Iterable[Path]) -> "OutputsFinder":
        """Return the files beside the records in `paths`, directories or single records."""
        found: dict[str, list[Path]] = {}
        for path in paths:
            candidates = path.rglob(f"*{SUFFIX}") if path.is_dir() else [outputs_path(path)]
            for one in candidates:
                found.setdefault(one.name, []).append(one)
        return cls(paths=found)

    def read(self, file: OutputsFile) -> Outputs | None:
        """Return the outputs in `file`; None where there is no such file.

        Raises:
            RecordError: when every file of that name is damaged or has changed.

        """
        failure: RecordError | None = None
        for path in self.paths.get(file.name, ()):
            if not path.exists():
                continue
            try:
                return read_outputs(path, file)
            except RecordError as error:
                failure = error
        if failure is not None:
            raise failure
        return None
