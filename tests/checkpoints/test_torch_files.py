"""Files of `torch.save` by anybody: their tensors come back, and nothing they name is run."""

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

from adrbench.checkpoints.pickle_rewriter import PickledObject
from adrbench.checkpoints.torch_files import TorchFile, describe_unread, read_torch_file
from adrbench.errors import CheckpointError

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
    """Return what was read, or the sentence that says why nothing was."""
    try:
        return read_torch_file(path), ""
    except CheckpointError as error:
        return None, str(error)


def same(ours: Any, theirs: Any) -> bool:
    return list(ours) == list(theirs) and all(
        ours[key].dtype == theirs[key].dtype and torch.equal(ours[key], theirs[key])
        for key in theirs
    )


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 10))


def stepped(make: Callable[..., torch.optim.Optimizer], model: nn.Module) -> Any:
    """Return an optimizer of `model` that has taken a step and so has state per parameter."""
    optimizer = make(model.parameters(), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


GONE = """
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
def gone() -> Iterator[types.ModuleType]:
    """Return a module that can be saved from; `forget` removes it before a file is read."""
    module = types.ModuleType("module_that_is_gone")
    sys.modules[module.__name__] = module
    exec(GONE, module.__dict__)
    yield module
    forget()


def forget() -> None:
    sys.modules.pop("module_that_is_gone", None)


@ZIPPED
@PROTOCOLS
def test_a_checkpoint_of_the_published_code(
    tmp_path: Path, gone: types.ModuleType, zipped: bool, protocol: int
) -> None:
    """It keeps the optimizer and the scheduler as whole objects beside two state dicts."""
    model, average = network(), network()
    optimizer = stepped(functools.partial(torch.optim.SGD, momentum=0.9), model)
    held = {
        "model": model.state_dict(),
        "optimizer": optimizer,
        "scheduler": gone.Schedule(optimizer),
        "model_ema": average.state_dict(),
        "epoch": 7,
    }
    write(held, tmp_path / "theirs.pt", zipped=zipped, protocol=protocol)
    forget()
    found = read_torch_file(tmp_path / "theirs.pt")
    assert "module_that_is_gone" not in sys.modules
    assert same(found.content["model"], model.state_dict())
    assert same(found.content["model_ema"], average.state_dict())
    assert found.content["epoch"] == 7
    assert isinstance(found.content["optimizer"], PickledObject)
    assert isinstance(found.content["scheduler"], PickledObject)
    assert found.unread == (
        *("builtins.dict", "collections.defaultdict"),
        *("module_that_is_gone.Schedule", "torch.optim.sgd.SGD"),
    )


def make_objects(gone: types.ModuleType) -> dict[str, Any]:
    model = network()
    sgd, adam = stepped(torch.optim.SGD, model), stepped(torch.optim.Adam, model)
    schedulers = torch.optim.lr_scheduler
    config, window = gone.Config(lr=0.1), gone.Window([1, 2])
    config.name, window.size = "run", 3
    return {
        "adam": adam,
        "lambda": schedulers.LambdaLR(sgd, math.sqrt),
        "multistep": schedulers.MultiStepLR(sgd, [3]),
        "cosine": schedulers.CosineAnnealingLR(adam, 5),
        "whole model": model,
        "own model": gone.Network(),
        "dict subclass": config,
        "list subclass": window,
        "enum": gone.Phase.STUDENT,
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
def test_objects_become_placeholders_and_what_stands_beside_them_stays(
    tmp_path: Path, gone: types.ModuleType, zipped: bool, protocol: int
) -> None:
    state = network().state_dict()
    held = {"before": state, "objects": make_objects(gone), "after": dict(state)}
    names = list(held["objects"])
    write(held, tmp_path / "theirs.pt", zipped=zipped, protocol=protocol)
    forget()
    found = read_torch_file(tmp_path / "theirs.pt")
    assert same(found.content["before"], state)
    assert same(found.content["after"], state)
    assert list(found.content["objects"]) == names
    assert {type(value) for value in found.content["objects"].values()} == {PickledObject}
    assert "torch.optim.adam.Adam" in found.unread
    assert "module_that_is_gone" not in sys.modules


@ZIPPED
@PROTOCOLS
def test_plain_values_are_themselves(tmp_path: Path, zipped: bool, protocol: int) -> None:
    plain = {
        "numbers": (1, -3, 2**70, 0.1, 3j, True, None),
        "text": ["", "x" * 300, "Übung"],
        "bytes": (b"abc\xff", b"y" * 70_000, bytearray(b"12")),
        "set": set(range(3000)),
        "shared": [[1]] * 3,
        "dtype": (torch.float16, torch.Size([2]), torch.device("cpu")),
        "ordered": collections.OrderedDict(b=1, a=2),
        "counts": collections.Counter("aab"),
    }
    found = read(plain, tmp_path / "plain.pt", zipped=zipped, protocol=protocol)
    assert found == TorchFile(content=plain, unread=())


@ZIPPED
@PROTOCOLS
def test_tensors_of_every_form(
    tmp_path: Path, gone: types.ModuleType, zipped: bool, protocol: int
) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tensors: dict[str, Tensor] = {
        "view": base[1:, ::2],
        "transposed": base.t(),
        "expanded": torch.ones(1).expand(5),
        "scalar": torch.tensor(3),
        "empty": torch.empty(0, 3),
        "half": base.bfloat16(),
        "complex": (base + 1j).conj(),
        "sparse": torch.eye(3).to_sparse(),
        "parameter": nn.Parameter(base.clone()),
        "subclass": base.as_subclass(gone.Weights),
    }
    write(tensors, tmp_path / "theirs.pt", zipped=zipped, protocol=protocol)
    forget()
    found = read_torch_file(tmp_path / "theirs.pt")
    sparse = found.content.pop("sparse").to_dense()
    assert torch.equal(sparse, tensors.pop("sparse").to_dense())
    tensors["subclass"] = base
    assert same(found.content, tensors)
    assert type(found.content["subclass"]) is Tensor
    assert found.unread == ("module_that_is_gone.Weights",)


def test_objects_stay_apart_where_they_are_keys(tmp_path: Path, gone: types.ModuleType) -> None:
    held = {gone.Phase.STUDENT: torch.ones(2), gone.Phase.AVERAGE: torch.zeros(2)}
    write(held, tmp_path / "theirs.pt")
    forget()
    first, second = read_torch_file(tmp_path / "theirs.pt").content.values()
    assert torch.equal(first, torch.ones(2))
    assert torch.equal(second, torch.zeros(2))


class Payload:
    """An object whose pickle calls `function` with `arguments`."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


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
def test_nothing_is_ever_run(
    tmp_path: Path, payload: str, place: str, protocol: int, zipped: bool
) -> None:
    held = PLACES[place](PAYLOADS[payload](tmp_path / "ran"))
    write(held, tmp_path / "hostile.pt", zipped=zipped, protocol=protocol)
    found, sentence = attempt(tmp_path / "hostile.pt")
    assert found.unread if found else "could run code, save a state dict" in sentence
    assert not (tmp_path / "ran").exists()


def test_the_payloads_are_real(tmp_path: Path) -> None:
    for name in ("system", "touch", "eval", "exec", "subprocess", "own loader"):
        pickle.loads(pickle.dumps(PAYLOADS[name](tmp_path / name)))
        assert (tmp_path / name).exists()


@ZIPPED
def test_nothing_is_imported(tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_what_is_allowed_for_a_file_is_not_allowed_afterwards(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    read({"x": argparse.Namespace()}, tmp_path / "theirs.pt")
    assert set(torch.serialization.get_safe_globals()) == before


def test_what_others_allowed_is_not_allowed_for_a_file(tmp_path: Path) -> None:
    with torch.serialization.safe_globals([argparse.Namespace]):
        found = read({"x": argparse.Namespace()}, tmp_path / "theirs.pt")
        assert argparse.Namespace in torch.serialization.get_safe_globals()
    assert found.unread == ("argparse.Namespace",)


def zip_of(pickled: bytes, path: Path, *, compression: int = zipfile.ZIP_STORED) -> None:
    """Write a torch file with `pickled` as its objects and twelve zero bytes as storage 0."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data/0", bytes(12))


def tensor_pickle(size: bytes, *, numel: bytes = b"K\x03", offset: bytes = b"K\x00") -> bytes:
    """Return the pickle of a tensor of a storage of three floats."""
    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    )
    head = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n("
    tail = b"K\x01\x85\x89ccollections\nOrderedDict\n)RtR."
    return head + storage + numel + b"tQ" + offset + size + b"\x85" + tail


def test_a_tensor_by_hand(tmp_path: Path) -> None:
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
        b"\x80\x02ctorch\nFloatTensor\n" + HUGE + b"\x85R.",
    ],
    ids=["size", "one", "minus", "off", "below", "far", "storage", "list", "bytes", "tensor"],
)
def test_a_tensor_larger_than_its_data(tmp_path: Path, pickled: bytes) -> None:
    zip_of(pickled, tmp_path / "hostile.pt")
    with pytest.raises(CheckpointError, match="is truncated or damaged: copy or train it again"):
        read_torch_file(tmp_path / "hostile.pt")


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02}" + b")" + b"\x85" * 1_000_000 + b"K\x01s.",
        b"\x80\x02})" + b"q\x00h\x00\x86" * 100 + b"K\x01s.",
        b"\x80\x04\x8c\x02os\x8c\x07a\nb\nc\nd\x93.",
        b"\x80\x02(I1\nI2\nl.",
        b"\x80\x02(K\x01ios\nsystem\n.",
        b"\x80\x02cargparse\nNamespace\n}b.",
    ],
    ids=["deep", "wide", "newlines", "protocol 0", "INST", "state of a class"],
)
def test_pickles_that_are_refused(tmp_path: Path, pickled: bytes) -> None:
    zip_of(pickled, tmp_path / "hostile.pt")
    with pytest.raises(CheckpointError, match="could run code, save a state dict"):
        read_torch_file(tmp_path / "hostile.pt")


@pytest.mark.parametrize(
    "pickled",
    [b"", b"\x80", b".", b"\x80\x02", b"\x80\x02}", b"\x80\x02t.", b"\x80\x02h\x07.", b"\xff."],
)
def test_pickles_that_end_too_soon(tmp_path: Path, pickled: bytes) -> None:
    zip_of(pickled, tmp_path / "broken.pt")
    with pytest.raises(CheckpointError, match="is truncated or damaged"):
        read_torch_file(tmp_path / "broken.pt")


def test_archives_of_another_kind(tmp_path: Path) -> None:
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
        (b"PK\x03\x04 and no more", "is truncated or damaged: copy or train it again"),
    ],
)
def test_what_is_no_torch_file(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        read_torch_file(tmp_path / "file.pt")


def test_a_directory_or_nothing_in_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a directory without best\.pt or last\.pt"):
        read_torch_file(tmp_path)
    with pytest.raises(CheckpointError, match=r"cannot read .*: No such file or directory"):
        read_torch_file(tmp_path / "gone.pt")


@ZIPPED
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(tmp_path: Path, zipped: bool, share: float) -> None:
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
    """Flip, cut out or insert bytes at up to three places, or cut the end off."""
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(content) - 1))
        extra = draw(st.binary(min_size=1, max_size=4))
        kept = draw(st.sampled_from((place, place + 1, place + len(extra), len(content))))
        content = content[:place] + extra + content[kept:]
    return content


@given(content=damaged(GOOD[True]))
@settings(derandomize=True, max_examples=60, deadline=None)
def test_a_damaged_zip_file_is_refused_or_reads_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    path.write_bytes(content)
    found, sentence = attempt(path)
    assert "\n" not in sentence
    assert found is None or same(found.content["model"], STATE)


@given(content=damaged(GOOD[False]))
@settings(derandomize=True, max_examples=60, deadline=None)
def test_a_damaged_legacy_file_is_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """It has no checksums, so wrong tensors can be read: only other errors may not come."""
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
def test_describe_unread(unread: tuple[str, ...], words: str) -> None:
    assert describe_unread(unread) == words


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(CheckpointError, match=r"pipe\.pt is not a file: give a checkpoint"):
        read_torch_file(tmp_path / "pipe.pt")
