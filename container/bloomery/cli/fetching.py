"""``bloomery fetch``: a checkpoint to a directory."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bloomery import cli
from bloomery.checkpoints.disk.delivery import Delivery
from bloomery.checkpoints.disk.options import FetchOptions
from bloomery.checkpoints.fetch import fetch_into
from bloomery.checkpoints.progress import megabytes
from bloomery.checkpoints.sources import open_source
from bloomery.cli.bar import reporting
from bloomery.cli.interruption import terminable

_MIB = 1 << 20


def fetch(
    uri: str,
    directory: str,
    include: Sequence[str],
    revision: str | None,
    *,
    verify: bool,
    resume: bool,
    connections: int | None,
) -> int:
    """Do it, and print one line that says what was done."""
    # Nearly all that is allocated now are libraries, which stay: to look for cycles in them again and again takes a
    # tenth of the time that a command needs before the first byte.
    gc.set_threshold(50_000, 50, 100)
    options = FetchOptions.read()
    options = replace(
        options,
        connections=connections or options.connections,
        verify=verify and options.verify,
        resume=resume and options.resume,
    )
    with terminable(), reporting() as seen:
        source = open_source(uri, revision=revision)
        done = fetch_into(
            source, Path(directory).expanduser(), options=options, allow_patterns=include or None, seen=seen
        )
    print(_line(source.uri, directory, done, options.verify))
    return cli.OK


def _line(uri: str, directory: str, done: Delivery, verify: bool) -> str:
    files = f"{done.files} file{'' if done.files == 1 else 's'}"
    parts = [f"{uri}: {files}, {megabytes(done.total)}, in {directory}"]
    if not done.fetched:
        return f"{parts[0]}; all of it was there"
    rate = done.came / _MIB / max(done.seconds, 1e-3)
    parts.append(f"{megabytes(done.came)} read in {done.seconds:.1f} s ({rate:.0f} MiB/s)")
    if verify:
        verified = [f"{count} by {kind}" for kind, count in sorted(done.evidence.items()) if kind]
        parts += [f"verified {', '.join(verified)}"] if verified else []
        parts += [f"{count} without a checksum at the source" for kind, count in done.evidence.items() if not kind]
    else:
        parts.append("not verified")
    parts += [f"licence: {done.licence}"] if done.licence else []
    return "; ".join(parts)
