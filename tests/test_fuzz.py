"""Readers of files return a result or one sentence of error, whatever the file contains.

Results, configurations and data may be truncated, edited by hand or malicious.
"""

import copy
import io
import itertools
import json
import math
import os
import pickle
import random
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torchvision
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from adrbench.config.declare import parse_fraction
from adrbench.config.method import Method, parse_method
from adrbench.config.presets import find_preset
from adrbench.config.settings import AttackConfig, TrainConfig
from adrbench.data import DATASETS, Images, dataset_name, load_dataset, load_split, memory
from adrbench.data.builtin import read_cifar
from adrbench.data.tiny_imagenet import read_tiny_imagenet
from adrbench.errors import DataError, RecordError, UsageError, unknown_name
from adrbench.models.architectures import canonical_arch
from adrbench.report import FORMATS, build_report, render, results_frame
from adrbench.results.records import Record, Skipped, read_record, read_records
from adrbench.runtime.typed_json import from_json, to_json
from report_records import attack_record, foreign_record, train_record
from runner import command

NOWHERE = Path("nowhere")
MEBIBYTE = 2**20

fuzz = settings(derandomize=True, deadline=None, max_examples=100, database=None)
rarely = settings(fuzz, max_examples=40)


def assert_one_sentence(message: str) -> None:
    assert len(message.splitlines()) == 1, message
    assert message.endswith((".", "?")), message


# Unusual values in JSON


#: In a file, this prefix and a number are replaced by that many nested lists.
DEEP = "deep"
SURROGATES = "".join(map(chr, (0xD800, 0xDC80, 0xDFFF)))
texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=12)
odd_texts = st.sampled_from(
    [
        *("", " ", "\0", "\n", "\x1b[2J", "-", "|", "[", "pgd-²", "pgd-" + "9" * 5000, "at+at"),
        *("8/255", "1e999", "seed0", "robustbench:", SURROGATES, "x" * 100_000, " " * 100_000),
        *(f"{DEEP}{levels}." for levels in (40, 60, 200, 600, 800, 900, 940, 950, 960, 970, 2000)),
    ]
)
numbers = st.integers() | st.floats()
odd_numbers = st.sampled_from(
    [-1, 0, 1, 2**31, 2**63 - 1, 2**63, 10**20, 10**308, 10**400, 1e308, 5e-324, math.nan, math.inf]
)
scalars = st.none() | st.booleans() | numbers | odd_numbers | texts | odd_texts
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to every value nested in `value`."""
    keys = list(value) if isinstance(value, dict) else []
    if isinstance(value, list):
        keys = list(range(len(value)))
    for key in keys:
        yield (*above, key)
        yield from places(value[key], (*above, key))


def like(value: Any) -> st.SearchStrategy[Any]:
    """Return values of the type of `value`, which pass more checks than others."""
    if isinstance(value, str):
        return texts | odd_texts
    if isinstance(value, float):
        return st.floats() | odd_numbers
    if isinstance(value, int) and not isinstance(value, bool):
        return st.integers() | odd_numbers.filter(lambda number: isinstance(number, int))
    if isinstance(value, dict):
        return st.dictionaries(texts | st.sampled_from(["alpha", "steps"]), json_values, max_size=3)
    return json_values


@st.composite
def mutated(draw: st.DrawFn, whole: Any) -> Any:
    """Return `whole` with one nested value removed, renamed, added or replaced."""
    changed = copy.deepcopy(whole)
    *above, last = draw(st.sampled_from(list(places(whole))))
    inside = changed
    for key in above:
        inside = inside[key]
    match draw(st.sampled_from(["like", "like", "like", "replace", "remove", "rename", "add"])):
        case "remove":
            del inside[last]
        case "rename" if isinstance(inside, dict):
            inside[draw(texts)] = inside.pop(last)
        case "add" if isinstance(inside, dict):
            inside[draw(texts)] = draw(json_values)
        case "replace":
            inside[last] = draw(json_values)
        case _:
            inside[last] = draw(like(inside[last]))
    return changed


def spell(value: Any) -> str:
    """Return `value` as JSON, with the nested lists that DEEP stands for."""
    text = json.dumps(value)
    while (start := text.find(f'"{DEEP}')) >= 0:
        levels, end = text[start + len(DEEP) + 1 :].split('."', 1)
        text = f"{text[:start]}{'[' * int(levels)}{']' * int(levels)}{end}"
    return text


# Records


PGD = {"suite": "pgd-20", "n": 1_000, "num_test": 1_000}
ATTACKS: list[Record] = [
    attack_record(900, 500, **PGD, parameters={"alpha": 0.01, "steps": 20}),
    attack_record(900, 500, **PGD, parameters={"alpha": 0.02, "steps": 20}, seed=1),
    attack_record(900, 400, **PGD, selection="last", warnings=("one", "two")),
    foreign_record(8_024, 5_106, "robustbench:Addepalli2021Towards_RN18", arch="zoo"),
    attack_record(8_000, 4_000),
]
HISTORY = ({"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": None})
TRAINED = train_record(config={"lr": 0.1, "milestones": [0.5]}, history=HISTORY)
DOCUMENTS = [json.loads(json.dumps(to_json(record))) for record in (*ATTACKS, TRAINED)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one directory for all examples, each of which replaces the previous files."""
    return tmp_path_factory.mktemp("fuzz")


def assert_reported(folder: Path, documents: Sequence[Any]) -> int:
    """Check that every format shows every document or skips its file; return how many it shows."""
    for old in folder.glob("*.json"):
        old.unlink()
    for number, document in enumerate(documents):
        (folder / f"{number}.json").write_text(spell(document))
    skipped = Skipped()
    try:
        records = read_records(folder, skipped)
    except RecordError as error:
        assert_one_sentence(str(error))
        records = []
    for reason in skipped.reasons.values():
        assert_one_sentence(reason)
    assert len(records) + len(skipped.reasons) == len(documents)
    assert len(results_frame(records)) == sum(record.kind == "attack" for record in records)
    for intervals in (False, True):
        report = build_report(records, intervals=intervals)
        for columns in (table.columns for table in report.tables):
            assert len({column.key for column in columns}) == len(columns)
        for form in FORMATS:
            shown = render(report, form, width=100)
            shown.encode()
            assert "\x1b" not in shown or form in ("csv", "json")
            assert len(shown) < 2 * MEBIBYTE
            if form == "json":
                json.loads(shown, parse_constant=pytest.fail)
    return len(records)


@fuzz
@given(changes=st.lists(st.sampled_from(DOCUMENTS).flatmap(mutated), min_size=1, max_size=3))
def test_a_report_shows_or_skips_altered_records(folder: Path, changes: list[Any]) -> None:
    assert_reported(folder, [*changes, *DOCUMENTS[:2]])


COUNTS = ("n", "num_test", "clean_correct", "robust_correct")
FIRST, LAST = DOCUMENTS[0], DOCUMENTS[-1]


@pytest.mark.parametrize(
    ("document", "is_shown"),
    [
        *((FIRST | {"parameters": {"alpha": value}}, True) for value in (math.nan, math.inf)),
        (FIRST | {"parameters": {"alpha": 10**400}}, True),
        *(
            (FIRST | {"parameters": FIRST["parameters"] | more}, True)
            for more in ({}, {"a": None}, {"alpha": 0.01 + 1e-9}, {"steps": "20"})
        ),
        *(
            (FIRST | {"parameters": {"a": f"{DEEP}{n}."}}, False)
            for n in (60, 200, 900, 950, 960, 970, 980, 2000)
        ),
        *((FIRST | {"suite": suite}, True) for suite in ("pgd-²", "pgd-" + "9" * 5000, "pgd-", "")),
        *((FIRST | {"run": run * 50_000}, True) for run in ("x", " ", "x ", "\n", SURROGATES)),
        *((FIRST | {"warnings": [word * 50_000]}, True) for word in ("x", " ", "x ", "\x1b[2J")),
        *((FIRST | dict.fromkeys(COUNTS, n), True) for n in (0, 1, 2**53 + 1, 2**63 - 1)),
        *((FIRST | dict.fromkeys(COUNTS, n), False) for n in (2**63, 10**400)),
        *((FIRST | {"seed": seed}, shown) for seed, shown in ((-(2**63), True), (2**63, False))),
        *((FIRST | {"threat_model": {"norm": "L2", "eps": e}}, True) for e in (5e-324, 1e308)),
        *(
            (FIRST | {"threat_model": {"norm": "L2", "eps": e}}, False)
            for e in (0, math.nan, 10**400)
        ),
        *((LAST | {"seconds": value}, True) for value in (math.nan, math.inf, -1, 1e308)),
        (LAST | {"seconds": 10**400}, False),
        (LAST | {"history": [{"epoch": f"{DEEP}900."}]}, False),
    ],
    ids=itertools.count(),
)
def test_a_report_shows_or_skips_an_unusual_record(
    folder: Path, document: Any, is_shown: bool
) -> None:
    assert assert_reported(folder, [document, *DOCUMENTS]) == is_shown + len(DOCUMENTS)


@fuzz
@given(content=st.binary(max_size=60) | json_values.map(lambda value: spell(value).encode()))
def test_an_arbitrary_file_is_rejected_as_a_record(folder: Path, content: bytes) -> None:
    path = folder / "any.json"
    path.write_bytes(content)
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert_one_sentence(str(caught.value))


@pytest.mark.parametrize(
    "schema", ['"a\\nb"', f'"{"x" * 9999}"', "[" * 99 + "]" * 99, "-" + "9" * 4000]
)
def test_an_invalid_schema_is_rejected_in_a_short_sentence(tmp_path: Path, schema: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(f'{{"kind": "attack", "schema": {schema}}}')
    with pytest.raises(RecordError, match="its schema") as caught:
        read_record(path)
    assert_one_sentence(str(caught.value))
    assert len(str(caught.value)) < 200 + len(str(path))


def test_pipes_and_huge_files_are_rejected_as_records(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(2**40)  # a sparse file, which takes no space
    for name, words in (("pipe", "it is not a file"), ("large", "it is too large")):
        with pytest.raises(RecordError, match=words):
            read_record(tmp_path / f"{name}.json")


@rarely
@given(document=st.sampled_from(DOCUMENTS).flatmap(mutated), form=st.sampled_from(FORMATS))
def test_the_report_command_succeeds_beside_an_altered_record(
    tmp_path_factory: pytest.TempPathFactory, document: Any, form: str
) -> None:
    results = tmp_path_factory.mktemp("results")
    (results / "good.json").write_text(spell(DOCUMENTS[0]))
    (results / "other.json").write_text(spell(document))
    outcome = command("report", results, "--format", form)
    assert (outcome.code, outcome.lines) == (0, []), outcome.err
    assert len(outcome.notes) <= 1


# Configurations


def good_config() -> Any:
    preset = find_preset("digits", "small-cnn", parse_method("adr+awp"), num_train=1437)
    values: dict[str, Any] = {**preset.values, "val_size": 143}
    config = TrainConfig.of(dataset="digits", arch="small-cnn", method="adr+awp", **values)
    return json.loads(json.dumps(config.to_json()))


GOOD_ATTACK = to_json(AttackConfig(n=3, alpha=0.1))


def error_text(read: Callable[[], object]) -> str:
    """Return the text of the ValueError that `read` raises, or "none"."""
    try:
        read()
    except ValueError as error:
        return str(error)
    return "none"


@fuzz
@given(data=json_values | mutated(good_config()))
def test_a_training_configuration_is_read_or_rejected(data: Any) -> None:
    nested = json.loads(spell(data)) if "deep2000" not in json.dumps(data) else data
    assert len(error_text(lambda: TrainConfig.from_json(nested)).splitlines()) == 1


@fuzz
@given(data=json_values | mutated(GOOD_ATTACK))
def test_an_attack_configuration_is_read_or_rejected(data: Any) -> None:
    assert len(error_text(lambda: from_json(AttackConfig, data)).splitlines()) == 1


@pytest.mark.parametrize("name", ["n", "restarts", "batch_size", "seed"])
@pytest.mark.parametrize("value", [-(10**400), 10**400])
def test_extreme_numbers_are_rejected(name: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} is "):
        AttackConfig(**{name: value})  # type: ignore[arg-type]


# Command line arguments


@fuzz
@given(text=texts | odd_texts | st.from_regex(r"[-+0-9./e_ ]{1,9}", fullmatch=True))
@example("9" * 5000 + "/" + "9" * 5000)
def test_arguments_are_parsed_or_rejected(text: str) -> None:
    uses: list[tuple[Callable[[str], object], type]] = [
        (lambda word: parse_fraction(word, "eps"), float),
        (parse_method, Method),
        (canonical_arch, str),
        (dataset_name, str),
    ]
    for use, result in uses:
        try:
            assert isinstance(use(text), result)
        except (UsageError, DataError) as error:
            assert_one_sentence(str(error))
    assert_one_sentence(str(unknown_name("word", text, DATASETS)))


# Arrays in .npz files


Array = npt.NDArray[Any]


class Payload:
    """An object whose pickle creates a file when it is loaded without restrictions."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.file,)


def good_arrays() -> dict[str, Array]:
    levels = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)
    labels = np.arange(12) % 3
    return {"x_train": levels, "y_train": labels, "x_test": levels[:5], "y_test": labels[:5]}


def npz_bytes(arrays: dict[str, Array], compression: int = zipfile.ZIP_STORED) -> bytes:
    return zip_bytes({f"{key}.npy": npy_bytes(array) for key, array in arrays.items()}, compression)


def npy_bytes(array: Array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def zip_bytes(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
ARCHIVES = [npz_bytes(good_arrays(), compression) for compression in COMPRESSIONS]


def assert_loaded_or_rejected(path: Path) -> str:
    """Load a data set; return the error message, or "" if there is none."""
    try:
        dataset = load_dataset(str(path), data_dir=NOWHERE)
    except (DataError, UsageError) as error:
        assert_one_sentence(str(error))
        return str(error)
    for images in (dataset.train, dataset.val, dataset.test):
        assert images.pixels.dtype == torch.uint8
        assert len(images) == 0 or 0 <= int(images.labels.min()) <= int(images.labels.max())
        assert len(images) == 0 or int(images.labels.max()) < dataset.num_classes
    return ""


def damaged(content: bytes, seed: int) -> bytes:
    """Return `content` with a few bytes changed, removed or inserted, often near the end."""
    draws = random.Random(seed)
    altered = bytearray(content)
    for _ in range(draws.randint(1, 4)):
        start = max(0, len(altered) - 300) if draws.random() < 0.5 else 0
        place = draws.randrange(start, len(altered))
        match draws.choice(["flip", "byte", "byte", "cut", "insert", "end", "copy"]):
            case "flip":
                altered[place] ^= 1 << draws.randrange(8)
            case "byte":
                altered[place] = draws.choice([0, 1, 8, 0x7F, 0xFF, draws.randrange(256)])
            case "cut":
                del altered[max(1, place) : place + draws.randrange(1, 40)]
            case "insert":
                altered[place:place] = draws.randbytes(draws.randrange(1, 40))
            case "copy":
                altered[place:place] = altered[: draws.randrange(1, 400)]
            case "end" if draws.random() < 0.3:
                del altered[max(1, place) :]
    return bytes(altered)


@settings(fuzz, max_examples=400)
@given(content=st.sampled_from(ARCHIVES), seed=st.integers(0, 2**32))
def test_a_damaged_npz_is_loaded_or_rejected(folder: Path, content: bytes, seed: int) -> None:
    path = folder / "damaged.npz"
    path.write_bytes(damaged(content, seed))
    assert_loaded_or_rejected(path)


dtypes = st.sampled_from(
    [
        "u1",
        "i1",
        ">i8",
        "u8",
        "f4",
        "c8",
        "?",
        "m8[s]",
        "M8[D]",
        "U3",
        "S0",
        "V0",
        "V5",
        "O",
        "u1,f4",
    ]
)
shapes = st.lists(st.integers(0, 5), max_size=5).map(tuple)


@fuzz
@given(key=st.sampled_from(list(good_arrays())), dtype=dtypes, shape=shapes, fortran=st.booleans())
def test_an_array_of_any_type_and_shape_is_loaded_or_rejected(
    folder: Path, key: str, dtype: str, shape: tuple[int, ...], fortran: bool
) -> None:
    array = np.zeros(shape, dtype, order="F" if fortran else "C")
    path = folder / "any.npz"
    path.write_bytes(npz_bytes(good_arrays() | {key: array}))
    assert_loaded_or_rejected(path)


HEADER = "{'descr': '|u1', 'fortran_order': False, 'shape': (12, 4, 4, 3), }"
headers = st.sampled_from(
    [
        *(HEADER.replace("12", str(n)) for n in (-12, 10**10, 10**12, 10**30, "12L", "None", "0")),
        HEADER.replace("12, 4, 4, 3", "-12, -4, 4, 3"),
        HEADER.replace("(12, 4, 4, 3)", "()"),
        HEADER.replace("|u1", "|O"),
        HEADER.replace("'|u1'", "[('a', '|u1'), ('b', 'O')]"),
        HEADER.replace("'|u1'", "('|u1', (2,))"),
        HEADER.replace("'|u1'", "{'names': 3}"),
        HEADER.replace("False", "'no'"),
        HEADER.replace("'descr'", "1"),
        HEADER + ")",
        "{[]: 3}",
        "(" * 3000,
        "[" * 90 + "]" * 90,
        "-" * 9000 + "1",
        "1" * 5000,
        "'",
        "\\",
        "   x\n y",
        " " * 60_000,
        "os.system('true')",
    ]
)


@fuzz
@given(header=headers | st.text(max_size=30), version=st.sampled_from([1, 2, 3, 9]))
def test_an_array_with_any_header_is_loaded_or_rejected(
    folder: Path, header: str, version: int
) -> None:
    encoded = header.encode("utf-8")
    length = len(encoded).to_bytes(2 if version == 1 else 4, "little")
    content = b"\x93NUMPY" + bytes([version, 0]) + length + encoded + bytes(12 * 4 * 4 * 3)
    members = {f"{key}.npy": npy_bytes(array) for key, array in good_arrays().items()}
    path = folder / "header.npz"
    path.write_bytes(zip_bytes(members | {"x_train.npy": content}))
    tracemalloc.start()
    try:
        assert_loaded_or_rejected(path)
        assert tracemalloc.get_traced_memory()[1] < 20 * MEBIBYTE
    finally:
        tracemalloc.stop()


def test_a_decompression_bomb_is_rejected_before_it_is_decompressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeros that are not an array, an array with too few labels, an array larger than memory."""
    good = {f"{key}.npy": npy_bytes(array) for key, array in good_arrays().items()}
    large = npy_bytes(np.zeros((12, 1024, 1024, 3), np.uint8))
    other = npy_bytes(np.zeros((13, 1024, 1024, 3), np.uint8))
    monkeypatch.setattr(memory, "total_memory", lambda: 30 * MEBIBYTE)
    path = tmp_path / "bomb.npz"
    for content, words in (
        (bytes(len(large)), "not a plain array"),
        (b"\x93NUMPY\2\0" + len(large).to_bytes(4, "little") + bytes(len(large)), "not a plain"),
        (other, "13 images but y_train has 12 labels"),
        (large, "does not fit into memory"),
    ):
        path.write_bytes(zip_bytes(good | {"x_train.npy": content}, zipfile.ZIP_DEFLATED))
        assert path.stat().st_size < MEBIBYTE
        tracemalloc.start()
        message = assert_loaded_or_rejected(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert words in message
        assert peak < 4 * MEBIBYTE


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_unusual_archives_are_loaded_or_rejected(tmp_path: Path) -> None:
    good = npz_bytes(good_arrays())
    arrays = {f"{key}.npy": npy_bytes(array) for key, array in good_arrays().items()}
    encrypted = bytearray(good)
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = good.find(signature)
        encrypted[place + offset] |= 1
    stream = io.BytesIO(good)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("x_train.npy", arrays["x_test.npy"])
    contents = {
        "empty": (b"", "not an .npz file"),
        "empty archive": (zip_bytes({}), "no y_train but nothing"),
        "text": (b"x_train", "not an .npz file"),
        "encrypted": (bytes(encrypted), "broken or not a plain array"),
        "twice": (stream.getvalue(), "5 images but y_train has 12 labels"),
        "in a folder": (zip_bytes({f"a/{name}": arrays[name] for name in arrays}), "but a/x_train"),
        "above": (zip_bytes({f"../{name}": arrays[name] for name in arrays}), "but ../x_train"),
        "within another": (zip_bytes({"inner.npz": good}), "but inner.npz"),
        "odd names": (zip_bytes({"a\nb\x1b": b""}), r"but 'a\nb\x1b'"),
        "after something": (b"#!/bin/sh\n" + good, ""),
        "high label": (npz_bytes(good_arrays() | {"y_train": np.arange(12) * 10**9}), "the label"),
        "highest": (npz_bytes(good_arrays() | {"y_train": np.array([2**64 - 1] * 12)}), "label"),
    }
    for name, (content, words) in contents.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        message = assert_loaded_or_rejected(path)
        assert words in message, name
        assert bool(words) == bool(message), name


def test_loading_an_array_never_runs_code(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    payload = np.array([Payload(ran)] * 12, object)
    for key in good_arrays():
        path = tmp_path / "hostile.npz"
        path.write_bytes(npz_bytes(good_arrays() | {key: payload}))
        assert f"{key} in" in assert_loaded_or_rejected(path)
        path.write_bytes(zip_bytes({f"{key}.npy": pickle.dumps(Payload(ran))}))
        assert assert_loaded_or_rejected(path)
    path.write_bytes(pickle.dumps(Payload(ran)))
    assert "not an .npz file" in assert_loaded_or_rejected(path)
    assert not ran.exists()


def test_paths_that_are_not_files_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "folder.npz").mkdir()
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "device.npz").symlink_to("/dev/zero")
    (tmp_path / "dangling.npz").symlink_to("gone")
    (tmp_path / "circle.npz").symlink_to("circle.npz")
    for name, words in (
        ("folder", "train/ and test/"),
        ("pipe", "is not a file"),
        ("device", "is not a file"),
        ("dangling", "No such file"),
        ("circle", "levels of symbolic links"),
        ("x" * 300, "File name too long"),
    ):
        assert words in assert_loaded_or_rejected(tmp_path / f"{name}.npz")


# Images in folders


def image_bytes(form: str, mode: str = "RGB", side: int = 8, **options: Any) -> bytes:
    levels = np.random.default_rng(1).integers(0, 256, (side, side, 4), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(levels, "RGBA").convert(mode).save(stream, form, **options)
    return stream.getvalue()


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
    (images / "train" / "a" / "odd.png").write_bytes(damaged(content, seed))
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
        part, _ = load_split(str(images), "train", data_dir=NOWHERE)
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


# The official files


@fuzz
@given(data=st.data())
def test_tiny_imagenet_with_altered_lists_is_read_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    words = st.sampled_from(
        ["n1", "n2", "\t", "\n", "val_0.JPEG", "..", "/", "\0", "x" * 300, "\xff"]
    )
    root = tmp_path_factory.getbasetemp() / "fuzzed" / "tiny-imagenet-200"
    for file in ("train/n1/images/n1_0.JPEG", "train/n2/images/n2_0.JPEG", "val/images/val_0.JPEG"):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(image_bytes("JPEG"))
    for file in ("wnids.txt", "val/val_annotations.txt"):
        drawn = data.draw(st.lists(words, max_size=6).map("".join))
        (root / file).write_text(drawn, encoding="latin-1")
    for part in ("train", "test"):
        try:
            assert isinstance(read_tiny_imagenet(root.parent, part), Images)
        except DataError as error:
            assert_one_sentence(str(error))


def test_tiny_imagenet_with_too_many_classes_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "tiny-imagenet-200").mkdir()
    (tmp_path / "tiny-imagenet-200" / "wnids.txt").write_text(" ".join(map(str, range(201))))
    with pytest.raises(DataError, match="201 classes instead of 200"):
        read_tiny_imagenet(tmp_path, "train")


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_a_cifar_pickle_that_is_not_the_published_one_is_never_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Every file in the folder is such a pickle, whichever is loaded first."""
    cifar = getattr(torchvision.datasets, name)

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("no connection")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fail)
    ran = tmp_path / "ran"
    (tmp_path / cifar.base_folder).mkdir()
    for file, _ in (*cifar.train_list, *cifar.test_list, (cifar.meta["filename"], "")):
        (tmp_path / cifar.base_folder / file).write_bytes(pickle.dumps(Payload(ran)))
    for part in ("train", "test"):
        with pytest.raises(DataError) as caught:
            read_cifar(name, tmp_path, part)
        assert_one_sentence(str(caught.value))
    assert not ran.exists()
