"""What a handler receives."""

from __future__ import annotations

import csv
import io
import json
import re
import socket
from typing import Any

from bloomery.errors import ProtocolError
from bloomery.protocol.frames import Dialect, Request, decode_request, read_blocking
from djl_python.libraries import needed
from djl_python.np_util import from_nd_list
from djl_python.pair_list import PairList

_BATCH_KEY = re.compile(r"batch_(\d+)\.(.*)", re.DOTALL)
_ZIP_MAGIC = b"PK"  # an .npz file
_NPY_MAGIC = b"\x93NUMPY"


def _as_bytearray(data: Any) -> bytearray:
    """``data`` itself when it is one already: a large part was received in place and shall not be copied."""
    return data if isinstance(data, bytearray) else bytearray(data)


class Input:
    """One request: properties (mostly HTTP headers), and content parts (the body is the part named ``data``).

    The initialise call, which is the first one a handler gets, has no content part: ``inputs.is_empty()``.
    """

    def __init__(self) -> None:
        self.function_name: str | None = None
        self.properties: dict[str, Any] = {}
        self.content = PairList()

    @classmethod
    def from_request(cls, request: Request) -> Input:
        """The input that a request frame describes."""
        inputs = cls()
        inputs.function_name = request.properties.get("handler")
        inputs.properties = dict(request.properties)
        for key, data in request.content:
            inputs.content.add(key, _as_bytearray(data))
        return inputs

    def read(self, conn: socket.socket, dialect: Dialect | None = None) -> None:
        """Take the next request of a worker's connection; the width of its strings is detected unless given."""

        def receive(count: int) -> bytes:
            data = bytearray()
            while len(data) < count:
                if not (piece := conn.recv(count - len(data))):
                    raise ProtocolError(f"the peer closed the connection: {len(data)} of {count} bytes came")
                data += piece
            return bytes(data)

        request, _dialect = read_blocking(decode_request(dialect), receive)
        self.__dict__.update(vars(Input.from_request(request)))

    def get_function_name(self) -> str | None:
        """The handler function that this request asks for."""
        return self.function_name

    def get_properties(self) -> dict[str, Any]:
        """All properties, keys in their original case."""
        return self.properties

    def get_property(self, key: str) -> Any:
        """The property of that name in any case, None when there is none."""
        return next((value for name, value in self.properties.items() if name.lower() == key.lower()), None)

    def contains_key(self, key: str) -> bool:
        """Whether a content part (not a property) has exactly this key."""
        return self.content.contains_key(key)

    def get_content(self) -> PairList:
        """All content parts."""
        return self.content

    def is_empty(self) -> bool:
        """Whether there is no content part; true of the initialise call only (an empty body is an empty part)."""
        return self.content.is_empty()

    def is_batch(self) -> bool:
        """Whether several requests were joined into this one; ``get_batches`` takes them apart."""
        return "batch_size" in self.properties

    def get_batch_size(self) -> int:
        """How many requests were joined."""
        return int(self.properties.get("batch_size", 1))

    def get_batches(self) -> list[Input]:
        """The joined requests, each with its own properties and content; ``[self]`` when nothing was joined."""
        if not self.is_batch():
            return [self]
        items = [Input() for _ in range(self.get_batch_size())]
        for key, value in self.properties.items():
            if match := _BATCH_KEY.fullmatch(key):
                self._item(items, match).properties[match[2]] = value
        for content_key, value in self.content:
            if match := _BATCH_KEY.fullmatch(content_key or ""):
                self._item(items, match).content.add(match[2] or None, value)
        return items

    def _item(self, items: list[Input], match: re.Match[str]) -> Input:
        if int(match[1]) >= len(items):
            raise ValueError(f"{match[0]!r} is beyond batch_size {len(items)}")
        return items[int(match[1])]

    def get_as_bytes(self, key: str | None = None) -> bytearray | None:
        """The part ``key``; without a key the first part named ``data``, else the first one. None without content."""
        if self.content.is_empty():
            return None
        if key and not self.content.contains_key(key):
            raise KeyError(f"requested data for key:{key} is not found!")
        name = key or "data"
        value = self.content.get(name) if self.content.contains_key(name) else self.content.value_at(0)
        return _as_bytearray(value)

    def get_as_string(self, key: str | None = None) -> str | None:
        """The part as UTF-8 text."""
        data = self.get_as_bytes(key)
        return None if data is None else data.decode("utf-8")

    def get_as_json(self, key: str | None = None) -> Any:
        """The part as parsed JSON."""
        data = self.get_as_bytes(key)
        return None if data is None else json.loads(data)

    def get_as_image(self, key: str | None = None) -> Any:
        """The part as a ``PIL.Image``."""
        data = self.get_as_bytes(key)
        return None if data is None else needed("PIL.Image", "get_as_image").open(io.BytesIO(data))

    def get_as_numpy(self, key: str | None = None) -> list[Any] | None:
        """The part as a list of arrays: NDList, or .npz or .npy when it begins with their magic."""
        data = self.get_as_bytes(key)
        if data is None:
            return None
        if data.startswith(_NPY_MAGIC):
            return [needed("numpy", "get_as_numpy").load(io.BytesIO(data), allow_pickle=False)]
        return self.get_as_npz(key) if data.startswith(_ZIP_MAGIC) else from_nd_list(data)

    def get_as_npz(self, key: str | None = None) -> list[Any] | None:
        """The arrays of an .npz file. Pickled objects in it are refused: they could run code."""
        data = self.get_as_bytes(key)
        if data is None:
            return None
        with needed("numpy", "get_as_npz").load(io.BytesIO(data), allow_pickle=False) as archive:
            return [archive[name] for name in archive.files]

    def get_as_csv(self, key: str | None = None) -> list[dict[str | Any, str | Any]] | None:
        """The rows of a CSV file with a header line, as dictionaries."""
        text = self.get_as_string(key)
        return None if text is None else list(csv.DictReader(io.StringIO(text)))

    def get_data(self, key: str | None = None) -> Any:
        """The part, parsed as the request's Content-Type says; bytes when that says nothing."""
        content_type = str(self.get_property("content-type") or "").lower()
        if content_type == "tensor/ndlist":
            return self.get_as_numpy(key)
        if content_type == "tensor/npz":
            return self.get_as_npz(key)
        if content_type.startswith("application/json"):
            return self.get_as_json(key)
        if content_type.startswith("text/"):
            return self.get_as_string(key)
        if content_type.startswith("image/"):
            return self.get_as_image(key)
        return self.get_as_bytes(key)

    def __str__(self) -> str:
        parts = "".join(f"\n{key}: {len(value)} bytes" for key, value in self.content)  # no prompt in a log
        return f"properties: {self.properties}{parts}"
