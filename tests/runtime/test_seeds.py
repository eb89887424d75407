import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adrbench.runtime.seeds import derive_seed, generator

SeedPath = tuple[int | str, ...]
paths = st.lists(st.integers() | st.text(), max_size=4).map(tuple)


def test_seeds_are_the_same_in_every_version() -> None:
    """Frozen: another value here means that old runs can no longer be repeated."""
    assert derive_seed(0) == 2_631_537_505_891_389_924
    assert derive_seed(0, "epoch", 3) == 4_202_714_140_303_743_519
    assert derive_seed(-1, "é", 7) == 3_389_501_452_614_970_841


@given(seed=st.integers(), path=paths)
def test_seeds_fit_63_bits(seed: int, path: SeedPath) -> None:
    assert 0 <= derive_seed(seed, *path) < 2**63


@given(first=paths, second=paths)
def test_other_paths_have_other_seeds(first: SeedPath, second: SeedPath) -> None:
    assert (derive_seed(0, *first) == derive_seed(0, *second)) == (first == second)


@pytest.mark.parametrize(
    ("first", "second"),
    [((1,), ("1",)), (("ab", "c"), ("a", "bc")), ((1, 2), (12,)), (("a", 1), ("a1",)), ((), ("",))],
)
def test_look_alike_paths_differ(first: SeedPath, second: SeedPath) -> None:
    assert derive_seed(0, *first) != derive_seed(0, *second)


def test_numpy_integers_count_as_integers() -> None:
    assert derive_seed(int(np.int64(5)), 7) == derive_seed(np.int64(5), np.int32(7))  # type: ignore[arg-type]


def test_a_path_of_something_else_is_refused() -> None:
    with pytest.raises(TypeError):
        derive_seed(0, 0.5)  # type: ignore[arg-type]


def test_a_generator_depends_on_its_path_alone() -> None:
    draws = [torch.rand(4, generator=generator("cpu", 3, "noise", i)) for i in (0, 1, 0)]
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])


def test_importing_seeds_does_not_import_torch() -> None:
    code = "import sys, adrbench.runtime.seeds; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
