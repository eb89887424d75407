"""Frozen models that are compiled for large batches; a stand-in replaces the CUDA graphs."""

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adrbench.models.compiled import CompiledPasses, compiling, count_operations
from adrbench.models.frozen import freeze
from adrbench.models.graphed import GraphedModel
from adrbench.runtime.arithmetic import searching_in
from graph_stand_in import SharedMemory
from logs import Messages, logged
from tiny import build_trained

LARGEST = 40


def batch(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def frozen_model() -> nn.Module:
    return freeze(build_trained("small-cnn"), batch(4)).model


def compiled(model: nn.Module, **options: Any) -> tuple[GraphedModel, CompiledPasses, SharedMemory]:
    stand_in = SharedMemory()
    passes = CompiledPasses(stand_in, LARGEST, **options)
    return GraphedModel(model, batch(LARGEST), LARGEST, passes), passes, stand_in


@pytest.mark.slow
@pytest.mark.xdist_group("compile")
def test_large_batches_are_compiled_and_keep_logits_and_gradients() -> None:
    frozen = frozen_model()
    model, passes, stand_in = compiled(frozen)
    with logged() as messages:
        for n in (40, 12, 38, 30, 12):
            x = batch(n, seed=n).requires_grad_()
            expected, logits = frozen(x), model(x)
            torch.testing.assert_close(logits, expected)
            gradients = [torch.autograd.grad(one[:, 0].sum(), x)[0] for one in (expected, logits)]
            torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5)
    assert passes.sizes == [40, 30]
    assert [used is frozen for used in stand_in.models] == [False, True, False]
    assert stand_in.sizes == [40, 16, 30]
    assert messages == [f"compiling the model for batches of {size} images." for size in (40, 30)]


def test_a_model_that_cannot_be_compiled_runs_as_it_is() -> None:
    def refuse(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("not this one.\nMore.")

    frozen = frozen_model()
    model, passes, stand_in = compiled(frozen, backend=refuse)
    with logged() as messages:
        for n in (40, 30):
            torch.testing.assert_close(model(batch(n)), frozen(batch(n)))
    assert passes.sizes == []
    assert stand_in.sizes == [40, 40, 30]
    assert messages[-1] == (
        "running without a compiled model: torch.compile raised RuntimeError (not this one)."
    )
    assert sum("running without" in one for one in messages) == 1


def test_a_cuda_toolkit_without_a_gpu_is_not_reported_while_compiling() -> None:
    log, handler = logging.getLogger("torch.utils.cpp_extension"), Messages()
    log.addHandler(handler)
    try:
        with compiling():
            log.warning("No CUDA runtime is found, using CUDA_HOME='%s'", "/usr/local/cuda")
            log.warning("something else")
        log.warning("No CUDA runtime is found, using CUDA_HOME='%s'", "later")
    finally:
        log.removeHandler(handler)
    assert handler.texts == [
        "something else",
        "No CUDA runtime is found, using CUDA_HOME='later'",
    ]


def test_the_operations_of_a_pass_are_those_of_its_products() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5))
    per_image = 2 * (8 * 8 * 4 * 3 * 9 + 256 * 5)
    assert count_operations(model, batch(2)) == 2 * per_image


@pytest.mark.gpu
def test_cuda_graphs_of_a_compiled_model_have_its_logits_and_gradients() -> None:
    from adrbench.models.graphed import GraphedPasses

    x = batch(LARGEST).cuda()
    frozen = freeze(build_trained("resnet18").cuda(), x).model
    passes = CompiledPasses(GraphedPasses(x.device), LARGEST)
    model = GraphedModel(frozen, x, LARGEST, passes)
    for n in (40, 12, 38):
        images = batch(n, seed=n).cuda().requires_grad_()
        with searching_in("tf32"):
            expected, logits = frozen(images), model(images)
            first, second = (
                torch.autograd.grad(one[:, 0].sum(), images)[0] for one in (expected, logits)
            )
        torch.testing.assert_close(logits, expected, rtol=1e-2, atol=1e-2)
        assert (first - second).norm() < 0.05 * first.norm()
    assert passes.sizes == [40]
    assert set(model.passes) == {("tf32", 40), ("tf32", 16)}
