"""`adrbench attack`: several suites and radii a command, and adversarial examples in a file."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

import adrbench
from runner import command, succeed, train_in

RUN = Path("checkpoints/run/best.pt")
FEW = ("--n", "60")
RADII = ("2/255", "4/255", "0.1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_in(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("checkpoints").symlink_to(trained / "checkpoints")
    return tmp_path


def records() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(Path("results").glob("*.json"))]


def test_every_suite_is_run_at_every_radius(here: Path) -> None:
    outcome = succeed(
        "attack", RUN, "--suite", "pgd-2,fgsm", "--suite", "clean", "--eps", "2/255,4/255",
        "--eps", "0.1", *FEW,
    )  # fmt: skip
    found = {(one["suite"], round(255 * one["threat_model"]["eps"], 3)) for one in records()}
    assert found == {(s, e) for s in ("pgd-2", "fgsm", "clean") for e in (2, 4, 25.5)}
    _, head, _, *rows = outcome.out.splitlines()
    assert head.split() == ["target", "weights", "threat", "suite", "n", "clean", *RADII]
    assert len(rows) == 3
    by_suite = {(one["suite"], one["threat_model"]["eps"]): one for one in records()}
    row = next(line for line in rows if " pgd-2 " in line).split()
    assert row[-3] == f"{100 * by_suite['pgd-2', 2 / 255]['robust_correct'] / 60:.2f}"


def test_the_same_command_again_does_nothing(here: Path) -> None:
    line = ("attack", RUN, "--suite", "pgd-2,pgd-3", "--eps", "2/255,4/255", *FEW)
    first = succeed(*line)
    again = succeed(*line)
    assert again.out == first.out
    assert again.err.count("is already finished") == 4


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--suite", "pgd-2,autoatack"), "unknown suite 'autoatack'"),
        (("--suite", ","), "--suite is empty"),
        (("--eps", "2/255,eight"), "--eps is 'eight'"),
        (("--eps", "2/255", "8/255"), "8/255 is given as a target, but there is no such file"),
        (("--eps", "2/255", "8/255"), "separate values by commas, as in --eps 2/255,8/255"),
        (("--suite", "pgd-2", "fgsm"), "separate values by commas, as in --suite pgd-20,"),
        (("--eps", "2/255,8"), "write 8/255 if you meant that"),
        (("--save-adversarial", "x.png"), "ends in .npz or .pt"),
        (("--suite", "pgd-2,fgsm", "--save-adversarial", "x.npz"), "this command has 2"),
        (("--suite", "no_such:suite"), "there is no module 'no_such'"),
    ],
)
def test_bad_combinations_are_refused_before_anything_is_attacked(
    flags: tuple[str, ...], words: str, here: Path
) -> None:
    outcome = command("attack", RUN, *flags, *FEW)
    assert outcome.code in (1, 2)
    assert words in outcome.lines[-1]
    assert not Path("results").exists()


def test_the_traceback_of_ones_own_code_is_shown_with_debug(here: Path) -> None:
    Path("broken_model.py").write_text("def build():\n    raise KeyError('stem')\n")
    line = ("attack", "broken_model:build", "--dataset", "digits", "--suite", "fgsm")
    outcome = command(*line)
    assert outcome.code == 1
    (message,) = outcome.lines
    assert "raised KeyError ('stem')" in message
    assert message.endswith("; --debug shows its traceback.")
    told = command(*line, "--debug")
    assert told.code == 1
    assert "Traceback (most recent call last)" in told.err
    assert "raise KeyError('stem')" in told.err
    assert told.lines[-1].startswith("error: broken_model:build raised KeyError")


def test_a_file_may_have_the_name_of_a_suite(here: Path) -> None:
    shutil.copy(RUN, "fgsm")
    outcome = command("attack", "fgsm", "--suite", "clean", *FEW)
    assert "is given as a target" not in outcome.err


def test_suites_of_one_name_are_told_apart(here: Path) -> None:
    (here / "two_suites.py").write_text(
        "from adrbench import Suite\n"
        "from adrbench.attacks import PGD\n"
        "short = Suite(name='mine', stages=[PGD(steps=1)])\n"
        "long = Suite(name='mine', stages=[PGD(steps=9)])\n"
    )
    suites = "two_suites:short,two_suites:long"
    outcome = succeed("attack", RUN, *FEW, "--suite", suites, "--eps", "0.1,0.2")
    assert "mine (attack pgd-1, steps 1)" in outcome.out
    assert "mine (attack pgd-9, steps 9)" in outcome.out


def test_targets_of_one_name_are_told_apart(here: Path) -> None:
    for folder, bias in (("a", 0.0), ("b", 1.0)):
        Path(folder).mkdir()
        state = torch.load(RUN, weights_only=True)["snapshots"]["student"]["state"]
        torch.save({**state, "linear.bias": state["linear.bias"] + bias}, f"{folder}/w.pt")
    files = ("a/w.pt", "b/w.pt")
    flags = ("--arch", "small-cnn", "--dataset", "digits", "--suite", "fgsm", *FEW)
    outcome = succeed("attack", *files, *flags)
    names = re.findall(r"^w \(\w{8}\)", outcome.out, re.MULTILINE)
    assert len(set(names)) == 2


def judge(file: Path, n: int) -> tuple[np.ndarray[Any, Any], dict[str, np.ndarray[Any, Any]]]:
    with np.load(file, allow_pickle=False) as arrays:
        held = dict(arrays)
    x, y = adrbench.load_examples("digits", n=n)
    assert (held["y"] == y.numpy()).all()
    assert np.abs(held["x_adv"] - x.numpy()).max() <= 0.1 + 1e-6
    with torch.no_grad():
        predicted = adrbench.load_model(RUN)(torch.from_numpy(held["x_adv"])).argmax(1)
    return (predicted == y).numpy(), held


def test_the_saved_examples_have_the_counts_of_the_record(here: Path) -> None:
    succeed("attack", RUN, "--suite", "pgd-5", "--save-adversarial", "x.npz", *FEW)
    (record,) = records()
    robust, held = judge(Path("x.npz"), 60)
    assert robust.sum() == record["robust_correct"] < record["clean_correct"]
    assert (held["robust"] == robust).all()
    assert ((held["kind"] == "success") == ~robust).all()
    assert sorted(os.listdir("results")) == [next(Path("results").iterdir()).name]


def test_examples_are_not_replaced_or_missed_silently(here: Path) -> None:
    line = ("attack", RUN, "--suite", "pgd-2", *FEW)
    succeed(*line)
    refused = command(*line, "--save-adversarial", "x.pt")
    assert refused.code == 1
    assert "were not saved in x.pt: give --force" in refused.lines[-1]
    succeed(*line, "--save-adversarial", "x.pt", "--force")
    assert torch.load("x.pt", weights_only=True).shape == (60, 1, 8, 8)
    other = command("attack", RUN, "--suite", "pgd-3", *FEW, "--save-adversarial", "x.pt")
    assert "x.pt exists" in other.lines[-1]


@pytest.mark.parametrize("name", ["x.npz", "x.pt"])
def test_examples_of_another_evaluation_do_not_pass_for_those_of_a_finished_one(
    here: Path, name: str
) -> None:
    line = ("attack", RUN, "--save-adversarial", name, "--suite")
    succeed(*line, "pgd-2", *FEW)
    other = Path(name).read_bytes()
    assert "already finished" in succeed(*line, "pgd-2", *FEW).err
    succeed(*line, "pgd-2", *FEW, "--eps", "0.01", "--force")
    Path(name).write_bytes(other)
    refused = command(*line, "pgd-2", *FEW, "--eps", "0.01")
    assert refused.code == 1
    difference = {"x.npz": "robust differs", "x.pt": "some are outside the threat model"}[name]
    assert f"{name} does not hold its adversarial examples ({difference})" in refused.lines[-1]
    Path(name).write_bytes(b"PK")
    damaged = command(*line, "pgd-2", *FEW, "--eps", "0.01")
    assert "(it cannot be read)" in damaged.lines[-1]


def test_a_directory_is_no_place_for_examples(here: Path) -> None:
    Path("x.npz").mkdir()
    refused = command("attack", RUN, "--suite", "pgd-2", *FEW, "--save-adversarial", "x.npz")
    assert refused.code == 2
    assert "x.npz, which is a directory: give the name of a file" in refused.lines[-1]
    assert not Path("results").exists()


def test_a_kill_between_the_file_of_examples_and_the_record_is_resumed(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("attack", RUN, "--suite", "pgd-2", "--save-adversarial", "x.npz", *FEW)
    with monkeypatch.context() as patch:
        patch.setattr("adrbench.evaluation.run.write_record", Mock(side_effect=KeyboardInterrupt))
        assert command(*line).code == 130
    assert Path("x.npz").exists()
    succeed(*line)
    (record,) = records()
    assert judge(Path("x.npz"), 60)[0].sum() == record["robust_correct"]


def test_the_same_command_resumes_a_search_in_its_arithmetic_on_a_gpu(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("attack", RUN, "--suite", "pgd-2", *FEW)
    with monkeypatch.context() as patch:
        patch.setattr("adrbench.evaluation.run.write_record", Mock(side_effect=KeyboardInterrupt))
        assert command(*line).code == 130
    monkeypatch.setattr("adrbench.runtime.arithmetic.has_tensor_cores", lambda device: True)
    assert any("begun" in note and "in float32" in note for note in succeed(*line).notes)
    (record,) = records()
    assert record["searched"] == "float32"


@pytest.mark.slow
def test_a_killed_attack_loses_no_example(here: Path) -> None:
    line = [
        *(sys.executable, "-m", "adrbench", "attack", str(RUN), "--suite", "pgd-400"),
        *("--save-adversarial", "x.npz", "--batch-size", "20", "--device", "cpu", *FEW),
    ]
    for _ in range(2):
        attack = subprocess.Popen(line, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        begun = len(list(Path("results").glob(".*-*.npz"))) if Path("results").exists() else 0
        while attack.poll() is None:
            if len(list(Path("results").glob(".*[0-9]-*.npz"))) > begun:
                attack.send_signal(signal.SIGKILL)
                attack.wait()
            time.sleep(0.01)
    done = subprocess.run(line, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (record,) = records()
    robust, _ = judge(Path("x.npz"), 60)
    assert robust.sum() == record["robust_correct"]
    assert [name for name in os.listdir("results") if name.endswith((".npz", ".state"))] == []


@pytest.mark.parametrize("ending", [".json", ".0.state", ".1-0.npz", ".outputs.1-0.npz"])
def test_a_directory_in_place_of_a_file_is_named_and_kept(ending: str, here: Path) -> None:
    line = ("attack", RUN, "--suite", "pgd-2", *FEW)
    succeed(*line)
    (record,) = Path("results").glob("*.json")
    record.unlink()
    directory = Path("results", f"{'' if ending == '.json' else '.'}{record.stem}{ending}")
    directory.mkdir()
    refused = command(*line, "--force")
    assert refused.code == 1
    assert f"cannot remove {directory}: it is a directory; remove it yourself" in refused.lines[-1]
    assert list(Path("results").iterdir()) == [directory]
