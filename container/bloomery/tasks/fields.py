"""Checks of single values in a request: each takes the field's name and returns the value, or refuses it in words."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

from bloomery.errors import BadRequestError

MAX_STOP_SEQUENCES = 64
MAX_STOP_LENGTH = 1024


def text(name: str, value: object) -> str:
    """A text that can be written as UTF-8."""
    if not isinstance(value, str):
        raise BadRequestError(f'{name} is {show(value)}: it must be a text, such as "To be".')
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRequestError(
            f"{name} holds half a surrogate pair ({value[error.start]!r} at character {error.start}), "
            "which is not a character: send it as UTF-8, or both halves."
        ) from error
    return value


def integer(low: int, high: int, example: int) -> Callable[[str, object], int]:
    """The check for a whole number from ``low`` to ``high``."""

    def check(name: str, value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise BadRequestError(
            f"{name} is {show(value)}: it must be an integer from {low} to {high}, such as {example}."
        )

    return check


def number(low: float, high: float, example: float) -> Callable[[str, object], float]:
    """The check for a number from ``low`` to ``high``."""

    def check(name: str, value: object) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
            return float(value)
        raise BadRequestError(f"{name} is {show(value)}: it must be a number from {low} to {high}, such as {example}.")

    return check


def boolean(name: str, value: object) -> bool:
    """true or false, nothing that merely looks like it."""
    if isinstance(value, bool):
        return value
    raise BadRequestError(f"{name} is {show(value)}: it must be true or false.")


def stop_sequences(name: str, value: object) -> tuple[str, ...]:
    """One text, or a list of them."""
    sequences = [value] if isinstance(value, str) else value
    if not isinstance(sequences, list):
        raise BadRequestError(f'{name} is {show(value)}: it must be a list of texts, such as ["\\n"].')
    if len(sequences) > MAX_STOP_SEQUENCES:
        raise BadRequestError(f"{name} holds {len(sequences)} texts: at most {MAX_STOP_SEQUENCES} are watched for.")
    for index, sequence in enumerate(sequences):
        if not 0 < len(text(f"{name}[{index}]", sequence)) <= MAX_STOP_LENGTH:
            raise BadRequestError(
                f'{name}[{index}] has {len(sequence)} characters: it must have 1 to {MAX_STOP_LENGTH}, such as "\\n".'
            )
    return tuple(sequences)


def utf8(body: bytes) -> str:
    """The body as text."""
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise BadRequestError(
            f"The body is not UTF-8: byte {body[error.start]:#04x} at offset {error.start}."
        ) from error


def parse_json(body: bytes, example: str) -> object:
    """The body as JSON whose numbers are finite; ``example`` is what a refusal shows."""

    def finite(digits: str) -> float:
        value = float(digits)
        if math.isfinite(value):
            return value
        raise BadRequestError(f"The body holds the number {digits[:40]}, which is not finite: no setting takes that.")

    if not body.strip():
        raise BadRequestError(f"The body is empty: it must be a JSON object, for example {example}.")
    try:
        return json.loads(utf8(body), parse_float=finite, parse_constant=finite)
    except RecursionError as error:
        raise BadRequestError(f"The body is JSON nested too deeply to be a request, for example {example}.") from error
    except ValueError as error:
        raise BadRequestError(f"The body is not JSON ({error}), for example {example}.") from error


def show(value: object) -> str:
    """The value as the client wrote it, cut to a length that suits a message."""
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 80 else shown[:77] + "..."
