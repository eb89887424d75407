"""The areas of the corpus: what yields the cases of each."""

from collections.abc import Callable, Iterator

from hostile import odd_tensors, own_fields, pickles
from hostile.limited import Case

AREAS: dict[str, Callable[[], Iterator[Case]]] = {
    "instructions": pickles.instruction_cases,
    "names": pickles.call_cases,
    "programs": pickles.program_cases,
    "odd-tensors": odd_tensors.cases,
    "own-checkpoints": own_fields.cases,
}
