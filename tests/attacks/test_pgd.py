"""PGD and FGSM: analytic optima, properties, independence of the batch size."""

import pytest
import torch
from torch import nn

from adrbench.attacks.pgd import PGD, ascend, cross_entropy_sum, fgsm, margin
from adrbench.config.threat import ThreatModel
from adrbench.data import load_split, to_float
from tiny import Linear, labelled_by, make_images, train_small_net


def two_class_linear() -> nn.Module:
    return Linear(classes=2)


@pytest.mark.parametrize("loss", [cross_entropy_sum, margin])
def test_pgd_reaches_the_linear_optimum_under_linf(loss: object) -> None:
    """With two classes the worst image moves every pixel by eps against w_y - w_other."""
    model, threat = two_class_linear(), ThreatModel(eps=0.05)
    images = labelled_by(model, make_images(20, classes=2))
    x, y = 0.25 + to_float(images.pixels) / 2, images.labels
    attack = PGD(name="pgd", threat=threat, steps=20, alpha=0.02, loss=loss)  # type: ignore[arg-type]
    x_adv = attack.perturb(model, x, y, torch.arange(20))
    weight = model.weight.detach()  # type: ignore[operator]
    direction = (weight[1 - y] - weight[y]).sign().reshape(x.shape)
    torch.testing.assert_close(x_adv, x + 0.05 * direction)


def test_pgd_reaches_the_linear_optimum_under_l2() -> None:
    model, threat = two_class_linear(), ThreatModel(norm="L2", eps=0.1)
    images = labelled_by(model, make_images(20, classes=2))
    x, y = 0.25 + to_float(images.pixels) / 2, images.labels
    attack = PGD(name="pgd", threat=threat, steps=100, alpha=0.02, loss=margin)
    x_adv = attack.perturb(model, x, y, torch.arange(20))
    weight = model.weight.detach()  # type: ignore[operator]
    difference = weight[1 - y] - weight[y]
    direction = (difference / difference.norm(dim=1, keepdim=True)).reshape(x.shape)
    torch.testing.assert_close(x_adv, x + 0.1 * direction, atol=1e-4, rtol=0)


def test_fgsm_takes_one_step_of_size_eps() -> None:
    model, threat = two_class_linear(), ThreatModel(eps=0.1)
    x, y = torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 1])
    x_adv = fgsm(threat).perturb(model, x, y, torch.arange(2))
    torch.testing.assert_close((x_adv - x).abs(), torch.full_like(x, 0.1))


def test_the_margin_loss_matches_a_hand_computed_value() -> None:
    """Logits (3, 1, 2) of label 0: 2 - 3 = -1; of label 1: 3 - 1 = 2; together 1."""
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert margin(logits, torch.tensor([0, 1])).item() == 1.0


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_outcomes_do_not_depend_on_the_batch_size(norm: str) -> None:
    images, _ = load_split("digits", "test", data_dir=None)  # type: ignore[arg-type]
    images = images.first(60)
    model = train_small_net(images, classes=10)
    x, y, indices = to_float(images.pixels), images.labels, torch.arange(60)
    eps = {"Linf": 0.1, "L2": 0.6}[norm]
    attack = PGD(
        name="pgd", threat=ThreatModel(norm=norm, eps=eps), steps=7, alpha=eps / 4, restarts=3
    )
    whole = attack.perturb(model, x, y, indices)
    parts = [attack.perturb(model, x[i], y[i], i) for i in torch.split(indices, 13)]
    with torch.no_grad():
        misclassified = model(whole).argmax(1) != y
        assert torch.equal(misclassified, model(torch.cat(parts)).argmax(1) != y)
    assert 5 < misclassified.sum() < 55
    torch.testing.assert_close(whole, torch.cat(parts), atol=1e-4, rtol=0)


def test_noise_differs_between_images_restarts_and_seeds() -> None:
    threat = ThreatModel(eps=0.2)
    x = torch.full((2, 1, 4, 4), 0.5)
    attack = PGD(name="pgd", threat=threat, steps=1, alpha=0.1)
    other = PGD(name="pgd", threat=threat, steps=1, alpha=0.1, seed=1)
    starts = [
        attack._start(threat, x, torch.tensor([0, 1]), 0),
        attack._start(threat, x, torch.tensor([0, 1]), 1),
        other._start(threat, x, torch.tensor([0, 1]), 0),
    ]
    drawn = [image for start in starts for image in start]
    for index, image in enumerate(drawn):
        assert not any(torch.equal(image, later) for later in drawn[index + 1 :])
    assert torch.equal(attack._start(threat, x, torch.tensor([1, 0]), 0), starts[0].flip(0))


def test_more_restarts_misclassify_more_images() -> None:
    images = make_images(200, classes=3)
    model = train_small_net(images, classes=3, steps=30)
    images = labelled_by(model, images)
    x, y = to_float(images.pixels), images.labels
    threat = ThreatModel(eps=0.03)

    def count(restarts: int) -> int:
        attack = PGD(name="pgd", threat=threat, steps=1, alpha=0.03, restarts=restarts)
        with torch.no_grad():
            x_adv = attack.perturb(model, x, y, torch.arange(200))
            return int((model(x_adv).argmax(1) != y).sum())

    assert count(1) < count(8)


def test_ascend_leaves_no_gradients() -> None:
    model = Linear()
    x = torch.full((2, 1, 4, 4), 0.5)
    x_adv = ascend(ThreatModel(eps=0.1), x, x, lambda z: model(z).sum(), steps=2, alpha=0.1)
    assert not x_adv.requires_grad
    assert not x.requires_grad
    assert model.weight.grad is None
