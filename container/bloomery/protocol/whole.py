"""Frames that are here in whole, decoded at one go: the way of nearly every small request and answer.

A shortcut past the generators of ``frames``, several times as fast. Whatever is not plain (something is missing, too
long, null where text belongs, not quite UTF-8) gives None: ``frames`` then decodes it piece by piece, or says what is
wrong with it.
"""

from __future__ import annotations

import struct

from bloomery.protocol.frames import STREAM, ContentPart, Dialect, Request, ResponseHead

_INT16 = struct.Struct(">h").unpack_from
_INT32 = struct.Struct(">i").unpack_from
_NULL = -1


class _NotPlainError(Exception):
    pass


_ODDITIES = (struct.error, UnicodeDecodeError, _NotPlainError)


def request(data: bytes, dialect: Dialect) -> tuple[Request, int] | None:
    """The request frame at the start of ``data``, and where it ends."""
    try:
        (count,) = _INT16(data)
        properties, at = _pairs(data, 2, count, dialect)
        (count,) = _INT16(data, at)
        content, at = _content(data, at + 2, count, dialect)
    except _ODDITIES:
        return None
    return Request(properties, content), at


def response(data: bytes, dialect: Dialect = Dialect.INT32) -> tuple[ResponseHead, int] | None:
    """The response frame at the start of ``data``, up to where stream chunks begin, and where it ends."""
    try:
        (code,) = _INT16(data)
        message, at = _string(data, 2, dialect)
        (count,) = _INT16(data, at)
        properties, at = _pairs(data, at + 2, count, dialect) if count else ({}, at + 2)
        (count,) = _INT16(data, at)
        if count == STREAM:
            return ResponseHead(code, message, properties, None), at + 2
        content, at = _content(data, at + 2, count, dialect)
    except _ODDITIES:
        return None
    return ResponseHead(code, message, properties, content), at


def _string(data: bytes, at: int, dialect: Dialect) -> tuple[str, int]:
    (length,) = dialect.unpack_from(data, at)
    start = at + dialect.size
    end = start + length
    if length < 0 or end > len(data):  # a slice beyond the end is no error in Python
        raise _NotPlainError
    return data[start:end].decode(), end


def _pairs(data: bytes, at: int, count: int, dialect: Dialect) -> tuple[dict[str, str], int]:
    unpack, width = dialect.unpack_from, dialect.size
    texts = []
    for _ in range(2 * count):  # _string, without a call for each
        (length,) = unpack(data, at)
        start = at + width
        at = start + length
        if length < 0:
            raise _NotPlainError
        texts.append(data[start:at].decode())
    if count < 0 or at > len(data):
        raise _NotPlainError
    return dict(zip(texts[::2], texts[1::2], strict=True)), at


def _content(data: bytes, at: int, count: int, dialect: Dialect) -> tuple[list[ContentPart], int]:
    content: list[ContentPart] = []
    for _ in range(count):
        key = None
        if dialect.unpack_from(data, at)[0] == _NULL:
            at += dialect.size
        else:
            key, at = _string(data, at, dialect)
        (length,) = _INT32(data, at)
        start, at = at + 4, at + 4 + length
        if length < 0 or at > len(data):
            raise _NotPlainError
        content.append((key, data[start:at]))
    if count < 0:
        raise _NotPlainError
    return content, at
