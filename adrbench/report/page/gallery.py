"""The first images of an evaluation before and after the attack, as data URIs of PNG files."""

import base64
import io
from typing import TYPE_CHECKING

from adrbench.report.page.content import Gallery, Picture
from adrbench.results.outputs import Outputs

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Image = npt.NDArray[np.float32]

#: Pictures of one model.
MOST_PICTURES = 8
#: Differences are magnified to this part of the range of pixels.
MAGNIFIED_TO = 0.4


def make_gallery(title: str, outputs: Outputs) -> Gallery | None:
    """Return pictures of the first images of `outputs`; None without any that can be shown."""
    import numpy as np

    images, attacked = outputs.images[:MOST_PICTURES], outputs.adversarial_images[:MOST_PICTURES]
    if not len(images) or images.shape[1] not in (1, 3):
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
            clean=to_data_uri(images[i]),
            adversarial=to_data_uri(attacked[i]),
            difference=to_data_uri(0.5 + factor * differences[i]),
            label=_name(outputs, int(outputs.labels[i])),
            before=f"before: {before[i]}",
            after=f"after: {after[i]}",
            is_fooled=bool(outputs.adversarial_logits[i].argmax() != outputs.labels[i]),
        )
        for i in range(len(images))
    ]
    return Gallery(title=title, magnified=factor, pictures=tuple(pictures))


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
    import numpy as np

    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    probabilities = np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)
    return [f"{_name(outputs, int(one.argmax()))} {100 * one.max():.0f} %" for one in probabilities]


def _name(outputs: Outputs, label: int) -> str:
    return outputs.class_names[label] if outputs.class_names else f"class {label}"
