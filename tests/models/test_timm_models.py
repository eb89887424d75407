"""timm's networks: names, sizes, and pretrained weights from the cache of the Hub."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from adrbench.errors import CheckpointError, UsageError
from adrbench.models.architectures import build_model, find_architecture
from adrbench.models.foreign import find_training_format
from adrbench.models.normalize import Normalized
from adrbench.models.timm_models import import_timm, load_pretrained
from adrbench.registry import UserCodeError

timm = import_timm()
WEIGHTS = "test_vit.r160_in1k"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the Hub have an empty cache and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def fill(cache: Path, name: str, state: dict[str, Any], filename: str) -> None:
    """Put a file of weights into the cache, as a download does."""
    snapshot = cache / f"models--timm--{name}" / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    if filename.endswith(".safetensors"):
        save_file(state, snapshot / filename)
    else:
        torch.save(state, snapshot / filename)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("0123abc")


@pytest.mark.parametrize("name", ["timm:resnet10t", "timm:test_vit", "timm:test_vit.r160_in1k"])
def test_networks_of_timm_fit_the_data(name: str) -> None:
    model = build_model(name, num_classes=7, in_channels=1, image_size=(32, 32))
    assert isinstance(model, Normalized)
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 7)
    assert find_architecture(f" {name}").name == name
    find_training_format(name, model, (1, 32, 32), 7)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet81", "unknown timm model 'resnet81': did you mean resnet"),
        ("hf-hub:timm/resnet18", "unknown timm model"),
        ("local-dir:/tmp/x", "unknown timm model"),
        ("test_vit.r224_in1k", r"did you mean test_vit\.r160_in1k"),
        ("hiera_tiny_224.foo", "hiera_tiny_224"),
        ("", "unknown timm model ''"),
    ],
)
def test_a_name_that_timm_does_not_have(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        find_architecture(f"timm:{name}")


def test_images_that_a_network_of_timm_does_not_take() -> None:
    with pytest.raises(
        UserCodeError, match=r"timm:test_vit does not take images of shape \(3, 8, 8\)"
    ):
        build_model("timm:test_vit", num_classes=7, image_size=(8, 8))


@pytest.mark.parametrize("filename", ["model.safetensors", "pytorch_model.bin"])
def test_pretrained_weights_are_read_from_the_cache(cache: Path, filename: str) -> None:
    torch.manual_seed(3)
    source = timm.create_model("test_vit", img_size=160)
    fill(cache, WEIGHTS, source.state_dict(), filename)
    found = load_pretrained("timm:test_vit", (3, 160, 160))
    assert found.weights == WEIGHTS
    assert (found.mean, found.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert found.trained_size == (160, 160)
    state = source.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in found.network.state_dict().items())
    assert not found.network.training
    smaller = load_pretrained("timm:test_vit", (3, 32, 32)).network
    assert smaller(torch.rand(1, 3, 32, 32)).shape == (1, 1000)


def test_pretrained_weights_for_images_of_another_size(cache: Path) -> None:
    fill(cache, WEIGHTS, timm.create_model("test_vit").state_dict(), "model.safetensors")
    with pytest.raises(UsageError, match=r"does not take images of 8x8 pixels \(.*choose another"):
        load_pretrained("timm:test_vit", (3, 8, 8))


def test_pretrained_weights_that_cannot_be_downloaded(cache: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_pretrained("timm:resnet18", (3, 32, 32))
    message = str(caught.value)
    assert f"{cache}, which HF_HOME sets" in message
    assert "TORCH_HOME" in message
    assert "give a file of them with --arch timm:resnet18." in message
    assert caught.value.__cause__ is not None


def test_pretrained_weights_that_do_not_exist_or_do_not_fit(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="takes 3 channels, and the images have 1"):
        load_pretrained("timm:test_vit", (1, 32, 32))
    fill(cache, WEIGHTS, {"weight": torch.zeros(3)}, "model.safetensors")
    with pytest.raises(CheckpointError, match=r"test_vit cannot be loaded \(Error"):
        load_pretrained("timm:test_vit", (3, 32, 32))
    real = timm.get_pretrained_cfg(WEIGHTS)
    for changes, words in (
        ({"num_classes": 0}, "returns features, not classes"),
        ({"hf_hub_id": None, "url": "", "file": None}, "no pretrained weights"),
    ):
        changed = replace(real, **changes)
        monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name, one=changed: one)
        with pytest.raises(UsageError, match=words):
            load_pretrained("timm:test_vit", (3, 32, 32))
