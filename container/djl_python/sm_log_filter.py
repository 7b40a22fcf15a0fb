"""Lets only SageMaker's telemetry records pass, in the form that its log agent reads.

A record such as ``ModelServerError: some metric: 3 count`` becomes
``ModelServerError.Count:1|#DJLServing:0.36.0,SomeMetric:3 count``. For handlers that write such records themselves;
the worker writes none.
"""

from __future__ import annotations

import copy
import logging
from collections import Counter
from typing import ClassVar

from djl_python import __version__


class SMLogFilter(logging.Filter):
    """For a handler's ``addFilter``; other records do not pass."""

    sm_log_markers: ClassVar[list[str]] = ["ModelServerError", "UserScriptError", "SysHealth"]
    counter: ClassVar[Counter[str]] = Counter()

    def filter(self, record: logging.LogRecord) -> logging.LogRecord | bool:  # type: ignore[override]
        """The changed record (which logging itself takes from Python 3.12 on), or False."""
        parts = [part.strip() for part in str(record.msg).split(":")]
        if parts[0] not in self.sm_log_markers or len(parts) != 3 or len(parts[2].split()) != 2:
            return False
        marker, name, metric = parts
        name = "".join(word[0].upper() + word[1:] for word in name.split())
        self.counter[name] += 1
        changed = copy.copy(record)
        changed.msg = f"{marker}.Count:{self.counter[name]}|#DJLServing:{__version__},{name}:{metric}"
        changed.args = None
        return changed
