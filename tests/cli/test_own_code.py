"""The commands with networks of the user's own code: train, resume, attack, and bad input."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

from adrbench.checkpoints import format as checkpoints
from adrbench.data import Source, loading
from adrbench.data.find_source import find_source
from adrbench.registry import load_import_path
from adrbench.results.inspection import InspectRecord
from adrbench.results.records import AttackRecord, read_record
from runner import QUICK, command, succeed, tree
from user_code import write_module

ARCH = "my_code:build"
RUN = "digits-my_code-build-adr+wa-seed0"


@pytest.fixture(autouse=True)
def _code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module(tmp_path, monkeypatch, "my_code")
    (tmp_path / "exiting.py").write_text("raise SystemExit\n")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


def test_a_network_of_ones_own_is_trained_and_attacked() -> None:
    line = ("train", "digits", "--arch", ARCH, "--method", "adr+wa", *QUICK)
    outcome = succeed(*line, "--activation", "silu")
    assert "note: the activation silu is ignored: my_code:build has its own." in outcome.notes
    run = Path("checkpoints", RUN)
    assert outcome.out.endswith(f"next: adrbench attack {run} --arch {ARCH}\n")
    preset = checkpoints.load(run / "last.pt").config.preset
    assert "published ADR configurations" in preset
    assert "is already finished" in succeed(*line).err
    attack = ("attack", run, "--suite", "fgsm", "--n", "50")
    refused = command(*attack)
    assert refused.code == 1
    assert refused.lines[-1].endswith(f"give --arch {ARCH} again.")
    succeed(*attack, "--arch", ARCH)
    records = [read_record(path) for path in Path("results").glob(f"{RUN}-*.json")]
    assert {record.arch for record in records} == {ARCH}
    assert {r.selection for r in records if isinstance(r, AttackRecord)} == {"best", "last"}


def test_a_network_of_ones_own_is_inspected_when_it_is_named() -> None:
    succeed("train", "digits", "--arch", ARCH, "--method", "adr+wa", *QUICK)
    refused = command("inspect", Path("checkpoints", RUN))
    assert refused.code == 1
    assert refused.lines[-1].endswith(f"give --arch {ARCH} again.")
    succeed("inspect", Path("checkpoints", RUN), "--arch", ARCH)
    record = read_record(Path("results", f"inspect-{RUN}-best.json"))
    assert isinstance(record, InspectRecord)
    assert record.arch == ARCH


def test_a_network_is_attacked_by_its_import_path() -> None:
    succeed("attack", "my_code:ready", "--dataset", "digits", "--suite", "fgsm")
    (path,) = Path("results").glob("*.json")
    assert path.name.startswith("my_code-ready-fgsm-")
    record = read_record(path)
    assert isinstance(record, AttackRecord)
    assert (record.run, record.arch) == ("my_code-ready", "my_code:ready")
    assert (record.weights, record.selection, record.method) == ("file", "file", "")


def test_the_test_images_are_read_once_for_all_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def find(dataset: str, data_dir: Path) -> Source:
        read.append(dataset)
        return find_source(dataset, data_dir)

    monkeypatch.setattr(loading, "find_source", find)
    torch.save(load_import_path("my_code:ready").state_dict(), "weights.pt")
    line = ("attack", "my_code:ready", "weights.pt", "--arch", ARCH, "--dataset", "digits")
    succeed(*line, "--normalize", "0.5/0.5", "--suite", "clean")
    assert read == ["digits"]


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("train digits --arch my_cod:build", 1, "there is no module 'my_cod' for my_cod:build"),
        ("train digits --arch my_code:bild", 1, "no attribute 'bild' .*did you mean build"),
        ("train digits --arch my_code:raises", 1, "raised KeyError .* when it was built"),
        ("train digits --arch my_code:returns_a_list", 2, "must return an nn.Module"),
        ("train digits --arch my_code:of_eleven_classes", 2, r"shape \(2, 11\).* \(2, 10\)"),
        ("train digits --arch my_code:ready", 2, "is a network: give the class or function"),
        ("attack my_code:raises --dataset digits", 1, "raised KeyError .* when it was called"),
        ("attack my_code:exits --dataset digits", 1, "raised SystemExit .* when it was called"),
        ("train digits --arch my_code:exits", 1, "raised SystemExit .* when it was built"),
        ("train my_code:exits", 1, "data set my_code:exits raised SystemExit .* when it was built"),
        ("train digits --arch exiting:build", 1, "importing exiting .* raised SystemExit"),
        ("attack exiting:network --dataset digits", 1, "importing exiting .* raised SystemExit"),
        ("attack my_code:of_eleven_classes --dataset digits", 2, "11 classes, but digits has 10"),
        ("attack my_code:ready", 2, "needs --dataset"),
        ("attack my_code:ready --dataset digits --name a/b", 2, "the name of the run is 'a/b'"),
    ],
)
def test_bad_input_is_one_sentence_and_changes_nothing(line: str, code: int, words: str) -> None:
    before = tree(Path())
    outcome = command(*line.split())
    assert (outcome.code, outcome.out, len(outcome.lines)) == (code, "", 1)
    assert outcome.lines[0].startswith("error: ")
    assert re.search(words, outcome.lines[0])
    assert tree(Path()) == before


def test_a_deprecation_in_torch_is_not_printed(tmp_path: Path) -> None:
    """The warning is that of importing timm."""
    (tmp_path / "old.py").write_text(
        "import warnings\n"
        "warnings.warn_explicit('deprecated', FutureWarning, '_.py', 1, 'torch.jit._script')\n"
        "from my_code import ready\n"
    )
    done = succeed("attack", "old:ready", "--dataset", "digits", "--suite", "clean", "--n", "9")
    assert "deprecated" not in done.err


def test_a_change_of_the_networks_code_is_noticed_although_its_clean_logits_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("attack", "rounding:network", "--dataset", "digits", "--suite", "pgd-2", "--n", "50")

    def write(body: str, comment: str = "") -> None:
        (tmp_path / "rounding.py").write_text(
            f"import torch\n{comment}\n"
            "class Network(torch.nn.Sequential):\n"
            "    def forward(self, x):\n"
            f"        return super().forward({body})\n"
            "def network():\n"
            "    torch.manual_seed(0)\n"
            "    return Network(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
        )
        monkeypatch.delitem(sys.modules, "rounding", raising=False)
        importlib.invalidate_caches()

    write("x")
    succeed(*line)
    write("x", comment="# A comment.")
    assert "is already finished" in succeed(*line).err
    write("(16 * x).round() / 16")  # digits have 17 levels: their clean logits stay the same
    assert "is already finished" not in succeed(*line).err
    assert "is already finished" in succeed(*line).err
    assert len(list(Path("results").glob("*.json"))) == 2
    assert "code of the network" in succeed("report").out
    assert "code of the network" not in succeed("report", "--latest").out
