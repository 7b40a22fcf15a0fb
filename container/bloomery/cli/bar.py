"""How far a command is: a bar on a terminal, lines of the log elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bloomery.cli import logs


@contextmanager
def reporting() -> Iterator[Callable[[int, int], object] | None]:
    """Set up the log; gives who is to be told of bytes done and of all bytes, from any thread, if there is a bar."""
    if not sys.stderr.isatty():
        logs.configure()
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        logs.configure()  # now: the bar keeps out of the way of what is written to its stderr
        logging.getLogger("bloomery").setLevel(logging.WARNING)
        logging.getLogger("bloomery.checkpoints.fetch").setLevel(logging.INFO)  # whom it waits for: no bar shows that
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
