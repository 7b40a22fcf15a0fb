"""What a look at a deployment has found before it is made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from bloomery.errors import DeploymentRefusedError


@dataclass(frozen=True)
class Finding:
    """``what``: the part of the deployment that it is about. An error keeps it from being made; a note does not."""

    level: Literal["error", "note"]
    what: str
    message: str

    def __str__(self) -> str:
        return f"{self.what}: {self.message}"


def error(what: str, message: str) -> Finding:
    """Something that cannot be."""
    return Finding("error", what, message)


def note(what: str, message: str) -> Finding:
    """Something to know."""
    return Finding("note", what, message)


def refuse_errors(name: str, findings: Iterable[Finding]) -> None:
    """Raise DeploymentRefusedError with every error among ``findings``, if there is one."""
    found = tuple(dict.fromkeys(findings))
    grave = [each for each in found if each.level == "error"]
    if grave:
        lines = "\n".join(f"  {each}" for each in grave)
        raise DeploymentRefusedError(f"{name} cannot be deployed, and nothing was made:\n{lines}", found)
