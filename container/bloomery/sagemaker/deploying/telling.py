"""What happens while an endpoint is made: lines, and on a terminal one more that changes."""

from __future__ import annotations

import re
import sys
from types import TracebackType
from typing import Any, Self, TextIO

from bloomery.sagemaker.deploying.events import Event, Note, Progress
from bloomery.sagemaker.operating.logs import LogLine

_STAMPED = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:")
_QUIET = 30.0  # seconds between two lines of the same status, where there is no terminal


class Teller:
    """Call it with each event. ``output``: stderr, if it is not given. ``elapsed``: seconds, the last known; ``left``:
    what was made, and not removed again."""

    def __init__(self, output: TextIO | None = None) -> None:
        self._output = output or sys.stderr
        self.elapsed = 0.0
        self.left: set[str] = set()
        self._said: tuple[str, float] = ("", -_QUIET)
        self._status: Any = None
        self._console: Any = None
        if self._output.isatty():
            from rich.console import Console

            self._console = Console(file=self._output, highlight=False)

    def __call__(self, event: Event) -> None:
        match event:
            case Note(text):
                if text.startswith("Create"):
                    self.left.add(text.removeprefix("Create"))
                self.left.discard(text.removeprefix("Delete"))
                self._line(text)
            case LogLine():
                stamped = _STAMPED.match(event.text)
                self._line(event.text if stamped else f"{event.at.astimezone():%H:%M:%S}  {event.text}")
            case Progress(elapsed, status, phase):
                self.elapsed = elapsed
                self._progress(elapsed, status, phase)

    def stop(self) -> None:
        """The line that changes goes."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _line(self, text: str) -> None:
        if self._console is not None:
            self._console.out(text, highlight=False)
            return
        self._output.write(f"{text}\n")
        self._output.flush()

    def _progress(self, elapsed: float, status: str, phase: str) -> None:
        minutes, seconds = divmod(int(elapsed), 60)
        text = f"{status} for {minutes}:{seconds:02}" + (f": {phase}" if phase else "")
        if self._console is not None:
            if self._status is None:
                self._status = self._console.status(text)
                self._status.start()
            self._status.update(text)
            return
        said, at = self._said
        what = f"{status} {phase}"
        if said != what or elapsed - at >= _QUIET:
            self._said = (what, elapsed)
            self._line(text)
