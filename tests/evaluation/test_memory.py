"""Where memory does not suffice, the model's passes are split and the attack's batches stay."""

import pytest
import torch
from torch import Tensor, nn

from adrbench.attacks.find_suite import build_suite
from adrbench.config.settings import AttackConfig
from adrbench.config.threat import ThreatModel
from adrbench.evaluation.evaluate import Evaluation, evaluate
from adrbench.models.chunked import ChunkedModel
from logs import logged
from tiny import labelled_by, make_images, train_small_net

THREAT = ThreatModel(eps=0.03)
IMAGES = make_images(30, classes=4)


class Small(nn.Module):
    """A model for whose passes on more than `most` images memory does not suffice."""

    def __init__(self, model: nn.Module, most: int) -> None:
        super().__init__()
        self.model, self.most = model, most

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        logits: Tensor = self.model(x)
        return logits


@pytest.mark.parametrize("suite", ["pgd-5", "apgd-ce"])
def test_outcomes_are_those_of_whole_batches(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adrbench.evaluation.identity.NUM_IMAGES", 3)
    model = train_small_net(IMAGES, classes=4)
    built = build_suite(AttackConfig(suite=suite), THREAT, 4)

    def run(model: nn.Module) -> Tensor:
        return evaluate(model, IMAGES, built, THREAT, batch_size=15, check_reliability=False).robust

    whole = run(model)
    assert 0 < whole.sum() < 30
    with logged() as messages:
        assert torch.equal(run(Small(model, most=8)), whole)
    (note,) = messages
    assert note.startswith(
        "there is not enough memory for a whole batch: the model processes 8 images"
    )


class Untracked(nn.Module):
    """A model whose logits do not depend, for autograd, on images that are `dark` on average."""

    def __init__(self, model: nn.Module, dark: float) -> None:
        super().__init__()
        self.model, self.dark = model, dark

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits.detach() if x.mean() < self.dark else logits


@pytest.mark.parametrize("suite", ["pgd-5", "apgd-ce", "fab-t"])
def test_logits_that_do_not_depend_on_the_images_are_attacked_in_chunks_too(suite: str) -> None:
    model = Untracked(train_small_net(IMAGES, classes=4), dark=1)
    images = labelled_by(model, IMAGES)
    built = build_suite(AttackConfig(suite=suite), THREAT, 4)

    def run(model: nn.Module) -> Evaluation:
        return evaluate(model, images, built, THREAT, batch_size=15)

    whole, split = run(model), run(Small(model, most=8))
    assert torch.equal(whole.robust, split.robust)
    assert any("gradient of exactly zero" in text for text in split.warnings)


def test_a_chunk_without_dependence_has_a_gradient_of_zero() -> None:
    chunked = ChunkedModel(Untracked(nn.Flatten(), dark=0.5))
    assert chunked.shrink(4)
    x = torch.tensor([0.1, 0.2, 0.8, 0.9]).view(4, 1, 1, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(chunked(x).sum(), x)
    assert gradient.flatten().tolist() == [0, 0, 1, 1]


def test_one_image_that_does_not_fit_is_an_error() -> None:
    suite = build_suite(AttackConfig(suite="fgsm"), THREAT, 4)
    with pytest.raises(torch.OutOfMemoryError):
        evaluate(Small(nn.Identity(), most=0), IMAGES, suite, THREAT, batch_size=15)


def test_logits_and_gradients_in_chunks_are_those_of_the_model() -> None:
    model = train_small_net(IMAGES, classes=4)
    chunked = ChunkedModel(model)
    assert chunked.shrink(10)
    assert chunked.size == 5
    x = (IMAGES.pixels[:12] / 255).requires_grad_()
    weights = torch.randn(12, 4)
    expected, found = model(x), chunked(x)
    torch.testing.assert_close(found, expected)
    (d_expected,) = torch.autograd.grad((expected * weights).sum(), x)
    (d_found,) = torch.autograd.grad((found * weights).sum(), x)
    torch.testing.assert_close(d_found, d_expected)


def test_chunks_end_at_one_image() -> None:
    chunked = ChunkedModel(nn.Identity())
    sizes = []
    while chunked.shrink(10):
        sizes.append(chunked.size)
    assert sizes == [5, 3, 2, 1]
