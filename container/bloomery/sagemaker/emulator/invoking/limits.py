"""What the hosting service allows a request. The defaults are SageMaker's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

from bloomery.errors import ConfigurationError


@dataclass(frozen=True)
class Limits:
    """Sources: the service model of sagemaker-runtime, and the developer guide's "How Containers Serve Requests"."""

    payload: int = 6_291_456  # bytes of an invocation's body
    inline_payload: int = 128_000  # bytes of an asynchronous invocation's own body
    invocation: float = 60.0  # seconds until the container's whole answer, or the first byte of a stream
    stream: float = 480.0  # seconds until the last byte of a stream
    asynchronous: float = 900.0  # seconds for an asynchronous invocation that names no time
    waiting: float = 21_600.0  # seconds that an asynchronous invocation may wait, if it names no time

    @classmethod
    def read(cls, texts: Iterable[str]) -> Limits:
        """SageMaker's, but for what ``--limit NAME=NUMBER`` says. Raises ConfigurationError."""
        kinds = {field.name: float if field.type == "float" else int for field in fields(cls)}
        given: dict[str, int | float] = {}
        for text in texts:
            name, _, value = text.partition("=")
            try:
                given[name] = number = kinds[name](value)
            except KeyError:
                raise ConfigurationError(f"--limit {text}: there is {', '.join(kinds)}, not {name!r}") from None
            except ValueError:
                raise ConfigurationError(f"--limit {text}: {value!r} is no number of bytes or seconds") from None
            if not (number > 0 and math.isfinite(number)):
                raise ConfigurationError(f"--limit {text}: a limit is above 0")
        return cls(**given)  # type: ignore[arg-type]  # each has the kind of its field
