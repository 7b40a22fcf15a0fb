"""``--log-bodies FILE``: every invocation as one line of JSON, to be replayed. Nothing else keeps a body anywhere."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path


class Bodies:
    """Appends to a file that only its owner can read; None keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    @property
    def wanted(self) -> bool:
        """Whether anything is kept."""
        return self._path is not None

    def write(
        self,
        operation: str,
        endpoint: str,
        headers: Mapping[str, str],
        body: bytes,
        status: int,
        answer: bytes,
    ) -> None:
        """One invocation; ``headers`` are those that the container got, ``status`` its own."""
        if self._path is None:
            return
        line = {
            "time": time.time(),
            "operation": operation,
            "endpoint": endpoint,
            "headers": dict(headers),
            **_text("body", body),
            "status": status,
            **_text("answer", answer),
        }
        with open(self._path, "a", encoding="utf-8", opener=_private) as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _text(name: str, data: bytes) -> dict[str, str]:
    """Readable where it is text."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
