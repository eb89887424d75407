"""TinyImageNet, read from its official files."""

from pathlib import Path

import torch

from adrbench.data.decode import decode_images
from adrbench.data.images import Images, Part
from adrbench.errors import DataError
from adrbench.runtime.files import read_limited

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
NUM_CLASSES = 200
#: The longest of its text files, `words.txt`, has 2.7 MB.
MAX_TEXT_BYTES = 2**25


def read_tiny_imagenet(data_dir: Path, part: Part) -> Images | None:
    """Return a split of TinyImageNet from `<data_dir>/tiny-imagenet-200`, in its official layout.

    The test split is the official validation images, in the order of `val_annotations.txt`: the
    labels of the official test images were never published. The index of a class is its rank among
    the sorted names in `wnids.txt`. Raises DataError for missing or broken files.
    """
    if part == "val":
        return None
    root = data_dir / "tiny-imagenet-200"
    if not root.is_dir():
        raise DataError(
            f"TinyImageNet is not in {data_dir} and must be downloaded by hand: unpack "
            f"{URL} there, so that {root / 'wnids.txt'} exists."
        )
    classes = {wnid: i for i, wnid in enumerate(sorted(_read_text(root / "wnids.txt").split()))}
    if len(classes) > NUM_CLASSES:
        raise DataError(
            f"{root / 'wnids.txt'} lists {len(classes)} classes instead of "
            f"{NUM_CLASSES}: unpack {URL} again."
        )
    examples = _list_train(root, classes) if part == "train" else _list_test(root, classes)
    if not examples:
        raise DataError(f"{root} has no {part} images: unpack {URL} again.")
    files, labels = zip(*examples, strict=True)
    return Images(decode_images(files), torch.tensor(labels, dtype=torch.int64))


def read_tiny_imagenet_names(data_dir: Path) -> tuple[str, ...]:
    """Return the first name of each class in `words.txt`, or its id; () without that file."""
    root = data_dir / "tiny-imagenet-200"
    try:
        lines = _read_text(root / "words.txt").splitlines()
        wnids = sorted(set(_read_text(root / "wnids.txt").split()))
    except DataError:
        return ()
    words = {wnid: text for wnid, _, text in (line.partition("\t") for line in lines)}
    return tuple(words.get(wnid, wnid).partition(",")[0] for wnid in wnids)


def _list_train(root: Path, classes: dict[str, int]) -> list[tuple[Path, int]]:
    examples = []
    for wnid, label in classes.items():
        try:
            files = sorted((root / "train" / wnid / "images").glob("*.JPEG"))
        except OSError:
            files = []
        if not files:
            raise DataError(
                f"{root / 'train' / wnid / 'images'} has no .JPEG files, but wnids.txt lists that "
                f"class: unpack {URL} again."
            )
        examples += [(file, label) for file in files]
    return examples


def _list_test(root: Path, classes: dict[str, int]) -> list[tuple[Path, int]]:
    annotations = root / "val" / "val_annotations.txt"
    examples = []
    for number, line in enumerate(_read_text(annotations).splitlines(), start=1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in classes:
            raise DataError(
                f"line {number} of {annotations} has the class {wnid!r}, which is not in "
                f"wnids.txt: each line must be a file name, a tab and one of its classes."
            )
        examples.append((root / "val" / "images" / name, classes[wnid]))
    return examples


def _read_text(file: Path) -> str:
    try:
        return read_limited(file, MAX_TEXT_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: unpack {URL} again.") from error
