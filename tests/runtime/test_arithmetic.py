"""The choice of an arithmetic, and the contexts that switch to it."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from adrbench.errors import UsageError
from adrbench.runtime import arithmetic
from adrbench.runtime.arithmetic import (
    arithmetic_of_search,
    choose_for_search,
    choose_for_training,
    computing_in,
    full_precision,
    searching_in,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("capability", "training", "search"),
    [((9, 0), "bfloat16", "tf32"), ((8, 0), "bfloat16", "tf32"), ((7, 5), "float32", "float32")],
)
def test_auto_depends_on_the_gpu(
    capability: tuple[int, int], training: str, search: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_for_training("auto", GPU) == training
    assert choose_for_search("auto", GPU) == search


def test_auto_is_float32_on_a_cpu() -> None:
    assert choose_for_training("auto", CPU) == choose_for_search("auto", CPU) == "float32"


def test_what_was_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "has_tensor_cores", lambda device: device == GPU)
    assert choose_for_training("float32", GPU) == choose_for_search("float32", GPU) == "float32"
    assert choose_for_training("tf32", GPU) == choose_for_search("tf32", GPU) == "tf32"
    assert choose_for_training("bfloat16", CPU) == "bfloat16"
    assert choose_for_search("float16", CPU) == "float16"


def test_an_arithmetic_that_the_device_lacks_is_refused() -> None:
    for choose in (choose_for_training, choose_for_search):
        with pytest.raises(UsageError, match="'tf32': cpu does not have it"):
            choose("tf32", CPU)


def test_contexts_set_tf32_and_restore_it() -> None:
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    with computing_in("tf32", "cpu"):
        assert [switch.allow_tf32 for switch in switches] == [True, True]
        with full_precision():
            assert [switch.allow_tf32 for switch in switches] == [False, False]
        with computing_in("float32", "cpu"):
            assert [switch.allow_tf32 for switch in switches] == [False, False]
        assert [switch.allow_tf32 for switch in switches] == [True, True]
    assert [switch.allow_tf32 for switch in switches] == before


def test_the_threads_of_backward_passes_know_the_arithmetic_of_the_search() -> None:
    with ThreadPoolExecutor() as threads, searching_in("tf32"):
        assert threads.submit(arithmetic_of_search).result() == "tf32"
        with searching_in("float16"):
            assert threads.submit(arithmetic_of_search).result() == "float16"
        assert arithmetic_of_search() == "tf32"
    assert arithmetic_of_search() == "float32"


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_products_are_in_16_bits_and_see_changed_weights(name: str) -> None:
    layer, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
    with torch.no_grad(), computing_in(name, "cpu"):  # type: ignore[arg-type]
        first = layer(x)
        layer.weight += 1
        second = layer(x)
    assert first.dtype == getattr(torch, name)
    torch.testing.assert_close(second, first + 2, rtol=0.02, atol=0.02)
