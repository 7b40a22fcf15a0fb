"""Which of the historical answers a client gets: the shape, how a stream is framed, and whose key names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# list: one object per prompt (DJLServing 0.22 and later, static batches). nested: a list per prompt (0.20, when
# ``inputs`` was a list). object: LMI's rolling batch. tgi: Text Generation Inference.
Shape = Literal["list", "nested", "object", "tgi"]
StreamForm = Literal["jsonlines", "sse", "text"]
# documented: the schema that LMI's guide describes (token ids are numbers, ``log_prob``). 0.27: what that version sent
# (lists of ids). 0.36: what that version's vLLM handler sends (``logprob``, every key on every line).
Compat = Literal["documented", "0.27", "0.36"]

_CONTENT_TYPES: dict[StreamForm, str] = {
    "jsonlines": "application/jsonlines",
    "sse": "text/event-stream",
    "text": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class Style:
    """How answers look. The defaults are the ones that stay: a flat list, and JSON lines for streams."""

    shape: Shape = "list"
    stream_form: StreamForm = "jsonlines"
    compat: Compat = "documented"
    plain: bool = False  # complete answers are the bare text too (option.output_formatter=none)

    @property
    def content_type(self) -> str:
        """Of a complete answer."""
        return _CONTENT_TYPES["text"] if self.plain else "application/json"

    @property
    def stream_content_type(self) -> str:
        """Of a stream."""
        return _CONTENT_TYPES[self.stream_form]

    @property
    def one_prompt_per_stream(self) -> bool:
        """Whether a stream has no place to say which prompt a piece belongs to."""
        return self.shape in ("object", "tgi") or self.stream_form == "text"

    @property
    def begins_with_prompt(self) -> bool:
        """Whether generated_text does, when a request does not say: so the pipelines of 0.20 to 0.27 answered."""
        return self.shape in ("list", "nested") and not self.plain

    @property
    def has_details(self) -> bool:
        """Whether an answer has details when a request does not say."""
        return self.shape == "tgi"


@dataclass(frozen=True)
class Asked:
    """What the answer to one request depends on, beside its events."""

    prompts: tuple[str, ...]
    prefixes: tuple[str, ...]  # what generated_text begins with: the prompt, or nothing
    listed: bool = False  # the client sent its prompts as a list
    details: bool = False
    seed: int | None = None
