"""User errors: one sentence, the exit code, and no change on disk."""

import io
import json
import re
import shlex
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from adrbench.checkpoints import format as checkpoints
from adrbench.checkpoints.format import SCHEMA
from messages import assert_one_line
from runner import QUICK, command, succeed, tree

AT, ADR = "checkpoints/at", "checkpoints/adr"


class Payload:
    """A pickle that writes a file when it is loaded without restrictions."""

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (Path("ran"),)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with two runs and every kind of damaged file."""
    place = tmp_path_factory.mktemp("workplace")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        succeed("train", "digits", "--method", "at", "--name", "at", *QUICK)
        succeed("train", "digits", "--method", "adr", "--name", "adr", *QUICK)
        write_checkpoints(place / AT / checkpoints.LAST)
        write_arrays()
        write_folders()
        write_results()
        write_broken_runs()
        write_broken_record()
    return place


def write_checkpoints(good: Path) -> None:
    content = good.read_bytes()
    Path("empty.pt").write_bytes(b"")
    Path("short.pt").write_bytes(content[: len(content) // 2])
    middle = len(content) // 2
    Path("rot.pt").write_bytes(
        content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    )
    Path("page.pt").write_text("<!DOCTYPE html><html>Quota exceeded</html>")
    Path("notes.pt").write_text("learning rate 0.1 worked best")
    torch.save({"state_dict": Payload()}, "hostile.pt")
    torch.save({"format": checkpoints.MARK, "config": Payload()}, "hostile-ours.pt")
    torch.save({"fc.weight": torch.ones(10, 64)}, "other.pt")
    Path("folder.pt").mkdir()
    with zipfile.ZipFile("program.pt", "w") as program:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            program.writestr(f"program/{name}", b"")
    with zipfile.ZipFile(good) as archive, zipfile.ZipFile("packed.pt", "w") as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name), zipfile.ZIP_DEFLATED)
    old = io.BytesIO()
    torch.save({"w": torch.ones(99, 9)}, old, _use_new_zipfile_serialization=False)
    Path("old.pt").write_bytes(old.getvalue()[:-100])
    torch.save([torch.ones(2, 2)], "list.pt")
    torch.save({"w": torch.full((10, 64), torch.nan)}, "nan.pt")
    alter: dict[str, Callable[[dict[str, Any]], Any]] = {
        "newer": lambda held: held.update(schema=SCHEMA + 1),
        "unfit": lambda held: held["config"].update(arch="wrn-10-1"),
        "unknown-arch": lambda held: held["config"].update(arch="wrn-11-1"),
        "headless": lambda held: held.pop("config"),
        "moved": lambda held: held["config"].update(dataset="gone.npz"),
    }
    for name, change in alter.items():
        held = torch.load(good, weights_only=True)
        change(held)
        save_with_checksum(held, f"{name}.pt")
    held = torch.load(good, weights_only=True)
    held["snapshots"]["student"]["state"].popitem()
    torch.save(held, "torn.pt")
    save_with_checksum(held, "partial.pt")


def save_with_checksum(held: dict[str, Any], path: str | Path) -> None:
    fields = {key: value for key, value in held.items() if key != checkpoints.CHECKSUM}
    torch.save(fields | {checkpoints.CHECKSUM: checkpoints.checksum(fields)}, path)


def arrays(n: int = 40, classes: int = 10, channels: tuple[int, ...] = ()) -> dict[str, Any]:
    pixels = np.zeros((n, 8, 8, *channels), np.uint8)
    labels = np.arange(n) % classes
    return {"x_train": pixels, "y_train": labels, "x_test": pixels, "y_test": labels}


def write_arrays() -> None:
    good = arrays()
    nothing: npt.NDArray[np.uint8] = good["x_train"][:0]
    changes: dict[str, dict[str, Any]] = {
        "float": {"x_train": good["x_train"] / 255},
        "channels-first": {"x_train": np.zeros((40, 3, 8, 8), np.uint8)},
        "flat": {"x_train": good["x_train"].reshape(40, 64)},
        "high-label": {"y_test": good["y_test"] + 1},
        "negative-label": {"y_train": good["y_train"] - 1},
        "float-label": {"y_train": good["y_train"] / 2},
        "uneven": {"y_train": good["y_train"][:-1]},
        "no-images": {"x_train": nothing, "y_train": good["y_train"][:0]},
        "no-test": {"x_test": nothing, "y_test": good["y_test"][:0]},
        "other-size": {"x_test": np.zeros((40, 9, 9), np.uint8)},
    }
    for name, change in changes.items():
        np.savez(f"{name}.npz", **(good | change))
    np.savez("no-key.npz", **{key: good[key] for key in good if key != "y_test"})
    np.savez("few-classes.npz", **arrays(classes=5))
    np.savez("colour.npz", **arrays(channels=(3,)))
    np.savez("few.npz", **arrays(n=20))
    Path("text.npz").write_text("x_train")
    Path("cut.npz").write_bytes(Path("few.npz").read_bytes()[:500])


def write_folders() -> None:
    image = Image.new("RGB", (8, 8))

    def write(*files: str) -> None:
        for file in files:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            image.save(file)

    both = ("train/cat/1.png", "train/dog/1.png")
    write(*(f"no-split/{file}" for file in both))
    write(*(f"new-class/{file}" for file in (*both, "test/cat/1.png", "test/emu/1.png")))
    write(*(f"broken-image/{file}" for file in (*both, "test/cat/1.png")))
    Path("broken-image/train/dog/1.png").write_bytes(b"\x89PNG")


def write_broken_runs() -> None:
    """Write runs that cannot be resumed: copies of a valid one with one fault each."""
    for name, file in (("cut", checkpoints.LAST), ("rotten", checkpoints.BEST)):
        shutil.copytree(AT, f"checkpoints/{name}")
        path = Path("checkpoints", name, file)
        content = path.read_bytes()
        middle = len(content) // 2
        flipped = bytes([content[middle] ^ 1])
        path.write_bytes(
            content[:middle] + (b"" if name == "cut" else flipped + content[middle + 1 :])
        )
    shutil.copytree(AT, "checkpoints/foreign")
    torch.save({"w": torch.ones(2, 2)}, "checkpoints/foreign/last.pt")
    shutil.copytree(AT, "checkpoints/other-data")
    path = Path("checkpoints/other-data/last.pt")
    held = torch.load(path, weights_only=True)
    save_with_checksum(held | {"data_sha256": "0" * 64}, path)
    for record in Path("results").glob("train-at.json"):
        for name in ("cut", "rotten", "foreign", "other-data"):
            shutil.copy(record, f"results/train-{name}.json")


def write_broken_record() -> None:
    """Run an attack and truncate its record."""
    succeed("attack", f"{AT}/best.pt", "--suite", "fgsm", "--n", "10", "--out", "broken")
    (record,) = Path("broken").glob("*.json")
    record.write_text(record.read_text()[:100])


def write_results() -> None:
    Path("nothing").mkdir()
    Path("a-file").write_text("not a directory")
    Path("foreign").mkdir()
    Path("foreign/other.json").write_text('{"accuracy": 51}')
    Path("newer").mkdir()
    record = json.loads(Path("results/train-at.json").read_text())
    Path("newer/record.json").write_text(json.dumps(record | {"schema": 99}))


TRAIN = f"train digits {shlex.join(QUICK)}"
CASES: dict[str, tuple[str, int, str]] = {
    # names
    "dataset": ("train cifer10", 2, "unknown dataset 'cifer10': did you mean cifar10"),
    "dataset nothing like it": ("train xyzzy", 2, "choose from digits, cifar10"),
    "arch": ("train digits --arch resnet81", 2, "unknown architecture 'resnet81': did you mean"),
    "arch depth": ("train digits --arch wrn-27-10", 2, "did you mean wrn-22-10 or wrn-28-10"),
    "token": ("train digits --method adr+aap", 2, "unknown method token 'aap': did you mean"),
    "empty token": ("train digits --method adr+", 2, "unknown method token ''"),
    "repeated token": ("train digits --method adr+adr", 2, "contains 'adr' twice"),
    "two objectives": ("train digits --method at+trades", 2, "two objectives, at and trades"),
    "activation": ("train digits --activation gelu", 2, "unknown activation 'gelu': did you mean"),
    "norm": ("train digits --norm l2", 2, "unknown norm 'l2': did you mean L2"),
    "precision": ("train digits --precision half", 2, "choose auto or float32 or tf32"),
    "select": ("train digits --select train", 2, "choose val or test"),
    "suite": (f"attack {AT} --suite autoatack", 2, "unknown suite 'autoatack': did you mean auto"),
    "suite pgd-0": (f"attack {AT} --suite pgd-0", 2, "unknown suite 'pgd-0': did you mean pgd"),
    "format": ("report results --format markdwon", 2, "unknown format 'markdwon': did you mean"),
    "list": ("list suits", 2, "unknown list 'suits': did you mean suites"),
    "weights": (f"attack {AT} --weights averages", 2, "unknown weights .* did you mean average"),
    "normalize": (
        "attack other.pt --arch small-cnn --dataset digits --normalize cifar",
        2,
        "unknown normalization 'cifar': did you mean cifar10",
    ),
    "attack dataset": (f"attack {AT} --dataset digit", 2, "unknown dataset .* did you mean digits"),
    "attack arch": ("attack other.pt --arch cnn --dataset digits", 2, "unknown architecture 'cnn'"),
    "attack norm": (f"attack {AT} --norm Linfty", 2, "unknown norm 'Linfty': did you mean Linf"),
    # numbers
    "eps 0": ("train digits --eps 0", 2, "eps is 0: give a radius above 0, such as 8/255"),
    "eps negative": ("train digits --eps=-8/255", 2, "eps is -0.03.*: give a radius above 0"),
    "eps without /255": ("train digits --eps 8", 2, "eps is 8, .* write 8/255 if you meant that"),
    "eps word": ("train digits --eps big", 2, "eps is 'big': write a number such as 8/255"),
    "eps nan": ("train digits --eps nan", 2, "eps is 'nan': write a number"),
    "eps half a fraction": ("train digits --eps 8/", 2, "eps is '8/': write a number"),
    "eps over zero": ("train digits --eps 8/0", 2, "eps is '8/0': write a number"),
    "attack eps 0": (f"attack {AT} --eps 0", 2, "eps is 0: give a radius above 0"),
    "attack eps 8": (f"attack {AT} --eps 8", 2, "write 8/255 if you meant that"),
    "attack eps word": (f"attack {AT} --eps x", 2, "eps is 'x': write a number"),
    "epochs": ("train digits --epochs 0", 2, "--epochs is 0: give a number at least 1"),
    "lr": ("train digits --lr nan", 2, "--lr is nan: give a number from"),
    "milestones": ("train digits --milestones 100,150", 2, "give fractions of the run"),
    "seed": ("train digits --seed=-1", 2, "--seed is -1: give a number from 0"),
    "n": (f"attack {AT} --n 0", 2, "--n is 0: give a number at least 1"),
    "restarts": (f"attack {AT} --restarts 0", 2, "--restarts is 0"),
    "attack alpha": (f"attack {AT} --alpha 0", 2, "--alpha is 0"),
    "val size 0": ("train digits --val-size 0", 2, "give --select test"),
    "val size": ("train digits --val-size 1437", 2, "must be from 0 to 1436"),
    "batch larger than the data": ("train few.npz", 1, "18 images, too few for one batch of 64"),
    # places
    "name with a slash": ("train digits --name a/b", 2, "name of the run is 'a/b': give a plain"),
    "empty name": ("train digits --name ''", 2, "name of the run is '': give a plain"),
    "blank in a name": ("train digits --name 'a '", 2, "name of the run is 'a '"),
    "line in a name": ("train digits --name 'a\nb'", 2, r"run is 'a\\nb': give a plain"),
    "hidden name": (
        "train digits --name .a",
        2,
        r"is '\.a': give a plain name that does not",
    ),
    "long name": (
        f"train digits --name {'n' * 240}",
        2,
        r"the name of the run, n+\.\.\., is too long by \d+ bytes .*: give a shorter --name",
    ),
    "name of the parent": ("train digits --name ..", 2, "name of the run is '..': give a plain"),
    "out": (f"{TRAIN} --out a-file/b", 1, "cannot write to a-file/b/.*: Not a directory"),
    "out in proc": (f"{TRAIN} --out /proc/x", 1, "cannot write to /proc/x/.*; choose another"),
    "results": (f"{TRAIN} --results a-file", 1, "cannot write to a-file: Not a directory"),
    "attack out": (
        f"attack {AT} --out a-file",
        1,
        "cannot write to a-file: .*choose another directory",
    ),
    "long target": (f"attack {'a' * 300}", 2, "target is 'aa.*, which is too long: give a path"),
    "report file": ("report a-file", 1, "a-file is not readable as JSON"),
    "report missing": ("report no-results", 1, "no-results does not exist"),
    "report empty": ("report nothing", 1, "no results in nothing: run `adrbench attack` first"),
    "report foreign": ("report foreign", 1, "no results in foreign among the JSON files there"),
    "report newer": ("report newer", 1, "no results in newer"),
    "cuda": (f"{TRAIN} --device cuda", 1, "PyTorch finds 0 CUDA devices.* use --device cpu"),
    "attack cuda": (f"attack {AT} --device cuda:1", 1, "use --device cpu"),
    "device": (f"{TRAIN} --device tpu", 2, "device is 'tpu': choose auto, cpu, cuda"),
    # data
    "npz missing": ("train gone.npz", 1, "cannot open gone.npz .*: give an .npz file or an image"),
    "npz text": ("train text.npz", 1, "text.npz is not an .npz file"),
    "npz cut": ("train cut.npz", 1, "cut.npz is not an .npz file or is damaged"),
    "npz key": ("train no-key.npz", 1, "has no y_test but x_train.*: it must contain"),
    "npz dtype": ("train float.npz", 1, "x_train in float.npz has type float64: it must be uint8"),
    "npz channels first": ("train channels-first.npz", 1, "8 channels: put the channels last"),
    "npz shape": ("train flat.npz", 1, r"has shape \(40, 64\): it must be"),
    "npz high label": ("train high-label.npz", 1, "has the label 10.*go from 0 to 9"),
    "npz negative label": ("train negative-label.npz", 1, "has the label -1: labels start at 0"),
    "npz float label": ("train float-label.npz", 1, "labels must be integers"),
    "npz uneven": ("train uneven.npz", 1, "40 images but y_train has 39 labels"),
    "npz no images": ("train no-images.npz", 1, "needs at least one image"),
    "npz no test images": ("train no-test.npz", 1, "needs at least one image"),
    "npz sizes": ("train other-size.npz", 1, "the shapes must be equal"),
    "folder missing": ("train no/where", 1, "no/where"),
    "folder no split": ("train no-split", 1, "has neither test/ nor val/"),
    "folder new class": ("train new-class", 1, "has the class 'emu', which .* lacks"),
    "folder broken image": ("train broken-image", 1, "cannot read the image .*dog/1.png"),
    "cifar file": ("train cifar10 --data-dir a-file", 1, "CIFAR10 is not in a-file"),
    "tiny-imagenet": ("train tiny-imagenet", 1, "downloaded by hand: unpack"),
    # checkpoints
    "folder": ("attack folder.pt", 1, "folder.pt contains no best.pt or last.pt"),
    "program": ("attack program.pt", 1, "is a TorchScript program: save the state dict"),
    "packed": ("attack packed.pt", 1, "packed.pt is compressed: unpack it and save it again"),
    "old and short": ("attack old.pt", 1, "old.pt is truncated or damaged: copy or train it again"),
    "a list": (
        "attack list.pt --arch small-cnn --dataset digits",
        1,
        "contains no state dict, only a list: expected tensors by parameter name",
    ),
    "not finite": ("attack nan.pt --arch small-cnn --dataset digits", 1, "does not fit SmallCNN"),
    "missing": ("attack gone.pt", 1, "gone.pt does not exist: give a run directory"),
    "no checkpoints": ("attack nothing", 1, "contains no best.pt or last.pt"),
    "empty": ("attack empty.pt", 1, "empty.pt is empty: copy or train it again"),
    "short": ("attack short.pt", 1, "short.pt is truncated or damaged: copy or train it again"),
    "rot": ("attack rot.pt", 1, "rot.pt is truncated or damaged: copy or train it again"),
    "page": ("attack page.pt", 1, "page.pt is a web page, not weights: download it again"),
    "text": ("attack notes.pt", 1, "notes.pt is not a file that torch.save wrote"),
    "hostile": (
        "attack hostile.pt --arch small-cnn --dataset digits",
        1,
        "contains its state_dict as a pickled object, .*: save its state_dict",
    ),
    "hostile, ours": ("attack hostile-ours.pt", 1, "which could run code: copy or train it again"),
    "newer": ("attack newer.pt", 1, f"schema {SCHEMA + 1}.*: update adrbench"),
    "unfit": ("attack unfit.pt", 1, "do not fit the architecture that it specifies, wrn-10-1"),
    "unknown arch": (
        "attack unknown-arch.pt",
        1,
        "do not fit the architecture that it specifies, wrn-11-1",
    ),
    "torn": ("attack torn.pt", 1, "its content does not match its checksum"),
    "partial": (
        "attack partial.pt",
        1,
        "do not fit the architecture that it specifies, small-cnn .*Missing key",
    ),
    "headless": ("attack headless.pt", 1, r"is damaged \(field config is missing\)"),
    "no average": (
        f"attack {AT} --weights average",
        1,
        "has no average weights, since its method is 'at': choose student",
    ),
    "moved": ("attack moved.pt", 1, "was trained on gone.npz, which does not exist.*--dataset"),
    "other classes": (
        f"attack {AT} --dataset few-classes.npz",
        2,
        "has 10 classes, but few-classes has 5: give the --dataset",
    ),
    "other channels": (
        f"attack {AT} --dataset colour.npz",
        1,
        r"does not take images of shape \(3, 8, 8\).*: give the --dataset",
    ),
    "second target": (f"attack {AT} gone.pt", 1, "gone.pt does not exist"),
    # weights from elsewhere
    "bare": ("attack other.pt", 2, "give --arch and --dataset"),
    "other weights": (
        "attack other.pt --arch small-cnn --dataset digits",
        1,
        "does not fit SmallCNN",
    ),
    # a run or a result that exists
    "cut run": (
        f"{TRAIN} --method at --name cut",
        1,
        "checkpoints/cut/last.pt is truncated or damaged: restore the file, or give --force",
    ),
    "rotten best": (
        f"{TRAIN} --method at --name rotten",
        1,
        "checkpoints/rotten/best.pt is truncated or damaged: restore the file, or give --force",
    ),
    "foreign run": (f"{TRAIN} --method at --name foreign", 1, "is not an adrbench checkpoint"),
    "other data": (
        f"{TRAIN} --method at --name other-data",
        1,
        r"was trained on other images than those now in digits \(SHA-256 00000000, not \w+\): ",
    ),
    "broken record": (
        f"attack {AT}/best.pt --suite fgsm --n 10 --out broken",
        1,
        "is not readable as JSON .*: give --force to repeat it",
    ),
    "save minutes": ("train digits --save-minutes=-1", 2, "--save-minutes is -1: give a number of"),
    "save minutes nan": ("train digits --save-minutes nan", 2, "--save-minutes is nan: give a"),
    "sync": ("train digits --sync-batch-norm --device cpu", 2, "--sync-batch-norm needs GPUs"),
    "other lr": (
        f"{TRAIN} --method at --name at --lr 0.5",
        1,
        "contains a run with --lr 0.05, not 0.5: .*--force",
    ),
    "other method": (
        f"{TRAIN} --method trades --name at",
        1,
        "contains a run with --method at, not trades",
    ),
}
#: Typer reports unknown commands and options itself, with a usage line before the error.
USAGE = {
    "command": ("atack", "unknown command 'atack': did you mean attack?", "adrbench"),
    "option": (
        f"attack {AT} --epz",
        "unknown option '--epz': did you mean",
        "adrbench attack",
    ),
    "far option": ("attack x --qqqq", "unknown option '--qqqq': choose from", "adrbench attack"),
    "program's option": ("--foo", "unknown option '--foo': choose from --version", "adrbench"),
    "whole number": (f"attack {AT} --n many", "--n is 'many': give a whole", "adrbench attack"),
    "number": (f"{TRAIN} --lr high", "--lr is 'high': give a number", "adrbench train"),
    "no value": (f"{TRAIN} --lr", "option --lr requires an argument", "adrbench train"),
    "argument": ("train", "missing argument DATASET", "adrbench train"),
    "further argument": ("list a b", "got unexpected extra argument.* .b.", "adrbench list"),
}
ZOO = {
    "no dataset": ("robustbench:Rice2020Overfitting", 2, "needs --dataset: cifar10 or cifar100"),
    "name": (
        "robustbench:Rice2020Overfiting --dataset cifar10",
        2,
        "unknown RobustBench model .* did you mean .*Rice2020Overfitting",
    ),
    "norm": (
        "robustbench:Rice2020Overfitting --dataset cifar100 --norm L2",
        2,
        "but not for cifar100 under L2: change --dataset or --norm",
    ),
    "eps": ("robustbench:Rice2020Overfitting --dataset cifar10 --eps 8", 2, "write 8/255"),
    "suite": ("robustbench:Rice2020Overfitting --dataset cifar10 --suite x", 2, "unknown suite"),
    "other data set": ("robustbench:Rice2020Overfitting --dataset digits", 2, "no models for data"),
    "own data": (
        "robustbench:Rice2020Overfitting --dataset few-classes.npz",
        2,
        "has 5 classes, but RobustBench has models of cifar10",
    ),
    "no network": (
        "robustbench:Rice2020Overfitting --dataset cifar10",
        1,
        "failed .*no connection.*: check the network, or fetch the file elsewhere",
    ),
}


def assert_refused(workplace: Path, line: str, code: int, words: str) -> None:
    before = tree(workplace)
    outcome = command(*shlex.split(line))
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert len(outcome.lines) == 1, outcome.err
    (message,) = outcome.lines
    assert message.startswith("error: ")
    assert message[-1] in ".?", message
    assert re.search(words, message), message
    assert tree(workplace) == before


@pytest.fixture
def here(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workplace)
    return workplace


@pytest.mark.parametrize("case", CASES)
def test_a_user_error_is_one_sentence_with_its_exit_code_and_changes_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert_refused(here, *CASES[case])


@pytest.mark.parametrize("case", ZOO)
def test_a_zoo_model_that_is_not_available_is_one_sentence(
    here: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    from adrbench.models import robustbench_zoo as zoo

    package = zoo._import_zoo()

    def fail(*args: object, **kwargs: object) -> None:
        raise package.requests.ConnectionError("Failed to resolve 'drive.google.com'")

    monkeypatch.setattr(package.gdown, "download", fail)
    target, code, words = ZOO[case]
    assert_refused(here, f"attack {target}", code, words)


@pytest.mark.parametrize("case", USAGE)
def test_a_wrong_command_line_is_an_error_that_names_the_help(here: Path, case: str) -> None:
    line, words, name = USAGE[case]
    before = tree(here)
    outcome = command(*shlex.split(line))
    assert (outcome.code, outcome.out) == (2, "")
    assert_one_line(outcome.err.removesuffix("\n"))
    assert re.match(f"error: {words}", outcome.err)
    assert re.search(rf"(; see| See) `{name} --help`\.\n$", outcome.err)
    assert tree(here) == before


def test_without_arguments_the_help_is_printed() -> None:
    outcome = command()
    assert outcome.code == 2
    assert "Commands:" in outcome.err
    assert "error" not in outcome.err


def test_notes_name_the_skipped_files_before_the_error(here: Path) -> None:
    outcome = command("report", "newer")
    assert outcome.notes == [
        "note: left out: newer/record.json is not a valid record: its schema is 99, but this "
        "version reads up to 4; update adrbench."
    ]
