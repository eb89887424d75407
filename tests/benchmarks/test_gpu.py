"""The benchmark of a GPU: limited parts, rows by hand, and every part in tiny sizes on a CPU."""

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adrbench.results.history import Counts, HistoryRow
from adrbench.runtime.arithmetic import ARITHMETICS, TOLERANCES
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.autoattack import (
    count_changes,
    describe,
    load_target,
    measure_officially,
    measure_ours,
)
from benchmarks.gpu.gradients import list_gradients
from benchmarks.gpu.rounding import list_roundings
from benchmarks.gpu.sizes import SIZES, Bench
from benchmarks.gpu.training import make_epoch_row, make_step_row
from benchmarks.harness.parts import Measurement, Part, Row, Section, run_parts, without_folders
from benchmarks.harness.timing import Timing
from tiny import build_trained

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
TINY = Bench(device=CPU, sizes=SIZES["cpu", True], rounds=1)


def make_row(name: str) -> Row:
    return Row(name=name, cells={"": name, "n": "1"}, facts={"n": 1})


def make_part(name: str, *measures: Callable[[], Row], share: float = 1.0) -> Part:
    def list_measurements() -> Iterator[Measurement]:
        yield from ((f"{name} {index}", measure) for index, measure in enumerate(measures))

    return Part(name=name, compared="", share=share, measurements=list_measurements)


def run(*parts: Part, seconds: float = 60.0) -> tuple[list[Section], list[int]]:
    """Return the sections, and the number of rows at every call of `save`."""
    saved: list[int] = []
    sections = run_parts(
        parts,
        seconds=seconds,
        device=CPU,
        save=lambda sections: saved.append(sum(len(one.rows) for one in sections)),
    )
    return sections, saved


def test_a_part_is_stopped_at_its_limit_and_keeps_its_rows() -> None:
    def catch_everything() -> Row:
        try:
            time.sleep(20)
        except Exception:  # as measured code may
            return make_row("caught")
        return make_row("slept")

    began = time.perf_counter()
    long = make_part("long", lambda: make_row("quick"), catch_everything, share=0.05)
    (stopped, after), saved = run(long, make_part("after", lambda: make_row("next"), share=0.95))
    assert time.perf_counter() - began < 15
    assert [row.name for row in stopped.rows] == ["quick"]
    assert stopped.problems == ["Stopped at its limit of 3 s, in long 1."]
    assert not stopped.has_failed
    assert [row.name for row in after.rows] == ["next"]
    assert saved == [1, 1, 2, 2]


def test_a_measurement_that_raises_is_reported_and_the_others_follow(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> Row:
        raise FileNotFoundError(2, "No such file or directory", "/home/someone/weights.pt")

    def list_nothing() -> Iterator[Measurement]:
        raise ValueError("no model")

    broken = Part(name="broken", compared="", share=1.0, measurements=list_nothing)
    (first, second), _ = run(make_part("first", fail, lambda: make_row("row")), broken)
    assert first.problems == [
        "first 0 raised FileNotFoundError: [Errno 2] No such file or directory: 'weights.pt'."
    ]
    assert [row.name for row in first.rows] == ["row"]
    assert second.problems == ["broken raised ValueError: no model."]
    assert first.has_failed
    assert second.has_failed
    assert "Traceback" in capsys.readouterr().err


def test_a_part_has_its_share_and_what_earlier_ones_left() -> None:
    """The first part has half of the minute and needs almost nothing of it."""
    quick, half = make_part("quick", lambda: make_row("row")), make_part("half")
    (first, second), _ = run(quick, half)
    assert first.limit_seconds == pytest.approx(30, abs=0.2)
    assert 50 < second.limit_seconds <= 60


def test_a_part_without_time_is_not_started() -> None:
    def use_up() -> Row:
        time.sleep(0.2)
        return make_row("row")

    first = make_part("first", use_up, share=0.5)
    (_, second), _ = run(first, make_part("second", use_up, share=0.0), seconds=0.1)
    assert (second.rows, second.problems) == ([], ["Not started, since no time was left."])
    page = gpu.render_section(second.to_json())
    assert page == ("## second\n\n- Not started, since no time was left.\n\nTook 0 s of at most 0.")


def test_warnings_are_on_the_page_once() -> None:
    def warn() -> Row:
        logging.getLogger("adrbench.training").warning("running without a CUDA graph: a reason.")
        return make_row("row")

    (section,), _ = run(make_part("part", warn, warn))
    assert section.problems == ["running without a CUDA graph: a reason."]
    assert not section.has_failed
    page = gpu.render_section(section.to_json())
    assert "- running without a CUDA graph: a reason." in page
    assert page.count("| row ") == 2


def test_folders_are_removed_and_fractions_stay() -> None:
    text = "eps 8/255 in /a/b-c/d.py or '/tmp/x.pt', cut -t/10"
    assert without_folders(text) == "eps 8/255 in d.py or 'x.pt', cut -t/10"


def test_a_step_by_hand() -> None:
    """128 images in 0.02 s are 6,400 a second; the reference needs four times as long."""
    timings = {
        "ours": Timing(name="ours", samples=(0.01, 0.02, 0.03)),
        "reference": Timing(name="reference", samples=(0.08, 0.08, 0.08)),
    }
    facts = {"precision": "bfloat16", "compiled": True, "first_step_seconds": 50.0}
    row = make_step_row("row", 128, timings, facts)
    assert row.facts["ratio"] == pytest.approx(4.0)
    assert row.cells["images/s"] == "6,400 / 1,600"
    assert (row.cells["compiled"], row.cells["first step"]) == ("yes", "50.0 s")


def test_an_epoch_by_hand() -> None:
    """1,000 images at 100 a second take 10 s of 12.5, which leaves a fifth for the validation."""
    history = HistoryRow(
        epoch=1,
        train_loss=1.0,
        lr=0.1,
        annealed={},
        select="val",
        select_n=50,
        criterion="robust",
        counts={"student": Counts(clean_correct=1, robust_correct=1)},
        images_per_second=100.0,
        seconds=12.5,
    )
    row = make_epoch_row("row", history, 1_000)
    assert row.facts["validation_seconds"] == pytest.approx(2.5)
    assert row.cells["share"] == "20.0%"


def test_changed_outcomes_by_hand() -> None:
    ours, others = torch.tensor([[1, 1, 0, 0, 1], [1, 0, 1, 1, 1]]).bool()
    assert count_changes(ours, others) == {
        "only_here_fooled": 2,
        "only_here_robust": 1,
        "net": -1,
    }


def test_autoattack_takes_a_state_dict_and_images(tmp_path: Path) -> None:
    """A model that is labeled by itself is right about every image; another one is not."""
    model = build_trained("small-cnn").eval()
    weights, images = tmp_path / "model.pt", tmp_path / "images.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        labels = model(x).argmax(1).numpy()
    torch.save({key: value.half() for key, value in model.state_dict().items()}, weights)
    np.savez(images, x_test=pixels, y_test=labels)
    bench = replace(TINY, weights=weights, images=images)
    target = load_target(bench)
    assert torch.equal(target.images.labels, torch.from_numpy(labels[:4]))
    assert target.threat.eps == pytest.approx(8 / 255)
    assert "AutoAttack on model.pt. Images: the first 4 of images; eps 8/255" in describe(bench)
    ours_alone = measure_ours(bench, target, "no flags", "auto")
    assert "ratio" not in ours_alone.cells
    official = measure_officially(bench, target)
    ours = measure_ours(bench, target, "no flags", "auto")
    assert ours.facts["clean_correct"] == 4
    assert ours.facts["ratio"] == official.facts["seconds"] / ours.facts["seconds"]
    changed = ours.facts["robust_correct"] - official.facts["robust_correct"]
    assert ours.facts["net"] == changed
    assert ours.facts["stage_seconds"].keys() <= ours.cells.keys()


def test_roundings_are_compared_with_float32_of_the_same_slice() -> None:
    sizes = replace(TINY.sizes, images=5)
    bench = replace(TINY, sizes=sizes)
    target = load_target(bench)
    listed = dict(list_roundings(bench, target))
    assert [name.split(":")[0] for name in listed] == ["images 0 to 1"] * 4 + ["images 2 to 3"] * 4
    rows = [measure() for measure in list(listed.values())[:3]]
    assert [row.facts["layout"] for row in rows] == ["channels last", "channels last", "NCHW"]
    assert [row.facts["n"] for row in rows] == [2, 2, 2]
    assert rows[1].facts["net"] == 0, "on a CPU, the search without flags is in float32, too"


def test_without_a_gpu_it_refuses_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--out", str(tmp_path / "out")])
    with pytest.raises(ValueError, match="finds no GPU") as raised:
        gpu.main()
    assert str(raised.value).count(". ") == 0
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_reported_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = tmp_path / "model.pt"
    flags = ["--device", "cpu", "--quick", "--weights", str(missing)]
    monkeypatch.setattr(sys, "argv", ["gpu", *flags, "--out", str(tmp_path / "out")])
    with pytest.raises(ValueError, match="does not exist") as raised:
        gpu.main()
    assert str(raised.value).startswith(str(missing))
    assert not (tmp_path / "out").exists()


@pytest.mark.gpu
def test_gradients_on_a_gpu_in_every_arithmetic() -> None:
    sizes = replace(TINY.sizes, arch="resnet18", gradient_batch=16)
    bench = Bench(device=torch.device("cuda"), sizes=sizes, rounds=1)
    rows = [measure() for _, measure in list_gradients(bench)]
    assert [row.facts["arithmetic"] for row in rows] == list(ARITHMETICS)
    for row in rows:
        assert row.facts["differences"]["logits"] <= TOLERANCES[row.facts["arithmetic"]]
        assert min(row.facts["teraflops"].values()) > 0


@pytest.mark.slow
def test_every_part_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--quick", "--rounds=1"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    written: dict[str, Any] = json.loads((tmp_path / gpu.FIGURES).read_text())
    assert [section["name"] for section in written["sections"]] == list(gpu.list_parts(TINY))
    page = (tmp_path / gpu.PAGE).read_text()
    assert page in done.stdout
    for section in written["sections"]:
        assert section["rows"], section
        assert not section["has_failed"]
    steps = written["sections"][0]["rows"]
    assert [row["facts"]["facts"]["compiled"] for row in steps] == [False, False, True, True]
    assert str(tmp_path) not in page
    assert str(ROOT) not in page
