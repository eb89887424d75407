"""A damaged or malicious image is loaded or rejected in one sentence."""

import io
import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from adrbench.data import load_split, memory
from fuzzing import assert_loaded_or_rejected, damage, fuzz
from image_files import image_bytes


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two classes, to which tests add one file, such as train/a/odd.png."""
    root = tmp_path_factory.mktemp("images")
    for file in ("train/a/1.png", "train/b/1.png", "test/b/1.png"):
        (root / file).parent.mkdir(parents=True)
        (root / file).write_bytes(image_bytes("PNG"))
    return root


FORMS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO", "SGI", "PCX", "DDS")
PICTURES = [image_bytes(form) for form in (*FORMS, "JPEG2000")]


@settings(fuzz, max_examples=400)
@given(content=st.sampled_from(PICTURES), seed=st.integers(0, 2**32))
def test_a_damaged_image_is_loaded_or_rejected(images: Path, content: bytes, seed: int) -> None:
    (images / "train" / "a" / "odd.png").write_bytes(damage(content, seed))
    assert_loaded_or_rejected(images)


def png_header(width: int, height: int) -> bytes:
    """Return the start of a PNG of that size, without its pixels."""
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\2\0\0\0"
    check = zlib.crc32(header).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + header + check + bytes(4) + b"IDAT\x35\xaf\x06\x1e"


def animation() -> bytes:
    stream = io.BytesIO()
    frames = [Image.new("P", (8, 8), color) for color in range(3)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot read the image"),
        (b"label,file\n", "cannot read the image"),
        (image_bytes("PNG")[:60], "cannot read the image"),
        (image_bytes("JPEG")[:300], "cannot read the image"),
        (image_bytes("PNG", side=9), "9x9 pixels"),
        (image_bytes("TIFF", "I"), "8 bits per channel"),
        (image_bytes("TIFF", "F"), "8 bits per channel"),
        (image_bytes("EPS"), "it is EPS"),
        (png_header(50_000, 50_000), "decompression bomb"),
        (png_header(10_000, 10_000), "decompression bomb"),
        (png_header(2**31 - 1, 2**31 - 1), "cannot read the image"),
        (png_header(0, 0), "cannot read the image"),
        (animation(), ""),
        (image_bytes("PNG", "LA"), ""),
        (image_bytes("PNG", "1"), ""),
        (image_bytes("PNG", "RGBA"), ""),
        (image_bytes("PNG", "P", transparency=bytes(range(200))), ""),
        (image_bytes("JPEG", "CMYK"), ""),
    ],
)
def test_unusual_images_are_loaded_or_rejected(images: Path, content: bytes, words: str) -> None:
    (images / "train" / "a" / "odd.png").write_bytes(content)
    message = assert_loaded_or_rejected(images)
    assert words in message
    assert bool(words) == bool(message)


def test_images_that_do_not_fit_into_memory_are_rejected(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (images / "train" / "a" / "odd.png").write_bytes(image_bytes("PNG"))
    monkeypatch.setattr(memory, "total_memory", lambda: 3 * 8 * 8 * 2.5)
    assert "3 images as large as" in assert_loaded_or_rejected(images)


def test_cyclic_links_do_not_repeat_images(images: Path, tmp_path: Path) -> None:
    """Two links to the parent folder make 2**40 paths if they are followed without a check."""
    (images / "train" / "a" / "odd.png").unlink(missing_ok=True)
    for name in ("one", "two"):
        (images / "train" / "b" / name).symlink_to("..")
    (images / "train" / "b" / "beside").symlink_to("../b")
    try:
        part, _ = load_split(str(images), "train", data_dir=Path("nowhere"))
    finally:
        for name in ("one", "two", "beside"):
            (images / "train" / "b" / name).unlink()
    assert len(part) == 3


def test_a_pipe_among_images_is_rejected(images: Path) -> None:
    pipe = images / "train" / "a" / "pipe.png"
    os.mkfifo(pipe)
    try:
        assert "it is not a file" in assert_loaded_or_rejected(images)
    finally:
        pipe.unlink()
