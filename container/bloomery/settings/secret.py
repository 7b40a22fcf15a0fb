"""Values that must not be printed: tokens, passwords, keys."""

from __future__ import annotations

import re

HIDDEN = "***"
# Names of settings and environment variables whose values are secrets. A tokenizer's pad_token is none, nor max_tokens.
_TOKENIZERS_OWN = ("pad", "eos", "bos", "unk", "sep", "cls", "mask", "stop", "image")
_OF_A_TOKENIZER = "".join(f"(?<!{name}_)" for name in _TOKENIZERS_OWN)
_NAMES = re.compile(
    rf"{_OF_A_TOKENIZER}(?<![a-z])token$|(?<![a-z])(passwd|passphrase|credentials?)$"
    r"|(api|access|private|account)_?key(_id)?$|secret|password",
    re.IGNORECASE,
)


class Secret(str):
    """A string that prints as ***, wherever it is printed; ``reveal`` and ``encode`` give what it holds."""

    __slots__ = ()

    def __str__(self) -> str:
        return HIDDEN

    def __repr__(self) -> str:
        return f"'{HIDDEN}'"

    def __format__(self, specification: str) -> str:
        return format(HIDDEN, specification)

    def reveal(self) -> str:
        """The string itself."""
        return "".join(self)


def guard(name: str, value: str) -> str:
    """``value``, made a Secret when ``name`` says that it is one."""
    return Secret(value) if _NAMES.search(name) else value
