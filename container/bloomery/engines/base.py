"""What every engine offers, whatever runs underneath."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from bloomery.protocol.events import FinishReason


@dataclass(frozen=True)
class GenerationParameters:
    """One request's generation settings, the same for all its prompts. Defaults are LMI's (30 new tokens, greedy)."""

    max_new_tokens: int = 30
    do_sample: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    num_beams: int = 1
    seed: int | None = None
    stop_sequences: tuple[str, ...] = ()
    ignore_eos: bool = False
    extra: dict[str, Any] = field(default_factory=dict)  # further arguments of transformers' generate()


@dataclass(frozen=True)
class Step:
    """What one decode step made: a token id per row, None for a row that had already finished."""

    tokens: tuple[int | None, ...]
    finished: tuple[FinishReason | None, ...]  # why a row ended with this step
    log_probs: tuple[float | None, ...] = ()


class TextGenerationEngine(Protocol):
    """A loaded model that continues texts. Every rank of a group calls it with the same arguments.

    Steps are computed on demand, never ahead of the consumer, so that ranks which all close the iterator after the
    same step stay together (a rank that ran ahead would wait in a collective for ever). Closing the iterator stops
    the generation; that is how a task ends a row at a stop sequence. ``generate`` also stops within one step after
    ``processes.rank.current.cancelled`` becomes true on rank 0 (the unfinished rows then end with reason
    "cancelled", on every rank at the same step), and counts each step through ``rank.current.step``.
    """

    name: str
    model_type: str
    tokenizer: Any
    max_tokens: int

    @property
    def encoder_decoder(self) -> bool:
        """Whether a prompt is read by an encoder and a text of its own is written, rather than the prompt continued."""
        ...

    def generate(self, input_ids: Sequence[Sequence[int]], parameters: GenerationParameters) -> Iterator[Step]:
        """Continue each prompt (token ids, not padded, lengths may differ); yields one Step per new token."""
        ...


@runtime_checkable
class PipelineEngine(Protocol):
    """A loaded model that gives labels, fillings or spans. Every rank of a group calls it with the same arguments."""

    task: str
    max_tokens: int
    mask_token: str | None

    def count_tokens(self, text: Any) -> int:
        """Tokens of a text, or of ``{"text": ..., "text_pair": ...}``."""
        ...

    def run(self, items: Sequence[Any], parameters: Mapping[str, Any]) -> list[Any]:
        """One result per item, in their order."""
        ...
