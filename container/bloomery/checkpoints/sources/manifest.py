"""MANIFEST.json beside the weights: size, crc64nvme and sha256 of every file, as whoever packed them saw them.

``{"version": 1, "files": {"a.safetensors": {"size": 1, "crc64nvme": "16 hex digits", "sha256": "64 hex digits"}}}``.
``bloomery upload`` and ``bloomery shard`` write it; a fetch trusts it where the source itself has no checksum.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bloomery.checkpoints.source import Entry
from bloomery.checkpoints.sources.names import check_names
from bloomery.errors import CheckpointError

NAME = "MANIFEST.json"
LIMIT = 64 << 20  # bytes: half a million files
_VERSION = 1
_CRC_DIGITS, _SHA_DIGITS = 16, 64


@dataclass(frozen=True)
class Listed:
    """One file of a manifest. ``sha256`` in hex."""

    size: int
    crc64nvme: int | None
    sha256: str | None


def written(files: Mapping[str, Listed]) -> bytes:
    """The text of a manifest."""
    rows = {}
    for name in sorted(files):
        row: dict[str, int | str] = {"size": files[name].size}
        if (crc := files[name].crc64nvme) is not None:
            row["crc64nvme"] = f"{crc:0{_CRC_DIGITS}x}"
        if (sha := files[name].sha256) is not None:
            row["sha256"] = sha
        rows[name] = row
    return (json.dumps({"version": _VERSION, "files": rows}, indent=1) + "\n").encode()


def read(text: bytes, where: str) -> dict[str, Listed]:
    """The files of a manifest. ``where`` is named in errors. Raises CheckpointError."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{where} is no JSON ({error}): remove it, or write it anew (bloomery upload)") from error
    if not isinstance(found, dict) or not isinstance(found.get("files"), dict):
        raise _unfit(where, "it has no object `files`")
    if found.get("version") != _VERSION:
        raise _unfit(where, f"version {found.get('version')!r} is not {_VERSION}")
    files = {name: _row(row, name, where) for name, row in found["files"].items()}
    check_names(where, files)
    return files


def vouched(entries: Sequence[Entry], files: Mapping[str, Listed]) -> list[Entry]:
    """``entries`` with the manifest's checksums, where they have none of that kind and the sizes agree."""
    return [_vouched(entry, files.get(entry.name)) for entry in entries]


def _vouched(entry: Entry, listed: Listed | None) -> Entry:
    if listed is None or listed.size != entry.size:  # written for other content
        return entry
    crc = listed.crc64nvme if entry.crc64nvme is None else entry.crc64nvme
    return replace(entry, crc64nvme=crc, sha256=entry.sha256 or listed.sha256)


def _row(row: Any, name: str, where: str) -> Listed:
    if not isinstance(row, dict) or type(size := row.get("size")) is not int or size < 0:
        raise _unfit(where, f"{name!r} has no size")
    crc, sha = _hex(row.get("crc64nvme"), _CRC_DIGITS, name, where), _hex(row.get("sha256"), _SHA_DIGITS, name, where)
    return Listed(size, None if crc is None else int(crc, 16), sha)


def _hex(value: Any, digits: int, name: str, where: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) != digits or set(value.lower()) - set("0123456789abcdef"):
        raise _unfit(where, f"{value!r} of {name!r} is not {digits} hexadecimal digits")
    return value.lower()


def _unfit(where: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"{where} is no manifest of a checkpoint: {why}; remove it, or write it anew (bloomery upload)"
    )
