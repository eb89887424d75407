"""Outputs of a model on clean and adversarial images: the `.npz` file beside a record.

A record holds counts; what a model puts out, image by image, is in this file, from which reports
compute calibration and consistency.
"""

import hashlib
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adrbench.errors import RecordError, one_line
from adrbench.printable import printable
from adrbench.runtime.files import read_limited, write_atomically
from adrbench.runtime.npz import Arrays, Header, unpacked_within

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

SUFFIX = ".npz"
#: Larger outputs, in bytes in memory, are not kept: 10,000 images of 1,000 classes take 80 MB.
MAX_BYTES = 2**30
#: What the names of the classes, and the headers, may add in a file, in bytes.
EXTRA_BYTES = 2**27
#: More classes or images are not kept; reports resample the images, and have a row for each class.
MAX_CLASSES, MAX_EXAMPLES = 50_000, 500_000
#: Images with a longer side, in pixels, are not kept.
MAX_SIDE = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class Outputs:
    """The outputs of a model on n images of K classes, in test-set order.

    `labels` is (n,) int64; `clean_logits` and `adversarial_logits` are (n, K) float32, the latter
    on the image with which the attack ended, whether it succeeded or not. `linf` and `l2`, (n,)
    float32, are the sizes of the perturbations of images in [0, 1]. `images` and
    `adversarial_images`, (m, C, H, W) float32, are the first m images, which a report can show.
    `class_names` is empty where they are unknown. Only logits may be NaN or infinite.

    Raises:
        ValueError: for other types, shapes that do not fit together, or impossible values.

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
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        _check_headers(
            {name: Header(array.shape, array.dtype) for name, array in arrays.items()},
            num_names=len(self.class_names),
        )
        if self.labels.min() < 0 or self.labels.max() >= self.num_classes:
            raise ValueError(f"the labels are not those of {self.num_classes} classes")
        for name in ("linf", "l2"):
            sizes = getattr(self, name)
            if not ((sizes >= 0) & (sizes < math.inf)).all():
                raise ValueError(f"{name} has values that are not sizes of perturbations")
        for name in ("images", "adversarial_images"):
            pixels = getattr(self, name)
            if not ((pixels >= 0) & (pixels <= 1)).all():
                raise ValueError(f"{name} has values outside [0, 1]")

    @property
    def num_classes(self) -> int:
        """The number of classes, K."""
        return int(self.clean_logits.shape[-1])


def _check_headers(headers: Mapping[str, Header], *, num_names: int) -> None:
    """Raise ValueError unless the types and shapes of all arrays are those of `Outputs`."""
    for name, header in headers.items():
        expected = "int64" if name == "labels" else "float32"
        if header.dtype != expected:
            raise ValueError(f"{name} has type {header.dtype}, not {expected}")
    shapes = {name: header.shape for name, header in headers.items()}
    labels, logits, images = shapes["labels"], shapes["clean_logits"], shapes["images"]
    if len(labels) != 1 or len(logits) != 2:
        raise ValueError(f"labels has shape {labels}, and clean_logits {logits}")
    (n,), num_classes = labels, logits[-1]
    expected_shapes = {
        "clean_logits": (n, num_classes),
        "adversarial_logits": (n, num_classes),
        "linf": (n,),
        "l2": (n,),
        "adversarial_images": images,
    }
    for name, shape in expected_shapes.items():
        if shapes[name] != shape:
            raise ValueError(f"{name} has shape {shapes[name]}, not {shape}")
    if not n or len(images) != 4 or images[0] > n:
        raise ValueError(f"there are {n} labels and images of shape {images}")
    if images[0] and not all(1 <= side <= MAX_SIDE for side in images[1:]):
        raise ValueError(f"images has shape {images}, with a side not from 1 to {MAX_SIDE}")
    if excess := find_excess(n, num_classes, images):
        raise ValueError(excess)
    if num_names not in (0, num_classes):
        raise ValueError(f"there are {num_names} names of {num_classes} classes")


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputsFile:
    """The file of a record's outputs: its name, in the directory of the record, and its SHA-256."""

    name: str
    sha256: str


def find_excess(n: int, num_classes: int, image_shape: tuple[int, ...]) -> str | None:
    """Return why the outputs on `n` images of `num_classes` classes are too large to keep.

    None if they are not. `image_shape` is that of the images that are kept, (m, C, H, W).
    """
    if n > MAX_EXAMPLES or num_classes > MAX_CLASSES:
        return (
            f"they are on {n:,} images of {num_classes:,} classes, and at most {MAX_EXAMPLES:,} of "
            f"{MAX_CLASSES:,} are kept"
        )
    num_bytes = n * (8 + 2 * 4 + 2 * 4 * num_classes) + 2 * 4 * math.prod(image_shape)
    if num_bytes > MAX_BYTES:
        return f"they take {num_bytes:,} bytes, and at most {MAX_BYTES:,} are kept"
    return None


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
    try:
        content = read_limited(path, MAX_BYTES)
    except OSError as error:
        raise RecordError(f"{path} is not readable ({error}).") from error
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise RecordError(f"{path} has changed since its record was written.")
    try:
        return _read_arrays(unpacked_within(io.BytesIO(content), MAX_BYTES + EXTRA_BYTES))
    except Exception as error:  # zipfile and numpy may raise anything for a damaged file
        raise RecordError(
            f"{path} does not contain the outputs of a model ({one_line(error)})."
        ) from error


def _read_arrays(archive: Arrays) -> Outputs:
    """Return the outputs in an archive; no array is read unless the headers of all are right.

    Raises:
        ValueError: when they are not those of outputs.
        Exception: whatever zipfile and numpy raise for a damaged archive.

    """
    names = archive.read_header("class_names")
    if names.dtype.kind != "U" or len(names.shape) != 1 or names.num_bytes > EXTRA_BYTES:
        raise ValueError(f"class_names has type {names.dtype} and shape {names.shape}")
    headers = {name: archive.read_header(name) for name in _ARRAYS}
    _check_headers(headers, num_names=names.shape[0])
    arrays: dict[str, Any] = {name: archive.read(name) for name in _ARRAYS}
    class_names = tuple(map(printable, archive.read("class_names").tolist()))
    return Outputs(**arrays, class_names=class_names)


_ARRAYS = tuple(name for name in Outputs.__dataclass_fields__ if name != "class_names")


@dataclass(frozen=True, kw_only=True)
class OutputsFinder:
    """The files of outputs beside the records under `roots`, directories or single records."""

    roots: tuple[Path, ...]

    @classmethod
    def search(cls, paths: Iterable[Path]) -> "OutputsFinder":
        """Return a finder, which searches `paths` when the first file is read."""
        return cls(roots=tuple(paths))

    @cached_property
    def paths(self) -> dict[str, list[Path]]:
        """The files by name."""
        found: dict[str, list[Path]] = {}
        for root in self.roots:
            candidates = root.rglob(f"*{SUFFIX}") if root.is_dir() else [outputs_path(root)]
            for one in candidates:
                found.setdefault(one.name, []).append(one)
        return found

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
