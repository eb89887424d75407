"""What images and labels must be, whether they come from a file, a data set or a call.

Each function names the array by `where`, such as "x_train in images.npz".
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adrbench.errors import DataError, one_line
from adrbench.printable import printable

#: Color and transparency; an axis longer than this is not the channels.
MAX_CHANNELS = 4
#: A label at or above this is not a class index.
MAX_CLASSES = 1_000_000
INTEGERS = frozenset(
    {torch.int8, torch.int16, torch.int32, torch.int64}
    | {torch.uint8, torch.uint16, torch.uint32, torch.uint64}
)


def as_tensor(values: object, where: str) -> Tensor:
    """Return a tensor, an array or a list of either as a dense tensor on the CPU.

    It may share memory with `values`.

    Raises:
        DataError: for anything but numbers.

    """
    if isinstance(values, list | tuple) and values and isinstance(values[0], Tensor):
        try:
            values = torch.stack(list(values))
        except (TypeError, RuntimeError) as error:
            raise DataError(
                f"{where} is a list of tensors of several shapes or types: give one tensor."
            ) from error
    return _as_dense(values, where) if isinstance(values, Tensor) else _from_array(values, where)


def _as_dense(tensor: Tensor, where: str) -> Tensor:
    if tensor.is_meta or tensor.is_nested:
        kind = "on the meta device, without values" if tensor.is_meta else "a nested tensor"
        raise DataError(f"{where} is {kind}: give a tensor of numbers.")
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    return tensor.cpu().contiguous()


def _from_array(values: object, where: str) -> Tensor:
    try:
        array: npt.NDArray[np.generic] = np.asarray(values)
    except Exception as error:  # an object may define its own conversion
        raise _not_numbers(values, where) from error
    if array.dtype.kind not in "biufc":
        raise _not_numbers(values, where)
    # torch takes neither negative strides nor another byte order, and warns of read-only arrays.
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    try:
        return torch.from_numpy(np.require(native, requirements=["C", "W"]))
    except TypeError as error:
        raise _not_numbers(array, where) from error


def _not_numbers(values: object, where: str) -> DataError:
    found = f"is a {type(values).__name__}"
    if isinstance(values, np.ndarray):
        found = f"has type {values.dtype}"
    return DataError(f"{where} {found}: give a torch tensor or a NumPy array of numbers.")


def type_name(tensor: Tensor) -> str:
    """Return the type of a tensor's elements, such as "uint8"."""
    return str(tensor.dtype).removeprefix("torch.")


def check_channels_first(shape: tuple[int, ...], where: str) -> None:
    """Raise DataError unless `shape` is (N, channels, height, width), at least one image."""
    if len(shape) == 4 and shape[1] > MAX_CHANNELS and 1 <= shape[3] <= MAX_CHANNELS:
        raise DataError(
            f"{where} has shape {shape}, channels last: give (N, channels, height, width), such "
            "as torch.as_tensor(x).permute(0, 3, 1, 2)."
        )
    if len(shape) != 4 or 0 in shape:
        raise DataError(
            f"{where} has shape {shape}: give at least one image, as (N, channels, height, width)."
        )


def check_is_uint8(dtype: str, where: str) -> None:
    """Raise DataError, with how to convert other numbers, unless `dtype` is "uint8"."""
    if dtype == "uint8":
        return
    how = ""
    if "float" in dtype:
        how = ", so round values of 0 to 255, and multiply values in [0, 1] by 255 first"
    raise DataError(f"{where} has type {dtype}: it must be uint8, with values 0 to 255{how}.")


def as_labels(values: object, where: str) -> Tensor:
    """Return labels as (N,) int64 on the CPU, which may share memory with `values`.

    Raises:
        DataError: when they are not class indices.

    """
    labels = as_tensor(values, where)
    check_label_type(
        type_name(labels), tuple(labels.shape), where, is_integer=labels.dtype in INTEGERS
    )
    labels = labels.to(torch.int64)
    check_label_range(int(labels.min()), int(labels.max()), where)
    return labels


def check_label_type(dtype: str, shape: tuple[int, ...], where: str, *, is_integer: bool) -> None:
    """Raise DataError unless labels of this type and shape are (N,) integers, at least one."""
    if not is_integer:
        raise DataError(f"{where} has type {dtype}: labels must be integers.")
    if len(shape) != 1:
        raise DataError(f"{where} has shape {shape}: it must be (N,), one class index per image.")
    if shape == (0,):
        raise DataError(f"{where} is empty: a data set needs at least one image.")


def check_label_range(lowest: int, highest: int, where: str) -> None:
    """Raise DataError unless the lowest and the highest label can be class indices."""
    if lowest < 0:
        raise DataError(f"{where} has the label {lowest}: labels start at 0.")
    if highest >= MAX_CLASSES:
        raise DataError(f"{where} has the label {highest}: number the classes 0, 1, 2 and so on.")


def check_counts(num_images: int, num_labels: int, images: str, labels: str) -> None:
    """Raise DataError unless `images` has as many images as `labels` has labels."""
    if num_images != num_labels:
        raise DataError(
            f"{images} has {num_images} images but {labels} has {num_labels} labels: the numbers "
            "must be equal."
        )


def check_class_names(names: object, num_classes: int, where: str) -> tuple[str, ...]:
    """Return class names, which may be None, as a tuple; DataError unless there is one per class.

    They may contain any characters, which are made printable.
    """
    if names is None:
        return ()
    several: Any = names.tolist() if isinstance(names, np.ndarray) else names
    is_list = isinstance(several, Sequence) and not isinstance(several, str | bytes)
    texts = [one for one in several if isinstance(one, str)] if is_list else None
    if texts is None or len(texts) < len(several):
        raise DataError(
            f"class_names of {where} is {one_line(repr(names))}: give a list of strings, one per "
            "class."
        )
    if len(texts) != num_classes:
        raise DataError(
            f"class_names of {where} has {len(texts)} names, but there are {num_classes} "
            "classes: give one name per class, in the order of the labels."
        )
    return tuple(map(printable, texts))
