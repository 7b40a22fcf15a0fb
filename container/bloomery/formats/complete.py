"""Answers that are sent whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bloomery.formats.details import Row, row_details
from bloomery.formats.style import Asked, Style


def complete_answer(rows: Sequence[Row], asked: Asked, style: Style) -> Any:
    """What answers one request: text in the plain style, else what becomes JSON.

    list, tgi: ``[{"generated_text": ...}]`` in the order of the prompts. nested: the same, as a list per prompt when
    the prompts were a list. object: ``{"generated_text": ...}``, in a list only when the prompts were one.
    """
    if style.plain:
        return "".join(prefix + row.text for prefix, row in zip(asked.prefixes, rows, strict=True))
    answers = [_one(index, row, asked, style) for index, row in enumerate(rows)]
    if style.shape == "nested" and asked.listed:
        return [[answer] for answer in answers]
    if style.shape == "object" and not asked.listed:
        return answers[0]
    return answers


def _one(index: int, row: Row, asked: Asked, style: Style) -> dict[str, Any]:
    answer: dict[str, Any] = {"generated_text": asked.prefixes[index] + row.text}
    if asked.details and row.finish is not None:
        answer["details"] = row_details(index, row.finish, row.tokens, asked, style)
    return answer
