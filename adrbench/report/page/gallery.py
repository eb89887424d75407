"""Images in a page: before and after an attack, and those whose labels ADR moved the furthest."""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from adrbench.report.cell_text import cut
from adrbench.report.inspection_tables import name_class
from adrbench.report.outputs.predictions import Predictions
from adrbench.report.page.content import Gallery, Picture
from adrbench.results.inspection import InspectRecord, LabeledImage, unpack_pixels
from adrbench.results.outputs import Outputs

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Image = npt.NDArray[np.float32]

#: Images of other numbers of channels are not shown.
CHANNELS = (1, 3)
#: Longer names of classes are cut.
MOST_IN_NAME = 40
#: Pictures of one model.
MOST_PICTURES = 8
#: Differences are magnified to this part of the range of pixels.
MAGNIFIED_TO = 0.4


def make_gallery(title: str, outputs: Outputs) -> Gallery | None:
    """Return pictures of the first images of `outputs`; None without any that can be shown."""
    import numpy as np

    images, attacked = outputs.images[:MOST_PICTURES], outputs.adversarial_images[:MOST_PICTURES]
    if not len(images) or images.shape[1] not in CHANNELS:
        return None
    differences = attacked - images
    largest = float(np.abs(differences).max())
    factor = MAGNIFIED_TO / largest if 0 < largest < np.inf else 1.0
    before, after = (
        _describe(outputs, logits[: len(images)])
        for logits in (outputs.clean_logits, outputs.adversarial_logits)
    )
    pictures = [
        Picture(
            images={
                "original": to_data_uri(images[i]),
                "adversarial": to_data_uri(attacked[i]),
                "difference, magnified": to_data_uri(0.5 + factor * differences[i]),
            },
            lines=(
                f"label: {_name(outputs, int(outputs.labels[i]))}",
                f"before: {before[i]}",
                f"after: {after[i]}",
            ),
            is_marked=bool(outputs.adversarial_logits[i].argmax() != outputs.labels[i]),
        )
        for i in range(len(images))
    ]
    return Gallery(
        title=title,
        text=f"Original, adversarial, and their difference magnified {factor:.3g} times; a colored "
        "edge marks images that the model misclassifies after the attack.",
        pictures=tuple(pictures),
    )


def make_label_galleries(record: InspectRecord) -> tuple[Gallery, ...]:
    """Return the images whose labels moved the furthest, and those that the teacher sees apart."""
    found = (
        Gallery(
            title="Labels that moved furthest",
            text="Training images with the lowest probability of the true class in their labels.",
            pictures=_picture_labels(record, record.moved),
        ),
        Gallery(
            title="Teacher disagrees with the label",
            text="Training images for which the teacher predicts another class, the most "
            "confident first.",
            pictures=_picture_labels(record, record.disagreeing),
        ),
    )
    return tuple(gallery for gallery in found if gallery.pictures)


def _picture_labels(record: InspectRecord, images: Sequence[LabeledImage]) -> tuple[Picture, ...]:
    """Return images of an inspected run with their labels and the class that its teacher sees."""
    import numpy as np

    if record.image_shape[0] not in CHANNELS:
        return ()
    pictures = []
    for image in images[:MOST_PICTURES]:
        pixels = unpack_pixels(image.pixels, record.image_shape).astype(np.float32) / np.float32(
            255
        )
        label, predicted = (
            cut(name_class(record, one), MOST_IN_NAME) for one in (image.label, image.predicted)
        )
        share, confidence = 100 * image.label_probability, 100 * image.predicted_probability
        pictures.append(
            Picture(
                images={"training image": to_data_uri(pixels)},
                lines=(
                    f"{label}: {share:.0f} % of the label",
                    f"teacher: {predicted} {confidence:.0f} %",
                ),
            )
        )
    return tuple(pictures)


def to_data_uri(image: "Image") -> str:
    """Return an image (C, H, W) in [0, 1], of one channel or three, as a PNG file in a URI."""
    import numpy as np
    from PIL import Image as Pillow

    pixels = (np.nan_to_num(image).clip(0, 1) * 255).round().astype(np.uint8)
    shown = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    buffer = io.BytesIO()
    Pillow.fromarray(shown).save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _describe(outputs: Outputs, logits: "Image") -> list[str]:
    """Return the class that the model predicts for each image, and its confidence."""
    probabilities = Predictions(logits, outputs.labels[: len(logits)]).probabilities
    return [
        f"{_name(outputs, int(one.argmax()))} ({100 * one.max():.0f} %)" for one in probabilities
    ]


def _name(outputs: Outputs, label: int) -> str:
    return (
        cut(outputs.class_names[label], MOST_IN_NAME) if outputs.class_names else f"class {label}"
    )
