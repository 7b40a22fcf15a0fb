"""One thing that SageMaker asks of a request beyond its fields' types, as a row of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bloomery.sagemaker.emulator.api.words import Words

Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """``broken`` yields the values to fill into ``words``, once for each breach."""

    words: Words
    broken: Callable[[Parameters], Iterator[dict[str, object]]]


def when(wrong: Callable[[Parameters], bool]) -> Callable[[Parameters], Iterator[dict[str, object]]]:
    """One breach, with nothing to fill in."""
    return lambda parameters: iter([{}] if wrong(parameters) else [])
