"""The files of a fetch under their final names, and the record that says what they are.

All files of a fetch are renamed in one go, when each of them has been checked: who looks into the directory sees what
was there before, or everything. The record is written before the renaming and again after it, so that a fetch which is
killed in between finds its files wherever they are by then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from bloomery.checkpoints.disk import integrity
from bloomery.checkpoints.disk.staging import StagedFile
from bloomery.checkpoints.source import Entry
from bloomery.errors import CheckpointError

RECORD = ".fetched.json"
_VERSION = 1


@dataclass(frozen=True)
class Kept:
    """A file under its final name. ``modified``: its time in ns, when it was checked; with the size it tells whether
    somebody has written to it since. ``crc64nvme``: None when nobody has computed it. ``uri``: where it came from.
    """

    uri: str
    size: int
    identity: str
    modified: int
    crc64nvme: int | None


@dataclass(frozen=True)
class Record:
    """Of the last fetch: ``complete`` says that everything is there that was asked for by ``uri`` and ``patterns``.
    ``boot``: of this machine, when it was written: what a power cut may have taken is read and compared once more.
    """

    uri: str = ""
    patterns: Sequence[str] = ()
    boot: str = ""
    complete: bool = False
    files: Mapping[str, Kept] = field(default_factory=dict)

    @classmethod
    def read(cls, target: Path) -> Record:
        """The record of ``target``; an empty one when there is none, or it cannot be read."""
        try:
            found = json.loads((target / RECORD).read_bytes())
            if found["version"] != _VERSION:
                return cls()
            files = {name: Kept(**row) for name, row in found["files"].items()}
            return cls(found["uri"], found["patterns"], found["boot"], found["complete"], files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def write(self, target: Path) -> None:
        """Replace the record of ``target``. Raises OSError."""
        temporary = target / (RECORD + ".new")
        temporary.write_text(json.dumps({"version": _VERSION, **asdict(self)}, indent=1, sort_keys=True))
        temporary.replace(target / RECORD)

    def holds(self, entry: Entry, target: Path, *, verify: bool) -> bool:
        """Whether ``target`` has ``entry`` as this record says. May read the file. Raises OSError."""
        kept = self.files.get(entry.name)
        if kept is None or (kept.identity, kept.size) != (entry.identity, entry.size):
            return False
        path = target / entry.name
        if not path.is_file() or path.stat().st_size != entry.size:
            return False
        if path.stat().st_mtime_ns == kept.modified and (self.boot == boot_id() or not verify):
            return True
        return kept.crc64nvme is not None and integrity.crc_of_file(path) == kept.crc64nvme


def kept_of(uri: str, entry: Entry, path: Path, crc64nvme: int | None) -> Kept:
    """What the record says of a file that was checked. Raises OSError."""
    status = path.stat()
    return Kept(uri, status.st_size, entry.identity, status.st_mtime_ns, crc64nvme)


def publish(target: Path, record: Record, staged: Iterable[StagedFile]) -> None:
    """Give the ``staged`` files their names in ``target``, whose record shall be ``record``. Raises OSError, and
    CheckpointError when a link in ``target`` would lead a file out of it.
    """
    moves = [(file.path, target / file.entry.name) for file in staged]
    root = target.resolve()
    for _, final in moves:
        final.parent.mkdir(parents=True, exist_ok=True)
        if not final.parent.resolve().is_relative_to(root):
            raise CheckpointError(f"{final.parent} is a link that leaves {target}: remove it.")
    replace(record, complete=False).write(target)
    # What tells a model directory from any other comes last.
    for path, final in sorted(moves, key=lambda move: move[1].name == "config.json"):
        path.replace(final)
    record.write(target)


def remove(target: Path, names: Iterable[str]) -> None:
    """Remove files of a former fetch, and directories that have nothing else in them."""
    root = target.resolve()
    for name in names:
        path = target / name
        if not path.parent.resolve().is_relative_to(root):
            continue  # the record was written by somebody else
        path.unlink(missing_ok=True)
        for parent in path.relative_to(target).parents:
            with suppress(OSError):
                if parent != Path():
                    (target / parent).rmdir()


def boot_id() -> str:
    """Changes with every start of the machine; something that never agrees where it is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"unknown {os.getpid()}"
