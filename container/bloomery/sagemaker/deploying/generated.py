"""The generated text in an answer, whichever of the usual shapes it has: ours, DJLServing's, OpenAI's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from bloomery.errors import InvocationError


def text_of(value: Any) -> str | None:
    """Of a whole answer: ``generated_text``, or the choices' text; None for any other shape."""
    first = value[0] if isinstance(value, list) and len(value) == 1 else value
    if not isinstance(first, dict):
        return None
    if isinstance(first.get("generated_text"), str):
        return str(first["generated_text"])
    return _choice(first)


def pieces(texts: Iterable[str]) -> Iterator[str]:
    """Of a stream of JSON lines or server-sent events: what each record adds; other lines as they are.

    Raises InvocationError for a record that says that the generation failed.
    """
    for line in _lines(texts):
        body = line.removeprefix("data:").strip()
        if not body or body == "[DONE]" or line.startswith((":", "event:", "id:")):
            continue
        try:
            record = json.loads(body)
        except ValueError:
            yield line
            continue
        yield _added(record, line)


def _added(record: Any, line: str) -> str:
    if not isinstance(record, dict):
        return line
    if record.get("error"):
        found = record["error"]
        text = found.get("message") if isinstance(found, dict) else found
        code = record.get("code")
        raise InvocationError(f"the generation broke off: {text}", code if isinstance(code, int) else None, line)
    token = record.get("token")
    if isinstance(token, dict) and isinstance(token.get("text"), str):
        return "" if token.get("special") else token["text"]
    if isinstance(record.get("outputs"), list):
        return "".join(each for each in record["outputs"] if isinstance(each, str))
    choice = _choice(record)
    if choice is not None:
        return choice
    return "" if "generated_text" in record or "usage" in record else line


def _choice(record: dict[str, Any]) -> str | None:
    """OpenAI's: of text, of a message, of what a message grows by."""
    choices = record.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return None
    first = choices[0]
    for holder in (first, first.get("message"), first.get("delta")):
        if isinstance(holder, dict):
            for name in ("text", "content"):
                if isinstance(holder.get(name), str):
                    return str(holder[name])
    return ""


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """A piece of a stream may end anywhere."""
    rest = ""
    for text in texts:
        *whole, rest = (rest + text).split("\n")
        yield from whole
    if rest:
        yield rest
