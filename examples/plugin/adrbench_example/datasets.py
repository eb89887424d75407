"""A data set: a callable (data_dir) that returns an `adrbench.Dataset`."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from adrbench import Dataset

NUM_CLASSES = 4
SIZE = 12


def build(data_dir: Path) -> Dataset:
    """Gray gratings of four orientations, 400 for training and 100 for testing.

    The images are generated here. A data set stored in files reads them from `data_dir`, the value
    of `--data-dir`.
    """
    generator = np.random.default_rng(0)
    x_train, y_train = draw_gratings(400, generator)
    x_test, y_test = draw_gratings(100, generator)
    return Dataset.from_arrays(
        name="gratings", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test
    )


def draw_gratings(
    n: int, generator: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return images (n, 1, SIZE, SIZE), noisy waves of random phase, and labels (n,)."""
    labels = np.arange(n) % NUM_CLASSES
    angles = np.pi * labels[:, None, None] / NUM_CLASSES
    phases = generator.uniform(0, 2 * np.pi, (n, 1, 1))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    waves = np.sin(1.2 * (np.cos(angles) * columns + np.sin(angles) * rows) + phases)
    values = 0.5 + 0.3 * waves + generator.normal(0, 0.1, waves.shape)
    pixels = (255 * values.clip(0, 1)).round().astype(np.uint8)
    return pixels[:, None], labels
