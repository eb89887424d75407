"""`adrbench attack --outputs`: a file beside each record, which nothing needs later."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import adrbench
from adrbench.evaluation import run as runs
from adrbench.results.outputs import Outputs, read_outputs
from adrbench.results.records import AttackRecord, read_record, write_record
from messages import assert_one_sentence
from runner import command, succeed, train_in

RUN = Path("checkpoints/run/best.pt")
LINE = ("attack", RUN, "--suite", "pgd-2", "--n", "60")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_in(tmp_path_factory.mktemp("trained"))


@pytest.fixture(autouse=True)
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("checkpoints").symlink_to(trained / "checkpoints")


def records() -> dict[Path, AttackRecord]:
    found = {path: read_record(path) for path in sorted(Path("results").glob("*.json"))}
    return {path: one for path, one in found.items() if isinstance(one, AttackRecord)}


def only() -> tuple[Path, AttackRecord, Outputs]:
    ((path, record),) = records().items()
    assert record.outputs is not None
    assert record.outputs.name == path.with_suffix(".npz").name
    return path, record, read_outputs(path.with_suffix(".npz"), record.outputs)


def without_outputs() -> dict[str, Any]:
    ((path, _),) = records().items()
    record: dict[str, Any] = json.loads(path.read_text())
    return {name: value for name, value in record.items() if name != "outputs"}


def test_each_record_has_a_file_of_its_own() -> None:
    succeed(*LINE[:2], "--suite", "fgsm,pgd-2", "--eps", "0.02,0.1", "--n", "60", "--outputs")
    found = records()
    assert len(found) == 4
    kept = [
        read_outputs(path.with_suffix(".npz"), record.outputs)
        for path, record in found.items()
        if record.outputs is not None
    ]
    assert sorted(round(float(one.linf.max()), 3) for one in kept) == [0.02, 0.02, 0.1, 0.1]
    assert all(one.clean_logits.shape == (60, 10) for one in kept)
    assert all(one.class_names == tuple("0123456789") for one in kept)
    for path, record in found.items():
        correct = np.load(path.with_suffix(".npz"))["adversarial_logits"].argmax(1)
        assert (correct == kept[0].labels).sum() >= record.robust_correct
    assert sorted(path.suffix for path in Path("results").iterdir()) == 4 * [".json"] + 4 * [".npz"]


def test_outputs_are_added_to_a_finished_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    succeed(*LINE)
    before = without_outputs()
    outcome = succeed(*LINE, "--outputs")
    assert any("already finished" in note and "only its outputs" in note for note in outcome.notes)
    assert without_outputs() == before
    path, _, outputs = only()
    content = path.with_suffix(".npz").read_bytes()
    path.with_suffix(".npz").unlink()
    path.unlink()
    succeed(*LINE, "--outputs")
    np.testing.assert_allclose(
        only()[2].adversarial_logits, outputs.adversarial_logits, rtol=1e-4, atol=1e-5
    )
    assert len(content) > 1000

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing is computed again")

    monkeypatch.setattr(runs, "perform", refuse)
    assert any("--force repeats it" in note for note in succeed(*LINE, "--outputs").notes)


def test_an_evaluation_repeated_without_outputs_leaves_no_file_of_them() -> None:
    succeed(*LINE, "--outputs")
    path, _, _ = only()
    succeed(*LINE, "--force")
    assert list(Path("results").iterdir()) == [path]
    assert records()[path].outputs is None


def test_a_record_of_another_evaluation_is_replaced_with_its_outputs() -> None:
    succeed(*LINE, "--outputs")
    path, record, _ = only()
    write_record(path, replace(record, data_sha256="0" * 64))
    succeed(*LINE, "--force")
    assert list(Path("results").iterdir()) == [path]


@pytest.mark.parametrize("is_described", [True, False])
def test_a_file_that_no_record_describes_is_kept(is_described: bool) -> None:
    """Whether the record has outputs of that name, or none."""
    succeed(*LINE, *(["--outputs"] if is_described else []))
    ((path, _),) = records().items()
    path.with_suffix(".npz").write_bytes(b"a user's own")
    succeed(*LINE, "--force")
    assert path.with_suffix(".npz").read_bytes() == b"a user's own"


@pytest.mark.parametrize("content", [None, b"damaged"])
def test_the_file_may_be_missing_or_damaged(content: bytes | None) -> None:
    succeed(*LINE, "--outputs")
    path, record, outputs = only()
    file = path.with_suffix(".npz")
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    before = path.read_text()
    assert "--force repeats it" in succeed(*LINE).notes[0]
    succeed("report", "results")
    assert len(adrbench.load_results("results")) == 1
    assert path.read_text() == before
    succeed(*LINE, "--outputs")
    _, again, computed = only()
    assert again.verdicts == record.verdicts
    np.testing.assert_allclose(
        computed.adversarial_logits, outputs.adversarial_logits, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("batch_size", ["25", "20"])
def test_a_kill_while_outputs_are_added_loses_neither_record_nor_batches(
    batch_size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of another size are attacked again."""
    succeed(*LINE)
    ((path, _),) = records().items()
    before = path.read_text()
    with monkeypatch.context() as patch:
        patch.setattr(runs, "save_outputs", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert command(*LINE, "--batch-size", "25", "--outputs").code == 130
    assert path.read_text() == before
    assert len(list(Path("results").glob(".*.outputs.2-*.npz"))) == 3
    succeed(*LINE, "--batch-size", batch_size, "--outputs")
    _, record, outputs = only()
    assert len(outputs.labels) == record.n
    assert len(list(Path("results").iterdir())) == 2


@pytest.mark.parametrize("suite", ["autoattack", "square", "fab-t", "apgd-t", "clean"])
def test_other_suites_are_refused_before_any_work(suite: str) -> None:
    outcome = command(*LINE[:2], "--suite", f"pgd-2,{suite}", "--outputs")
    assert outcome.code == 2
    assert_one_sentence(outcome.err.removeprefix("error: ").strip())
    assert f"suite {suite} has no" in outcome.err
    assert "pgd-20, cw or apgd-ce" in outcome.err
    assert not Path("results").exists()


def test_the_examples_cannot_be_saved_in_the_file_of_the_outputs() -> None:
    succeed(*LINE)
    ((path, _),) = records().items()
    name = path.with_suffix(".npz")
    outcome = command(*LINE, "--force", "--outputs", "--save-adversarial", name)
    assert outcome.code == 2
    assert "which is the file of the outputs" in outcome.err
    assert not name.exists()
