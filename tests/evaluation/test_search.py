"""Attacks that search in another arithmetic than the one in which outcomes are judged."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adrbench
from adrbench.attacks.early_exit import EarlyExit
from adrbench.attacks.find_suite import build_suite
from adrbench.attacks.finite_logits import FiniteLogits
from adrbench.attacks.pgd import PGD
from adrbench.attacks.suites import Suite
from adrbench.config.settings import AttackConfig
from adrbench.config.threat import ThreatModel
from adrbench.errors import UsageError
from adrbench.evaluation import search
from adrbench.evaluation.adversarial import KINDS, SUCCESS
from adrbench.evaluation.batch_files import BatchesInMemory
from adrbench.evaluation.evaluate import Evaluation, evaluate
from adrbench.evaluation.progress import ProgressFiles
from adrbench.evaluation.stage_runner import ProgressCallbacks
from adrbench.models.architectures import build_model
from adrbench.runtime.arithmetic import Arithmetic, arithmetic_of_search, searching_in
from killed_store import KilledAfter
from logs import logged
from tiny import Linear, labelled_by, make_images

THREAT = ThreatModel(eps=0.2)
MODEL = Linear()
IMAGES = labelled_by(MODEL, make_images(40))
STEPS = 5


@dataclasses.dataclass
class Stepping:
    """A stage that moves each image by further and further steps, and stops where it is fooled."""

    label_loss = None
    name: str = "stepping"
    direction: float = 1.0
    arithmetics: tuple[Arithmetic, ...] = ()

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        self.arithmetics += (arithmetic_of_search(),)
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model(x).gather(1, y[:, None]).sum(), x)
        step = -self.direction * 0.2 / STEPS * gradient.sign()
        found = x.detach()
        for _ in range(STEPS):
            with torch.no_grad():
                is_fooled = model(found).argmax(1) != y
            moved = (found + step).clamp(0, 1)
            found = torch.where(is_fooled.view(-1, 1, 1, 1), found, moved)
        return found


class Nervous(nn.Module):
    """A coarse form of a model: it mistakes every third image once its mean has changed at all."""

    def __init__(self, exact: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.exact = exact
        self.means = images[::3].mean((1, 2, 3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.exact(x)
        distance = (x.mean((1, 2, 3))[:, None] - self.means).abs()
        near, at = distance.min(1).values < 0.05, distance.min(1).values < 1e-6
        return torch.where((near & ~at)[:, None], -logits, logits)


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = IMAGES.pixels / 255
    monkeypatch.setattr(
        search, "reduce_precision", lambda frozen, arithmetic, x: Nervous(frozen, pixels)
    )


def run(*stages: Stepping, searched: Arithmetic = "bfloat16", **more: Any) -> Evaluation:
    suite = Suite(name="made", stages=stages, parameters={})
    return evaluate(MODEL, IMAGES, suite, THREAT, batch_size=7, searched=searched, **more)


def counts(result: Evaluation) -> dict[str, int]:
    return {stage.name: stage.survivors for stage in result.stages}


@pytest.mark.usefixtures("coarse")
def test_what_only_the_search_calls_fooled_is_attacked_again_in_float32() -> None:
    exact = run(Stepping(), searched="float32")
    assert 0 < exact.robust_correct < exact.clean_correct
    assert (exact.rechecked, list(counts(exact))) == (0, ["stepping"])
    stage = Stepping()
    result = run(stage)
    assert torch.equal(result.robust, exact.robust)
    assert list(counts(result)) == ["stepping", "recheck"]
    assert counts(result)["stepping"] > counts(result)["recheck"] == exact.robust_correct
    fooled_again = counts(result)["stepping"] - counts(result)["recheck"]
    assert result.rechecked >= fooled_again > 0
    num_batches = len(stage.arithmetics)
    assert stage.arithmetics[0] == "bfloat16"
    assert stage.arithmetics[-1] == "float32"
    assert num_batches == 6 + -(-result.rechecked // 7)
    assert arithmetic_of_search() == "float32"


@pytest.mark.usefixtures("coarse")
def test_an_image_that_a_later_attack_fools_is_not_attacked_again() -> None:
    """The second stage succeeds on what the first one left, so only its own failures remain."""

    class Exact(Stepping):
        def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
            return super().perturb(MODEL, x, y, indices)

    result = run(Stepping(), Exact(name="exact"))
    exact = run(Stepping(), searched="float32")
    assert torch.equal(result.robust, exact.robust)
    assert counts(result)["stepping"] > counts(result)["exact"] == exact.robust_correct
    assert result.rechecked < run(Stepping()).rechecked


@pytest.mark.usefixtures("coarse")
def test_the_examples_of_the_second_attack_are_kept() -> None:
    result = run(Stepping(), example_store=BatchesInMemory())
    examples = result.adversarial
    assert examples is not None
    assert examples.stage_names == ("clean", "stepping", "recheck")
    is_fooled = result.clean & ~result.robust
    with torch.no_grad():
        predicted = MODEL(examples.x_adv).argmax(1)
    assert torch.equal(
        predicted[result.clean] != IMAGES.labels[result.clean], is_fooled[result.clean]
    )
    of_recheck = (examples.stages == 2) & (examples.kinds == KINDS.index(SUCCESS))
    assert int(of_recheck.sum()) == counts(result)["stepping"] - counts(result)["recheck"]


class Upset(Linear):
    """A model that a pass in training mode turns upside down for good."""

    sign: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sign", torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.sign.fill_(-1)
        return self.sign * super().forward(x)


class Careless(Stepping):
    """A stage that leaves the model in training mode, and the images as they are."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        model.train()(x)
        return x


def test_a_stage_of_the_second_attack_does_not_change_the_model_for_the_next() -> None:
    x, y, indices = IMAGES.pixels / 255, IMAGES.labels, torch.arange(40)
    alone, after_careless = (
        search.Recheck(stages, THREAT).perturb(Upset().eval(), x, y, indices)
        for stages in ([Stepping()], [Careless(), Stepping()])
    )
    assert torch.equal(after_careless, alone)
    assert not torch.equal(alone, x)


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("is_known", [True, False])
def test_the_passes_of_the_second_attack_are_displayed_with_their_total(is_known: bool) -> None:
    """PGD makes a pass per step, and the model is judged once after each of its two stages."""
    seen = []

    def on_pass(stage: str, done: int, expected: int, n: int) -> None:
        if stage == "recheck":
            seen.append((done, expected))

    first, second = (PGD(steps=3, name=name).bind(THREAT, 3, 0) for name in ("first", "second"))
    suite = Suite(name="made", stages=(first, second if is_known else Stepping()), parameters={})
    callbacks = ProgressCallbacks(on_pass=on_pass)
    evaluate(MODEL, IMAGES, suite, THREAT, batch_size=40, searched="bfloat16", callbacks=callbacks)
    assert {expected for _, expected in seen} == {8 if is_known else 0}
    if is_known:
        assert max(done for done, _ in seen) == 8


class Noisy(Linear):
    """A model whose logits vary from pass to pass."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.5 * torch.randn(len(x), 3)


def test_a_randomized_model_is_not_attacked_again() -> None:
    """Its passes differ for other reasons than the arithmetic."""
    suite = Suite(name="made", stages=(Stepping(),), parameters={})
    result = evaluate(Noisy(), IMAGES, suite, THREAT, batch_size=7, searched="tf32")
    assert (result.rechecked, list(counts(result))) == (0, ["stepping"])


def test_a_suite_without_an_attack_does_not_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adrbench.runtime.arithmetic.has_tensor_cores", lambda device: True)
    x, y = IMAGES.pixels / 255, IMAGES.labels
    result = adrbench.evaluate(MODEL, x, y, suite="clean", precision="tf32")
    assert result.record.searched == "float32"


class Uncountable(Linear):
    """A model that does not run while its operations are counted."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.utils._python_dispatch._get_current_dispatch_mode() is not None:
            raise RuntimeError("not in this mode")
        return super().forward(x)


@pytest.mark.usefixtures("coarse")
def test_a_killed_search_ends_in_the_same_outcomes(tmp_path: Path) -> None:
    whole = run(Stepping(), Stepping(name="back", direction=-1))
    assert whole.rechecked > 0
    for allowed in range(100):
        files = ProgressFiles(stem=tmp_path / str(allowed), fingerprint="f", n=40, rank=0)
        stages = (Stepping(), Stepping(name="back", direction=-1))
        try:
            run(*stages, progress_store=KilledAfter(files, allowed))
        except KeyboardInterrupt:
            pass
        else:
            break
        resumed = run(*stages, progress_store=files)
        assert torch.equal(resumed.robust, whole.robust)
        assert counts(resumed) == counts(whole)
        assert resumed.rechecked == whole.rechecked
    assert allowed > 10


def test_a_search_that_is_always_confirmed_has_no_further_stage() -> None:
    result = run(Stepping(), searched="tf32")
    assert (result.rechecked, list(counts(result))) == (0, ["stepping"])
    assert torch.equal(result.robust, run(Stepping(), searched="float32").robust)


def test_tf32_is_allowed_in_the_search_and_off_for_the_judge() -> None:
    seen: dict[str, set[bool]] = {"search": set(), "judge": set()}

    class Watching(Linear):
        def forward(self, x: Tensor) -> Tensor:
            during = "search" if arithmetic_of_search() == "tf32" else "judge"
            seen[during].add(torch.backends.cudnn.allow_tf32)
            seen[during].add(torch.backends.cuda.matmul.allow_tf32)
            return super().forward(x) if x.sum() > 0 else x  # so that no trace takes its place

    suite = Suite(name="made", stages=(Stepping(),), parameters={})
    evaluate(Watching(), IMAGES, suite, THREAT, batch_size=20, searched="tf32")
    assert seen == {"search": {True}, "judge": {False}}


class Dazzled(nn.Module):
    """A coarse form of a model whose logits overflow for bright images."""

    def __init__(self, exact: nn.Module) -> None:
        super().__init__()
        self.exact = exact

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.exact(x)
        return logits.masked_fill(x.flatten(1).mean(1, keepdim=True) > 0.75, torch.inf)


def test_images_whose_passes_are_repeated_in_float32_are_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One image is so bright that its batch of 7 has no finite logits from the coarse form."""
    monkeypatch.setattr(search, "reduce_precision", lambda frozen, arithmetic, x: Dazzled(frozen))
    pixels = IMAGES.pixels.clone()
    pixels[9] = 255
    images = labelled_by(MODEL, dataclasses.replace(IMAGES, pixels=pixels))
    suite = Suite(name="made", stages=(Stepping(),), parameters={})
    files = ProgressFiles(stem=tmp_path / "state", fingerprint="f", n=40, rank=0)

    def evaluate_in(searched: Arithmetic, **more: Any) -> Evaluation:
        return evaluate(MODEL, images, suite, THREAT, batch_size=7, searched=searched, **more)

    with logged() as messages, pytest.raises(KeyboardInterrupt):
        evaluate_in("bfloat16", progress_store=KilledAfter(files, 6 + 3))
    resumed = evaluate_in("bfloat16", progress_store=files)
    assert resumed.repeated == 7
    assert messages == [
        "under stepping the model has logits or gradients in bfloat16 that are not finite: such "
        "passes are repeated in float32, which takes longer."
    ]
    exact = evaluate_in("float32")
    assert torch.equal(resumed.robust, exact.robust)
    assert exact.repeated == 0


def test_a_model_without_a_coarse_form_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), Huge())
    suite = Suite(name="made", stages=(Stepping(),), parameters={})
    with pytest.raises(UsageError, match=r"cannot be attacked in float16: .*; give --precision fl"):
        evaluate(model, IMAGES, suite, THREAT, batch_size=20, searched="float16")


class Huge(nn.Module):
    """Logits from activations that overflow float16."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Conv2d(1, 1, 1, bias=False)
        self.linear = nn.Linear(16, 3)
        nn.init.constant_(self.scale.weight, 1e6)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.scale(x).flatten(1) / 1e6)
        return logits


def test_only_long_evaluations_are_worth_compiling() -> None:
    """AutoAttack on a ResNet-18 is, on 10,000 images and not on 1,000."""
    model = build_model("resnet18", num_classes=10).eval()
    suite = build_suite(AttackConfig(suite="autoattack"), THREAT, 10)
    x = torch.zeros(2, 3, 32, 32)
    assert search.is_worth_compiling(model, suite.stages, x, 10_000)
    assert not search.is_worth_compiling(model, suite.stages, x, 1_000)
    assert not search.is_worth_compiling(model, (Stepping(),), x, 10_000), "its length is unknown"
    images = torch.zeros(2, 1, 4, 4)
    assert search.is_worth_compiling(Linear(), suite.stages, images, 10**12)
    assert not search.is_worth_compiling(Uncountable(), suite.stages, images, 10**12)


def test_margins_of_early_exit_go_with_the_arithmetic() -> None:
    finite = FiniteLogits(MODEL, IMAGES.pixels / 255, IMAGES.labels)
    assert EarlyExit(finite).exit_margin == 0.01
    with searching_in("bfloat16"):
        assert EarlyExit(finite).exit_margin == 0.1


def attack(precision: Any) -> adrbench.Result:
    x, _ = adrbench.load_examples("digits", n=20)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    with torch.no_grad():
        y = model(x).argmax(1)
    return adrbench.evaluate(
        model, x, y, suite="pgd-5", eps=0.01, precision=precision, batch_size=10
    )


def test_records_state_both_arithmetics() -> None:
    for precision, searched in (("auto", "float32"), ("float32", "float32"), ("bfloat16",) * 2):
        record = attack(precision).record
        assert (record.searched, record.judged, record.precision) == (searched, *["float32"] * 2)


def test_a_search_in_tf32_is_the_same_evaluation_and_one_in_float16_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adrbench.runtime.arithmetic.has_tensor_cores", lambda device: True)
    paths = {
        precision: attack(precision).save(tmp_path)
        for precision in ("float32", "tf32", "bfloat16", "float16")
    }
    assert paths["tf32"] == paths["float32"]
    assert len(set(paths.values())) == 3
