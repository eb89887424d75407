""".safetensors files: read like state dicts of torch.save, and invalid ones are rejected."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from adrbench.checkpoints.safetensors_files import is_safetensors_file, read_safetensors_file
from adrbench.errors import CheckpointError
from adrbench.evaluation.targets import TargetModel, TargetOptions, resolve_targets
from adrbench.models.architectures import build_model
from logs import logged
from messages import assert_one_sentence
from runner import succeed

OPTIONS = TargetOptions(arch="small-cnn", dataset="digits", normalize="none", eps=0.1)


def network(**options: int) -> nn.Module:
    torch.manual_seed(0)
    return build_model("small-cnn", **{"num_classes": 10, "in_channels": 1, **options})  # type: ignore[arg-type]


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict as code without normalization buffers saves it."""
    state = model.state_dict()
    return {key: value for key, value in state.items() if key not in ("mean", "std")}


def packed(state: dict[str, Tensor]) -> bytes:
    content: bytes = safetensors.torch.save(state)
    return content


def write(path: Path, state: dict[str, Tensor]) -> Path:
    path.write_bytes(packed(state))
    return path


def resolve(path: Path, options: TargetOptions = OPTIONS) -> TargetModel:
    (target,) = resolve_targets(str(path), options)
    return target


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        resolve(path)
    return str(caught.value)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_a_safetensors_file_is_the_target_that_torch_save_would_make(
    tmp_path: Path, prefix: str
) -> None:
    state = {prefix + key: value for key, value in weights_of(network()).items()}
    torch.save(state, tmp_path / "w.pt")
    expected = resolve(tmp_path / "w.pt")
    target = resolve(write(tmp_path / "w.safetensors", state))
    assert (target.run, target.arch) == ("w", "small-cnn")
    assert target.weights_sha256 == expected.weights_sha256
    assert target.checkpoint_sha256 != expected.checkpoint_sha256
    assert not target.model.training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("counters_too", [False, True])
def test_weights_of_another_precision_are_evaluated_in_float32(
    tmp_path: Path, dtype: torch.dtype, counters_too: bool
) -> None:
    state = {
        key: value.to(dtype) if counters_too or value.is_floating_point() else value
        for key, value in weights_of(network()).items()
    }
    model = resolve(write(tmp_path / "w.safetensors", state)).model
    for key, value in weights_of(model).items():
        assert value.dtype == weights_of(network())[key].dtype
        assert torch.equal(value, state[key].to(value.dtype))
    x = torch.rand(2, 1, 8, 8)
    assert model(x).dtype == torch.float32


def test_the_tensors_are_sorted_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "w.safetensors", weights_of(network()))
    assert list(read_safetensors_file(path)) == sorted(weights_of(network()))


def test_normalization_constants_in_the_file_are_used(tmp_path: Path) -> None:
    state = weights_of(network()) | {"mean": torch.tensor([0.25]), "std": torch.tensor([0.5])}
    options = TargetOptions(arch="small-cnn", dataset="digits", eps=0.1)
    with logged() as messages:
        model = resolve(write(tmp_path / "w.safetensors", state), options).model
    assert messages == []
    assert model.get_buffer("mean").flatten().tolist() == [0.25]
    assert model.get_buffer("std").flatten().tolist() == [0.5]


def test_a_bfloat16_file_is_attacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("w.safetensors"), weights_of(network().bfloat16()))
    options = ("--arch", "small-cnn", "--dataset", "digits", "--normalize", "digits")
    succeed("attack", "w.safetensors", *options, "--suite", "fgsm", "--n", "8")
    (record,) = Path("results").glob("w-fgsm-*.json")
    held = json.loads(record.read_text())
    assert (held["n"], held["precision"]) == (8, "float32")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w"])
@pytest.mark.parametrize("is_safetensors", [True, False])
def test_the_format_is_that_of_the_content_not_of_the_name(
    tmp_path: Path, name: str, is_safetensors: bool
) -> None:
    state = weights_of(network())
    path = tmp_path / name
    write(path, state) if is_safetensors else torch.save(state, path)
    assert is_safetensors_file(path) == is_safetensors
    assert torch.equal(resolve(path).model.get_parameter("linear.bias"), state["linear.bias"])


def header(entries: object, numbers: int = 0, *, length: int | None = None) -> bytes:
    text = json.dumps(entries).encode()
    stated = len(text) if length is None else length
    return stated.to_bytes(8, "little") + text + bytes(numbers)


def entry(dtype: str, shape: list[int], end: int) -> bytes:
    return header({"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}, end)


GOOD = packed(weights_of(network()))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is empty"]),
        (b"<!DOCTYPE html><html>Quota exceeded</html>", ["is a web page"]),
        (b"{}", ["not a safetensors file"]),
        (b"learning rate 0.1 worked best", ["not a safetensors file"]),
        (b"version https://git-lfs.github.com/spec/v1\n", ["not a safetensors file"]),
        (GOOD[:100], ["is truncated after 100 bytes", "header of"]),
        (GOOD[:-100], ["is truncated or damaged"]),
        (GOOD + b"\0", ["is truncated or damaged"]),
        (header({}, length=10**8), ["is truncated after 10 bytes", "100,000,008"]),
        (header({}, length=10**8 + 1), ["not a safetensors file"]),
        (header({}, length=1), ["is truncated or damaged"]),
        (header([1]), ["not a safetensors file"]),
        (header({"w": 3}), ["is truncated or damaged"]),
        (entry("F32", [2, 2], 8), ["is truncated or damaged"]),
        (entry("F4", [2, 2], 2), ["tensors of type F4", "save the weights as float32"]),
        (entry("F8_E4M3", [2, 2], 4), ["does not fit SmallCNN", "1 unexpected: w (2, 2)"]),
        (entry("F32", [2], 8), ["no state dict, only 1 other entries (w (Tensor))"]),
        (header({}), ["an empty table"]),
    ],
)
def test_a_damaged_file_is_rejected_in_one_sentence(
    tmp_path: Path, content: bytes, words: list[str]
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    assert_one_sentence(refusal(path), *words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: weights_of(network(num_classes=100)), ["it has 100 classes and the model 10"]),
        (lambda: weights_of(network(in_channels=3)), ["takes 3 input channels and the model 1"]),
        (lambda: {"conv1.weight": torch.ones(4, 1, 3, 3)}, ["does not fit SmallCNN", "1 unexp"]),
        (
            lambda: {k: v.to(torch.float8_e4m3fn) for k, v in weights_of(network()).items()},
            ["torch.float8_e4m3fn", "save the weights as float32, bfloat16 or float16"],
        ),
        (
            lambda: weights_of(network()) | {"linear.bias": torch.full((10,), torch.nan)},
            ["not finite", "linear.bias"],
        ),
    ],
)
def test_weights_that_do_not_fit_are_rejected_in_one_sentence(
    tmp_path: Path, change: Callable[[], dict[str, Tensor]], words: list[str]
) -> None:
    assert_one_sentence(refusal(write(tmp_path / "w.safetensors", change())), *words)


def test_the_order_of_the_weights_does_not_matter(tmp_path: Path) -> None:
    """In the file, the first convolution and the last matrix are not the first and last layer's."""
    state = weights_of(network(num_classes=7)) | {"a.weight": torch.ones(5, 4)}
    in_order = {key: state[key] for key in sorted(state, key=lambda key: -state[key].numel())}
    torch.save(in_order, tmp_path / "w.pt")
    message = refusal(tmp_path / "w.pt")
    assert_one_sentence(message, "SmallCNN (it has 7 classes and the model 10): ")
    assert "input channels" not in message
    del in_order["linear.weight"]
    torch.save({f"b.{key}": value for key, value in in_order.items()}, tmp_path / "w.pt")
    assert_one_sentence(refusal(tmp_path / "w.pt"), "SmallCNN (it has 5 classes and the model 10)")
    in_order["b.weight"] = torch.ones(6, 4)
    torch.save(in_order, tmp_path / "w.pt")
    assert_one_sentence(refusal(tmp_path / "w.pt"), "does not fit SmallCNN: 1 missing")


def test_one_of_several_files_or_their_index_is_rejected(tmp_path: Path) -> None:
    shard = write(tmp_path / "model-00002-of-00003.safetensors", weights_of(network()))
    assert_one_sentence(refusal(shard), "is one of 3 shards", "in one file")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"linear.bias": "model-00001-of-00003.safetensors"}}')
    assert_one_sentence(refusal(index), "is the index of a sharded model", "in one file")
    whole = write(tmp_path / "model-00001-of-00001.safetensors", weights_of(network()))
    assert resolve(whole).arch == "small-cnn"


def test_directories_and_missing_files_are_not_safetensors_files(tmp_path: Path) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    assert not is_safetensors_file(tmp_path / "folder.safetensors")
    assert not is_safetensors_file(tmp_path / "missing.safetensors")


@settings(max_examples=150, deadline=None)
@given(
    position=st.integers(0, len(GOOD) - 1) | st.integers(0, 600),
    value=st.integers(0, 255),
    length=st.integers(0, len(GOOD)) | st.just(len(GOOD)),
)
def test_a_changed_file_is_read_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, length: int
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "w.safetensors"
    content = bytearray(GOOD)
    content[position] = value
    path.write_bytes(content[:length])
    assert_read_or_rejected(path)


def assert_read_or_rejected(path: Path) -> None:
    message = ""
    state: dict[str, Tensor] = {}
    try:
        state = read_safetensors_file(path)
    except CheckpointError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1
    assert all(isinstance(tensor, Tensor) for tensor in state.values())


def test_a_file_with_a_huge_header_is_rejected(tmp_path: Path) -> None:
    length = 2**24 + 1
    header = b"{" + b" " * (length - 2) + b"}"
    (tmp_path / "w.safetensors").write_bytes(length.to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match=r"has a header of 16,777,225 bytes, and at most"):
        read_safetensors_file(tmp_path / "w.safetensors")


@pytest.mark.parametrize("shape", [[0, 2**62, 2**62], [0, 2**63], [2**64 - 1, 0]], ids=str)
def test_an_empty_tensor_of_impossible_sizes_is_rejected(tmp_path: Path, shape: list[int]) -> None:
    described = {"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}
    header = json.dumps(described).encode()
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="is truncated or damaged"):
        read_safetensors_file(tmp_path / "w.safetensors")
