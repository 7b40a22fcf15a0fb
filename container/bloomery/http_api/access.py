"""One log line per request: who asked for what, the status, bytes and milliseconds. Never a body."""

from __future__ import annotations

import logging
import time

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

logger = logging.getLogger("bloomery.access")
_SILENT = ("/ping",)  # health checks come every few seconds and would bury the rest


def log(
    remote: str | None, method: str, path: str, status: int | str, size: int, seconds: float, request_id: str
) -> None:
    """Write the line; ``status`` is "gone" when the client left before there was one."""
    if path in _SILENT and status == 200:
        return
    if logger.isEnabledFor(logging.INFO):
        logger.handle(_Record((remote, method, path, status, size, seconds * 1000, request_id)))


class _Record(logging.LogRecord):
    """A record of this log. The library's own looks for the line of code that logs: twice the time of all the rest."""

    def __init__(self, fields: tuple[object, ...]) -> None:
        self.__dict__ = _FIELDS.copy()
        self.args = fields
        self.created = time.time()
        self.msecs = self.created % 1 * 1000

    def getMessage(self) -> str:  # noqa: N802  # logging's name
        """The line, made when a handler asks for it."""
        remote, method, path, *rest = self.args or ()
        # A %0a in the path must not become a line of the log.
        return self.msg % (remote, method, str(path).encode("unicode_escape").decode("ascii"), *rest)


_FIELDS = vars(logging.LogRecord(logger.name, logging.INFO, __file__, 0, "%s %s %s %s %d bytes %.1f ms %s", None, None))


class NotHttp(logging.Filter):
    """For aiohttp's log: a stranger's bytes that are no HTTP make one line, not a traceback with the bytes."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten such a record; let everything pass."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError | web.RequestPayloadError):
            record.levelno, record.levelname = logging.WARNING, "WARNING"
            record.msg, record.args = f"{record.getMessage()}: {type(error).__name__}", ()
            record.exc_info = None
        return True
