"""Records and progress of two evaluations put together: a sentence, or the right outcomes."""

import copy
import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adrbench.config.settings import AttackConfig
from adrbench.config.threat import ThreatModel
from adrbench.data import Images, load_split
from adrbench.errors import AdrbenchError, RecordError, UsageError
from adrbench.evaluation import planning
from adrbench.evaluation.begun import adopt_begun
from adrbench.evaluation.finished import find_finished
from adrbench.evaluation.identity import are_same_logits, first_logits
from adrbench.evaluation.job import Job
from adrbench.evaluation.run import run
from adrbench.evaluation.stage_runner import ProgressCallbacks
from adrbench.evaluation.state_files import progress_files
from adrbench.evaluation.targets import TargetModel, Training
from adrbench.models.architectures import build_model
from adrbench.results.records import AttackRecord, read_record, unpack_logits, write_record
from adrbench.runtime import arithmetic
from adrbench.runtime.context import Context
from logs import logged
from messages import assert_one_line

CONTEXT = Context(device=torch.device("cpu"))


@dataclass(frozen=True, kw_only=True)
class Case:
    """An evaluation of a small network on digits, before it is planned."""

    target_model: TargetModel
    images: Images
    config: AttackConfig = dataclasses.field(
        default_factory=lambda: AttackConfig(suite="pgd-2", batch_size=16)
    )

    def plan(self, out: Path, device: torch.device = CONTEXT.device) -> Job:
        _, info = load_split("digits", "test", data_dir=Path("unused"))
        logits = planning.check_fit(self.target_model, self.images, info)
        return planning.plan(
            self.target_model,
            self.config,
            test=self.images,
            info=info,
            out=out,
            clean_logits=logits,
            device=device,
        )


class OtherCode(nn.Module):
    """A network with the state dict of another one and a different forward pass."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._modules = network._modules
        self._buffers = network._buffers
        self.network = [network]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network[0](x.flip(3))
        return logits


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_model("small-cnn", num_classes=10, in_channels=1).eval()


def case() -> Case:
    images, _ = load_split("digits", "test", data_dir=Path("unused"))
    training = Training(
        method="at",
        weights="student",
        selection="best",
        selected_on="val",
        epoch=3,
        seed=0,
        settings_sha256="s",
        images_sha256="i",
    )
    return Case(
        target_model=TargetModel(
            dataset="digits",
            arch="small-cnn",
            activation="relu",
            run="p",
            checkpoint_sha256="c",
            threat_model=ThreatModel(eps=0.02),
            model=network(0),
            training=training,
        ),
        images=images.first(40),
    )


def with_target(**changes: Any) -> Callable[[Case], Case]:
    return lambda one: replace(one, target_model=replace(one.target_model, **changes))


def with_training(**changes: Any) -> Callable[[Case], Case]:
    def change(one: Case) -> Case:
        training = replace(one.target_model.training, **changes)
        return replace(one, target_model=replace(one.target_model, training=training))

    return change


def with_config(**changes: Any) -> Callable[[Case], Case]:
    return lambda one: replace(one, config=replace(one.config, **changes))


def with_other_code(one: Case) -> Case:
    model = OtherCode(one.target_model.model)
    assert model.state_dict().keys() == one.target_model.model.state_dict().keys()
    return replace(one, target_model=replace(one.target_model, model=model.eval()))


def with_other_outputs(one: Case) -> Case:
    """Return a case whose model doubles its logits by a hook, which is not code of a module."""
    model = copy.deepcopy(one.target_model.model)
    model.register_forward_hook(lambda module, inputs, logits: 2 * logits)
    return replace(one, target_model=replace(one.target_model, model=model))


#: What differs -> how, and how the error names it.
OF_OUTCOMES: dict[str, tuple[Callable[[Case], Case], str]] = {
    "weights": (with_target(model=network(1)), r"weights_sha256 \w{12}, not \w{12}"),
    "code": (with_other_code, "the code of the model has changed"),
    "outputs": (with_other_outputs, "the model has the same weights but different outputs"),
    "architecture": (with_target(arch="other"), "arch other, not small-cnn"),
    "activation": (with_target(activation="silu"), "activation silu, not relu"),
    "set of weights": (with_training(weights="average"), "weights average, not student"),
    "number of images": (lambda one: replace(one, images=one.images.first(39)), "n 39, not 40"),
    "images": (
        lambda one: replace(one, images=one.images.take(torch.arange(39, -1, -1))),
        r"data_sha256 \w{12}, not",
    ),
    "eps": (
        with_target(threat_model=ThreatModel(eps=0.03)),
        r"threat_model Linf 0\.03, not Linf 0\.02",
    ),
    "norm": (
        with_target(threat_model=ThreatModel(norm="L2", eps=0.02)),
        "threat_model L2 .*, not Linf",
    ),
    "arithmetic": (with_config(precision="float16"), "searched float16, not float32"),
    "suite": (with_config(suite="pgd-3"), "suite pgd-3, not pgd-2"),
    "step size": (with_config(alpha=0.001), r"parameters .*'alpha': 0\.001"),
    "restarts": (with_config(restarts=2), "parameters .*'restarts': 2"),
    "attack seed": (with_config(seed=1), "attack_seed 1, not 0"),
}
#: What outcomes do not depend on, but a table shows.
OF_NAMES: dict[str, tuple[Callable[[Case], Case], str]] = {
    "run": (with_target(run="q"), "run q, not p"),
    "method": (with_training(method="trades"), "method trades, not at"),
    "training seed": (with_training(seed=5), "seed 5, not 0"),
    "selection": (with_training(selection="last"), "selection last, not best"),
    "epoch": (with_training(epoch=4), "epoch 4, not 3"),
}


def attack(job: Job, *, force: bool = False) -> AttackRecord:
    """Return the record of a job as `adrbench attack` does, which runs it if need be."""
    record = None if force else find_finished(job, CONTEXT)
    return record or run(job, CONTEXT, force=force, save_adversarial=None)


class Killed(BaseException):
    """Ends an evaluation without any of its cleanup, as SIGKILL would."""


def start(job: Job, *, force: bool = False) -> Path:
    """Begin an evaluation, kill it after a batch, and return the file with its progress."""

    def kill(stage: str, done: int, total: int, survivors: int) -> None:
        if done:
            raise Killed

    with pytest.raises(Killed):
        run(job, CONTEXT, ProgressCallbacks(on_batch=kill), force=force, save_adversarial=None)
    (file,) = progress_files(job, 0).files()
    return file


def outcomes(record: AttackRecord) -> object:
    return record.run, record.clean_correct, record.verdicts, record.parameters, record.batch_size


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


@pytest.mark.parametrize("what", OF_OUTCOMES | OF_NAMES)
def test_the_record_of_another_evaluation_is_refused(what: str, tmp_path: Path) -> None:
    change, words = (OF_OUTCOMES | OF_NAMES)[what]
    job, other = case().plan(tmp_path), change(case()).plan(tmp_path / "other")
    right = attack(case().plan(tmp_path / "right"))
    attack(other)
    shutil.copy(other.path, job.path)
    before = contents(tmp_path)
    with pytest.raises(RecordError, match=rf"is the record of another evaluation \({words}") as got:
        attack(job)
    assert "--force to replace it" in str(got.value)
    assert_one_line(str(got.value))
    assert contents(tmp_path) == before
    assert outcomes(attack(job, force=True)) == outcomes(right)
    assert read_record(job.path) == attack(job)


@pytest.mark.parametrize("what", OF_OUTCOMES)
def test_the_progress_of_another_evaluation_is_refused(what: str, tmp_path: Path) -> None:
    job, other = case().plan(tmp_path), OF_OUTCOMES[what][0](case()).plan(tmp_path / "other")
    right = attack(case().plan(tmp_path / "right"))
    place = progress_files(job, 0).own_file
    shutil.copy(start(other), place)
    before = contents(tmp_path)
    with pytest.raises(RecordError, match="contains the progress of another evaluation"):
        attack(job)
    assert contents(tmp_path) == before
    assert outcomes(attack(job, force=True)) == outcomes(right)
    assert not place.exists()


@pytest.mark.parametrize("what", OF_NAMES)
def test_progress_of_the_same_outcomes_under_another_name_counts(what: str, tmp_path: Path) -> None:
    job, other = case().plan(tmp_path), OF_NAMES[what][0](case()).plan(tmp_path / "other")
    right = attack(case().plan(tmp_path / "right"))
    shutil.copy(start(other), progress_files(job, 0).own_file)
    assert outcomes(attack(job)) == outcomes(right)


@pytest.mark.parametrize("content", ["{", None])
def test_a_forced_evaluation_that_is_interrupted_is_resumed(
    tmp_path: Path, content: str | None
) -> None:
    """It replaces a broken record, or one of another evaluation."""
    job, right = case().plan(tmp_path), attack(case().plan(tmp_path / "right"))
    other = with_target(run="q")(case()).plan(tmp_path)
    attack(other)
    job.path.write_text(content or other.path.read_text())
    start(job, force=True)
    assert outcomes(attack(job)) == outcomes(right)


def test_the_own_record_is_kept_until_a_forced_evaluation_is_finished(tmp_path: Path) -> None:
    job = case().plan(tmp_path)
    record = attack(job)
    start(job, force=True)
    assert read_record(job.path) == record


def test_the_batch_size_counts_for_progress_and_where_outcomes_depend_on_it(tmp_path: Path) -> None:
    job, other = (with_config(batch_size=size)(case()).plan(tmp_path) for size in (16, 8))
    assert job.path == other.path
    start(other)
    with pytest.raises(RecordError, match="other settings such as --batch-size"):
        attack(job)
    record = attack(other)
    assert attack(job) == record, "the outcomes of PGD do not depend on it"
    sizes = ({"suite": "apgd-ce", "batch_size": size} for size in (16, 8))
    job, other = (with_config(**changes)(case()).plan(tmp_path) for changes in sizes)
    assert job.path != other.path
    attack(other)
    shutil.copy(other.path, job.path)
    with pytest.raises(RecordError, match="batch_size 8, not 16"):
        attack(job)


def test_a_record_holds_the_clean_logits_of_its_first_images(tmp_path: Path) -> None:
    one = case()
    job = one.plan(tmp_path)
    record = attack(job)
    assert record.clean_logits is not None
    logits = torch.from_numpy(unpack_logits(record.clean_logits, 10))
    with torch.no_grad():
        expected = one.target_model.model(one.images.first(8).pixels / 255)
    assert torch.equal(logits, expected)


def test_a_record_without_logits_counts_by_its_weights(tmp_path: Path) -> None:
    job = case().plan(tmp_path)
    record = replace(attack(job), clean_logits=None)
    write_record(job.path, record)
    assert attack(job) == record


@pytest.mark.parametrize(
    "change",
    [
        {"robust_correct": 0},
        {"clean_correct": 40},
        {"verdicts": {"clean": "", "robust": ""}},
        {"verdicts": {"clean": "AAAA", "robust": "AAAA"}},
        {"stages": [{"name": "pgd-2", "survivors": 0, "seconds": 1.0}]},
        {"clean_logits": "?"},
        {"clean_logits": "AAAA"},
    ],
    ids=str,
)
def test_a_record_that_contradicts_itself_is_refused(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    job = case().plan(tmp_path)
    record = attack(job)
    assert 0 < record.robust_correct <= record.clean_correct < 40
    job.path.write_text(json.dumps(json.loads(job.path.read_text()) | change))
    with pytest.raises(RecordError, match=r"\.json .*--force") as caught:
        attack(job)
    assert_one_line(str(caught.value))
    assert attack(job, force=True).verdicts == record.verdicts


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "is not readable as JSON"), ("[]", "is not an adrbench record")],
)
def test_a_broken_record_is_refused(tmp_path: Path, content: str, words: str) -> None:
    job = case().plan(tmp_path)
    job.path.write_text(content)
    with pytest.raises(RecordError, match=rf"{words}.*: give --force to repeat it"):
        attack(job)
    assert job.path.read_text() == content


def test_a_randomized_model_has_the_same_logits_every_time() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) + torch.randn(len(x), 64)

    images = case().images
    state = torch.random.get_rng_state()
    one = first_logits(Noisy(), images)
    assert one.shape == (8, 64)
    assert are_same_logits(one, first_logits(Noisy(), images))
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_name_of_a_record_that_would_be_too_long(tmp_path: Path) -> None:
    long = with_target(run="r" * 230)(case())
    with pytest.raises(
        AdrbenchError, match=r"the name of .* is too long by \d+ bytes for its file"
    ):
        long.plan(tmp_path)
    fitting = with_target(run="r" * 200)(case()).plan(tmp_path)
    start(fitting)
    assert attack(fitting).run == "r" * 200


def test_a_search_in_tf32_counts_for_records_and_not_for_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arithmetic, "has_tensor_cores", lambda device: True)
    job, other = (
        with_config(precision=precision)(case()).plan(tmp_path) for precision in ("float32", "tf32")
    )
    assert job.path == other.path
    start(other)
    with pytest.raises(RecordError, match="other settings such as --batch-size or --precision"):
        attack(job)
    record = attack(other)
    assert (record.searched, record.judged) == ("tf32", "float32")
    assert attack(job) == record


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Return a device that has TF32, though it is the CPU."""
    device = torch.device("cpu", 7)
    monkeypatch.setattr(arithmetic, "has_tensor_cores", lambda one: one == device)
    return device


def test_auto_resumes_a_search_in_the_arithmetic_in_which_it_was_begun(
    tmp_path: Path, gpu: torch.device
) -> None:
    """Progress in float32 is resumed on a GPU, where auto means TF32, by the same command."""
    automatic, tf32 = (with_config(precision=one)(case()) for one in ("auto", "tf32"))
    start(automatic.plan(tmp_path))
    job = automatic.plan(tmp_path, gpu)
    assert job.searched == "tf32"
    with logged() as messages:
        resumed = adopt_begun(job, gpu)
    assert messages == [f"resuming {job.label} in float32, in which its search was begun."]
    assert attack(resumed).searched == "float32"
    assert adopt_begun(job, gpu) is job, "nothing is left to resume"
    start(tf32.plan(tmp_path, gpu), force=True)
    assert adopt_begun(job, gpu) is job
    explicit = with_config(precision="float32")(case()).plan(tmp_path, gpu)
    assert adopt_begun(explicit, gpu) is explicit


def test_a_search_in_tf32_is_not_resumed_without_it(tmp_path: Path, gpu: torch.device) -> None:
    start(with_config(precision="auto")(case()).plan(tmp_path, gpu))
    before = contents(tmp_path)
    job = with_config(precision="auto")(case()).plan(tmp_path)
    with pytest.raises(UsageError) as caught:
        adopt_begun(job, CONTEXT.device)
    assert str(caught.value) == (
        f"the search of {job.label} was begun in tf32, which cpu does not have: resume it on a GPU "
        "that has it, or give another --out, or --force to start over."
    )
    assert contents(tmp_path) == before


def test_progress_of_another_evaluation_is_not_adopted(tmp_path: Path, gpu: torch.device) -> None:
    job = with_config(precision="auto")(case()).plan(tmp_path)
    file = start(with_config(precision="auto", seed=1)(case()).plan(tmp_path / "other", gpu))
    shutil.copy(file, progress_files(job, 0).own_file)
    assert adopt_begun(job, CONTEXT.device) is job
    with pytest.raises(RecordError, match="contains the progress of another evaluation"):
        attack(job)


def test_a_record_without_the_arithmetic_of_its_search_searched_in_float32(tmp_path: Path) -> None:
    job = case().plan(tmp_path)
    attack(job)
    stored = json.loads(job.path.read_text())
    for name in ("searched", "judged", "rechecked"):
        del stored[name]
    job.path.write_text(json.dumps(stored))
    assert attack(job).searched == "float32"
    other = with_config(precision="float16")(case()).plan(tmp_path)
    shutil.copy(job.path, other.path)
    with pytest.raises(RecordError, match="searched float32, not float16"):
        attack(other)
