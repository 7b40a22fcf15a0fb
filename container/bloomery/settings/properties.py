"""Java's .properties format, as far as ``serving.properties`` files use it: values with the line they stand on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from bloomery.errors import ConfigurationError
from bloomery.settings.layers import Found, Layer, lay

# A key ends at the first separator that no backslash protects; white space around the separator belongs to neither.
_ENTRY = re.compile(r"((?:\\.|[^\\=:\s])*)(?:[ \t\f]*[=:][ \t\f]*|[ \t\f]+|$)(.*)", re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_CONTROL = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def read(path: Path) -> Layer:
    """Every entry of the file at ``path``; a later line beats an earlier one."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8, or write \\uXXXX for such characters"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    entries: Layer = {}
    for number, key, value in parse(text, str(path)):
        lay(Found(value, f"{path.name} line {number} of {path.parent}"), key, entries)
    return entries


def parse(text: str, where: str = "properties") -> Iterator[tuple[int, str, str]]:
    """Line number, key and value of each entry."""
    for number, line in _logical_lines(text):
        match = _ENTRY.fullmatch(line)
        if match is None or not match[1]:
            raise ConfigurationError(f"{where} line {number}: {line!r} has no key; write key=value")
        # Java keeps white space at the end of a value; nobody means it (an editor's leftover breaks "true ").
        yield number, _unescape(match[1], where, number), _unescape(_trimmed(match[2]), where, number)


def _trimmed(value: str) -> str:
    """``value`` without white space at its end, unless a backslash protects it."""
    kept = value.rstrip(" \t\f")
    protected = (len(kept) - len(kept.rstrip("\\"))) % 2 == 1
    return value[: len(kept) + 1] if protected else kept


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments and blank ones; a line that ends in an odd number of backslashes goes on in the next."""
    parts: list[str] = []
    start = 0
    for number, raw in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        line = raw.lstrip(" \t\f")
        if not parts:
            if not line or line[0] in "#!":
                continue
            start = number
        continued = (len(line) - len(line.rstrip("\\"))) % 2 == 1
        parts.append(line[:-1] if continued else line)
        if not continued:
            yield start, "".join(parts)
            parts = []
    if parts:
        yield start, "".join(parts)


def _unescape(text: str, where: str, number: int) -> str:
    def one(match: re.Match[str]) -> str:
        code = match[1]
        if len(code) == 5:
            return chr(int(code[1:], 16))
        if code == "u":
            raise ConfigurationError(f"{where} line {number}: \\u needs four hexadecimal digits after it")
        return _CONTROL.get(code, code)

    replaced = _ESCAPE.sub(one, text)
    # \ud83d\ude00 is how Java writes one character outside the first plane.
    return replaced.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
