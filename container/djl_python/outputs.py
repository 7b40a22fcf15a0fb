"""What a handler returns."""

from __future__ import annotations

import io
import json
import logging
import socket
import struct
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, ClassVar, Self

from bloomery.protocol.frames import (
    Chunk,
    ContentPart,
    Dialect,
    ResponseHead,
    encode_chunk,
    encode_response,
    encode_string,
)
from djl_python.json_encoding import encode_json
from djl_python.libraries import needed
from djl_python.np_util import to_nd_list
from djl_python.pair_list import PairList

logger = logging.getLogger("djl_python.outputs")

# The message of every failed prediction, since 0.19. DJLServing changed it between 0.30 and 0.33; clients that
# compare it exist, so it is frozen here unless option.compat asks for the newer one.
FAILURE_MESSAGE = "prediction failure"
NEWER_FAILURE_MESSAGE = "invoke handler failure"


def default_stream_formatter(item: Any) -> str:
    """One JSON line per item: ``{"outputs": item}``."""
    return json.dumps({"outputs": item}) + "\n"


class Output:
    """One answer. Every method that changes it returns it, so that calls can be chained."""

    # The peer's string width, which the worker learns from its first frame. ``binary_encode`` is static by contract,
    # and a worker process has exactly one connection.
    dialect: ClassVar[Dialect] = Dialect.INT32
    failure_message: ClassVar[str] = FAILURE_MESSAGE

    def __init__(self, code: int = 200, message: str = "OK") -> None:
        self.code = code
        self.message = message
        self.properties: dict[str, Any] = {}
        self.content = PairList()
        self.stream_content: Iterable[Any] | None = None
        self.stream_formatter: Callable[[Any], Any] | None = None
        self._finalizers: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def set_code(self, code: int) -> Self:
        """Set the HTTP status."""
        self.code = code
        return self

    def set_message(self, message: str) -> Self:
        """Set the HTTP reason."""
        self.message = message
        return self

    # The parameters have the names that DJLServing gave them: handlers pass them by keyword too.

    def add_property(self, key: str, val: Any) -> Self:
        """Set a response header. Values become text when they are sent."""
        self.properties[key] = val
        return self

    def get_properties(self) -> dict[str, Any]:
        """All properties."""
        return self.properties

    def get_property(self, key: str) -> Any:
        """The property of that name in any case, None when there is none."""
        return next((value for name, value in self.properties.items() if name.lower() == key.lower()), None)

    @classmethod
    def adopt_compat(cls, compat: object) -> None:
        """Word failures as the version of DJLServing did that ``option.compat`` names."""
        cls.failure_message = NEWER_FAILURE_MESSAGE if compat == "0.36" else FAILURE_MESSAGE

    def error(self, error: object, code: int = 424, message: str | None = None) -> Self:
        """Make this the answer of a failed request; what had been added before is dropped."""
        message = self.failure_message if message is None else message
        self.code, self.message = code, message
        self.content, self.stream_content = PairList(), None
        self.add_property("content-type", "application/json")
        return self.add_as_json({"code": code, "message": message, "error": str(error)})

    def add(self, value: Any, key: str | None = None, batch_index: int | None = None) -> Self:
        """Add a content part: text as UTF-8, bytes as they are, anything else as JSON."""
        if isinstance(value, str):
            return self.add_as_string(value, key, batch_index)
        if isinstance(value, (bytes, bytearray)):
            self.content.add(_content_key(key, batch_index), value)
            return self
        return self.add_as_json(value, key, batch_index)

    def add_as_string(self, value: str, key: str | None = None, batch_index: int | None = None) -> Self:
        """Add text. DJLServing's own ``encode_decode`` calls this method and does not have it."""
        return self.add(str(value).encode("utf-8"), key, batch_index)

    def add_as_json(self, val: Any, key: str | None = None, batch_index: int | None = None) -> Self:
        """Add JSON. No content type is set for you."""
        return self.add(encode_json(val), key, batch_index)

    def add_as_numpy(self, np_list: Any, key: str | None = None, batch_index: int | None = None) -> Self:
        """Add an array or a list of arrays as NDList. No content type is set for you."""
        return self.add(to_nd_list(np_list), key, batch_index)

    def add_as_npz(self, np_list: Any, key: str | None = None, batch_index: int | None = None) -> Self:
        """Add an array or a list of arrays as an .npz file. No content type is set for you."""
        file = io.BytesIO()
        needed("numpy", "add_as_npz").savez(file, *(np_list if isinstance(np_list, (list, tuple)) else [np_list]))
        return self.add(file.getvalue(), key, batch_index)

    def add_stream_content(
        self, stream_content: Iterable[Any], output_formatter: Callable[[Any], Any] | None = default_stream_formatter
    ) -> Self:
        """Answer piece by piece. ``output_formatter`` makes each item text or bytes; None sends items as they are."""
        self.stream_content, self.stream_formatter = stream_content, output_formatter
        return self

    def finalize(self, func: Callable[..., object], *args: Any) -> Self:
        """Call ``func(*args)`` after the answer has left."""
        self._finalizers.append((func, args))
        return self

    def execute_finalize(self) -> None:
        """Run what ``finalize`` registered; a failure is logged, because nobody is left to be told."""
        finalizers, self._finalizers = self._finalizers, []
        for func, args in finalizers:
            try:
                func(*args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException:
                logger.exception("a finalize function failed: %r", func)

    def __str__(self) -> str:
        parts = "".join(f"\n{key}: {type(value).__name__}" for key, value in self.content)  # no answer in a log
        return f"{self.code} {self.message}, properties: {self.properties}{parts}"

    @staticmethod
    def binary_encode(pairs: Mapping[str, Any]) -> bytes:
        """The payload of one step of a rolling batch or asynchronous answer; values become text."""
        out = [struct.pack(">h", len(pairs))]
        for key, value in pairs.items():
            out += encode_string(key, Output.dialect), encode_string(str(value), Output.dialect)
        return b"".join(out)

    def encode(self) -> bytes:
        """The frame of this answer, without the chunks of a stream."""
        return encode_response(self.response_head(), self.dialect)

    def send(self, sock: socket.socket) -> None:
        """Write the whole answer, a stream piece by piece; a stream's error goes into its last chunk."""
        sock.sendall(self.encode())
        if self.stream_content is None:
            return
        failure = b""
        try:
            for chunk in stream_chunks(self):
                sock.sendall(encode_chunk(Chunk(chunk, last=False)))
        except OSError:
            raise
        except Exception as error:
            logger.exception("the stream of an answer failed")
            failure = str(error).encode("utf-8", "replace")
        sock.sendall(encode_chunk(Chunk(failure, last=True)))

    def response_head(self, with_body: bool = True) -> ResponseHead:
        """The frame that announces this answer. Without the body a stream is still announced as one.

        Handlers fill ``content`` and ``properties`` by hand too: everything is made what a frame can hold, or refused.
        """
        properties = {str(key): str(value) for key, value in self.properties.items()}
        if self.stream_content is not None:
            return ResponseHead(int(self.code), str(self.message), properties, None)
        # A failure's body is its reason: whoever drops a rank's answers still has to say why that rank failed.
        with_body = with_body or int(self.code) >= 300
        content = [_content_part(key, value) for key, value in self.content] if with_body else []
        return ResponseHead(int(self.code), str(self.message), properties, content)


def _content_part(key: object, value: Any) -> ContentPart:
    if isinstance(value, str):
        value = value.encode("utf-8", "replace")
    elif not isinstance(value, (bytes, bytearray)):
        try:
            value = bytes(memoryview(value))  # the length of a view or an array counts its items, not its bytes
        except TypeError:
            name = type(value).__name__
            raise TypeError(f"content part {key!r} is a {name}, not bytes or text; use Output.add") from None
    return None if key is None else str(key), value


def _content_key(key: object, batch_index: int | None) -> str | None:
    if key is not None and not isinstance(key, str):
        logger.warning("the key of a content part should be str, not %s; using %r", type(key).__name__, str(key))
        key = str(key)
    return key if batch_index is None else f"batch_{batch_index}.{key or ''}"


def stream_chunks(output: Output) -> Generator[bytes, None, None]:
    """The bytes of each item of a stream; closing it closes the handler's generator."""
    items = iter(() if output.stream_content is None else output.stream_content)
    formatter = output.stream_formatter
    try:
        for item in items:
            yield _to_bytes(item if formatter is None else formatter(item))
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


def _to_bytes(item: Any) -> bytes:
    if isinstance(item, (bytes, bytearray)):
        return bytes(item)
    return item.encode("utf-8") if isinstance(item, str) else encode_json(item)
