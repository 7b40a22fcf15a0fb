"""The default answer of text generation: a flat list with one object per prompt, as DJLServing 0.23 to 0.27 gave."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bloomery.protocol.events import Event, Failure, Finish


def generated_texts(events: Iterable[Event], prefixes: Sequence[str]) -> list[dict[str, Any]] | Failure:
    """``[{"generated_text": prefix + text}]`` in the order of the prompts; the Failure, when there was one.

    ``prefixes`` holds what stands before each generated text: the prompt, or nothing.
    """
    texts = [""] * len(prefixes)
    for event in events:
        if isinstance(event, Failure):
            return event
        if isinstance(event, Finish):
            texts[event.row] = event.text
    return [{"generated_text": prefix + text} for prefix, text in zip(prefixes, texts, strict=True)]
