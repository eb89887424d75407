"""Checkpoints: a bitwise round trip, and errors that name what is broken."""

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import adrbench
from adrbench.checkpoints import format as checkpoints
from adrbench.checkpoints.format import SCHEMA, Checkpoint, ModelShape, Snapshot
from adrbench.checkpoints.restore import restore
from adrbench.config.method import parse_method
from adrbench.config.presets import find_preset
from adrbench.config.settings import TrainConfig
from adrbench.errors import AdrbenchError, CheckpointError, UsageError
from adrbench.models.architectures import build_model
from adrbench.results.history import Counts
from adrbench.runtime.hashing import hash_file

KEPT = Path(__file__).parents[1] / "fixtures" / "checkpoints"


def snapshot(seed: int, epoch: int) -> Snapshot:
    torch.manual_seed(seed)
    model = build_model("small-cnn", num_classes=10, in_channels=1)
    counts = Counts(clean_correct=90, robust_correct=50 + seed)
    return Snapshot(state=model.state_dict(), epoch=epoch, counts=counts)


def make(method: str = "adr", **changes: Any) -> Checkpoint:
    preset = find_preset("digits", "small-cnn", parse_method(method), num_train=1437)
    config = TrainConfig.of(
        dataset="digits", arch="small-cnn", method=method, val_size=143, **preset.values
    )
    snapshots = {"student": snapshot(0, 3)}
    if config.parsed_method().has_average:
        snapshots["average"] = snapshot(1, 4)
    checkpoint = Checkpoint(
        selection="last",
        config=config,
        shape=ModelShape(num_classes=10, in_channels=1),
        run="a run",
        run_id="0123456789abcdef",
        data_sha256="d" * 64,
        snapshots=snapshots,
        training={"optimizer": {"state": {0: torch.ones(2)}}, "history": [{"epoch": 1}]},
    )
    return replace(checkpoint, **changes)


def write(path: Path, **changes: Any) -> dict[str, Any]:
    """Save a checkpoint and return what the file holds."""
    checkpoints.save(path, make(**changes))
    held: dict[str, Any] = torch.load(path, weights_only=True)
    return held


def rewrite(path: Path, held: dict[str, Any]) -> None:
    """Write altered content with a sum that fits it, as a deliberate change would."""
    fields = {key: value for key, value in held.items() if key != checkpoints.CHECKSUM}
    torch.save(fields | {checkpoints.CHECKSUM: checkpoints.checksum(fields)}, path)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[key], second[key]) for key in first
    )


def test_a_checkpoint_survives_a_round_trip(tmp_path: Path) -> None:
    written = make()
    checkpoints.save(tmp_path / "last.pt", written)
    read = checkpoints.load(tmp_path / "last.pt")
    assert replace(read, snapshots={}, training=None) == replace(
        written, snapshots={}, training=None
    )
    assert read.snapshots.keys() == written.snapshots.keys()
    for name, kept in written.snapshots.items():
        assert same(read.snapshots[name].state, kept.state)
        assert replace(read.snapshots[name], state={}) == replace(kept, state={})
    assert read.training is not None
    assert read.training["history"] == [{"epoch": 1}]
    assert torch.equal(read.training["optimizer"]["state"][0], torch.ones(2))


def test_a_file_holds_plain_values_and_tensors_only(tmp_path: Path) -> None:
    held = write(tmp_path / "last.pt")
    assert (held["format"], held["schema"]) == (checkpoints.MARK, SCHEMA)
    assert held["config"]["method"] == "adr"
    counts = {key: held["snapshots"]["average"][key] for key in ("clean_correct", "robust_correct")}
    assert counts == {"clean_correct": 90, "robust_correct": 51}
    with zipfile.ZipFile(tmp_path / "last.pt") as archive:
        (pickle,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        assert b"adrbench.c" not in archive.read(pickle)


@pytest.mark.parametrize(
    ("method", "weights", "expected"),
    [
        ("at", None, "student"),
        ("adr", None, "student"),
        ("adr+wa", None, "average"),
        ("adr", "average", "average"),
        ("adr+wa", "student", "student"),
    ],
)
def test_load_model_returns_the_deployed_weights_or_those_requested(
    tmp_path: Path, method: str, weights: Any, expected: str
) -> None:
    checkpoint = make(method)
    checkpoints.save(tmp_path / "best.pt", checkpoint)
    for place in (tmp_path, tmp_path / "best.pt", str(tmp_path)):
        model = adrbench.load_model(place, weights=weights)
        assert not model.training
        assert same(model.state_dict(), checkpoint.snapshots[expected].state)
    x = torch.rand(2, 1, 8, 8)
    assert model(x).shape == (2, 10)


def test_a_run_directory_without_a_best_checkpoint(tmp_path: Path) -> None:
    write(tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=r"best\.pt: No such file"):
        adrbench.load_model(tmp_path)


def test_weights_that_do_not_exist(tmp_path: Path) -> None:
    write(tmp_path / "best.pt", method="at")
    with pytest.raises(CheckpointError, match="has no average weights, since its method is 'at'"):
        adrbench.load_model(tmp_path, weights="average")
    with pytest.raises(UsageError, match="weights are 'ema': choose student or average"):
        adrbench.load_model(tmp_path, weights="ema")  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.999])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    path = tmp_path / "best.pt"
    write(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match="is truncated or damaged: copy or train it again"):
        checkpoints.load(path)


def test_a_flipped_bit_never_changes_the_weights(tmp_path: Path) -> None:
    """Wherever a bit is flipped, the file is refused or the weights are unchanged."""
    path = tmp_path / "best.pt"
    write(path)
    content, good = path.read_bytes(), checkpoints.load(path)
    refused = 0
    for place in range(0, len(content), len(content) // 60):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        try:
            read = checkpoints.load(path)
        except CheckpointError:
            refused += 1
        else:
            assert same(read.snapshots["student"].state, good.snapshots["student"].state)
            assert same(read.snapshots["average"].state, good.snapshots["average"].state)
    assert refused > 30


def test_changed_tensors_are_detected(tmp_path: Path) -> None:
    """One bit of one weight, in a file whose other checksums are right."""
    held = write(tmp_path / "best.pt")
    weight = next(iter(held["snapshots"]["student"]["state"].values()))
    weight.view(torch.int32).view(-1)[0] ^= 1
    torch.save(held, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match="its content does not match its checksum"):
        checkpoints.load(tmp_path / "best.pt")


@pytest.mark.parametrize("tensors_only", [False, True])
def test_checksums_of_different_tensors_differ(tensors_only: bool) -> None:
    def checksum(content: Any) -> str:
        return checkpoints.checksum(content, tensors_only=tensors_only)

    one = torch.arange(6.0)
    others = (one + 0.5, one.double(), one.view(2, 3), one.flip(0), one.bfloat16())
    assert len({checksum({"a": t}) for t in (one, *others)}) == 6
    assert checksum({"a": one}) != checksum({"b": one})
    assert checksum([one]) == checksum((one.clone(),))
    assert checksum({"a": torch.tensor(3)})


def test_checksums_of_different_values_differ() -> None:
    contents = [{"a": 1}, {"a": 1.0}, {"a": "1"}, {"a": [1]}, {"a": None}, {"a": {}}, {"a": []}, {}]
    assert len({checkpoints.checksum(content) for content in contents}) == len(contents) - 1
    assert len({checkpoints.checksum(content, tensors_only=True) for content in contents}) == 1


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("config", "seed"), 5),
        (("run_id",), "fedcba9876543210"),
        (("data_sha256",), "e" * 64),
        (("snapshots", "student", "epoch"), 4),
        (("snapshots", "student", "robust_correct"), 51),
        (("training", "history"), [{"epoch": 2}]),
    ],
)
def test_a_changed_header_is_detected(tmp_path: Path, place: tuple[str, ...], value: Any) -> None:
    held = write(tmp_path / "last.pt")
    inside = held
    for key in place[:-1]:
        inside = inside[key]
    assert inside[place[-1]] != value
    inside[place[-1]] = value
    torch.save(held, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="its content does not match its checksum"):
        checkpoints.load(tmp_path / "last.pt")


def write_schema_3(path: Path, **changes: Any) -> None:
    """Write a file as version 3 of the format, with `changes` to its shape."""
    held = write(path)
    config = held["config"]
    shape = held["shape"] | {"arch": config["arch"], "activation": config["activation"]} | changes
    apart = (checkpoints.CHECKSUM, "run_id", "shape")
    former = {key: value for key, value in held.items() if key not in apart}
    former |= {"schema": 3, "shape": shape}
    sha256 = checkpoints.checksum(former, tensors_only=True)
    torch.save(former | {checkpoints.TENSORS_CHECKSUM: sha256}, path)


def test_a_file_of_schema_3_has_no_run_id_and_its_tensors_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    write_schema_3(path)
    assert checkpoints.load(path).run_id == ""
    held = torch.load(path, weights_only=True)
    next(iter(held["snapshots"]["student"]["state"].values())).add_(1)
    torch.save(held, path)
    with pytest.raises(CheckpointError, match="its content does not match its checksum"):
        checkpoints.load(path)


@pytest.mark.parametrize("change", [{"arch": "wrn-10-1"}, {"activation": "tanh"}])
def test_a_shape_that_contradicts_the_settings(tmp_path: Path, change: dict[str, str]) -> None:
    write_schema_3(tmp_path / "best.pt", **change)
    ((name, value),) = change.items()
    with pytest.raises(CheckpointError, match=rf"field shape\.{name} is '{value}', but config\."):
        checkpoints.load(tmp_path / "best.pt")


def test_a_file_of_schema_1(tmp_path: Path) -> None:
    """It has no checksums and no fingerprint of the selection images, and can be resumed."""
    held = write(tmp_path / "last.pt")
    del held[checkpoints.CHECKSUM], held["selection_sha256"]
    torch.save(held | {"schema": 1}, tmp_path / "last.pt")
    assert checkpoints.load(tmp_path / "last.pt").selection_sha256 == ""


@pytest.mark.parametrize(
    ("name", "label"), [("schema-1.pt", ""), ("schema-2.pt", "short"), ("schema-4.pt", "short")]
)
def test_files_of_older_schemas_are_read(name: str, label: str) -> None:
    """The runs were `digits-small-cnn-at-seed0`, `digits-short-adr+wa-seed0` and `short`."""
    checkpoint = checkpoints.load(KEPT / name)
    assert checkpoint.label == label
    assert (checkpoint.training_images_sha256 is None) == (name != "schema-4.pt")
    assert (checkpoint.plugins, checkpoint.shape.image_size) == ({}, None)
    for weights in checkpoint.snapshots:
        model = restore(checkpoint, weights, KEPT / name)
        assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


class Payload:
    """A pickle that would write a file if it were executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_never_runs_code(tmp_path: Path, zipped: bool) -> None:
    held = {"format": checkpoints.MARK, "schema": SCHEMA, "config": Payload(tmp_path / "ran")}
    torch.save(held, tmp_path / "best.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="which could run code: copy or train it again"):
        checkpoints.load(tmp_path / "best.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("schema", [SCHEMA + 1, "1", None, 0])
def test_another_schema(tmp_path: Path, schema: object) -> None:
    held = write(tmp_path / "best.pt")
    torch.save(held | {"schema": schema}, tmp_path / "best.pt")
    with pytest.raises(
        CheckpointError, match=f"this version reads up to {SCHEMA}: update adrbench"
    ):
        checkpoints.load(tmp_path / "best.pt")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"selection": "first"}, "field selection should be 'best' or 'last'"),
        ({"config": {}}, "field config.dataset is missing"),
        ({"shape": None}, "field shape should be a table"),
        ({"snapshots": {"student": {"state": {}}}}, r"field snapshots\[...\].epoch is missing"),
        ({"snapshots": 3}, "field snapshots should be a table"),
        ({"run": 3}, "field run should be str"),
        ({"training": []}, "field training should be"),
        ({"further": 1}, "unknown field further"),
    ],
)
def test_a_damaged_header(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    held = write(tmp_path / "best.pt")
    rewrite(tmp_path / "best.pt", held | change)
    with pytest.raises(CheckpointError, match=rf"is damaged \({words}.*: copy or train it again"):
        checkpoints.load(tmp_path / "best.pt")


def test_a_setting_out_of_its_range(tmp_path: Path) -> None:
    held = write(tmp_path / "best.pt")
    held["config"]["eps"] = 8.0
    rewrite(tmp_path / "best.pt", held)
    with pytest.raises(CheckpointError, match=r"is damaged .*eps is 8"):
        checkpoints.load(tmp_path / "best.pt")


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("config", {"arch": "wrn-10-1"}),
        ("config", {"activation": "tanh"}),
        ("shape", {"num_classes": 7}),
        ("shape", {"in_channels": 3}),
    ],
)
def test_weights_that_do_not_fit_the_model(
    tmp_path: Path, part: str, change: dict[str, Any]
) -> None:
    held = write(tmp_path / "best.pt")
    held[part] |= change
    rewrite(tmp_path / "best.pt", held)
    with pytest.raises(
        CheckpointError, match="do not fit the architecture that it specifies"
    ) as caught:
        adrbench.load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_more_correct_images_than_there_are(tmp_path: Path) -> None:
    """Of the 143 images of the validation, 144 cannot be correct."""
    held = write(tmp_path / "best.pt")
    held["snapshots"]["average"]["clean_correct"] = 144
    rewrite(tmp_path / "best.pt", held)
    with pytest.raises(CheckpointError, match="average weights classify 144 of 143 validation"):
        checkpoints.load(tmp_path / "best.pt")


def not_finite(value: Tensor) -> Tensor:
    return torch.full_like(value, torch.nan)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (not_finite, "is not finite"),
        (lambda value: value / 0, "is not finite"),
        (Tensor.int, "is torch.int32, not torch.float32"),
        (lambda value: value + 0j, "is torch.complex64, not torch.float32"),
    ],
)
def test_weights_that_are_no_finite_numbers(
    tmp_path: Path, change: Callable[[Tensor], Tensor], words: str
) -> None:
    held = write(tmp_path / "best.pt")
    state = held["snapshots"]["student"]["state"]
    key = next(key for key, value in state.items() if value.ndim == 4)
    state[key] = change(state[key])
    rewrite(tmp_path / "best.pt", held)
    with pytest.raises(CheckpointError, match=rf"the student weights in .* \({key} {words}\)"):
        adrbench.load_model(tmp_path, weights="student")
    assert not adrbench.load_model(tmp_path, weights="average").training


@pytest.mark.parametrize("state", [{}, {"conv": 3}])
def test_a_damaged_state(tmp_path: Path, state: object) -> None:
    held = write(tmp_path / "best.pt")
    held["snapshots"]["student"]["state"] = state
    rewrite(tmp_path / "best.pt", held)
    with pytest.raises(CheckpointError, match="do not fit the architecture that it specifies"):
        adrbench.load_model(tmp_path, weights="student")


def test_files_of_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "theirs.pt"
    for content in ({"state_dict": {"weight": torch.ones(2, 2)}}, [1, 2], torch.ones(2)):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match="is not an adrbench checkpoint: to attack"):
            adrbench.load_model(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n<HTML><body>", "is a web page, not weights"),
        (b"epoch,loss\n1,2\n", "is not a file that torch.save wrote"),
        (b"PK\x03\x04 and no more", "is truncated or damaged"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "best.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        adrbench.load_model(tmp_path)


def test_a_directory_or_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a directory without best\.pt or last\.pt"):
        checkpoints.load(tmp_path)
    with pytest.raises(AdrbenchError, match=r"cannot read .*: No such file or directory"):
        checkpoints.load(tmp_path / "gone.pt")


def test_the_same_content_has_the_same_fingerprint(tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        checkpoints.save(tmp_path / name, make())
    assert hash_file(tmp_path / "a.pt") == hash_file(tmp_path / "b.pt")
    checkpoints.save(tmp_path / "b.pt", make(run="another"))
    assert hash_file(tmp_path / "a.pt") != hash_file(tmp_path / "b.pt")
