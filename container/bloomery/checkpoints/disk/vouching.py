"""The source's own checksums, asked for while bytes come already: nobody needs them before a file is complete."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from bloomery.checkpoints.source import Entry, Source

Vouched = Callable[[], Mapping[str, Entry]]


def vouched(source: Source, entries: Sequence[Entry]) -> Vouched:
    """Ask now, in the background. What is returned waits for the answer, by name, and raises CheckpointError."""
    answer: Future[Mapping[str, Entry]] = Future()

    def ask() -> None:
        try:
            answer.set_result(_by_name(source.checksummed(entries)))
        except BaseException as error:
            answer.set_exception(error)

    # A daemon: who gives a fetch up does not wait for answers that nobody needs any more.
    threading.Thread(target=ask, name="checksums", daemon=True).start()
    return answer.result


def unvouched(entries: Sequence[Entry]) -> Vouched:
    """For who wants no checksums."""
    return lambda: _by_name(entries)


def _by_name(entries: Sequence[Entry]) -> Mapping[str, Entry]:
    return {entry.name: entry for entry in entries}
