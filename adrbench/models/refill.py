"""The frozen form of a network whose weights change between evaluations, as they do in training.

It is traced and folded once. Later evaluations copy the weights into it, in place, so that CUDA
graphs of its passes stay valid.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from adrbench.models.frozen import COMPARED_IMAGES, Frozen, freeze, is_equivalent, trace
from adrbench.models.graphed import GraphedModel
from adrbench.runtime.devices import IMAGE_FORMAT

#: (frozen model, images of the largest batch) -> the model with its passes replayed.
MakeGraphed = Callable[[nn.Module, Tensor], nn.Module]


@dataclass(kw_only=True)
class Form:
    """A frozen model to refill, and what it can be used for.

    `plain` is the frozen model; that of `frozen` replays its passes. `fused` has the name of the
    BatchNorm that was folded into a layer by the name of that layer, and is found when the form is
    first refilled. `made_for` is the shape, type, device and memory formats of the images.
    """

    frozen: Frozen
    plain: nn.Module
    fused: Mapping[str, str] | None = None
    made_for: object


class RefillingFreezer:
    """Freezes networks of one architecture, one after the other, in one form.

    The form is used again only if it has the logits and gradients of the network whose weights were
    copied into it. Otherwise the network is frozen anew, such as where a trace depends on the
    values of weights. On a GPU the passes of the form are replayed as CUDA graphs.
    """

    def __init__(self, make_graphed: MakeGraphed | None = None) -> None:
        self.make_graphed = make_graphed or replay_on_gpu
        self.form: Form | None = None

    def freeze(
        self, model: nn.Module, x: Tensor, formats: Sequence[torch.memory_format] = (IMAGE_FORMAT,)
    ) -> Frozen:
        """Return the frozen form of `model`, whose arguments are those of `frozen.freeze`.

        The next call overwrites its weights. `model` must be in eval mode.
        """
        made_for = (x.shape, x.dtype, x.device, tuple(formats))
        if self.form is None or self.form.made_for != made_for or not refill(self.form, model, x):
            self.form = None  # frees its memory
            frozen = freeze(model, x, formats)
            if frozen.model is model:
                return frozen
            self.form = Form(
                frozen=replace(frozen, model=self.make_graphed(frozen.model, x)),
                plain=frozen.model,
                made_for=made_for,
            )
        return self.form.frozen


def replay_on_gpu(model: nn.Module, x: Tensor) -> nn.Module:
    """Return `model`, on a GPU with its passes on up to `len(x)` images replayed as CUDA graphs."""
    return GraphedModel(model, x, len(x)) if x.is_cuda else model


def find_fused(model: nn.Module, folded: nn.Module) -> dict[str, str]:
    """Return the name of the BatchNorm by the name of the layer that it was folded into."""
    assert isinstance(folded, fx.GraphModule)
    _, graph = trace(model)
    kept = {node.target for node in folded.graph.nodes if node.op == "call_module"}
    return {
        str(node.args[0].target): str(node.target)
        for node in graph.nodes
        if node.op == "call_module" and node.target not in kept
        if isinstance(node.args[0], fx.Node)
    }


def refill(form: Form, model: nn.Module, x: Tensor) -> bool:
    """Copy the weights of `model`, in eval mode, into `form`; return whether it is then equivalent.

    BatchNorm is folded with the arithmetic of `frozen.fold_batch_norm`, so the weights are bitwise
    those of a new frozen form. The comparison is on the first of the images `x` (N, C, H, W).
    """
    try:
        if form.fused is None:
            form.fused = find_fused(model, form.plain) if form.frozen.folded else {}
        copy_weights(model, form.plain, form.fused)
        return is_equivalent(model, form.plain, x[:COMPARED_IMAGES], comparisons=1)
    except Exception:  # folding and comparing run the model's code, which may raise anything
        return False


@torch.no_grad()
def copy_weights(model: nn.Module, form: nn.Module, fused: Mapping[str, str]) -> None:
    """Copy every tensor of `model` into its frozen `form`, where the layers `fused` are folded.

    Raises:
        KeyError: when the form has a tensor that the model has not, such as a constant of a trace.
        ValueError: when a tensor has another shape.

    """
    sources = named_tensors(model)
    for name, norm in fused.items():
        layer = fuse(model.get_submodule(name), model.get_submodule(norm))
        sources |= {f"{name}.{own}": value for own, value in layer.named_parameters()}
    for name, value in named_tensors(form).items():
        if value.shape != sources[name].shape:
            raise ValueError(f"{name} has another shape")
        value.copy_(sources[name])


def fuse(layer: nn.Module, norm: nn.Module) -> nn.Module:
    """Return a copy of a convolution or a linear layer with a BatchNorm folded into it."""
    fuse_layers: Callable[[nn.Module, nn.Module], nn.Module] = (
        fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval  # type: ignore[assignment]
    )
    return fuse_layers(layer, norm)


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers by name; a tensor that is shared has several."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
