"""Values that must not be printed: tokens, passwords, keys."""

from __future__ import annotations

import re

HIDDEN = "***"
# Names of settings and environment variables whose values are secrets. A tokenizer's pad_token is none, nor max_tokens.
_TOKENIZERS_OWN = ("pad", "eos", "bos", "unk", "sep", "cls", "mask", "stop", "image")
_OF_A_TOKENIZER = "".join(f"(?<!{name}_)" for name in _TOKENIZERS_OWN)
_NAMES = re.compile(
    rf"{_OF_A_TOKENIZER}(?<![a-z])token$|(?<![a-z])(passwd|passphrase|credentials?)$"
    r"|(api|access|private|account)_?key(_id)?$|secret|password|^option\.env$",
    re.IGNORECASE,
)
# Of presigned URLs (S3's two kinds, Azure's, and what others call a token), with or without the question mark encoded.
_SIGNATURE = re.compile(
    r"((?:[?&;]|%3F|%26)(?:X-Amz-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|Signature|sig"
    r"|(?:[a-z]+[-_])?token|api[-_]?key|password|secret)(?:=|%3D))(?:(?!%26)[^&;\s\"'#])+",
    re.IGNORECASE,
)
_USER = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/?#\"']+@", re.IGNORECASE)


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


class SecretUrl(Secret):
    """A text with a URL that lets its holder in: it prints without what does."""

    __slots__ = ()

    def __str__(self) -> str:
        return redact(self.reveal())

    def __repr__(self) -> str:
        return repr(redact(self.reveal()))

    def __format__(self, specification: str) -> str:
        return format(redact(self.reveal()), specification)


def guard(name: str, value: str) -> str:
    """``value``, made a Secret when ``name`` says that it is one, or its own form does."""
    if _NAMES.search(name):
        return Secret(value)
    return SecretUrl(value) if redact(value) != value else value


def redact(text: str) -> str:
    """``text`` with *** for users, passwords and signatures in its URLs."""
    return _SIGNATURE.sub(rf"\1{HIDDEN}", _USER.sub(rf"\1{HIDDEN}@", text))
