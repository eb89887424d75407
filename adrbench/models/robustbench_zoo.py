"""RobustBench's model zoo: its networks and their published weights, by name.

Only this module imports `robustbench`, whose import needs a workaround and which prints to stdout.
Weights are stored where robustbench expects them, `<zoo_dir>/<dataset>/<norm>/<name>.pt`.
"""

import contextlib
import importlib
import importlib.util
import os
import pickle
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import nn

from adrbench.errors import (
    AdrbenchError,
    CheckpointError,
    UsageError,
    argument,
    one_line,
    unknown_name,
)
from adrbench.runtime.files import open_limited
from adrbench.runtime.memory import total_memory

ZOO_DATASETS: dict[str, int] = {"cifar10": 10, "cifar100": 100}
ZOO_NORMS = ("Linf", "L2")
INSTALL = 'pip install "robustbench>=1.1.1" "setuptools<81"'
REINSTALL = 'pip install --force-reinstall --no-deps "robustbench>=1.1.1" "setuptools<81"'
#: What this module uses of `robustbench.utils`; copies in other packages are older and lack some.
ZOO_ATTRIBUTES = (
    *("BenchmarkDataset", "ThreatModel", "all_models", "download_gdrive_new", "gdown"),
    *("load_model", "requests", "timm"),
)
LOAD_ERRORS = (
    ImportError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    EOFError,
    OSError,
    pickle.UnpicklingError,
)


def zoo_names(dataset: str, norm: str) -> list[str]:
    """Return the names of the zoo's models for `dataset` under `norm`, in the zoo's order.

    Raises `UsageError` for a data set or norm without models, and `CheckpointError` when
    robustbench cannot be imported.
    """
    return list(_entries(_import_zoo(), dataset, norm))


def load_zoo_model(name: str, *, dataset: str, norm: str, zoo_dir: Path) -> nn.Module:
    """Return the zoo's model `name` with its published weights, on the CPU and in eval mode.

    It maps pixels (N, 3, 32, 32) in [0, 1] to logits (N, num_classes). Weights that are not in
    `zoo_dir` are downloaded there; a failed download leaves no files. Raises `UsageError` for a
    name, data set or norm that is not in the zoo, and `CheckpointError` for weights that cannot be
    downloaded or read, or do not fit.
    """
    zoo = _import_zoo()
    entry = _entry(zoo, name, dataset, norm)
    paths = _weight_files(zoo_dir / dataset / norm / f"{name}.pt", entry)
    for path, source in paths.items():
        if not os.path.lexists(path):
            _download(zoo, path, source, _timm_name(name, dataset, norm))
        problem = _find_problem(path)
        if problem:
            raise CheckpointError(
                f"{path} {problem}: delete it, and run again or put the weights of {name} there."
            )
    try:
        with _quiet(), torch.random.fork_rng(devices=[]):
            if entry["gdrive_id"] is None:
                model = _load_timm(zoo, _timm_name(name, dataset, norm), dataset, next(iter(paths)))
            else:
                model = zoo.load_model(name, model_dir=zoo_dir, dataset=dataset, threat_model=norm)
    except LOAD_ERRORS as error:
        raise CheckpointError(
            f"{next(iter(paths))} does not load as {name} ({one_line(error)}): "
            "delete it, and run again or put the right weights there."
        ) from error
    loaded: nn.Module = model.eval()
    return loaded


def _import_zoo() -> Any:
    """Return `robustbench.utils`; raise CheckpointError if it is not RobustBench's own.

    robustbench 1.1.1 imports the official AutoAttack as `autoattack`, but the released package is
    `pyautoattack`: unless `autoattack` is installed, it is an alias during the import.
    """
    try:
        zoo = sys.modules.get("robustbench.utils")
        if zoo is None:
            with _quiet(), _autoattack_alias():
                zoo = importlib.import_module("robustbench.utils")
    except Exception as error:  # importing another package may raise anything
        lacking = (getattr(error, "name", None) or "robustbench").split(".")[0]
        needs_install = isinstance(error, ModuleNotFoundError) and lacking != "robustbench"
        raise CheckpointError(
            _explain_import(one_line(error).rstrip("."), needs_install=needs_install)
        ) from error
    if missing := [name for name in ZOO_ATTRIBUTES if not hasattr(zoo, name)]:
        raise CheckpointError(_explain_import(f"robustbench.utils has no {missing[0]}"))
    return zoo


def _explain_import(reason: str, *, needs_install: bool = False) -> str:
    """Return why robustbench cannot be used, its location and owner, and what to run."""
    spec = importlib.util.find_spec("robustbench")
    names = set(packages_distributions().get("robustbench", []))
    owners = sorted(name for name in names if name and name.lower() != "robustbench")
    if spec is None or (needs_install and not owners):
        return f"robustbench does not import ({reason}): install it with `{INSTALL}`."
    folder = next(iter(spec.submodule_search_locations or ()), spec.origin)
    if not owners:
        return (
            f"robustbench in {folder} is damaged or another package ({reason}): replace it with "
            f"`{REINSTALL}`."
        )
    return (
        f"robustbench in {folder} was overwritten by {' and '.join(owners)} ({reason}): restore it "
        f"with `pip uninstall {' '.join(owners)} && {REINSTALL}`."
    )


@contextlib.contextmanager
def _autoattack_alias() -> Iterator[None]:
    aliases = {"autoattack": "pyautoattack", "autoattack.state": "pyautoattack.state"}
    if "autoattack" in sys.modules or importlib.util.find_spec("autoattack") is not None:
        aliases = {}
    try:
        for alias, name in aliases.items():
            sys.modules[alias] = importlib.import_module(name)
        yield
    finally:
        for alias in aliases:
            sys.modules.pop(alias, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the warnings of third-party packages, and redirect their stdout to stderr."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield


def _entries(zoo: Any, dataset: str, norm: str) -> Mapping[str, Any]:
    if dataset not in ZOO_DATASETS:
        raise UsageError(
            f"RobustBench has no models for data set {dataset!r}: "
            f"choose {' or '.join(ZOO_DATASETS)}."
        )
    if norm not in ZOO_NORMS:
        raise unknown_name("norm", norm, ZOO_NORMS)
    by_norm = zoo.all_models[zoo.BenchmarkDataset(dataset)]
    entries: Mapping[str, Any] = by_norm.get(zoo.ThreatModel(norm), {})
    return entries


def _entry(zoo: Any, name: str, dataset: str, norm: str) -> Mapping[str, Any]:
    """Return robustbench's entry for `name`; the error lists where else the name exists."""
    entries = _entries(zoo, dataset, norm)
    if name in entries:
        entry: Mapping[str, Any] = entries[name]
        return entry
    elsewhere = [
        f"{other} under {threat}"
        for other in ZOO_DATASETS
        for threat in ZOO_NORMS
        if name in _entries(zoo, other, threat)
    ]
    if elsewhere:
        raise UsageError(
            f"RobustBench has {name!r} for {', '.join(elsewhere)}, but not for {dataset} under "
            f"{norm}: change {argument('dataset')} or {argument('norm')}."
        )
    if not entries:
        raise UsageError(
            f"RobustBench has no models for {dataset} under {norm}: change "
            f"{argument('dataset')} or {argument('norm')}."
        )
    raise unknown_name(f"RobustBench model for {dataset} under {norm}", name, entries)


def _weight_files(path: Path, entry: Mapping[str, Any]) -> dict[Path, str | None]:
    """Return the files that robustbench reads, with their Google Drive ids (None: from timm)."""
    source = entry["gdrive_id"]
    if isinstance(source, list):
        return {path.with_name(f"{path.name}_m{i}.pt"): part for i, part in enumerate(source)}
    return {path: source}


def _timm_name(name: str, dataset: str, norm: str) -> str:
    """Return the name under which robustbench registers its timm models."""
    return f"{name}_{dataset}_{norm}".lower().replace("-", "_")


def _load_timm(zoo: Any, timm_name: str, dataset: str, path: Path) -> nn.Module:
    """Build one of robustbench's timm models (XCiT) with the weights in `path`."""
    weights = torch.load(path, map_location="cpu", weights_only=True)
    model: nn.Module = zoo.timm.create_model(
        timm_name,
        num_classes=ZOO_DATASETS[dataset],
        pretrained=True,
        pretrained_cfg_overlay={"state_dict": weights},
    )
    return model


def _download(zoo: Any, path: Path, gdrive_id: str | None, timm_name: str) -> None:
    """Download one file into a temporary folder, check it, and only then move it to `path`."""
    errors = (
        AdrbenchError,
        OSError,
        HTTPException,
        LookupError,
        TypeError,
        AttributeError,
        zoo.gdown.exceptions.FileURLRetrievalError,
    )
    existing_parent = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with (
            _quiet(),
            tempfile.TemporaryDirectory(dir=existing_parent, prefix=".download-") as folder,
        ):
            staged = Path(folder) / path.name
            if gdrive_id is None:
                url = zoo.timm.get_pretrained_cfg(timm_name).url
                torch.hub.download_url_to_file(url, str(staged))
            else:
                zoo.download_gdrive_new(gdrive_id, staged)
            problem = _find_problem(staged)
            if problem:
                raise CheckpointError(f"the downloaded file {problem}")
            path.parent.mkdir(parents=True, exist_ok=True)
            staged.replace(path)
    except errors as error:
        offline = isinstance(error, zoo.requests.ConnectionError) or type(error) is URLError
        reason = "no connection" if offline else one_line(error)
        raise CheckpointError(
            f"the download of {path.stem} from RobustBench failed ({reason}): "
            f"check the network, or fetch the file elsewhere and put it at {path}."
        ) from error


def _find_problem(path: Path) -> str | None:
    """Return what is wrong with a weights file, based on its first bytes; None if nothing."""
    try:
        with open_limited(path, total_memory()) as file:
            start = file.read(512)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "is a web page, not weights"
    if start.startswith(b"PK"):
        return None if zipfile.is_zipfile(path) else "is truncated"
    # PyTorch before 1.6 wrote a plain pickle, which starts with the PROTO opcode.
    return None if start.startswith(b"\x80") else "is not a PyTorch file"
