"""No command prints or writes what a file contains as it is: every string of every file is hostile.

A string that makes a file invalid is tried alone; all others are then in the file together.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from adrbench.checkpoints import format as checkpoints
from adrbench.errors import AdrbenchError
from adrbench.evaluation.progress import ProgressFiles
from adrbench.report import FORMATS
from adrbench.results.records import read_record
from adrbench.runtime.hashing import hash_json
from adrbench.runtime.typed_json import to_json
from hostile_text import (
    ENCODABLE,
    FILE_NAME,
    HOSTILE,
    assert_clean,
    assert_clean_on_terminal,
    assert_clean_report,
    find_unprintable,
    put,
    run_clean,
    string_places,
)
from report_records import attack_record, fixed_records, inspect_record
from runner import QUICK, succeed, tree

TRAIN = ("train", "own.npz", "--method", "adr", "--name", "run", *QUICK, "--batch-size", "32")
RUN = Path("checkpoints/run")
ATTACK = ("attack", RUN / "best.pt", "--weights", "student", "--suite", "pgd-2", "--n", "20")
THIRD_PARTY = ("--arch", "small-cnn", "--dataset", "digits", "--suite", "clean", "--n", "10")
#: Makes a file that is read next to others, and returns whether it is valid.
Write = Callable[[Any], bool]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a run on data with hostile class names, attacked and inspected."""
    place = tmp_path_factory.mktemp("hostile")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    labels = np.arange(60) % 3
    names = np.array([f"{HOSTILE.removesuffix(chr(0xDC80))}{index}" for index in range(3)])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        arrays: dict[str, Any] = {
            "x_train": pixels,
            "y_train": labels,
            "x_test": pixels,
            "y_test": labels,
        }
        np.savez("own.npz", **arrays, class_names=names)
        succeed(*TRAIN)
        patch.setattr(ProgressFiles, "remove", lambda files: None)
        succeed(*ATTACK, "--outputs")
        succeed("inspect", RUN)
    return place


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of that directory, which is the working directory."""
    place = tmp_path / "here"
    shutil.copytree(trained, place)
    monkeypatch.chdir(place)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return place


def fill(whole: Any, write: Write, text: str = HOSTILE) -> tuple[Any, int]:
    """Write `whole` with each string hostile in turn; return it with all valid ones, and how many.

    `write` checks what an invalid one causes.
    """
    filled, count = whole, 0
    # Names come after values, and inner ones before outer ones, so that all paths stay valid.
    places = sorted(string_places(whole), key=lambda place: (place.is_key, -len(place.path)))
    for place in places:
        count += 1
        if write(put(whole, place, text)):
            together = put(filled, place, f"{text}{count}")
            filled = together if write(together) else filled
    write(filled)
    return filled, count


def records() -> list[Any]:
    given = [*fixed_records(), inspect_record(class_names=("a", "b", "c"))]
    given.append(attack_record(9_000, 5_000, warnings=("one", "two")))
    return [json.loads(json.dumps(to_json(record))) for record in given]


def fill_records(directory: Path) -> int:
    """Write records with hostile strings and files that are no records; return how many strings."""
    directory.mkdir()
    count = 0
    for number, document in enumerate(records()):
        path = directory / f"{number}.json"

        def write(document: Any, path: Path = path) -> bool:
            path.write_text(json.dumps(document))
            try:
                record = read_record(path)
            except AdrbenchError as error:
                assert_clean(str(error))
                return False
            assert find_unprintable(to_json(record)) == []
            return True

        count += fill(document, write)[1]
    return count


def test_records_are_reported_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fill_records(Path("results")) > 300
    for path in (trained / "results").iterdir():  # outputs with hostile class names
        if not path.name.startswith("."):
            shutil.copy(path, "results")
    names = [os.fsdecode(os.fsencode(f"{FILE_NAME}{end}")) for end in (".json", "\n.json")]
    Path("results", names[0]).write_text(json.dumps(records()[0]))
    Path("results", names[1]).write_text(json.dumps({"kind": HOSTILE, "schema": HOSTILE}))
    for form in FORMATS:
        outcome = run_clean("report", "--format", form, "--intervals")
        assert "owned" in outcome.out, "the hostile names are shown"
        assert_clean_report(outcome.out, form)
        assert len(outcome.notes) == 1
        assert run_clean("report", "--format", form, "--latest", "--out", "out").code == 0
        assert_clean_report(Path("out").read_text("utf-8"), form)
    assert run_clean("report", "--format", "html", "--out", "page.html").code == 0
    assert_clean(Path("page.html").read_text("utf-8"))
    for words in (("--dataset", HOSTILE), ("--against", HOSTILE), ("--table", HOSTILE), (HOSTILE,)):
        run_clean("report", *words)


@pytest.mark.slow
def test_checkpoints_are_used_without_it(here: Path) -> None:
    good = torch.load(RUN / "last.pt", weights_only=True)

    def write(held: dict[str, Any]) -> bool:
        held = {key: value for key, value in held.items() if key != checkpoints.CHECKSUM}
        torch.save(held | {checkpoints.CHECKSUM: checkpoints.checksum(held)}, RUN / "last.pt")
        try:
            checkpoints.load(RUN / "last.pt")
        except AdrbenchError as error:
            assert_clean(str(error))
            return False
        return True

    _, count = fill(good, write, ENCODABLE)
    assert count > 100
    use_run()
    shutil.move(RUN / "last.pt", RUN / "best.pt")
    use_run()
    shutil.move(RUN / "best.pt", FILE_NAME)
    for name in ("attack", "inspect"):
        run_clean(name, FILE_NAME)


def use_run() -> None:
    """Run every command that reads a run."""
    for last in ((), ("--dry-run",)):
        run_clean(*TRAIN, *last)
        run_clean(*TRAIN, *last, "--lr", "0.5")
    for target in (RUN, *RUN.glob("*.pt")):
        run_clean("attack", target, "--suite", "clean", "--n", "10")
        run_clean("inspect", target, "--n", "10")
    run_clean("inspect", RUN, "--selection", "last", "--dataset", "digits")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.json", "history.jsonl"])
def test_settings_and_histories_are_read_without_it(here: Path, name: str) -> None:
    path = RUN / name
    row = json.loads(path.read_text())
    for place in [place for place in string_places(row) if not place.is_key]:
        path.write_text(json.dumps(put(row, place, HOSTILE)) + "\n")
        run_clean(*TRAIN, "--dry-run")
    run_clean(*TRAIN, "--lr", "0.5")
    for command_ in (*TRAIN, "--dry-run"), ("attack", RUN, "--suite", "clean", "--n", "10"):
        run_clean(*command_)


@pytest.mark.slow
def test_progress_is_resumed_without_it(here: Path) -> None:
    (path,) = Path("results").glob(".*.state")
    (record,) = Path("results").glob("run-best-*.json")
    record.unlink()
    kept = tree(Path("results"))
    state = json.loads(path.read_text())["state"]
    num_resumed = 0
    for place in string_places(state):
        data = put(state, place, HOSTILE)
        path.write_text(json.dumps({"sha256": hash_json(data), "state": data}))
        num_resumed += run_clean(*ATTACK).code == 0
        for written in Path("results").glob("run-best-*.json"):
            assert find_unprintable(json.loads(written.read_text())) == []
            written.unlink()
    assert num_resumed, "some strings of progress are free"
    assert set(kept) <= set(tree(Path("results"))) | {str(path.name)}


def test_a_finished_record_is_shown_without_it(here: Path) -> None:
    """`attack` and `inspect` print records that they find, with warnings and names of classes."""
    for progress in Path("results").glob(".*.state"):
        progress.unlink()
    (path,) = Path("results").glob("run-best-*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"warnings": [HOSTILE]}))
    assert "owned" in run_clean(*ATTACK).err
    (path,) = Path("results").glob("inspect-*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"class_names": [HOSTILE] * 3}))
    assert "owned" in run_clean("inspect", RUN).out


@pytest.mark.slow
def test_third_party_weights_are_read_without_it(here: Path) -> None:
    weights = {
        name: tensor.clone()
        for name, tensor in torch.load(RUN / "last.pt", weights_only=True)["snapshots"]["student"][
            "state"
        ].items()
    }
    contents: list[Any] = [
        {f"{HOSTILE}{name}": tensor for name, tensor in weights.items()},
        weights | {HOSTILE: torch.ones(3)},
        {"state_dict": weights, HOSTILE: HOSTILE},
        {HOSTILE: weights},
        {HOSTILE: weights, f"{HOSTILE}ema": weights},
        {"model": weights, f"{HOSTILE}": weights, "arch": HOSTILE},
        {HOSTILE: {HOSTILE: weights}},
        [HOSTILE, {HOSTILE: HOSTILE}],
        HOSTILE,
        dict.fromkeys(weights, HOSTILE),
        {"state_dict": {**weights, next(iter(weights)): torch.ones(2)}},
    ]
    for content in contents:
        for name in ("weights.pt", f"{FILE_NAME}.pt"):
            torch.save(content, name)
            run_clean("attack", name, *THIRD_PARTY)
            run_clean("attack", name)
            run_clean("attack", name, *THIRD_PARTY, "--weights", "average")
            run_clean("inspect", name)
    for tensors in (weights, {f"{ENCODABLE}{name}": one for name, one in weights.items()}):
        save_file(tensors, "weights.safetensors", metadata={ENCODABLE: ENCODABLE})
        run_clean("attack", "weights.safetensors", *THIRD_PARTY)
    good = {name: one for name, one in weights.items() if "fc" not in name}
    torch.save(good, f"{FILE_NAME}.pt")
    run_clean("attack", f"{FILE_NAME}.pt", *THIRD_PARTY)


def test_data_sets_are_read_without_it(here: Path) -> None:
    good = dict(np.load("own.npz"))
    np.savez("keys.npz", **{ENCODABLE.replace("/", ""): good["x_train"], "y_test": good["y_test"]})
    np.savez("names.npz", **(good | {"class_names": np.array([ENCODABLE])}))
    np.savez("types.npz", **(good | {"x_test": np.array([ENCODABLE])}))
    with zipfile.ZipFile("members.npz", "w") as archive:
        archive.writestr(ENCODABLE.replace("\0", ""), b"")
    shutil.copy("own.npz", f"{FILE_NAME}.npz")
    folder = Path("folder", "train", FILE_NAME)
    for part in ("train", "test"):
        for name in (FILE_NAME, "other"):
            Path("folder", part, name).mkdir(parents=True)
    (folder / f"{FILE_NAME}.png").write_bytes(b"no image")
    for data in ("keys.npz", "names.npz", "types.npz", "members.npz", f"{FILE_NAME}.npz", "folder"):
        assert run_clean("train", data, *QUICK, "--dry-run").code
        run_clean("attack", RUN / "best.pt", "--dataset", data, "--suite", "clean")
    shutil.move("folder", FILE_NAME)
    run_clean("train", f"./{FILE_NAME}", *QUICK)


def test_the_command_line_is_quoted_without_it(here: Path) -> None:
    text = HOSTILE.replace("\0", "")
    for arguments in (
        ("train", text), ("train", "digits", "--name", text), ("train", "digits", "--arch", text),
        ("train", "digits", "--method", text), ("train", "digits", "--lr", text),
        ("attack", text), ("attack", f"timm:{text}"), ("attack", f"robustbench:{text}"),
        (*ATTACK, "--name", text), ("attack", "x.pt", "--name", text), ("attack", f"--{text}"),
        ("attack", RUN, "--suite", text), ("attack", RUN, "--normalize", text),
        ("list", text), ("list", "baselines", "--dataset", text), ("inspect", text), (text,),
    ):  # fmt: skip
        run_clean(*arguments)
    out = Path(FILE_NAME)
    run_clean(*TRAIN, "--out", out, "--results", out)
    run_clean(*TRAIN, "--out", out, "--results", out, "--dry-run")
    run_clean("attack", out / "run", "--suite", "clean", "--n", "10", "--out", out)
    run_clean("attack", out / "run", "--suite", "clean", "--n", "10", "--out", out)
    run_clean("inspect", out / "run", "--out", out)
    run_clean("report", out, "--out", out / "report.txt", "--plots", out / "plots")


ON_TERMINAL = """
import sys
sys.path[:0] = {path}
from runner import command
from adrbench.cli.app import app
for line in {lines}:
    try:
        app(line)
    except SystemExit:
        pass
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")
def test_on_a_terminal_only_the_display_moves_the_cursor(here: Path) -> None:
    import pty

    fill_records(Path("others"))
    (finished,) = Path("results").glob("run-best-*.json")
    document = json.loads(finished.read_text())
    finished.write_text(json.dumps(document | {"warnings": [HOSTILE]}))
    weights = torch.load(RUN / "last.pt", weights_only=True)["snapshots"]["student"]["state"]
    torch.save({f"{ENCODABLE}{name}": one for name, one in weights.items()}, "keys.pt")
    torch.save({"state_dict": weights, HOSTILE: 1}, f"{FILE_NAME}.pt")
    third_party = ("--arch", "small-cnn", "--dataset", "own.npz", "--suite", "fgsm", "--n", "10")
    lines: list[list[str]] = [
        ["report", "others"],
        ["report", "others", "--format", "markdown"],
        [str(part) for part in ATTACK],
        ["inspect", str(RUN)],
        ["inspect", str(RUN), "--force"],
        ["attack", "keys.pt", *third_party],
        ["attack", "keys.pt", *third_party, "--debug"],
        ["attack", f"{FILE_NAME}.pt", *third_party],
        [*TRAIN, "--force", "--out", FILE_NAME],
        ["list", "datasets"],
    ]
    script = Path("terminal.py")
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    script.write_text(ON_TERMINAL.format(path=paths, lines=ascii(lines)))
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(
        [sys.executable, script], stdout=slave, stderr=slave, stdin=slave, env=environment
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # the process has exited
            break
        shown += chunk
    os.close(master)
    assert process.wait() == 0
    text = shown.decode("utf-8").replace("\r\n", "\n")
    assert "owned" in text
    assert "\x1b[?25l" in text, "there were live lines"
    assert_clean_on_terminal(text)
