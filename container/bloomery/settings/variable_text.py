"""Environment variables out of what people have at hand: an env file, a ``docker run`` line, JSON."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator

from bloomery.errors import ConfigurationError
from bloomery.settings.migration_tgi import TGI

_ASSIGNMENT = re.compile(r"\s*(?:export\s+|ENV\s+)?([A-Za-z_]\w*)=(.*)", re.DOTALL)
_LAUNCHER = {"--" + row.key.lower().replace("_", "-"): row.key for row in TGI}


def parse(text: str, where: str) -> dict[str, str]:
    """Names and values; a later one beats an earlier one.

    Lines ``NAME=value`` (as docker's --env-file has them; quotes around a whole value, ``export`` and ``ENV`` fall
    off), command lines with ``-e NAME=value`` and the arguments of TGI's launcher, or one JSON object.
    """
    if text.lstrip().startswith("{"):
        return dict(_json(text, where))
    found: dict[str, str] = {}
    for number, line in _lines(text):
        if match := _ASSIGNMENT.fullmatch(line):
            found[match[1]] = _unquoted(match[2].strip())
            continue
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise ConfigurationError(f"{where} line {number}: {error}; write NAME=value") from None
        found.update(_words(words))
    if not found:
        raise ConfigurationError(
            f"{where} has no variables: lines NAME=value, docker run -e NAME=value, or a JSON object are read"
        )
    return found


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that say something; one that ends in a backslash goes on in the next."""
    start = 0
    parts: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not parts:
            start = number
            if not line.strip() or line.lstrip().startswith("#"):
                continue
        parts.append(line.removesuffix("\\"))
        if not line.endswith("\\"):
            yield start, " ".join(parts)
            parts = []
    if parts:
        yield start, " ".join(parts)


def _words(words: list[str]) -> Iterator[tuple[str, str]]:
    previous = ""
    for position, word in enumerate(words):
        option, _, attached = word.partition("=")
        match = re.fullmatch(r"(?:--env=|-e)(\w+=.*)", word, re.DOTALL)
        if previous in ("-e", "--env") or match:
            name, equals, value = (match[1] if match else word).partition("=")
            if equals:  # without a value docker passes the caller's own on, which nobody knows here
                yield name, value
        elif option in _LAUNCHER:
            after = words[position + 1] if position + 1 < len(words) else ""
            yield _LAUNCHER[option], attached or ("true" if after.startswith("-") or not after else after)
        previous = word


def _json(text: str, where: str) -> Iterator[tuple[str, str]]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{where} is no JSON: {error}") from None
    inner = document.get("Environment", document)  # as CreateModel's PrimaryContainer has it
    if not isinstance(inner, dict) or not all(isinstance(value, (str, int, float, bool)) for value in inner.values()):
        raise ConfigurationError(f'{where}: the JSON must be an object of names and values: {{"NAME": "value"}}')
    for name, value in inner.items():
        yield name, str(value).lower() if isinstance(value, bool) else str(value)


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
