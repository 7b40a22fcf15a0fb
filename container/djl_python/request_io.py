"""What a custom formatter reads and fills: the input of one text generation, and its output token by token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Token:
    """One generated token. ``text`` is what it adds; ``error_msg`` says why there are no more."""

    id: int
    text: str
    log_prob: float | None = None
    special_token: bool | None = None
    error_msg: str | None = None
    request_id: int | None = field(default=None, init=False)

    def as_dict(self) -> dict[str, Any]:
        """As LMI answers show a token."""
        shown: dict[str, Any] = {"id": self.id, "text": self.text, "log_prob": self.log_prob}
        optional = {"special_token": self.special_token, "error_msg": self.error_msg}
        return shown | {name: value for name, value in optional.items() if value}

    def as_tgi_dict(self) -> dict[str, Any]:
        """As text-generation-inference shows a token."""
        shown: dict[str, Any] = {"id": self.id, "text": self.text, "logprob": self.log_prob}
        return shown | ({"special": True} if self.special_token else {})


@dataclass
class Sequence:
    """The tokens of one continuation. ``get_next_token`` gives each away once."""

    tokens: list[Token] = field(default_factory=list)
    top_tokens: list[list[Token]] = field(default_factory=list)
    cumulative_log_prob: float = 0.0
    finish_reason: str | None = None
    stop_reason: str | None = None
    _last: int | None = field(default=None, init=False, repr=False)
    _given: int = field(default=0, init=False, repr=False)
    _top_given: int = field(default=0, init=False, repr=False)

    def set_next_token(self, token: Token, is_last_token: bool = False) -> None:
        """Append a token."""
        self.tokens.append(token)
        if is_last_token:
            self._last = len(self.tokens) - 1

    def set_next_top_tokens(self, top_tokens: list[Token]) -> None:
        """Append the likeliest tokens of a step."""
        self.top_tokens.append(top_tokens)

    def has_next_token(self) -> bool:
        """Whether a token has not been given away."""
        return self._given < len(self.tokens)

    def has_next_top_tokens(self) -> bool:
        """Whether a step's likeliest tokens have not been given away."""
        return self._top_given < len(self.top_tokens)

    def get_next_token(self) -> tuple[Token | None, bool, bool]:
        """The next token, whether it is the first, and whether it is the last; None when there is none yet."""
        if not self.has_next_token():
            return None, False, False
        index, self._given = self._given, self._given + 1
        return self.tokens[index], index == 0, index == self._last

    def get_last_token(self) -> Token | None:
        """The newest token."""
        return self.tokens[-1] if self.tokens else None

    def get_next_top_tokens(self) -> list[Token] | None:
        """The likeliest tokens of the next step."""
        if not self.has_next_top_tokens():
            return None
        self._top_given += 1
        return self.top_tokens[self._top_given - 1]


@dataclass
class RequestInput:
    """What one request asks. ``parameters`` are the client's, ``server_parameters`` what became of them."""

    request_id: int | None = None
    output_formatter: Callable[..., Any] | str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    server_parameters: dict[str, Any] = field(default_factory=dict)
    tgi_compat: bool = False


@dataclass
class TextInput(RequestInput):
    """The same, for text generation. A custom input formatter returns one."""

    input_text: str | list[str] | None = None
    input_ids: list[int] = field(default_factory=list)
    adapters: Any = None
    tokenizer: Any = None
    found_adapters: bool = False

    def prompt_tokens_length(self) -> int:
        """How many tokens the prompt has."""
        return len(self.input_ids)


@dataclass
class RequestOutput:
    """What one request has come to."""

    request_id: int | None
    input: RequestInput
    finished: bool = False


@dataclass
class TextGenerationOutput(RequestOutput):
    """The same, for text generation: one sequence, or several that compete."""

    sequences: dict[int, Sequence] = field(default_factory=dict)
    best_sequence_index: int = 0
    prompt_tokens_details: list[Token] = field(default_factory=list)
    other_sequences_indices: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sequences.setdefault(self.best_sequence_index, Sequence())

    def set_next_token(
        self, token: Token, sequence_index: int = 0, is_last_token: bool = False, finish_reason: str | None = None
    ) -> None:
        """Append a token to a sequence."""
        sequence = self.sequences.setdefault(sequence_index, Sequence())
        sequence.set_next_token(token, is_last_token)
        sequence.finish_reason = finish_reason or sequence.finish_reason

    def set_next_top_tokens(self, top_tokens: list[Token], sequence_index: int = 0) -> None:
        """Append the likeliest tokens of a step to a sequence."""
        self.sequences[sequence_index].set_next_top_tokens(top_tokens)

    def set_best_sequence_index(self, sequence_index: int) -> None:
        """Say which sequence is the answer."""
        self.best_sequence_index = sequence_index

    def set_finish_reason(self, finish_reason: str, sequence_index: int = 0) -> None:
        """Say why a sequence ended."""
        self.sequences[sequence_index].finish_reason = finish_reason

    def get_tokens_as_dict(self, sequence_index: int = 0) -> list[dict[str, Any]]:
        """The tokens of a sequence, as the request's dialect shows them."""
        return [self._shown(token) for token in self.sequences[sequence_index].tokens]

    def get_prompt_tokens_as_dict(self) -> list[dict[str, Any]]:
        """The tokens of the prompt."""
        return [self._shown(token) for token in self.prompt_tokens_details]

    def get_top_tokens_as_dict(self, sequence_index: int = 0) -> list[list[dict[str, Any]]]:
        """The likeliest tokens of every step of a sequence."""
        return [[self._shown(token) for token in step] for step in self.sequences[sequence_index].top_tokens]

    def _shown(self, token: Token) -> dict[str, Any]:
        return token.as_tgi_dict() if self.input.tgi_compat else token.as_dict()
