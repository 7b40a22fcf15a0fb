"""The output of a child: cut into lines, passed on as they come, the last ones kept for reports."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

KEPT_LINES = 200
LONGEST_LINE = 8192
_LINE_END = re.compile(rb"[\r\n]+")  # progress bars end their lines with a carriage return


class Tail:
    """Bounded in lines and in their length, so that a child that prints without end costs nothing."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._partial = b""

    def feed(self, data: bytes) -> None:
        """Take what was read from the pipe."""
        *complete, self._partial = _LINE_END.split(self._partial + data)
        for line in complete:
            self._take(line)
        if len(self._partial) > LONGEST_LINE:
            self.close()

    def close(self) -> None:
        """The output is over: an unfinished line counts as one."""
        self._take(self._partial)
        self._partial = b""

    def last(self, count: int) -> list[str]:
        """The last ``count`` lines."""
        return list(self._lines)[-count:]

    def _take(self, line: bytes) -> None:
        if not line:
            return
        text = line[:LONGEST_LINE].decode("utf-8", "replace")
        self._lines.append(text)
        self._on_line(text)
