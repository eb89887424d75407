"""The areas of the corpus: what yields the cases of each."""

from collections.abc import Callable, Iterator
from functools import partial

from hostile import json_fields, mutations, odd_tensors, own_fields, pickles, special_files
from hostile.limited import Case

AREAS: dict[str, Callable[[], Iterator[Case]]] = {
    "instructions": pickles.instruction_cases,
    "names": pickles.call_cases,
    "programs": pickles.program_cases,
    "archives": pickles.file_cases,
    "odd-tensors": odd_tensors.cases,
    "own-checkpoints": own_fields.cases,
    "json": json_fields.cases,
    "special-files": special_files.cases,
}


def mutation_areas(count: int) -> dict[str, Callable[[], Iterator[Case]]]:
    """Return what yields `count` random changes in all, by kind of file."""
    return {f"changed {kind}": partial(mutations.cases, kind, count) for kind in mutations.KINDS}
