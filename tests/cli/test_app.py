"""The command line: streams, exit codes, and what a repeated command does."""

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
    """Change to a new directory with a link to the module's two runs."""
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


def test_a_finished_run_is_not_trained_again_and_a_note_names_its_record(empty: Path) -> None:
    line = ("train", "digits", "--method", "at", *QUICK)
    first = succeed(*line)
    assert first.lines[0] == (
        "digits-small-cnn-at-seed0: given: epochs 1, steps 1; ours: batch size 64, "
        "lr 0.05, eps 0.1; automatic: precision float32, compile off "
        "(adrbench train ... --dry-run shows all)"
    )
    assert first.lines[2].startswith("epoch 1/1  loss ")
    assert len(first.lines) == 3
    before = tree(empty)
    again = succeed(*line)
    assert again.out == first.out
    run = Path("checkpoints/digits-small-cnn-at-seed0")
    assert again.err == (
        f"note: {run} is already finished, see results/train-{run.name}.json: "
        "--force trains it again.\n"
    )
    assert tree(empty) == before
    forced = succeed(*line, "--force")
    assert forced.lines[2].startswith("epoch 1/1  loss ")
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


def test_a_missing_record_is_written_again(here: Path) -> None:
    outcome = succeed("train", "digits", "--method", "at", "--name", "at", *QUICK)
    assert outcome.lines == []
    assert (here / "results" / "train-at.json").exists()


def test_a_note_names_each_option_the_method_ignores(empty: Path) -> None:
    outcome = succeed("train", "digits", "--method", "at", "--beta", "3", "--awp-rho", "1", *QUICK)
    assert outcome.notes == [
        "note: --beta is ignored: method at does not use it.",
        "note: --awp-rho is ignored: method at does not use it.",
    ]


@pytest.mark.parametrize("eps", ["8/255", f"{8 / 255!r}"])
def test_eps_is_a_fraction_or_a_decimal(empty: Path, eps: str) -> None:
    succeed("train", "digits", "--method", "standard", "--eps", eps, "--name", "run", *QUICK)
    assert json.loads(Path("checkpoints/run/config.json").read_text())["eps"] == 8 / 255


def test_too_little_memory_is_an_error_with_advice(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr("adrbench.training.step.train_step", fail)
    outcome = command("train", "digits", *QUICK)
    assert outcome.code == 1
    assert outcome.lines[-1].startswith(
        "error: there is not enough memory for a batch of 64: give --batch-size 32"
    )


def restore_signals() -> None:
    """Restore the default actions of SIGINT, which shells ignore in the background, and SIGHUP."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_gives_one_line_and_its_exit_code(empty: Path, number: int, code: int) -> None:
    line = ("train", "digits", "--method", "at", "--steps", "1", "--name", "at")
    process = subprocess.Popen(
        [sys.executable, "-m", "adrbench", *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=restore_signals,  # noqa: PLW1509 - this process has no other threads
    )
    assert process.stderr is not None
    for line_read in process.stderr:
        if line_read.startswith("epoch 1/30"):
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert out == ""
    *acknowledged, rest = (text for text in err.splitlines() if not text.startswith("epoch "))
    assert len(acknowledged) <= 1, "none where it is validating, which ends at once"
    for text in acknowledged:
        assert "finishing this step, then saving; " in text
    assert re.fullmatch(
        r"error: interrupted (at|after) epoch \d+ of 30"
        r"(, after \d+ of 20 steps|, before its validation)?; saved: "
        "run the same command again to resume.",
        rest,
    )
    assert sorted(file.name for file in Path("checkpoints/at").iterdir()) == [
        *("best.pt", "config.json", "history.jsonl", "last.pt"),
    ]
    assert list(Path("checkpoints").iterdir()) == [Path("checkpoints/at")]


def has_handler(process: int, number: int) -> bool:
    """Return whether a process handles a signal."""
    status = Path(f"/proc/{process}/status").read_text()
    (caught,) = re.findall(r"SigCgt:\s+([0-9a-f]+)", status)
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads signal handlers from /proc"
)
@pytest.mark.parametrize("seconds", [0, 0.1, 0.25, 0.4, 0.6, 0.9, 1.3, 1.8])
def test_a_signal_while_libraries_are_imported(empty: Path, seconds: float) -> None:
    """At any time after our code starts: one sentence, the exit code, no traceback."""
    process = subprocess.Popen(
        [sys.executable, "-m", "adrbench", "train", "digits", "--epochs", "900", "--steps", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=restore_signals,  # noqa: PLW1509 - this process has no other threads
    )
    while not has_handler(process.pid, signal.SIGTERM):
        time.sleep(0.001)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.count("error: interrupted") == 1
    assert err.endswith("run the same command again.\n") or "; saved: " in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("is_saved", "message"),
    [
        (False, "interrupted before anything was saved: run the same command again."),
        (
            True,
            "interrupted before the next save; checkpoints/run has the last saved state: run "
            "the same command again without --force to resume.",
        ),
    ],
)
def test_a_run_that_ends_without_saving_promises_only_what_is_saved(
    is_saved: bool, message: str, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object, **options: object) -> None:
        if is_saved:
            Path("checkpoints/run/last.pt").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("adrbench.training.loop.run_epoch", interrupt)
    outcome = command("train", "digits", "--name", "run", *QUICK, "--force")
    assert outcome.code == 130
    assert outcome.lines[-1] == f"error: {message}"


def test_an_interruption_before_the_first_step_promises_nothing(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("adrbench.training.loop.build_state", interrupt)
    outcome = command("train", "digits", *QUICK)
    assert outcome.code == 130
    assert outcome.err == (
        "error: interrupted before the first step: run the same command again.\n"
    )
    assert tree(empty) == {}


# Attacks


def test_a_run_directory_means_its_best_and_last_checkpoints(here: Path) -> None:
    outcome = succeed("attack", AT, *PGD)
    best, last = records()
    assert (best["selection"], last["selection"]) == ("best", "last")
    assert best["weights"] == last["weights"] == "student"
    assert best["n"] == 100
    heads = [line for line in outcome.lines if not line.startswith("  ")]
    assert heads == [
        f"at {selection} student pgd-2 Linf 0.1, in float32" for selection in ("best", "last")
    ]
    rows = [line.split() for line in outcome.out.splitlines() if line.startswith("at ")]
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
                f"{robust:.2f}",
            ]
            for selection, (clean, robust, _) in (("best", counts(best)), ("last", counts(last)))
        )
    ]


def test_a_finished_attack_is_not_run_again_and_a_note_names_its_record(here: Path) -> None:
    first = succeed("attack", AT / "best.pt", *PGD)
    before = tree(here)
    again = succeed("attack", AT / "best.pt", *PGD)
    (path,) = Path("results").iterdir()
    assert again.err == (
        f"note: at best student pgd-2 Linf 0.1 is already finished, see {path}: "
        "--force repeats it.\n"
    )
    assert again.out == first.out
    assert tree(here) == before
    assert "is already finished" not in succeed("attack", AT / "best.pt", *PGD, "--force").err
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
def test_a_changed_attack_option_makes_another_record(here: Path, change: tuple[str, str]) -> None:
    succeed("attack", AT / "best.pt", *PGD)
    base = PGD if change[0] != "--suite" else PGD[2:]
    assert "is already finished" not in succeed("attack", AT / "best.pt", *base, *change).err
    assert len(list(Path("results").iterdir())) == 2


def test_the_batch_size_does_not_identify_an_attack_that_is_independent_of_it(
    here: Path,
) -> None:
    succeed("attack", AT / "best.pt", *PGD)
    assert "is already finished" in succeed("attack", AT / "best.pt", *PGD, "--batch-size", "7").err


def test_a_damaged_record_is_an_error_unless_forced(here: Path) -> None:
    succeed("attack", AT / "best.pt", *PGD)
    (path,) = Path("results").iterdir()
    path.write_text(path.read_text()[:100])
    outcome = command("attack", AT / "best.pt", *PGD)
    assert outcome.code == 1
    assert outcome.lines[-1].endswith(": give --force to repeat it.")
    succeed("attack", AT / "best.pt", *PGD, "--force")


def test_both_weights_of_a_checkpoint_are_attacked(here: Path) -> None:
    succeed("attack", ADR / "best.pt", *PGD, "--weights", "both")
    assert sorted(record["weights"] for record in records()) == ["average", "student"]
    deployed = succeed("attack", ADR / "best.pt", *PGD)
    assert "best student pgd-2 Linf 0.1 is already finished" in deployed.err


def test_n_above_the_number_of_images_means_all(here: Path) -> None:
    outcome = succeed("attack", AT, "--suite", "fgsm", "--n", "1000")
    assert outcome.notes == [
        "note: digits has 360 test images, fewer than 1,000: all of them are used."
    ]
    assert {record["n"] for record in records()} == {360}


def test_a_note_names_each_option_the_attack_ignores(here: Path) -> None:
    line = ("attack", AT, "--suite", "fgsm", "--restarts", "3", "--alpha", "0.1")
    outcome = succeed(*line, "--arch", "resnet18", "--normalize", "none")
    assert {note.partition(" is ignored")[0] for note in outcome.notes} == {
        *("note: --restarts", "note: --alpha", "note: --arch", "note: --normalize")
    }


@pytest.mark.parametrize("wrap", [False, True], ids=["bare", "wrapped"])
def test_a_third_party_state_dict_gives_the_same_outcomes_as_the_checkpoint(
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


def test_a_name_that_looks_like_markup_is_printed_verbatim(here: Path) -> None:
    """Rich's markup would take `[red]` for a style and `:key:` for an emoji."""
    state = checkpoints.load(AT / "best.pt").snapshots["student"].state
    torch.save(state, "w[red]:key:.pt")
    options = ("--arch", "small-cnn", "--dataset", "digits", "--eps", "0.1")
    outcome = succeed("attack", "w[red]:key:.pt", *options, *PGD)
    assert "w[red]:key: " in outcome.err
    assert "w[red]:key: " in outcome.out


def test_the_normalization_is_part_of_the_evaluated_model(here: Path) -> None:
    """The same file with another normalization is another model, not one "done before"."""
    state = checkpoints.load(AT / "last.pt").snapshots["student"].state
    torch.save({k: v for k, v in state.items() if k not in ("mean", "std")}, "w.pt")
    line = ("attack", "w.pt", "--arch", "small-cnn", "--dataset", "digits", *PGD)
    for normalize in ("none", "digits"):
        assert "done before" not in succeed(*line, "--normalize", normalize).err
    succeed(*line, "--normalize", "none", "--activation", "silu")
    found = records()
    assert len(found) == 3
    assert len({record["weights_sha256"] for record in found}) == 2
    assert len({record["checkpoint_sha256"] for record in found}) == 1
    assert len({record["robust_correct"] for record in found}) > 1


def test_notes_state_what_a_bare_state_dict_leaves_open(here: Path) -> None:
    state = dict(checkpoints.load(AT / "best.pt").snapshots["student"].state)
    for constant in ("mean", "std"):
        del state[constant]
    torch.save(state, "theirs.pt")
    options = ("attack", "theirs.pt", "--arch", "small-cnn", "--dataset", "digits", *PGD)
    normalization, eps = succeed(*options).notes
    assert (
        "theirs.pt contains no normalization constants: the model receives pixels" in normalization
    )
    assert "theirs.pt does not specify the eps it was trained with: eps is 8/255" in eps
    complete = ("--normalize", "none", "--eps", "8/255", "--force")
    assert succeed(*options, *complete).notes == []


@pytest.mark.slow
def test_a_zoo_model_with_local_weights_needs_no_network(here: Path) -> None:
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


def test_stdout_holds_only_the_json_or_csv(attacked: Path) -> None:
    for form, read in (
        ("json", json.loads),
        ("csv", lambda text: list(csv.reader(text.splitlines()))),
    ):
        outcome = succeed("report", "results", "--format", form)
        assert read(outcome.out)
        assert outcome.lines == []
        (note,) = outcome.notes
        assert note.startswith("note: left out: results/other.json is not an adrbench record")


def test_every_report_format_names_the_method(attacked: Path) -> None:
    for form in ("terminal", "markdown", "latex"):
        assert "adr" in succeed("report", "results", "--format", form).out


def test_list_prints_every_name_the_other_commands_accept(empty: Path) -> None:
    everything = succeed("list").out
    for name in ("digits", "wrn-D-K", "trades", "autoattack-rand", "adr paper cifar10"):
        assert name in everything
    assert succeed("list", "suites").out in everything
    assert tree(empty) == {}


def test_each_result_row_is_one_line_without_a_terminal(here: Path) -> None:
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
    assert re.search(r"\d\.\d\d$", row)


# Separate processes


def test_help_report_and_import_work_without_torch(attacked: Path) -> None:
    """The import of torch is made to fail."""
    Path("torch.py").write_text("raise ImportError('torch was imported')\n")
    for code in (
        "import adrbench; assert 'ADR' in dir(adrbench)",
        "from adrbench.cli import main; import sys; sys.argv[1:] = ['--help']; main()",
        "from adrbench.cli import main; import sys; sys.argv[1:] = ['attack', '--help']; main()",
        "from adrbench.cli import main; import sys; sys.argv[1:] = ['report', 'results']; main()",
    ):
        done = python("-W", "error", "-c", code, PYTHONPATH=f"{Path.cwd()}:{ROOT}")
        assert done.returncode == 0, done.stderr


def test_python_m_works_from_a_checkout_that_is_not_installed(attacked: Path) -> None:
    done = python("-m", "adrbench", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("adrbench ")


def test_output_works_in_encodings_other_than_utf8(attacked: Path) -> None:
    Path("łąka").mkdir()
    done = python("-m", "adrbench", "report", "łąka", PYTHONIOENCODING="latin-1")
    assert done.returncode == 1
    assert "error: no results in \\u0142" in done.stderr
    for encoding in ("latin-1", "ascii"):
        done = python("-m", "adrbench", "report", "results", PYTHONIOENCODING=encoding)
        assert done.returncode == 0, done.stderr
        assert "Robust accuracy" in done.stdout


def test_a_closed_pipe_is_no_traceback(attacked: Path) -> None:
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
