"""The server's log on stderr: one line per event, secrets as ***."""

from __future__ import annotations

import logging
import sys

from bloomery.settings.secret import redact

_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def configure() -> None:
    """Send every logger's lines to stderr."""
    # What no line shows need not be found out for each line (logging's HOWTO, "Optimization").
    logging._srcfile = None
    for name in ("logThreads", "logMultiprocessing", "logProcesses", "logAsyncioTasks"):
        setattr(logging, name, False)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class _Formatter(logging.Formatter):
    """Without what a URL's signature or password would let a reader of the log do."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))
