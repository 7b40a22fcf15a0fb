"""What a look at a model directory has found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["error", "warning", "remark"]


@dataclass(frozen=True)
class Finding:
    """One thing. An error keeps the archive from being made, a warning does under ``strict``; a remark is what is right
    and may surprise. ``path`` is below the model directory, empty for the whole; ``line`` counts from 1."""

    level: Level
    message: str
    path: str = ""
    line: int | None = None

    @property
    def where(self) -> str:
        """``path:line``, as far as there is one."""
        return f"{self.path}:{self.line}" if self.line is not None else self.path

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.where, self.level, self.message)))

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def by_place(findings: list[Finding]) -> tuple[Finding, ...]:
    """Errors first, then by file and line; each once."""
    levels = ("error", "warning", "remark")
    return tuple(
        sorted(dict.fromkeys(findings), key=lambda each: (levels.index(each.level), each.path, each.line or 0))
    )
