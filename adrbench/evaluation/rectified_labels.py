"""What ADR does to labels: the rectified label of each image, and what they are together."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adrbench.data import Images, to_float
from adrbench.errors import AdrbenchError
from adrbench.methods.adr import rectify, soften
from adrbench.results.inspection import ClassPair, LabeledImage, pack_pixels
from adrbench.runtime.arithmetic import full_precision

#: The most pairs of classes, and the most images of each kind, that are kept.
MOST_PAIRS, MOST_IMAGES = 10, 16
#: The longest side, in pixels, of the images that are kept.
LONGEST_SIDE = 64
#: Digits after the decimal point of a mean label.
DECIMALS = 6


@dataclass(frozen=True, kw_only=True)
class RectifiedLabels:
    """The rectified labels of n images of K classes, on the CPU.

    `mean_labels` (K, K) float64 is the mean label of each true class, zeros without images of it,
    of which there are `class_counts` (K,). Of each image, (n,): `entropy` of the label in nats,
    `label_probability` of the true class in it, and the class `predicted` by the teacher, with
    `predicted_probability` at the temperature.
    """

    mean_labels: Tensor
    class_counts: Tensor
    entropy: Tensor
    label_probability: Tensor
    predicted: Tensor
    predicted_probability: Tensor

    @property
    def means(self) -> tuple[tuple[float, ...], ...]:
        """The mean labels as numbers, rounded."""
        rows = self.mean_labels.tolist()
        return tuple(tuple(min(1.0, round(value, DECIMALS)) for value in row) for row in rows)


@torch.no_grad()
def rectify_labels(
    teacher: nn.Module,
    images: Images,
    annealed: Mapping[str, float],
    *,
    num_classes: int,
    batch_size: int,
    device: torch.device,
    on_batch: Callable[[int, int], None],
) -> RectifiedLabels:
    """Rectify the labels of `images` with the float32 outputs of `teacher`, in eval mode.

    `annealed` are ADR's temperature and interpolation factor. After each batch, `on_batch` is
    called with the number of finished images and of all images.

    Raises:
        AdrbenchError: where an output of the teacher is not finite.

    """
    sums = torch.zeros(num_classes, num_classes, dtype=torch.float64)
    columns: list[tuple[Tensor, ...]] = []
    done = 0
    teacher = teacher.to(device).eval()
    with full_precision():
        for x, y in _batches(images, batch_size, device):
            logits = teacher(x)
            if not logits.isfinite().all():
                raise AdrbenchError(
                    "the outputs of the averaged weights are not finite (NaN or infinity) on "
                    "training images: the training diverged, or the file is damaged; inspect "
                    "another checkpoint."
                )
            labels = rectify(logits.double(), y, **annealed).clamp(0, 1)  # (N, K)
            confidence, predicted = soften(logits.double(), annealed["temperature"]).max(1)
            entropy = torch.special.entr(labels).sum(1)
            probability = labels.gather(1, y[:, None]).squeeze(1)
            sums.index_add_(0, y.cpu(), labels.cpu())
            columns.append(tuple(c.cpu() for c in (entropy, probability, predicted, confidence)))
            done += len(y)
            on_batch(done, len(images))
    counts = torch.bincount(images.labels.cpu(), minlength=num_classes)
    entropy, probability, predicted, confidence = map(torch.cat, zip(*columns, strict=True))
    return RectifiedLabels(
        mean_labels=sums / counts.clamp(min=1)[:, None],
        class_counts=counts,
        entropy=entropy,
        label_probability=probability,
        predicted=predicted,
        predicted_probability=confidence.clamp(max=1),
    )


def _batches(
    images: Images, batch_size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield x (N, C, H, W) in [0, 1] and y (N,) on `device`, in order."""
    for start in range(0, len(images), batch_size):
        chosen = slice(start, start + batch_size)
        yield to_float(images.pixels[chosen].to(device)), images.labels[chosen].to(device)


def find_pairs(labels: RectifiedLabels) -> list[ClassPair]:
    """Return the pairs of classes that share most mass in each other's labels, the largest first.

    A class without images has no labels: the mass of a pair is then that of the other direction.
    """
    means, has_images = labels.means, (labels.class_counts > 0).tolist()
    pairs = []
    for second in range(len(means)):
        for first in range(second):
            there, back = means[first][second], means[second][first]
            num_directions = has_images[first] + has_images[second]
            pair = ClassPair(
                first=first,
                second=second,
                first_to_second=there,
                second_to_first=back,
                mass=(there + back) / max(1, num_directions),
            )
            pairs += [pair] if pair.mass > 0 else []
    return sorted(pairs, key=lambda one: (-one.mass, one.first, one.second))[:MOST_PAIRS]


def find_moved(labels: RectifiedLabels, images: Images) -> list[LabeledImage]:
    """Return the images whose labels moved furthest: the lowest probability of the true class."""
    order = labels.label_probability.argsort(stable=True)
    return _describe(labels, images, order[:MOST_IMAGES])


def find_disagreeing(labels: RectifiedLabels, images: Images) -> tuple[int, list[LabeledImage]]:
    """Return the number of images whose teacher predicts another class, and the surest of them."""
    disagrees = labels.predicted != images.labels.cpu()
    found = disagrees.nonzero().squeeze(1)
    order = labels.predicted_probability[found].argsort(descending=True, stable=True)
    return len(found), _describe(labels, images, found[order[:MOST_IMAGES]])


def _describe(labels: RectifiedLabels, images: Images, indices: Tensor) -> list[LabeledImage]:
    kept = shrink(images.take(indices).pixels).cpu()
    return [
        LabeledImage(
            index=index,
            label=int(images.labels[index]),
            predicted=int(labels.predicted[index]),
            label_probability=float(labels.label_probability[index]),
            predicted_probability=float(labels.predicted_probability[index]),
            pixels=pack_pixels(pixels.numpy()),
        )
        for index, pixels in zip(indices.tolist(), kept, strict=True)
    ]


def shrink(pixels: Tensor) -> Tensor:
    """Return images (N, C, H, W) uint8, reduced to sides of at most LONGEST_SIDE where larger."""
    height, width = pixels.shape[2:]
    scale = LONGEST_SIDE / max(height, width)
    if scale >= 1 or not len(pixels):
        return pixels
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return nn.functional.adaptive_avg_pool2d(pixels.float(), size).round().to(torch.uint8)
