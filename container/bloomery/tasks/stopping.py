"""Stop sequences in a text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopSequences:
    """Passes text on up to the first stop sequence, which may span pieces; the sequence itself is cut.

    A piece's end that could become a stop sequence is held back until the next piece decides.
    """

    def __init__(self, sequences: Sequence[str]) -> None:
        self._sequences = tuple(sequences)
        self._held = ""

    def push(self, piece: str) -> tuple[str, bool]:
        """The text that may leave now, and whether a stop sequence was met."""
        text = self._held + piece
        found = [position for sequence in self._sequences if (position := text.find(sequence)) >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        cut = len(text) - self._possible_start(text)
        self._held = text[cut:]
        return text[:cut], False

    def flush(self) -> str:
        """What was held back, when no further piece comes."""
        held, self._held = self._held, ""
        return held

    def _possible_start(self, text: str) -> int:
        """The length of the longest end of ``text`` with which a stop sequence begins."""
        longest = max((len(sequence) for sequence in self._sequences), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(sequence.startswith(text[-length:]) for sequence in self._sequences):
                return length
        return 0
