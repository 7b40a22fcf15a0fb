"""From a setting's text to its value. A parser raises ValueError with what would have been right."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bloomery.settings.address import Address, parse_address
from bloomery.settings.secret import guard

Parser = Callable[[str], Any]


def whole(minimum: int = 1) -> Parser:
    """A whole number of at least ``minimum``."""

    def parse(text: str) -> int:
        if text.strip().lstrip("+-").isdecimal() and int(text) >= minimum:
            return int(text)
        raise ValueError(f"a whole number of at least {minimum}")

    return parse


def seconds(text: str) -> float:
    """A positive number of seconds."""
    return _positive(text, "a number of seconds above 0, such as 120")


def milliseconds(text: str) -> float:
    """Milliseconds in the file, seconds in the program."""
    return _positive(text, "a number of milliseconds, such as 100", zero=True) / 1000


def megabytes(text: str) -> int:
    """Mebibytes in the variable, bytes in the program."""
    return int(_positive(text, "a number of megabytes above 0, such as 64") * 2**20)


def _positive(text: str, wanted: str, zero: bool = False) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(wanted) from None
    if 0 < value < 1e9 or (zero and value == 0):
        return value
    raise ValueError(wanted)


def boolean(text: str) -> bool:
    """true or false, in any case."""
    word = text.strip().lower()
    if word in ("true", "false"):
        return word == "true"
    raise ValueError("true or false")


def choice(*allowed: str) -> Parser:
    """One of ``allowed``, in any case."""
    by_lower = {name.lower(): name for name in allowed}

    def parse(text: str) -> str:
        try:
            return by_lower[text.strip().lower()]
        except KeyError:
            raise ValueError("one of " + ", ".join(allowed)) from None

    return parse


def word(text: str) -> str:
    """Any text that is not empty."""
    if text.strip():
        return text.strip()
    raise ValueError("a value that is not empty")


def degree(text: str) -> int | None:
    """A tensor-parallel degree; None stands for ``max``, as many as there are devices."""
    if text.strip().lower() == "max":
        return None
    try:
        return int(whole()(text))
    except ValueError:
        raise ValueError("a whole number of at least 1, or max") from None


def executable(text: str) -> str:
    """A program that exists, when a path is given."""
    path = text.strip()
    if "/" in path and not Path(path).expanduser().is_file():
        raise ValueError("the path of a Python interpreter that exists")
    return str(Path(path).expanduser()) if "/" in path else word(path)


def variables(text: str) -> dict[str, str]:
    """``NAME=value,OTHER=value``, as ``option.env`` has it."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not pairs or any(not (name.strip().isidentifier() and equals) for name, equals, _ in pairs):
        raise ValueError("NAME=value pairs with commas between them")
    return {name.strip(): guard(name.strip(), value.strip()) for name, _, value in pairs}


def address(text: str) -> Address:
    """http://HOST:PORT, https://HOST:PORT or unix:/path."""
    return parse_address(text)


def file(text: str) -> Path:
    """A file that exists."""
    path = Path(text.strip()).expanduser().absolute()
    if path.is_file():
        return path
    raise ValueError("the path of a file that exists")


def directory(text: str) -> Path:
    """A directory; whether it is there is asked when it is needed."""
    return Path(word(text)).expanduser().absolute()


def status(text: str) -> int:
    """An HTTP status that says something went wrong."""
    if text.strip().isdecimal() and 400 <= int(text) <= 599:
        return int(text)
    raise ValueError("an HTTP status from 400 to 599")


def header(text: str) -> str:
    """The name of an HTTP header."""
    if re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", text.strip()):
        return text.strip()
    raise ValueError("the name of an HTTP header, such as x-request-id")
