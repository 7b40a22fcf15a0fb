"""Text out of a growing row of token ids, given away as early as it is certain and never earlier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# A tokenizer decodes a token by what stands before it: sentencepiece drops the blank in front of a text's first word.
# A few tokens of context are enough, and keep the cost of a step independent of the row's length.
CONTEXT_TOKENS = 6
LONGEST_CHARACTER = 4  # bytes, of which each may be a token
# What decoding puts where bytes are not UTF-8; at the end of a text it may be half a character.
HALF_CHARACTER = "\N{REPLACEMENT CHARACTER}"


class Detokeniser:
    """One row's new text, token by token. Special tokens add nothing."""

    def __init__(self, tokenizer: Any, prompt_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(tokenizer.all_special_ids)
        self._window = self._end_of([token for token in prompt_ids if token not in self._special])
        self._given = len(self._decode(self._window))  # characters of the window's text that are already out
        self._context = len(self._window)

    def is_special(self, token: int) -> bool:
        """Whether the tokenizer counts ``token`` among its own marks."""
        return token in self._special

    def add(self, token: int) -> str:
        """The text that ``token`` makes certain; empty while a character is incomplete."""
        if token in self._special:
            return ""
        self._window.append(token)
        text = self._decode(self._window)
        certain = text.rstrip(HALF_CHARACTER)
        new = certain[self._given :]
        self._given = max(self._given, len(certain))
        if new and len(certain) == len(text):
            self._window = self._window[self._context :]
            self._context = len(self._window)
            self._given = len(self._decode(self._window))
        return new

    def flush(self) -> str:
        """What was held back, when no further token will complete it."""
        text = self._decode(self._window)
        held = text[self._given :]
        self._given = len(text)
        return held

    def _end_of(self, tokens: list[int]) -> list[int]:
        """The last tokens, from the start of a character: a cut one would spoil the characters after it."""
        for size in range(CONTEXT_TOKENS, CONTEXT_TOKENS + LONGEST_CHARACTER):
            if not self._decode(tokens[-size:]).startswith(HALF_CHARACTER):
                break
        return tokens[-size:]

    def _decode(self, tokens: list[int]) -> str:
        # Tidying blanks before punctuation would change text that is already out.
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text
