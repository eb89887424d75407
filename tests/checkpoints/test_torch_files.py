"""Untrusted `torch.save` files: their tensors are read, and nothing that they name is run."""

import argparse
import builtins
import collections
import datetime
import functools
import io
import math
import os
import pathlib
import pickle
import subprocess
import sys
import types
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from adrbench.checkpoints.pickle_machine import PickledObject
from adrbench.checkpoints.torch_files import TorchFile, describe_unread, read_torch_file
from adrbench.errors import CheckpointError
from payloads import Payload

ZIPPED = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3, 4, 5])


def write(content: object, path: Path, *, zipped: bool = True, protocol: int = 2) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)


def read(content: object, path: Path, *, zipped: bool = True, protocol: int = 2) -> TorchFile:
    write(content, path, zipped=zipped, protocol=protocol)
    return read_torch_file(path)


def attempt(path: Path) -> tuple[TorchFile | None, str]:
    """Return the file's content, or the error message."""
    try:
        return read_torch_file(path), ""
    except CheckpointError as error:
        return None, str(error)


def have_equal_tensors(found: Any, expected: Any) -> bool:
    return list(found) == list(expected) and all(
        found[key].dtype == expected[key].dtype and torch.equal(found[key], expected[key])
        for key in expected
    )


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 10))


def stepped(make: Callable[..., torch.optim.Optimizer], model: nn.Module) -> Any:
    """Return an optimizer of `model` after one step, so that it has state per parameter."""
    optimizer = make(model.parameters(), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


MISSING = "missing_module"
MISSING_SOURCE = """
import enum
from torch import Tensor, nn

class Schedule:
    def __init__(self, optimizer):
        self.optimizer, self.milestones = optimizer, [100, 150]

class Config(dict):
    pass

class Window(list):
    pass

class Phase(enum.Enum):
    STUDENT = 1
    AVERAGE = 2

class Weights(Tensor):
    pass

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
"""


@pytest.fixture
def missing() -> Iterator[types.ModuleType]:
    """Return a module whose objects can be saved; `remove_module` removes it before reading."""
    module = types.ModuleType(MISSING)
    sys.modules[module.__name__] = module
    exec(MISSING_SOURCE, module.__dict__)
    yield module
    remove_module()


def remove_module() -> None:
    sys.modules.pop(MISSING, None)


@ZIPPED
@PROTOCOLS
def test_a_checkpoint_of_the_published_code_is_read(
    tmp_path: Path, missing: types.ModuleType, zipped: bool, protocol: int
) -> None:
    """It has an optimizer and a scheduler as pickled objects besides two state dicts."""
    model, average = network(), network()
    optimizer = stepped(functools.partial(torch.optim.SGD, momentum=0.9), model)
    held = {
        "model": model.state_dict(),
        "optimizer": optimizer,
        "scheduler": missing.Schedule(optimizer),
        "model_ema": average.state_dict(),
        "epoch": 7,
    }
    write(held, tmp_path / "third_party.pt", zipped=zipped, protocol=protocol)
    remove_module()
    found = read_torch_file(tmp_path / "third_party.pt")
    assert MISSING not in sys.modules
    assert have_equal_tensors(found.content["model"], model.state_dict())
    assert have_equal_tensors(found.content["model_ema"], average.state_dict())
    assert found.content["epoch"] == 7
    assert isinstance(found.content["optimizer"], PickledObject)
    assert isinstance(found.content["scheduler"], PickledObject)
    assert found.unread == (
        *("builtins.dict", "collections.defaultdict"),
        *(f"{MISSING}.Schedule", "torch.optim.sgd.SGD"),
    )


def make_objects(missing: types.ModuleType) -> dict[str, Any]:
    model = network()
    sgd, adam = stepped(torch.optim.SGD, model), stepped(torch.optim.Adam, model)
    schedulers = torch.optim.lr_scheduler
    config, window = missing.Config(lr=0.1), missing.Window([1, 2])
    config.name, window.size = "run", 3
    return {
        "adam": adam,
        "lambda": schedulers.LambdaLR(sgd, math.sqrt),
        "multistep": schedulers.MultiStepLR(sgd, [3]),
        "cosine": schedulers.CosineAnnealingLR(adam, 5),
        "whole model": model,
        "own model": missing.Network(),
        "dict subclass": config,
        "list subclass": window,
        "enum": missing.Phase.STUDENT,
        "namespace": argparse.Namespace(lr=0.1),
        "numpy scalar": np.float64(0.5),
        "numpy array": np.arange(3),
        "path": pathlib.PurePosixPath("runs/1"),
        "time": datetime.datetime(2024, 7, 1, tzinfo=datetime.UTC),
        "partial": functools.partial(max, 3),
        "defaultdict": collections.defaultdict(list, a=[1]),
        "deque": collections.deque([1, 2], 3),
        "frozenset": frozenset([1, 2]),
        "slice": slice(1, 2),
        "range": range(3),
        "function": torch.relu,
    }


@ZIPPED
@PROTOCOLS
def test_objects_become_placeholders_and_tensors_beside_them_are_read(
    tmp_path: Path, missing: types.ModuleType, zipped: bool, protocol: int
) -> None:
    state = network().state_dict()
    held = {"before": state, "objects": make_objects(missing), "after": dict(state)}
    names = list(held["objects"])
    write(held, tmp_path / "third_party.pt", zipped=zipped, protocol=protocol)
    remove_module()
    found = read_torch_file(tmp_path / "third_party.pt")
    assert have_equal_tensors(found.content["before"], state)
    assert have_equal_tensors(found.content["after"], state)
    assert list(found.content["objects"]) == names
    assert {type(value) for value in found.content["objects"].values()} == {PickledObject}
    assert "torch.optim.adam.Adam" in found.unread
    assert MISSING not in sys.modules


@ZIPPED
@PROTOCOLS
def test_plain_values_are_read_unchanged(tmp_path: Path, zipped: bool, protocol: int) -> None:
    plain = {
        "numbers": (1, -3, 2**70, 0.1, 3j, True, None),
        "text": ["", "x" * 300, "Übung"],
        "bytes": (b"abc\xff", b"y" * 70_000, bytearray(b"12")),
        "set": set(range(3000)),
        "shared": [[1]] * 3,
        "dtype": (torch.float16, torch.Size([2])),
        "ordered": collections.OrderedDict(b=1, a=2),
        "counts": collections.Counter("aab"),
    }
    found = read(plain, tmp_path / "plain.pt", zipped=zipped, protocol=protocol)
    assert found == TorchFile(content=plain, unread=())


@ZIPPED
@PROTOCOLS
def test_tensors_of_every_kind_are_read(
    tmp_path: Path, missing: types.ModuleType, zipped: bool, protocol: int
) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tensors: dict[str, Tensor] = {
        "view": base[1:, ::2],
        "transposed": base.t(),
        "expanded": torch.ones(1).expand(5),
        "scalar": torch.tensor(3),
        "empty": torch.empty(0, 3),
        "half": base.bfloat16(),
        "complex": base + 1j,
        "float8": base.to(torch.float8_e4m3fn),
        "unsigned": torch.tensor([1, 2, 65535], dtype=torch.uint16),
        "parameter": nn.Parameter(base.clone()),
        "subclass": base.as_subclass(missing.Weights),
    }
    write(tensors, tmp_path / "third_party.pt", zipped=zipped, protocol=protocol)
    remove_module()
    found = read_torch_file(tmp_path / "third_party.pt")
    tensors["subclass"] = base
    assert have_equal_tensors(found.content, tensors)
    assert type(found.content["subclass"]) is Tensor
    assert found.unread == (f"{MISSING}.Weights",)


def test_objects_that_are_keys_remain_distinct(tmp_path: Path, missing: types.ModuleType) -> None:
    held = {missing.Phase.STUDENT: torch.ones(2), missing.Phase.AVERAGE: torch.zeros(2)}
    write(held, tmp_path / "third_party.pt")
    remove_module()
    first, second = read_torch_file(tmp_path / "third_party.pt").content.values()
    assert torch.equal(first, torch.ones(2))
    assert torch.equal(second, torch.zeros(2))


@pytest.mark.parametrize(
    "key", [((1, 2), 3), (1, 2), "x" * 1001, 2**61 - 1, -(2**200), 1j, torch.ones(2)], ids=str
)
def test_a_name_whose_hash_may_collide_becomes_a_placeholder(tmp_path: Path, key: object) -> None:
    found = read({key: torch.ones(2), "w": 1, "set": {2**61 - 2, 0.5, None}}, tmp_path / "f.pt")
    placeholder, *others = found.content
    assert type(placeholder) is PickledObject
    assert others == ["w", "set"]
    assert found.content["set"] == {2**61 - 2, 0.5, None}


def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        found = read({"w": torch.arange(6.0)}, tmp_path / "unsummed.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(found.content["w"], torch.arange(6.0))


@pytest.mark.parametrize(("order", "expected"), [("little", 1.0), ("big", 4.6006e-41)])
def test_the_order_of_bytes_is_that_of_the_file(
    tmp_path: Path, order: str, expected: float
) -> None:
    zip_of(tensor_pickle(b"K\x03"), tmp_path / "order.pt", order=order, storage=np.ones(3, "<f4"))
    found = read_torch_file(tmp_path / "order.pt").content
    assert found.tolist() == pytest.approx([expected] * 3, rel=1e-4)
    zip_of(tensor_pickle(b"K\x03"), tmp_path / "order.pt", order=f"{order}\n")
    with pytest.raises(CheckpointError, match="is truncated or damaged"):
        read_torch_file(tmp_path / "order.pt")


PAYLOADS: dict[str, Callable[[Path], object]] = {
    "system": lambda path: Payload(os.system, f"touch {path}"),
    "touch": lambda path: Payload(Path.touch, path),
    "eval": lambda path: Payload(eval, f"open({str(path)!r}, 'w').close()"),
    "exec": lambda path: Payload(builtins.exec, f"open({str(path)!r}, 'w').close()"),
    "subprocess": lambda path: Payload(subprocess.run, ("touch", str(path))),
    "attribute": lambda path: Payload(getattr, Payload(Path, path), "touch"),
    "called result": lambda path: Payload(functools.partial(Path.touch, path)),
    "own loader": lambda path: Payload(pickle.loads, pickle.dumps(Payload(Path.touch, path))),
}
PLACES: dict[str, Callable[[object], object]] = {
    "bare": lambda payload: payload,
    "in a list": lambda payload: {"w": torch.ones(2), "x": [1, ({"y": payload},)]},
    "as a key": lambda payload: {payload: torch.ones(2)},
    "in a set": lambda payload: {"x": {payload}},
    "in an argument": lambda payload: Payload(collections.OrderedDict, {"x": payload}),
    "in a state": lambda payload: argparse.Namespace(x=payload),
    "in a tensor": lambda payload: Payload(nn.Parameter, payload),
}


@ZIPPED
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_payload_is_run(
    tmp_path: Path, payload: str, place: str, protocol: int, zipped: bool
) -> None:
    held = PLACES[place](PAYLOADS[payload](tmp_path / "ran"))
    write(held, tmp_path / "hostile.pt", zipped=zipped, protocol=protocol)
    found, message = attempt(tmp_path / "hostile.pt")
    assert found.unread if found else "could run code: save a state dict" in message
    assert not (tmp_path / "ran").exists()


def test_the_payloads_run_when_unpickled(tmp_path: Path) -> None:
    for name in ("system", "touch", "eval", "exec", "subprocess", "own loader"):
        pickle.loads(pickle.dumps(PAYLOADS[name](tmp_path / name)))
        assert (tmp_path / name).exists()


@ZIPPED
def test_no_module_is_imported(
    tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"from pathlib import Path\nclass Thing: pass\nPath({str(tmp_path / 'ran')!r}).touch()"
    (tmp_path / "trap_module.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    trap = types.ModuleType("trap_module")
    trap.Thing = type("Thing", (), {"__module__": "trap_module"})  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "trap_module", trap)
        write({"w": torch.ones(2), "x": trap.Thing()}, tmp_path / "hostile.pt", zipped=zipped)
    found = read_torch_file(tmp_path / "hostile.pt")
    assert torch.equal(found.content["w"], torch.ones(2))
    assert found.unread == ("trap_module.Thing",)
    assert "trap_module" not in sys.modules
    assert not (tmp_path / "ran").exists()


def test_safe_globals_of_other_libraries_do_not_apply_to_a_file(tmp_path: Path) -> None:
    with torch.serialization.safe_globals([argparse.Namespace]):
        found = read({"x": argparse.Namespace()}, tmp_path / "third_party.pt")
    assert found.unread == ("argparse.Namespace",)


def zip_of(
    pickled: bytes,
    path: Path,
    *,
    compression: int = zipfile.ZIP_STORED,
    order: str | None = None,
    storage: Any = None,
) -> None:
    """Write a torch file with a pickle and storage 0, by default of twelve zero bytes."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data/0", bytes(12) if storage is None else storage.tobytes())
        if order is not None:
            archive.writestr("archive/byteorder", order)


def tensor_pickle(size: bytes, *, numel: bytes = b"K\x03", offset: bytes = b"K\x00") -> bytes:
    """Return the pickle of a tensor in a storage of three floats."""
    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    )
    head = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n("
    tail = b"K\x01\x85\x89ccollections\nOrderedDict\n)RtR."
    return head + storage + numel + b"tQ" + offset + size + b"\x85" + tail


def test_a_handwritten_tensor_pickle_is_read(tmp_path: Path) -> None:
    zip_of(tensor_pickle(b"K\x03"), tmp_path / "hand.pt")
    assert torch.equal(read_torch_file(tmp_path / "hand.pt").content, torch.zeros(3))


HUGE = b"\x8a\x06\x00\x00\x00\x00\x00\x01"  # 2 ** 40


@pytest.mark.parametrize(
    "pickled",
    [
        tensor_pickle(HUGE),
        tensor_pickle(b"K\x04"),
        tensor_pickle(b"J\xff\xff\xff\xff"),
        tensor_pickle(b"K\x03", offset=b"K\x01"),
        tensor_pickle(b"K\x03", offset=b"J\xff\xff\xff\xff"),
        tensor_pickle(b"K\x03", offset=HUGE),
        tensor_pickle(b"K\x03", numel=HUGE),
        tensor_pickle(b"]K\x03a"),
        b"\x80\x02cbuiltins\nbytearray\n" + HUGE + b"\x85R.",
    ],
    ids=["size", "one", "minus", "off", "below", "far", "storage", "list", "bytes"],
)
def test_a_tensor_larger_than_its_data_is_rejected(tmp_path: Path, pickled: bytes) -> None:
    zip_of(pickled, tmp_path / "hostile.pt")
    with pytest.raises(CheckpointError, match="is truncated or damaged: copy or train it again"):
        read_torch_file(tmp_path / "hostile.pt")


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x04\x8c\x02os\x8c\x07a\nb\nc\nd\x93.",
        b"\x80\x02(I1\nI2\nl.",
        b"\x80\x02(K\x01ios\nsystem\n.",
    ],
    ids=["newlines", "protocol 0", "INST"],
)
def test_pickles_that_torch_does_not_support_are_rejected(tmp_path: Path, pickled: bytes) -> None:
    zip_of(pickled, tmp_path / "hostile.pt")
    with pytest.raises(CheckpointError, match="could run code: save a state dict"):
        read_torch_file(tmp_path / "hostile.pt")


@pytest.mark.parametrize(
    "pickled",
    [b"", b"\x80", b".", b"\x80\x02", b"\x80\x02}", b"\x80\x02t.", b"\x80\x02h\x07.", b"\xff."],
)
def test_incomplete_pickles_are_rejected(tmp_path: Path, pickled: bytes) -> None:
    zip_of(pickled, tmp_path / "broken.pt")
    with pytest.raises(CheckpointError, match="is truncated or damaged"):
        read_torch_file(tmp_path / "broken.pt")


def test_other_zip_archives_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    zip_of(b"\x80\x02]" + b"N" * 100_000 + b".", path, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match=r"is compressed: unpack it and save it again"):
        read_torch_file(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02N.")
        archive.writestr("archive/constants.pkl", b"\x80\x02).")
    with pytest.raises(CheckpointError, match="is a TorchScript program: save the state dict"):
        read_torch_file(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no tensors")
    with pytest.raises(CheckpointError, match="is truncated or damaged"):
        read_torch_file(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty: copy or train it again"),
        (b"\n<HTML><body>", "is a web page, not weights: download it again"),
        (b"<!DOCTYPE html>", "is a web page, not weights: download it again"),
        (b"epoch,loss\n1,2\n", "is not a file that torch.save wrote: give a checkpoint"),
        (pickle.dumps([1, 2]), "is not a file that torch.save wrote: give a checkpoint"),
        (b"PK\x03\x04 truncated", "is truncated or damaged: copy or train it again"),
    ],
)
def test_files_that_torch_did_not_write_are_rejected(
    tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        read_torch_file(tmp_path / "file.pt")


def test_a_directory_or_a_missing_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a directory without best\.pt or last\.pt"):
        read_torch_file(tmp_path)
    with pytest.raises(CheckpointError, match=r"cannot read .*: No such file or directory"):
        read_torch_file(tmp_path / "missing.pt")


@ZIPPED
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_rejected(tmp_path: Path, zipped: bool, share: float) -> None:
    path = tmp_path / "short.pt"
    write({"state": network().state_dict()}, path, zipped=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: max(16, int(share * len(content)))])
    with pytest.raises(CheckpointError, match="is truncated or damaged: copy or train it again"):
        read_torch_file(path)


STATE = {"conv": torch.arange(12.0).reshape(3, 4), "bn": torch.tensor(7), "bias": torch.ones(3)}


def saved(*, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    held = {"model": STATE, "args": argparse.Namespace(lr=0.1), "epoch": 3}
    torch.save(held, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


GOOD = {zipped: saved(zipped=zipped) for zipped in (True, False)}


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Replace, delete or insert bytes at up to three positions, or truncate the end."""
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(content) - 1))
        extra = draw(st.binary(min_size=1, max_size=4))
        kept = draw(st.sampled_from((place, place + 1, place + len(extra), len(content))))
        content = content[:place] + extra + content[kept:]
    return content


@given(content=damaged(GOOD[True]))
@settings(derandomize=True, max_examples=60, deadline=None)
def test_a_damaged_zip_file_is_rejected_or_read_correctly(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    path.write_bytes(content)
    found, message = attempt(path)
    assert "\n" not in message
    assert found is None or have_equal_tensors(found.content["model"], STATE)


@given(content=damaged(GOOD[False]))
@settings(derandomize=True, max_examples=60, deadline=None)
def test_a_damaged_legacy_file_is_rejected_or_read(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """It has no checksums, so tensors may be wrong; but there is no other error."""
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    path.write_bytes(content)
    assert "\n" not in attempt(path)[1]


@pytest.mark.parametrize(
    ("unread", "words"),
    [
        ((), ""),
        (("a.B",), "a.B"),
        (("a.B", "c.D", "e.F"), "a.B, c.D, e.F"),
        (("a.B", "c.D", "e.F", "g.H", "i.J"), "a.B, c.D, e.F and 2 more"),
    ],
)
def test_describe_unread_lists_the_first_names(unread: tuple[str, ...], words: str) -> None:
    assert describe_unread(unread) == words


def test_a_pipe_is_rejected_without_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(CheckpointError, match=r"pipe\.pt: it is not a file; give a checkpoint"):
        read_torch_file(tmp_path / "pipe.pt")
