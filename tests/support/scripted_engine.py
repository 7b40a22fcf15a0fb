"""A fake engine: it computes nothing and plays back token ids, for cases that no real model makes on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bloomery.engines.base import GenerationParameters, Step
from bloomery.protocol.events import FinishReason


class ScriptedEngine:
    """Row r of every request gets the tokens ``rows[r]``, then ends with ``reason``."""

    name = "scripted"
    model_type = "none"
    encoder_decoder = False

    def __init__(
        self,
        tokenizer: Any,
        rows: Sequence[Sequence[int]],
        *,
        reason: FinishReason = "length",
        max_tokens: int = 1024,
        before_step: Callable[[int], None] = lambda step: None,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.rows = rows
        self.reason = reason
        self.before_step = before_step
        self.steps_made = 0
        self.closed = False
        self.parameters: GenerationParameters | None = None

    def generate(self, input_ids: Sequence[Sequence[int]], parameters: GenerationParameters) -> Iterator[Step]:
        self.parameters = parameters
        self.prompts = [list(ids) for ids in input_ids]
        try:
            for index in range(max(len(row) for row in self.rows)):
                self.before_step(index)
                self.steps_made += 1
                yield Step(
                    tokens=tuple(row[index] if index < len(row) else None for row in self.rows),
                    finished=tuple(self.reason if index == len(row) - 1 else None for row in self.rows),
                )
        finally:
            self.closed = True
