"""RobustBench's zoo without a network: weights of its networks are stored where it expects them."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from adrbench.checkpoints.third_party import load_third_party
from adrbench.errors import AdrbenchError, CheckpointError, UsageError
from adrbench.models import robustbench_zoo as zoo
from adrbench.models.architectures import build_model
from payloads import Payload

NAME = "Rice2020Overfitting"


@pytest.fixture(scope="module")
def robustbench() -> Any:
    return zoo._import_zoo()


@pytest.fixture(scope="module")
def network(robustbench: Any) -> nn.Module:
    """Return the zoo's PreActResNet-18 for CIFAR-100 with random weights."""
    dataset, norm = robustbench.BenchmarkDataset("cifar100"), robustbench.ThreatModel("Linf")
    torch.manual_seed(0)
    model: nn.Module = robustbench.all_models[dataset][norm][NAME]["model"]()
    return model.eval()


@pytest.fixture
def offline(robustbench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every download fail as it does without a network."""

    def fail(*args: object, **kwargs: object) -> None:
        print("Downloading")  # noqa: T201
        raise robustbench.requests.ConnectionError("Failed to resolve 'drive.google.com'")

    monkeypatch.setattr(robustbench.gdown, "download", fail)
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)


def place(folder: Path, content: bytes, name: str = f"{NAME}.pt") -> Path:
    path = folder / "cifar100" / "Linf" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def save(folder: Path, state: object, name: str = f"{NAME}.pt") -> Path:
    path = place(folder, b"", name)
    torch.save(state, path)
    return path


def load(folder: Path, name: str = NAME) -> nn.Module:
    return zoo.load_zoo_model(name, dataset="cifar100", norm="Linf", zoo_dir=folder)


def refusal(folder: Path, name: str = NAME) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(folder, name)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_weights_in_the_folder_load_without_a_network(
    tmp_path: Path, network: nn.Module, offline: None
) -> None:
    save(tmp_path, network.state_dict())
    state = torch.get_rng_state()
    model = load(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        logits = model(x)
        assert torch.equal(logits, network(x))
    assert logits.shape == (2, 100)


@pytest.mark.slow
def test_timm_weights_in_the_folder_load_without_a_network(
    tmp_path: Path, robustbench: Any, offline: None
) -> None:
    """XCiT rows have no Google Drive id: robustbench fetches them through timm."""
    name = "Debenedetti2022Light_XCiT-S12"
    torch.manual_seed(0)
    with zoo._quiet():
        timm_name = "debenedetti2022light_xcit_s12_cifar100_linf"
        expected = robustbench.timm.create_model(timm_name, num_classes=100).eval()
    save(tmp_path, {"model": expected[1].state_dict()}, f"{name}.pt")
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load(tmp_path, name)(x), expected(x))


def test_zoo_names_are_listed_per_data_set_and_norm() -> None:
    assert NAME in zoo.zoo_names("cifar10", "Linf")
    assert NAME in zoo.zoo_names("cifar10", "L2")
    assert zoo.zoo_names("cifar100", "L2") == []


@pytest.mark.parametrize(
    ("name", "dataset", "norm", "words"),
    [
        ("Rice2020Overfiting", "cifar100", "Linf", "did you mean .*Rice2020Overfitting"),
        (NAME, "cifar100", "L2", "for cifar10 under Linf, .*but not for cifar100 under L2"),
        ("Augustin2020Adversarial", "cifar10", "Linf", "cifar10 under L2, but not"),
        ("nothing", "cifar100", "L2", "no models for cifar100 under L2"),
        (NAME, "tiny-imagenet", "Linf", "no models for data set 'tiny-imagenet'"),
        (NAME, "cifar10", "linf", "unknown norm 'linf': did you mean Linf"),
        ("../../etc", "cifar10", "Linf", "unknown RobustBench model"),
    ],
)
def test_unknown_zoo_models_are_rejected(
    tmp_path: Path, name: str, dataset: str, norm: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        zoo.load_zoo_model(name, dataset=dataset, norm=norm, zoo_dir=tmp_path / "zoo")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (NAME, f"{NAME}.pt"),
        ("Debenedetti2022Light_XCiT-S12", "Debenedetti2022Light_XCiT-S12.pt"),
        ("Bai2023Improving_edm", "Bai2023Improving_edm.pt_m0.pt"),
    ],
)
def test_without_a_network_the_error_names_the_file_and_nothing_is_left(
    tmp_path: Path, name: str, file: str, offline: None, capsys: pytest.CaptureFixture[str]
) -> None:
    text = refusal(tmp_path / "zoo", name)
    assert "no connection" in text
    assert str(tmp_path / "zoo" / "cifar100" / "Linf" / file) in text
    assert list(tmp_path.iterdir()) == []
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "Downloading" in streams.err


def test_a_download_is_complete_or_absent(
    tmp_path: Path, network: nn.Module, robustbench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(content: Path) -> None:
        def download(*, id: str, output: str) -> None:  # noqa: A002
            Path(output).write_bytes(content.read_bytes())

        monkeypatch.setattr(robustbench.gdown, "download", download)

    page, weights = tmp_path / "page", tmp_path / "weights"
    page.write_bytes(b"<!DOCTYPE html><html>quota exceeded</html>")
    torch.save(network.state_dict(), weights)
    serve(page)
    assert "the downloaded file is a web page" in refusal(tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()
    serve(weights)
    load(tmp_path / "zoo")
    files = [path.name for path in (tmp_path / "zoo").rglob("*") if path.is_file()]
    assert files == [f"{NAME}.pt"]


def test_a_file_without_weights_is_rejected_by_name(tmp_path: Path, network: nn.Module) -> None:
    whole = save(tmp_path / "whole", network.state_dict()).read_bytes()
    contents = {
        "is empty": b"",
        "is a web page": b"\n <!DOCTYPE html><html></html>",
        "is truncated": whole[: len(whole) // 2],
        "is not a PyTorch file": b"weights",
        "does not load as": pickle.dumps({"state": 1})[:-3],
    }
    for i, (words, content) in enumerate(contents.items()):
        path = place(tmp_path / str(i), content)
        text = refusal(tmp_path / str(i))
        assert words in text
        assert str(path) in text
        assert "delete it" in text
        assert path.read_bytes() == content


def test_a_folder_in_place_of_the_file_is_rejected_by_name(tmp_path: Path) -> None:
    path = tmp_path / "cifar100" / "Linf" / f"{NAME}.pt"
    path.mkdir(parents=True)
    assert f"{path} cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize("state", [{"conv1.weight": torch.ones(2)}, [1, 2], {"state_dict": 3}])
def test_weights_of_another_network_are_rejected(tmp_path: Path, state: object) -> None:
    save(tmp_path, state)
    assert f"does not load as {NAME}" in refusal(tmp_path)


@pytest.mark.parametrize("name", [NAME, "Debenedetti2022Light_XCiT-S12"])
def test_loading_a_zoo_file_never_runs_code(tmp_path: Path, name: str) -> None:
    save(tmp_path, {"x": Payload(Path.touch, tmp_path / "ran")}, f"{name}.pt")
    assert "does not load as" in refusal(tmp_path, name)
    assert not (tmp_path / "ran").exists()


def test_without_robustbench_the_error_gives_the_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "robustbench"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "robustbench", None)
    with pytest.raises(AdrbenchError, match="pip install"):
        zoo.zoo_names("cifar10", "Linf")


def test_the_import_prints_nothing_and_removes_its_alias() -> None:
    """Runs in a new process with warnings as errors, like a user's first call."""
    code = (
        "import sys; from adrbench.models.robustbench_zoo import zoo_names;"
        "zoo_names('cifar10', 'Linf');"
        "assert 'autoattack' not in sys.modules; assert 'tests' not in sys.modules"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("arch", ["preact-resnet18", "wrn-10-2"])
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_our_networks_have_the_logits_of_the_published_ones(
    arch: str, activation: str, robustbench: Any
) -> None:
    """With the weights of DeepMind's networks, which ADR uses, ours give the same logits."""
    modules = sys.modules["robustbench.model_zoo.architectures.dm_wide_resnet"]
    kind: dict[str, Any] = {"relu": nn.ReLU, "silu": nn.SiLU}
    if arch == "wrn-10-2":
        theirs = modules.DMWideResNet(depth=10, width=2, activation_fn=kind[activation])
    else:
        theirs = modules.DMPreActResNet(activation_fn=kind[activation])
    with torch.no_grad():
        for tensor in theirs.state_dict().values():
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    ours = build_model(arch, num_classes=10, activation=activation)
    constants = (modules.CIFAR10_MEAN, modules.CIFAR10_STD)
    load_third_party({"state_dict": theirs.state_dict()}, ours, normalize=constants)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-4, atol=1e-4)
