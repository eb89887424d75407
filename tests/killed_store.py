"""A store of an evaluation's progress that is killed."""

from dataclasses import dataclass

from adrbench.evaluation.progress import Progress, ProgressFiles


@dataclass
class KilledAfter:
    """A store that saves to files, and is killed by its save after `allowed` ones."""

    files: ProgressFiles
    allowed: int

    def load(self) -> Progress | None:
        return self.files.load()

    def save(self, progress: Progress) -> None:
        self.files.save(progress)
        self.allowed -= 1
        if self.allowed < 0:
            raise KeyboardInterrupt
