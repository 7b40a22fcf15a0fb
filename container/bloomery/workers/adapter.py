"""Adapters (LoRA weights beside a model): what the handler's functions for them receive, and what they answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bloomery.protocol.frames import Request, ResponseHead
from bloomery.workers.answer import Answer
from bloomery.workers.failure import error_text

# The functions of a handler, DJLServing's names.
REGISTER, UPDATE, UNREGISTER = "register_adapter", "update_adapter", "unregister_adapter"
_DIRECTORY = "adapters"


@dataclass(frozen=True)
class Adapter:
    """``src`` is the handler's to understand: mostly a directory. ``options`` are whatever else the user said."""

    name: str
    src: str
    alias: str = ""
    options: dict[str, str] = field(default_factory=dict)

    def request(self) -> Request:
        """The frame of each of the functions: name, alias and src are properties, options are content."""
        properties = {"name": self.name, "alias": self.alias or self.name, "src": self.src}
        return Request(properties, [(key, value.encode()) for key, value in self.options.items()])


def found_in(model_dir: Path) -> dict[str, Adapter]:
    """One for each directory in ``adapters`` of a model directory."""
    directory = model_dir.absolute() / _DIRECTORY
    if not directory.is_dir():
        return {}
    names = sorted(path.name for path in directory.iterdir() if path.is_dir() and path.name[0] not in "._")
    return {name: Adapter(name, str(directory / name)) for name in names}


def refusal_of(answer: Answer) -> str | None:
    """Why the handler refused, None when it did not."""
    if answer.code < 300:
        return None
    return error_text(ResponseHead(answer.code, answer.message, answer.properties, answer.content))


def lacks_function(refusal: str, function: str) -> bool:
    """Whether the handler refused because it has no such function."""
    return f"has no function {function!r}" in refusal
