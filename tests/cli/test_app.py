"""The command line's manners: which stream, which exit code, what is done once and what again."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adrbench.checkpoints import format as checkpoints
from runner import QUICK, command, succeed, tree

ROOT = Path(__file__).parents[2]
AT, ADR = Path("checkpoints/at"), Path("checkpoints/adr")
PGD = ("--suite", "pgd-2", "--n", "100")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        succeed("train", "digits", "--method", "at", "--name", "at", *QUICK)
        succeed("train", "digits", "--method", "adr", "--name", "adr", *QUICK)
    return place


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a directory of this test alone, which sees the two runs of the module."""
    monkeypatch.chdir(tmp_path)
    Path("checkpoints").symlink_to(trained / "checkpoints")
    return tmp_path


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )


def records() -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in sorted(Path("results").glob("*.json"))]
    return sorted(found, key=lambda record: (record["created"], record["selection"]))


def counts(record: dict[str, Any]) -> tuple[int, int, dict[str, str]]:
    return record["clean_correct"], record["robust_correct"], record["verdicts"]


# Training


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_training_is_done_once_and_says_where(empty: Path) -> None:
    line = ("train", "digits", "--method", "at", *QUICK)
    first = succeed(*line)
    assert first.lines[0].startswith("digits-small-cnn-at-seed0: published ADR configurations")
    assert first.lines[1].startswith("epoch 1/1  loss ")
    assert len(first.lines) == 2
    before = tree(empty)
    again = succeed(*line)
    assert again.out == first.out
    run = Path("checkpoints/digits-small-cnn-at-seed0")
    assert again.err == (
        f"note: {run} was finished before, see results/train-{run.name}.json: "
        "--force trains it again.\n"
    )
    assert tree(empty) == before
    forced = succeed(*line, "--force")
    assert forced.lines[1].startswith("epoch 1/1  loss ")
    assert tree(empty).keys() == before.keys()


def test_training_prints_its_result_and_the_next_command(empty: Path) -> None:
    out = succeed("train", "digits", "--method", "adr", "--name", "it", *QUICK).out.splitlines()
    assert [line.split(":")[0] for line in out[:2]] == ["student", "average"]
    assert out[2].endswith("next: adrbench attack checkpoints/it")


def test_the_record_of_another_run_is_not_replaced(empty: Path) -> None:
    line = ("train", "digits", "--method", "at", *QUICK)
    succeed(*line)
    before = tree(empty)
    outcome = command(*line, "--lr", "0.01", "--out", "elsewhere")
    assert outcome.code == 1
    assert "is the record of another run" in outcome.err
    assert tree(empty) == before
    succeed(*line, "--lr", "0.01", "--out", "elsewhere", "--force")
    assert (
        json.loads(Path("results/train-digits-small-cnn-at-seed0.json").read_text())["config"]["lr"]
        == 0.01
    )


def test_a_lost_record_is_written_again(here: Path) -> None:
    outcome = succeed("train", "digits", "--method", "at", "--name", "at", *QUICK)
    assert outcome.lines == []
    assert (here / "results" / "train-at.json").exists()


def test_options_that_a_method_does_not_use_are_said_to_be_ignored(empty: Path) -> None:
    outcome = succeed("train", "digits", "--method", "at", "--beta", "3", "--awp-rho", "1", *QUICK)
    assert outcome.notes == [
        "note: --beta is ignored: method at does not use it.",
        "note: --awp-rho is ignored: method at does not use it.",
    ]


@pytest.mark.parametrize("eps", ["8/255", f"{8 / 255!r}"])
def test_eps_in_both_spellings(empty: Path, eps: str) -> None:
    succeed("train", "digits", "--method", "standard", "--eps", eps, "--name", "run", *QUICK)
    assert json.loads(Path("checkpoints/run/config.json").read_text())["eps"] == 8 / 255


def test_memory_that_does_not_suffice(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr("adrbench.training.step.train_step", fail)
    outcome = command("train", "digits", *QUICK)
    assert outcome.code == 1
    assert outcome.lines[-1].startswith(
        "error: there is not enough memory for a batch of 64: give --batch-size 32"
    )


def hear_interrupts() -> None:
    """Undo what a shell does to the processes it starts in the background: ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_one_line_and_its_own_code(empty: Path, number: int, code: int) -> None:
    line = ("train", "digits", "--method", "at", "--steps", "1", "--name", "at")
    process = subprocess.Popen(
        [sys.executable, "-m", "adrbench", *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=hear_interrupts,  # noqa: PLW1509 - this process has no other threads to upset
    )
    assert process.stderr is not None
    for told in process.stderr:
        if told.startswith("epoch 1/30"):
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert out == ""
    (rest,) = (told for told in err.splitlines() if not told.startswith("epoch "))
    assert re.fullmatch(
        r"error: interrupted: checkpoints/at is saved "
        r"(after|before the validation of) (step \d+ of )?epoch \d+; "
        "the same command goes on from there.",
        rest,
    )
    assert sorted(file.name for file in Path("checkpoints/at").iterdir()) == [
        *("best.pt", "config.json", "history.jsonl", "last.pt"),
    ]
    assert list(Path("checkpoints").iterdir()) == [Path("checkpoints/at")]


def catches(process: int, number: int) -> bool:
    """Tell whether a process has a handler for a signal."""
    status = Path(f"/proc/{process}/status").read_text()
    (caught,) = re.findall(r"SigCgt:\s+([0-9a-f]+)", status)
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks for handlers in /proc")
@pytest.mark.parametrize("seconds", [0, 0.1, 0.25, 0.4, 0.6, 0.9, 1.3, 1.8])
def test_a_signal_while_libraries_are_imported(empty: Path, seconds: float) -> None:
    """However early, once our own code runs: one sentence, the right code, no traceback."""
    process = subprocess.Popen(
        [sys.executable, "-m", "adrbench", "train", "digits", "--epochs", "900", "--steps", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=hear_interrupts,  # noqa: PLW1509 - this process has no other threads to upset
    )
    while not catches(process.pid, signal.SIGTERM):
        time.sleep(0.001)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.count("error: interrupted: ") == 1
    assert "Traceback" not in err


def test_an_interrupted_force_goes_on_without_it(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("adrbench.training.loop.train", interrupt)
    outcome = command("train", "digits", *QUICK, "--force")
    assert outcome.code == 130
    assert "whatever was saved is kept; give the same command without --force again." in outcome.err


# Attacks


def test_a_run_directory_gives_its_best_and_its_last(here: Path) -> None:
    outcome = succeed("attack", AT, *PGD)
    best, last = records()
    assert (best["selection"], last["selection"]) == ("best", "last")
    assert best["weights"] == last["weights"] == "student"
    assert best["n"] == 100
    heads = [line for line in outcome.lines if not line.startswith("  ")]
    assert heads == ["at best student pgd-2", "at last student pgd-2"]
    rows = [line.split() for line in outcome.out.splitlines() if " at " in line]
    assert rows == [
        *(
            [
                "at",
                selection,
                "student",
                "Linf",
                "0.1",
                "pgd-2",
                "100",
                f"{clean:.2f}",
                "%",
                f"{robust:.2f}",
                "%",
            ]
            for selection, (clean, robust, _) in (("best", counts(best)), ("last", counts(last)))
        )
    ]


def test_an_attack_is_made_once_and_says_where(here: Path) -> None:
    first = succeed("attack", AT / "best.pt", *PGD)
    before = tree(here)
    again = succeed("attack", AT / "best.pt", *PGD)
    (path,) = Path("results").iterdir()
    assert again.err == (
        f"note: at best student pgd-2 was done before, see {path}: --force does it again.\n"
    )
    assert again.out == first.out
    assert tree(here) == before
    assert "was done before" not in succeed("attack", AT / "best.pt", *PGD, "--force").err
    assert len(list(Path("results").iterdir())) == 1


@pytest.mark.parametrize(
    "change",
    [
        ("--n", "99"),
        ("--suite", "pgd-3"),
        ("--seed", "1"),
        ("--eps", "0.05"),
        ("--restarts", "2"),
        ("--alpha", "0.01"),
        ("--norm", "L2"),
    ],
    ids=lambda change: change[0],
)
def test_another_attack_is_another_record(here: Path, change: tuple[str, str]) -> None:
    succeed("attack", AT / "best.pt", *PGD)
    assert "was done before" not in succeed("attack", AT / "best.pt", *PGD, *change).err
    assert len(list(Path("results").iterdir())) == 2


def test_the_batch_size_of_an_attack_that_does_not_depend_on_it_changes_nothing(
    here: Path,
) -> None:
    succeed("attack", AT / "best.pt", *PGD)
    assert "was done" in succeed("attack", AT / "best.pt", *PGD, "--batch-size", "7").err


def test_a_broken_record_is_not_taken_for_a_result(here: Path) -> None:
    succeed("attack", AT / "best.pt", *PGD)
    (path,) = Path("results").iterdir()
    path.write_text(path.read_text()[:100])
    outcome = command("attack", AT / "best.pt", *PGD)
    assert outcome.code == 1
    assert outcome.lines[-1].endswith(": give --force to make it again.")
    succeed("attack", AT / "best.pt", *PGD, "--force")


def test_both_weights(here: Path) -> None:
    succeed("attack", ADR / "best.pt", *PGD, "--weights", "both")
    assert sorted(record["weights"] for record in records()) == ["average", "student"]
    deployed = succeed("attack", ADR / "best.pt", *PGD)
    assert "best student pgd-2 was done before" in deployed.err


def test_more_images_than_there_are_means_all_of_them(here: Path) -> None:
    outcome = succeed("attack", AT, "--suite", "fgsm", "--n", "1000")
    assert outcome.notes == ["note: digits has 360 test images, not 1,000: all of them are used."]
    assert {record["n"] for record in records()} == {360}


def test_options_of_an_attack_that_have_no_effect_are_said_to_be_ignored(here: Path) -> None:
    line = ("attack", AT, "--suite", "fgsm", "--restarts", "3", "--alpha", "0.1")
    outcome = succeed(*line, "--arch", "resnet18", "--normalize", "none")
    assert {note.partition(" is ignored")[0] for note in outcome.notes} == {
        *("note: --restarts", "note: --alpha", "note: --arch", "note: --normalize")
    }


@pytest.mark.parametrize("wrap", [False, True], ids=["bare", "wrapped"])
def test_a_state_dict_from_elsewhere_fares_as_the_checkpoint_it_is_of(
    here: Path, wrap: bool
) -> None:
    state = checkpoints.load(AT / "best.pt").snapshots["student"].state
    if wrap:
        state = {"state_dict": {f"module.{key}": value for key, value in state.items()}}
    torch.save(state, "theirs.pt")
    options = ("--arch", "small-cnn", "--dataset", "digits", "--eps", "0.1")
    succeed("attack", "theirs.pt", *options, *PGD)
    succeed("attack", AT / "best.pt", *PGD)
    theirs, ours = sorted(records(), key=lambda record: record["weights"])
    assert (theirs["weights"], theirs["seed"], theirs["run"]) == ("file", None, "theirs")
    assert counts(theirs) == counts(ours)


def test_a_name_that_looks_like_markup_is_shown_as_it_is(here: Path) -> None:
    """Rich would read `[red]` as a style and `:key:` as a picture."""
    state = checkpoints.load(AT / "best.pt").snapshots["student"].state
    torch.save(state, "w[red]:key:.pt")
    options = ("--arch", "small-cnn", "--dataset", "digits", "--eps", "0.1")
    outcome = succeed("attack", "w[red]:key:.pt", *options, *PGD)
    assert "w[red]:key: " in outcome.err
    assert "w[red]:key: " in outcome.out


def test_the_normalisation_is_part_of_what_was_evaluated(here: Path) -> None:
    """The same file with another normalisation is another model, not one "done before"."""
    state = checkpoints.load(AT / "last.pt").snapshots["student"].state
    torch.save({k: v for k, v in state.items() if k not in ("mean", "std")}, "w.pt")
    line = ("attack", "w.pt", "--arch", "small-cnn", "--dataset", "digits", *PGD)
    for normalize in ("none", "digits"):
        assert "done before" not in succeed(*line, "--normalize", normalize).err
    succeed(*line, "--normalize", "none", "--activation", "silu")
    made = records()
    assert len(made) == 3
    assert len({record["weights_sha256"] for record in made}) == 2
    assert len({record["checkpoint_sha256"] for record in made}) == 1
    assert len({record["robust_correct"] for record in made}) > 1


def test_a_state_dict_without_normalization_gives_a_note(here: Path) -> None:
    state = dict(checkpoints.load(AT / "best.pt").snapshots["student"].state)
    for constant in ("mean", "std"):
        del state[constant]
    torch.save(state, "theirs.pt")
    options = ("attack", "theirs.pt", "--arch", "small-cnn", "--dataset", "digits", *PGD)
    normalization, eps = succeed(*options).notes
    assert "theirs.pt holds no normalization constants: the model gets pixels" in normalization
    assert "theirs.pt does not specify the eps it was trained with: eps is 0.03137" in eps
    settled = ("--normalize", "none", "--eps", "8/255", "--force")
    assert succeed(*options, *settled).notes == []


@pytest.mark.slow
def test_a_model_of_the_zoo_whose_weights_are_at_hand(here: Path) -> None:
    from adrbench.models import robustbench_zoo as zoo

    name = "Rice2020Overfitting"
    package = zoo._import_zoo()
    rows = package.all_models[package.BenchmarkDataset("cifar100")]
    model = rows[package.ThreatModel("Linf")][name]["model"]()
    weights = Path("models/cifar100/Linf") / f"{name}.pt"
    weights.parent.mkdir(parents=True)
    torch.save(model.state_dict(), weights)
    pixels = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), np.uint8)
    labels = np.arange(100)
    np.savez("few.npz", x_train=pixels, y_train=labels, x_test=pixels[:4], y_test=labels[:4])
    outcome = succeed("attack", f"robustbench:{name}", "--dataset", "few.npz", "--suite", "fgsm")
    assert outcome.notes == [f"note: {name} is loaded from RobustBench's models of cifar100."]
    (record,) = records()
    assert (record["run"], record["n"]) == (f"robustbench:{name}", 4)
    assert record["threat_model"] == {"norm": "Linf", "eps": 8 / 255}
    assert f"robustbench:{name}" in outcome.out


# Reports


@pytest.fixture
def attacked(here: Path) -> Path:
    succeed("attack", AT, ADR, *PGD)
    Path("results/other.json").write_text("{}")
    return here


def test_json_and_csv_are_all_that_stdout_holds(attacked: Path) -> None:
    for form, read in (
        ("json", json.loads),
        ("csv", lambda text: list(csv.reader(text.splitlines()))),
    ):
        outcome = succeed("report", "results", "--format", form)
        assert read(outcome.out)
        assert outcome.lines == []
        (note,) = outcome.notes
        assert note.startswith("note: left out: results/other.json is not an adrbench record")


def test_every_format_names_the_method(attacked: Path) -> None:
    for form in ("terminal", "markdown", "latex"):
        assert "adr" in succeed("report", "results", "--format", form).out


def test_list_names_what_the_other_commands_take(empty: Path) -> None:
    everything = succeed("list").out
    for name in ("digits", "wrn-D-K", "trades", "autoattack-rand", "adr paper cifar10"):
        assert name in everything
    assert succeed("list", "suites").out in everything
    assert tree(empty) == {}


def test_results_that_are_not_on_a_terminal_are_a_row_a_line(here: Path) -> None:
    name = "a-run-whose-name-is-longer-than-eighty-columns-would-hold-beside-the-figures-of-a-row"
    (here / name).mkdir()
    state = checkpoints.load(AT / "best.pt").snapshots["student"].state
    torch.save(state, f"{name}/{name}.pt")
    options = ("--arch", "small-cnn", "--dataset", "digits", *PGD)
    (row,) = [
        line
        for line in succeed("attack", f"{name}/{name}.pt", *options).out.splitlines()
        if name in line
    ]
    assert row.rstrip().endswith("%")


# Processes of their own


def test_help_report_and_import_do_not_need_torch(attacked: Path) -> None:
    """With the import of torch made to fail, these three work all the same."""
    Path("torch.py").write_text("raise ImportError('torch was imported')\n")
    for code in (
        "import adrbench; assert 'ADR' in dir(adrbench)",
        "from adrbench.cli import main; import sys; sys.argv[1:] = ['--help']; main()",
        "from adrbench.cli import main; import sys; sys.argv[1:] = ['attack', '--help']; main()",
        "from adrbench.cli import main; import sys; sys.argv[1:] = ['report', 'results']; main()",
    ):
        done = python("-W", "error", "-c", code, PYTHONPATH=f"{Path.cwd()}:{ROOT}")
        assert done.returncode == 0, done.stderr


def test_python_m_from_a_checkout_that_was_never_installed(attacked: Path) -> None:
    done = python("-m", "adrbench", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("adrbench ")


def test_a_terminal_that_is_not_utf8(attacked: Path) -> None:
    Path("łąka").mkdir()
    done = python("-m", "adrbench", "report", "łąka", PYTHONIOENCODING="latin-1")
    assert done.returncode == 1
    assert "error: no results in \\u0142" in done.stderr
    for encoding in ("latin-1", "ascii"):
        done = python("-m", "adrbench", "report", "results", PYTHONIOENCODING=encoding)
        assert done.returncode == 0, done.stderr
        assert "Robust accuracy" in done.stdout


def test_a_reader_that_stops_early(attacked: Path) -> None:
    line = f"{sys.executable} -m adrbench report results | head -c 1"
    done = subprocess.run(
        line,
        shell=True,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "R"
    assert "Traceback" not in done.stderr
