"""timm's networks, by the names that timm registers.

Only this module imports `timm`, and only when such a name is used: the import takes seconds.
"""

import importlib
import warnings
from collections.abc import Callable
from typing import Any

from torch import nn

from adrbench.errors import UsageError, unknown_name

PREFIX = "timm:"


def find_builder(name: str) -> Callable[..., nn.Module]:
    """Return the builder `(num_classes, in_channels, image_size)` of `timm:NAME`.

    Its networks have new weights. The size is used by networks that are made for one, such as
    vision transformers.

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

    Names of other origins that timm accepts, such as `hf-hub:`, are refused: they may be paths, or
    lead to downloads.
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


def import_timm() -> Any:
    """Return `timm`, whose import warns of what its own dependencies deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("timm")
