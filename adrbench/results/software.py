"""The software that produced a record."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Software:
    """Package versions, and the commit of this project where it is known.

    `plugins` maps each name in use that a plugin provided, such as "suites:NAME", to its
    distribution and version.
    """

    versions: dict[str, str]
    commit: str | None
    dirty: bool | None
    plugins: dict[str, str] = field(default_factory=dict)
