"""The record of an inspection: what ADR does to the labels of a run at one of its checkpoints."""

import base64
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Literal

from adrbench.results.migrations import SCHEMA
from adrbench.results.software import Software

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: ADR's settings allow temperatures from 1e-6 to 1e6, which its schedule may exceed by rounding.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 1e-7, 1e7
#: The entropy of a float64 distribution may exceed the logarithm of its classes by this.
ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnealedEpoch:
    """ADR's annealed values at the last step of an epoch, counted from 1, as in the history."""

    epoch: int
    temperature: float
    interpolation: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassPair:
    """Two classes whose labels share probability, `first` below `second`.

    `first_to_second` is the mean probability of `second` in the labels of `first`, and
    `second_to_first` the converse; `mass` is the mean of the two, or the only one that is defined
    where the other class has no images.
    """

    first: int
    second: int
    first_to_second: float
    second_to_first: float
    mass: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LabeledImage:
    """A training image, at `index` among those of the run, and what ADR makes of its `label`.

    `position` is its place in the training split of the data set, before any image was held out.
    `label_probability` is that of the true class in the rectified label. `predicted` is the class
    that the teacher predicts, with `predicted_probability` at the temperature of the checkpoint.
    `pixels` are uint8 of the shape of the record's images, in base64.
    """

    index: int
    position: int | None = None
    label: int
    predicted: int
    label_probability: float
    predicted_probability: float
    pixels: str


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectRecord:
    """The rectified labels of one checkpoint on the first `n` of its `num_train` training images.

    The images are clean and not augmented; `data_sha256` identifies all of them. The teacher is the
    average after `epoch` epochs, `steps` of `total_steps` steps, at the `temperature` and
    `interpolation` factor of its last step; `schedule` has these for each epoch of the run.

    Of K classes, `mean_labels` (K, K) is the mean rectified label of each true class, a row of
    zeros where `class_counts` is 0. `mean_entropy` is in nats; `mean_label_probability` is that of
    the true class. `pairs` have the largest mass, in descending order. `moved` are the images with
    the lowest label probability. The teacher predicts another class than the label for
    `num_disagreeing` images; `disagreeing` are those with the highest predicted probability.
    Stored images have the shape `image_shape`, (C, H, W), and may be smaller than the originals.

    Raises:
        ValueError: for values that contradict each other.

    """

    kind: Literal["inspect"] = "inspect"
    run: str
    run_id: str
    dataset: str
    arch: str
    method: str
    seed: int
    label: str = ""
    selection: Literal["best", "last"]
    epoch: int
    steps: int
    total_steps: int
    num_classes: int
    class_names: tuple[str, ...] = ()
    data_sha256: str
    checkpoint_sha256: str
    num_train: int
    n: int
    temperature: float
    interpolation: float
    schedule: tuple[AnnealedEpoch, ...]
    class_counts: tuple[int, ...]
    mean_labels: tuple[tuple[float, ...], ...]
    mean_entropy: float
    mean_label_probability: float
    pairs: tuple[ClassPair, ...]
    num_disagreeing: int
    image_shape: tuple[int, int, int]
    moved: tuple[LabeledImage, ...]
    disagreeing: tuple[LabeledImage, ...]
    software: Software
    device: str
    created: str
    seconds: float
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if not 1 <= self.n <= self.num_train or not 0 <= self.num_disagreeing <= self.n:
            raise ValueError(
                "counts should satisfy 1 <= n <= num_train and num_disagreeing <= n, not "
                f"{self.n}, {self.num_train}, {self.num_disagreeing}"
            )
        epochs = [one.epoch for one in self.schedule]
        if not epochs or epochs != list(range(1, len(epochs) + 1)):
            raise ValueError("schedule should have the epochs from 1 on")
        if not 0 <= self.epoch <= len(epochs):  # 0: saved within the first epoch
            raise ValueError(f"epoch should be from 0 to {len(epochs)}, not {self.epoch}")
        _check_classes(self)
        _check_images(self)
        _check_numbers(self)


def _check_classes(record: InspectRecord) -> None:
    """Raise ValueError unless everything about classes is about `num_classes` of them."""
    num_classes = record.num_classes
    if num_classes < 2:
        raise ValueError(f"num_classes should be at least 2, not {num_classes}")
    sizes = {len(record.class_counts), len(record.mean_labels), *map(len, record.mean_labels)}
    if sizes != {num_classes} or len(record.class_names) not in (0, num_classes):
        raise ValueError(
            f"class_counts, class_names and mean_labels should be of {num_classes} classes"
        )
    if min(record.class_counts) < 0 or sum(record.class_counts) != record.n:
        raise ValueError(f"class_counts should sum to n, {record.n}")
    images = (*record.moved, *record.disagreeing)
    classes = chain(
        *((pair.first, pair.second) for pair in record.pairs),
        *((image.label, image.predicted) for image in images),
    )
    if any(not 0 <= one < num_classes for one in classes):
        raise ValueError(f"pairs and images should be of classes from 0 to {num_classes - 1}")


def _check_images(record: InspectRecord) -> None:
    """Raise ValueError unless the stored images are among the inspected ones, and readable."""
    for image in (*record.moved, *record.disagreeing):
        if not 0 <= image.index < record.n:
            raise ValueError(f"images should have an index from 0 to {record.n - 1}")
        _decode_pixels(image.pixels, record.image_shape)


def _check_numbers(record: InspectRecord) -> None:
    """Raise ValueError unless each number is in the range of what it measures."""
    images = (*record.moved, *record.disagreeing)
    probabilities: Iterable[float] = chain(
        *record.mean_labels,
        (record.interpolation, record.mean_label_probability),
        (epoch.interpolation for epoch in record.schedule),
        *((pair.first_to_second, pair.second_to_first, pair.mass) for pair in record.pairs),
        *((image.label_probability, image.predicted_probability) for image in images),
    )
    if any(not 0 <= one <= 1 for one in probabilities):
        raise ValueError("probabilities and interpolation factors should be from 0 to 1")
    temperatures = (record.temperature, *(epoch.temperature for epoch in record.schedule))
    if any(not LOWEST_TEMPERATURE <= one <= HIGHEST_TEMPERATURE for one in temperatures):
        raise ValueError(
            f"temperatures should be from {LOWEST_TEMPERATURE:g} to {HIGHEST_TEMPERATURE:g}"
        )
    most = math.log(record.num_classes)
    if not 0 <= record.mean_entropy <= most + ROUNDING:
        raise ValueError(f"mean_entropy should be from 0 to {most:.4g}, not {record.mean_entropy}")


def pack_pixels(pixels: "npt.NDArray[np.uint8]") -> str:
    """Pack the pixels of one image, (C, H, W), into base64 text, row by row."""
    return base64.b64encode(pixels.tobytes()).decode("ascii")


def unpack_pixels(packed: str, shape: tuple[int, int, int]) -> "npt.NDArray[np.uint8]":
    """Return the pixels, (C, H, W), that `pack_pixels` packed.

    Raises:
        ValueError: when there are not as many.

    """
    import numpy as np

    return np.frombuffer(_decode_pixels(packed, shape), dtype=np.uint8).reshape(shape)


def _decode_pixels(packed: str, shape: tuple[int, int, int]) -> bytes:
    """Return the bytes of an image; ValueError where they are not those of `shape`."""
    try:
        raw = base64.b64decode(packed, validate=True)
    except ValueError as error:
        raise ValueError(f"the pixels of an image are not base64 ({error})") from error
    if min(shape) < 1 or len(raw) != math.prod(shape):
        raise ValueError(f"{len(raw)} bytes of pixels are not an image of shape {shape}")
    return raw
