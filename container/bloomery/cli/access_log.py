"""The access log on stderr, written where it costs requests least."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import TextIO

from bloomery.settings.secret import redact

_FLUSH_AFTER = 0.1  # seconds
_MOST_TOGETHER = 100  # lines: they hold up the event loop for a third of a millisecond


def configure() -> None:
    """Send the access log to stderr, past the other loggers' handlers."""
    access = logging.getLogger("bloomery.access")
    access.addHandler(AccessHandler(sys.stderr))
    access.propagate = False


class AccessHandler(logging.Handler):
    """The access log's lines, made and written together every moment: one by one, between a worker's answer and the
    client that waits for it, they took a tenth of a small request's time.

    To be used from the event loop's thread.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._records: list[logging.LogRecord] = []
        self._second, self._stamp = 0, ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record, and see that it is written soon."""
        self._records.append(record)
        if len(self._records) == 1:
            asyncio.get_running_loop().call_later(_FLUSH_AFTER, self.flush)
        elif len(self._records) == _MOST_TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Write what there is; logging does it once more when the process ends."""
        records, self._records = self._records, []
        if records:
            self._stream.write("".join(map(self._line, records)))
            self._stream.flush()

    def _line(self, record: logging.LogRecord) -> str:
        second = int(record.created)
        if second != self._second:
            self._second, self._stamp = second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        message = record.getMessage()
        if "://" in message:
            message = redact(message)
        return f"{self._stamp},{int(record.msecs):03d} {record.levelname:<7} {record.name}: {message}\n"
