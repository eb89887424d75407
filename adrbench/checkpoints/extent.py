"""How much there is in a nested value in which the same container may occur in many places.

A file of a kilobyte can hold lists that have a million entries when each is followed wherever it is
referred to. Code that walks through values follows them, so such files are refused before.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from adrbench.checkpoints.refusals import too_much

MAX_VALUES = 1_000_000
#: Of text, each time that it occurs.
MAX_CHARACTERS = 2**28
#: Code that walks through values calls itself at each level.
MAX_DEPTH = 100


@dataclass(slots=True)
class Extent:
    """What a value contains, counting everything wherever it occurs.

    `depth` is the number of containers within each other.
    """

    values: int = 1
    characters: int = 0
    tensor_bytes: int = 0
    depth: int = 0

    def add(self, inner: "Extent") -> None:
        """Add an entry of a container.

        Raises:
            RefusedError: when there is now too much.

        """
        self.values += inner.values
        self.characters += inner.characters
        self.tensor_bytes += inner.tensor_bytes
        self.depth = max(self.depth, 1 + inner.depth)
        if self.values > MAX_VALUES or self.characters > MAX_CHARACTERS:
            raise too_much("lists or tables that refer to others again and again")
        if self.depth > MAX_DEPTH:
            raise _too_deep()


def measure(content: object) -> Extent:
    """Return the extent of `content`, in time proportional to the number of its objects.

    Raises:
        RefusedError: when it contains too much, contains itself, or is nested too deep.

    """
    return _measure(content, {}, 0)


def _measure(value: object, measured: dict[int, Extent], level: int) -> Extent:
    """Return the extent of `value`; those of containers are `measured` once, by identity."""
    if not isinstance(value, dict | list | tuple | set):
        return _measure_leaf(value)
    if id(value) not in measured:
        if level >= MAX_DEPTH:
            raise _too_deep()
        extent = Extent()
        for item in _items(value):
            extent.add(_measure(item, measured, level + 1))
        measured[id(value)] = extent
    return measured[id(value)]


def _measure_leaf(value: object) -> Extent:
    if isinstance(value, Tensor):
        return Extent(tensor_bytes=value.nbytes)
    return Extent(characters=len(value) if isinstance(value, str | bytes | bytearray) else 0)


def _items(
    container: dict[object, object] | list[object] | tuple[object, ...] | set[object],
) -> Iterator[object]:
    """Yield the names and values in a container."""
    for item in container:
        yield item
        if isinstance(container, dict):
            yield container[item]


def _too_deep() -> Exception:
    return too_much(f"lists or tables nested more than {MAX_DEPTH} levels deep")
