"""The server's log on stderr: one line per event, secrets as ***."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import TextIO

from bloomery.settings.secret import redact

_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_FLUSH_AFTER = 0.1  # seconds
_MOST_TOGETHER = 100  # lines: they hold up the event loop for a third of a millisecond
_ACCESS = "bloomery.access"


def configure() -> None:
    """Send every logger's lines to stderr."""
    # What no line shows need not be found out for each line (logging's HOWTO, "Optimization").
    logging._srcfile = None
    for name in ("logThreads", "logMultiprocessing", "logProcesses", "logAsyncioTasks"):
        setattr(logging, name, False)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    access = logging.getLogger(_ACCESS)
    access.addHandler(AccessHandler(sys.stderr))
    access.propagate = False


class _Formatter(logging.Formatter):
    """Without what a URL's signature or password would let a reader of the log do."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


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
