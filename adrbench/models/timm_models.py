"""timm's networks, by the names that timm registers.

Only this module imports `timm`, and only when such a name is used: the import takes seconds.
"""

import importlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adrbench.errors import CheckpointError, UsageError, argument, one_line, unknown_name
from adrbench.printable import get_logger
from adrbench.runtime.files import check_regular_file
from adrbench.runtime.memory import total_memory

logger = get_logger(__name__)

PREFIX = "timm:"
#: The files on the Hugging Face Hub in which weights are looked for, by what timm calls them.
HUB_FILES = {
    None: ("model.safetensors", "pytorch_model.bin"),
    "open_clip_pytorch_model.bin": ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
}


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A network with timm's pretrained weights, on the CPU, and their training settings.

    `mean` and `std` are per channel for pixels in [0, 1]. `weights` is timm's full name of the
    weights, `trained_size` the height and width of their images.
    """

    network: nn.Module
    weights: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    trained_size: tuple[int, int]


def find_builder(name: str) -> Callable[..., nn.Module]:
    """Return the builder `(num_classes, in_channels, image_size)` of `timm:NAME`.

    Its networks are newly initialized. The size is used by networks with a fixed input size, such
    as vision transformers.

    Raises:
        UsageError: for a name that timm does not have.

    """
    timm, name = import_timm(), check_name(name)
    takes_size = is_of_fixed_size(name)

    def build(num_classes: int, in_channels: int, image_size: Any = None) -> nn.Module:
        options = {"img_size": image_size} if takes_size and image_size is not None else {}
        network: nn.Module = timm.create_model(
            name, pretrained=False, num_classes=num_classes, in_chans=in_channels, **options
        )
        return network

    return build


def check_name(name: str) -> str:
    """Return the name in `timm:NAME`; UsageError, with the nearest names, unless timm has it.

    Other kinds of names that timm accepts, such as `hf-hub:`, are refused: they may be paths or
    cause downloads.
    """
    timm, name = import_timm(), name.removeprefix(PREFIX)
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise unknown_name("timm model", name, timm.list_models())
    pretrained = timm.list_pretrained() if tag else []
    if tag and name not in pretrained:
        own = [other for other in pretrained if other.startswith(f"{architecture}.")]
        if not own:
            raise UsageError(
                f"timm has no pretrained weights {name!r}: leave out {tag!r}, {architecture} has "
                "none."
            )
        raise unknown_name("timm model", name, own)
    return name


def is_of_fixed_size(name: str) -> bool:
    """Return whether a network of timm is built for images of one size."""
    config = import_timm().get_pretrained_cfg(name)
    return bool(config and config.fixed_input_size)


def load_pretrained(name: str, shape: tuple[int, int, int]) -> Pretrained:
    """Return the network `timm:NAME` with its pretrained weights, for images of `shape` (C, H, W).

    Weights that are in the cache of the Hugging Face Hub or of torch are not downloaded again.

    Raises:
        UsageError: for a name that timm does not have or has no weights for, or images that the
            network does not accept.
        CheckpointError: when the weights cannot be downloaded or read.

    """
    timm, name = import_timm(), check_name(name)
    config = timm.get_pretrained_cfg(name)
    if config is None or not (config.has_weights or config.state_dict):
        raise UsageError(
            f"timm has no pretrained weights of {name}: give a file of weights with "
            f"{argument('arch', PREFIX + name)}."
        )
    if not config.num_classes:
        raise UsageError(f"timm's {name} returns features, not classes: choose another model.")
    channels, *size = config.input_size
    if channels != shape[0]:
        raise UsageError(
            f"timm's {name} takes {channels} channels, and the images have {shape[0]}: choose "
            "another model or data set."
        )
    options: dict[str, Any] = {"img_size": shape[1:]} if config.fixed_input_size else {}
    try:
        with _quiet():
            overlay = _fetch(config)
            network = timm.create_model(
                name, pretrained=True, pretrained_cfg_overlay=overlay, **options
            )
    except Exception as error:  # the Hub's and timm's loaders raise what their libraries do
        if options and (reason := _find_size_problem(name, shape)):
            raise UsageError(
                f"timm's {name} does not take images of {shape[1]}x{shape[2]} pixels ({reason}): "
                "choose another model or data set."
            ) from error
        raise CheckpointError(_describe_failure(name, error)) from error
    return Pretrained(
        network=network.eval(),
        weights=f"{config.architecture}.{config.tag}" if config.tag else name,
        mean=tuple(config.mean),
        std=tuple(config.std),
        trained_size=(size[0], size[1]),
    )


def _fetch(config: Any) -> dict[str, Any]:
    """Return the overrides of timm's weight configuration that locate the weights file.

    timm 1.0.9 does not work with the Hub's library from version 2 on, so the file is fetched here.
    """
    if config.file or config.state_dict or not config.hf_hub_id:
        return {}
    repository, _, revision = config.hf_hub_id.partition("@")
    candidates = HUB_FILES.get(config.hf_hub_filename, (config.hf_hub_filename,))
    file = _find_file(repository, revision or None, candidates)
    if config.custom_load == "hf":
        return {"file": file, "custom_load": True}
    return {"state_dict": _read_weights(Path(file)), "custom_load": False}


def _find_file(repository: str, revision: str | None, candidates: Sequence[str]) -> str:
    """Return the first of the files that is cached, else download the first that exists."""
    hub = importlib.import_module("huggingface_hub")
    errors = importlib.import_module("huggingface_hub.errors")
    for filename in candidates:
        cached = hub.try_to_load_from_cache(repository, filename, revision=revision)
        if isinstance(cached, str):
            return cached
    logger.info(f"downloading {repository} from the Hugging Face Hub.")
    *others, last = candidates
    for filename in others:
        try:
            return str(hub.hf_hub_download(repository, filename, revision=revision))
        except errors.LocalEntryNotFoundError:  # no connection
            raise
        except errors.EntryNotFoundError:
            continue
    return str(hub.hf_hub_download(repository, last, revision=revision))


def _read_weights(file: Path) -> Any:
    check_regular_file(file, total_memory())
    if file.suffix == ".safetensors":
        return importlib.import_module("safetensors.torch").load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)


def _find_size_problem(name: str, shape: tuple[int, int, int]) -> str | None:
    """Return why a network without its weights does not take images of `shape`, else None."""
    try:
        with _quiet(), torch.no_grad():
            network = import_timm().create_model(name, pretrained=False, img_size=shape[1:])
            network.eval()(torch.zeros(1, *shape))
    except Exception as error:  # timm does not check sizes
        return one_line(error).rstrip(".")
    return None


def _describe_failure(name: str, error: Exception) -> str:
    """Return why weights cannot be loaded, and where they could be put."""
    cache = importlib.import_module("huggingface_hub.constants").HF_HUB_CACHE
    errors = importlib.import_module("huggingface_hub.errors")
    is_offline = isinstance(error, errors.LocalEntryNotFoundError)
    reason = "no connection" if is_offline else one_line(error).rstrip(".")
    return (
        f"the pretrained weights of timm's {name} cannot be loaded ({reason}): check the network, "
        f"put them into the cache ({cache}, which HF_HOME sets, or {torch.hub.get_dir()}, which "
        f"TORCH_HOME sets), or give a file of them with {argument('arch', PREFIX + name)}."
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the warnings of timm, and the Hub's messages about each attempt to connect."""
    hub = logging.getLogger("huggingface_hub")  # noqa: TID251 - not a logger of ours
    level = hub.level
    hub.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        hub.setLevel(level)


def import_timm() -> Any:
    """Import `timm`, suppressing the deprecation warnings of its dependencies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("timm")
