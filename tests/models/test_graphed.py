"""Models replayed in padded batches; a stand-in replaces the capture where there is no GPU."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adrbench.attacks.find_suite import build_suite
from adrbench.config.settings import AttackConfig
from adrbench.config.threat import ThreatModel
from adrbench.evaluation.evaluate import evaluate
from adrbench.models import graphed
from adrbench.models.frozen import freeze
from adrbench.models.graphed import SMALLEST_BATCH, GraphedModel, GraphedPasses, Passes, batch_sizes
from adrbench.runtime.arithmetic import Arithmetic, full_precision, searching_in
from graph_stand_in import SharedMemory
from logs import logged
from tiny import build_trained, make_images, train_small_net

MAX_BYTES = 40


@pytest.fixture(scope="module")
def frozen() -> nn.Module:
    """Return a small frozen model."""
    return freeze(build_trained("small-cnn"), batch(4)).model


def batch(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def replayed(model: nn.Module) -> tuple[GraphedModel, SharedMemory]:
    memory = SharedMemory()
    return GraphedModel(model, batch(MAX_BYTES), MAX_BYTES, memory), memory


def gradient_of(model: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((model(x) * weight).sum(), x)
    return gradient


def test_batch_sizes_grow_by_at_most_a_third() -> None:
    assert batch_sizes(250) == (16, 20, 26, 34, 45, 60, 80, 106, 141, 188, 250)
    assert batch_sizes(SMALLEST_BATCH) == (SMALLEST_BATCH,)
    assert batch_sizes(5) == (5,)
    for largest in range(1, 600):
        sizes = batch_sizes(largest)
        assert sizes[-1] == largest
        assert all(one < other <= 4 / 3 * one for one, other in pairwise(sizes))


@pytest.mark.parametrize("n", [1, 16, 17, 20, 21, 39, 40])
@pytest.mark.usefixtures("nothing_logged")
def test_padding_changes_neither_logits_nor_gradients(n: int, frozen: nn.Module) -> None:
    model, memory = replayed(frozen)
    x, weight = batch(n, seed=1), torch.randn(n, 10, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(model(x), frozen(x))
    torch.testing.assert_close(gradient_of(model, x, weight), gradient_of(frozen, x, weight))
    assert memory.sizes == [next(size for size in batch_sizes(MAX_BYTES) if size >= n)]


@pytest.mark.usefixtures("nothing_logged")
def test_batches_of_other_shapes_or_sizes_run_without_graphs(frozen: nn.Module) -> None:
    model, memory = replayed(frozen)
    for x in (batch(MAX_BYTES + 1), batch(5)[:, :, :6], batch(0)):
        torch.testing.assert_close(model(x), frozen(x))
    assert memory.sizes == []


@pytest.mark.usefixtures("nothing_logged")
def test_passes_may_run_in_any_order(frozen: nn.Module) -> None:
    """Forward on three batches of two sizes, then backward on each, the first one twice."""
    model, memory = replayed(frozen)
    check_any_order(model, frozen, torch.device("cpu"))
    assert sorted(memory.sizes) == [16, 40]


def check_any_order(model: nn.Module, frozen: nn.Module, device: torch.device) -> None:
    batches = [batch(n, seed=n).to(device).requires_grad_() for n in (31, 12, 33)]
    outputs = [model(x) for x in batches]
    for x, output in [*zip(batches, outputs, strict=True), (batches[0], outputs[0])]:
        weight = torch.ones_like(output)
        (gradient,) = torch.autograd.grad(output, x, weight, retain_graph=True)
        expected = gradient_of(frozen, x.detach(), weight)
        torch.testing.assert_close(
            gradient, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
        )


def test_each_arithmetic_of_a_search_has_its_own_passes(frozen: nn.Module) -> None:
    model, memory = replayed(frozen)
    model(batch(20))
    with searching_in("tf32"):
        model(batch(20))
        model(batch(20))
    model(batch(20))
    assert memory.sizes == [23, 23]
    assert set(model.passes) == {("float32", 23), ("tf32", 23)}


@pytest.mark.usefixtures("nothing_logged")
def test_changing_returned_logits_in_place_does_not_affect_later_ones(frozen: nn.Module) -> None:
    model, _ = replayed(frozen)
    x = batch(8)
    expected = frozen(x)
    with torch.no_grad():
        first = model(x)
        second = model(batch(8, seed=5))
        torch.testing.assert_close(first, expected)
        second[:, 0] = -torch.inf
        torch.testing.assert_close(model(x), expected)


def test_a_model_that_cannot_be_captured_runs_without_graphs(frozen: nn.Module) -> None:
    def refuse(model: nn.Module, x: Tensor) -> Passes:
        raise RuntimeError("not permitted.\nMore.")

    model = GraphedModel(frozen, batch(8), 8, refuse)
    with logged() as messages:
        for seed in range(3):
            torch.testing.assert_close(model(batch(8, seed)), frozen(batch(8, seed)))
    (message,) = messages
    assert "(not permitted)." in message


class BatchDependent(nn.Module):
    """Scales every image's logits by the mean of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10] * x.mean()


def test_a_batch_dependent_model_is_not_padded() -> None:
    model = GraphedModel(BatchDependent(), batch(MAX_BYTES), MAX_BYTES, SharedMemory())
    with logged() as messages:
        for n in (MAX_BYTES, 7, 30, 7):
            torch.testing.assert_close(model(batch(n, seed=n)), BatchDependent()(batch(n, seed=n)))
    (message,) = messages
    assert "depend on the others in its batch" in message


class WrongGradients(SharedMemory):
    """Passes with the logits of the model, whose gradients are a third too small."""

    def __call__(self, model: nn.Module, x: Tensor) -> Passes:
        passes = super().__call__(model, x)

        def backward() -> None:
            passes.backward()
            passes.d_x.mul_(2 / 3)

        return replace(passes, backward=backward)


@pytest.mark.parametrize("searched", ["float32", "tf32", "float16"])
def test_passes_with_wrong_gradients_are_not_replayed(
    searched: Arithmetic, frozen: nn.Module
) -> None:
    model = GraphedModel(frozen, batch(MAX_BYTES), MAX_BYTES, WrongGradients())
    x, weight = batch(20), torch.ones(20, 10)
    with logged() as messages, searching_in(searched):
        for _ in range(2):
            with torch.no_grad():
                torch.testing.assert_close(model(x), frozen(x))
            torch.testing.assert_close(
                gradient_of(model, x, weight), gradient_of(frozen, x, weight)
            )
    assert messages == ["running without CUDA graphs: they do not give the model's gradients."]


class Overflowing(nn.Module):
    """A network whose logits of the first image of a batch are not finite."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        is_first = torch.arange(len(x))[:, None] == 0
        return logits.masked_fill(is_first, torch.inf)


@pytest.mark.usefixtures("nothing_logged")
def test_images_without_finite_results_do_not_end_the_replaying(frozen: nn.Module) -> None:
    model = GraphedModel(Overflowing(frozen), batch(MAX_BYTES), MAX_BYTES, SharedMemory())
    for n in (20, 1):
        torch.testing.assert_close(model(batch(n)), Overflowing(frozen)(batch(n)))
    assert {size for _, size in model.passes} == {23, 16}


def test_a_capture_after_a_failed_one_has_a_new_memory_pool(
    frozen: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the two captures of each call, forward and backward, the third of all fails."""
    pools = iter("abc")
    used: list[str] = []

    def capture(work: Callable[[], Tensor], stream: Any, pool: str) -> tuple[Any, Tensor]:
        used.append(pool)
        if len(used) == 3:
            raise RuntimeError("not permitted")
        return None, work()

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: next(pools))
    monkeypatch.setattr(graphed, "side_stream", nullcontext)
    monkeypatch.setattr(graphed, "capture_graph", capture)
    make_passes = GraphedPasses(torch.device("cuda"))
    make_passes(frozen, batch(4))
    with pytest.raises(RuntimeError, match="not permitted"):
        make_passes(frozen, batch(4))
    make_passes(frozen, batch(4))
    assert used == ["a", "a", "a", "b", "b"]


@pytest.mark.gpu
@pytest.mark.parametrize("arch", ["small-cnn", "resnet18", "wrn-10-1"])
@pytest.mark.usefixtures("nothing_logged")
def test_cuda_graphs_give_the_logits_and_gradients_of_the_model(arch: str) -> None:
    x = batch(MAX_BYTES).cuda()
    with full_precision():
        frozen = freeze(build_trained(arch).cuda(), x).model
        model = GraphedModel(frozen, x, MAX_BYTES)
        for n in (40, 7, 25, 40, 12):
            inputs = batch(n, seed=n).cuda()
            weight = torch.randn(n, 10, generator=torch.Generator().manual_seed(n)).cuda()
            torch.testing.assert_close(model(inputs), frozen(inputs), rtol=1e-4, atol=1e-4)
            expected = gradient_of(frozen, inputs, weight)
            found = gradient_of(model, inputs, weight)
            torch.testing.assert_close(
                found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
            )
        check_any_order(model, frozen, torch.device("cuda"))
    assert {size for _, size in model.passes} == {16, 30, 40}


@pytest.mark.gpu
@pytest.mark.usefixtures("nothing_logged")
@pytest.mark.parametrize("searched", ["float32", "tf32", "float16"])
def test_autoattack_gives_the_same_outcomes_with_cuda_graphs(searched: Arithmetic) -> None:
    images = make_images(60, classes=5, size=8)
    model = train_small_net(images, classes=5).cuda()
    threat = ThreatModel(eps=0.05)
    config = AttackConfig(suite="autoattack", batch_size=25)
    suite = build_suite(config, threat, 5)
    forms: tuple[tuple[bool, Arithmetic], ...] = ((False, "float32"), (True, searched))
    evaluations = [
        evaluate(
            model,
            images.to("cuda"),
            suite,
            threat,
            batch_size=25,
            optimize_model=graphs,
            searched=arithmetic,
        )
        for graphs, arithmetic in forms
    ]
    without_graphs, with_graphs = evaluations
    num_different = (without_graphs.robust != with_graphs.robust).sum()
    assert num_different <= 1, "rounding may change one image's outcome"
    assert 0 < with_graphs.robust_correct < with_graphs.clean_correct
