"""What every test module shares: options, markers, one thread, and where real images lie."""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from adrbench.errors import naming_flags
from logs import logged
from plugins import Installer

GOLDEN = Path(__file__).parent / "golden"

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        type=Path,
        default=GOLDEN,
        help="directory of recorded trajectories of the published code",
    )
    parser.addoption("--slow", action="store_true", help="run the slow tests too")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "golden" in metafunc.fixturenames:
        directory: Path = metafunc.config.getoption("--golden")
        files = sorted(directory.glob("*.npz"))
        if not files:
            raise pytest.UsageError(f"--golden {directory} holds no .npz files")
        metafunc.parametrize("golden", files, ids=[file.stem for file in files])


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("slow") and not item.config.getoption("--slow"):
        pytest.skip("slow: give --slow to run it")
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if item.get_closest_marker("data") and not os.environ.get("ADRBENCH_TEST_DATA"):
        pytest.skip("ADRBENCH_TEST_DATA is not set")


@pytest.fixture(autouse=True)
def messages_as_on_the_command_line(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let messages name arguments as flags, except in tests of the Python interface."""
    with nullcontext() if request.path.parent.name == "api" else naming_flags():
        yield


@pytest.fixture(scope="session")
def real_images() -> Path:
    """Return the directory of real images; tests that ask for it are marked `data`."""
    return Path(os.environ["ADRBENCH_TEST_DATA"])


@pytest.fixture
def nothing_logged() -> Iterator[None]:
    """Fail a test in which the package logs anything."""
    with logged() as messages:
        yield
    assert messages == []


@pytest.fixture
def install_plugin(tmp_path: Path) -> Iterator[Installer]:
    """Yield what installs distributions for the time of a test."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        installer = Installer(tmp_path / "site-packages", monkeypatch)
        yield installer
    installer.forget()
