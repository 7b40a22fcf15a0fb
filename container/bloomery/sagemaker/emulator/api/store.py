"""What has been created: models, configurations, endpoints, their components and tags, in one SQLite file."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from bloomery.errors import ConfigurationError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS resources (
    kind TEXT NOT NULL,
    name TEXT NOT NULL COLLATE NOCASE,
    arn TEXT NOT NULL UNIQUE,
    created REAL NOT NULL,
    modified REAL NOT NULL,
    status TEXT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (kind, name)
);
CREATE TABLE IF NOT EXISTS tags (
    arn TEXT NOT NULL REFERENCES resources (arn) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (arn, key)
);
"""


class Kind(Enum):
    """What there is; the value is its name in ARNs."""

    MODEL = "model"
    ENDPOINT_CONFIG = "endpoint-config"
    ENDPOINT = "endpoint"
    INFERENCE_COMPONENT = "inference-component"
    SCALABLE_TARGET = "scalable-target"
    SCALING_POLICY = "scaling-policy"

    @property
    def words(self) -> str:
        """As AWS's messages call it."""
        return "endpoint configuration" if self is Kind.ENDPOINT_CONFIG else self.value.replace("-", " ")


@dataclass(frozen=True)
class Record:
    """One of a ``Kind``. ``document`` is what Describe answers, as its owner keeps it."""

    kind: Kind
    name: str
    arn: str
    created: float  # seconds since 1970, as are all times of AWS's JSON protocol
    modified: float
    status: str  # of what runs; otherwise empty
    document: Mapping[str, Any]

    @classmethod
    def new(cls, kind: Kind, name: str, arn: str, document: Mapping[str, Any], status: str = "") -> Record:
        """One that has just been created."""
        now = time.time()
        return cls(kind, name, arn, now, now, status, document)


class Store:
    """To be used from one thread. A killed process loses nothing; a power failure may lose the last moment."""

    def __init__(self, file: Path) -> None:
        self._database = sqlite3.connect(file, isolation_level=None)
        try:
            for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
                self._database.execute(f"PRAGMA {pragma}")
            self._database.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise ConfigurationError(
                f"{file} is not what an emulator wrote ({error}); move it away, or choose another --state"
            ) from error

    def close(self) -> None:
        """Write the journal back into the file."""
        self._database.close()

    def add(self, record: Record, tags: Mapping[str, str]) -> bool:
        """False when there is one of that kind and name already."""
        row = (record.kind.value, record.name, record.arn, record.created, record.modified, record.status)
        document = json.dumps(record.document)
        cursor = self._database.execute(
            "INSERT INTO resources VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", (*row, document)
        )
        if cursor.rowcount == 0:
            return False
        self.tag(record.arn, tags)
        return True

    def get(self, kind: Kind, name: str) -> Record | None:
        """By its name, whose case does not matter."""
        rows = self._select("kind = ? AND name = ?", kind.value, name)
        return rows[0] if rows else None

    def by_arn(self, arn: str) -> Record | None:
        """Whatever has this ARN."""
        rows = self._select("arn = ?", arn.lower())
        return rows[0] if rows else None

    def all(self, kind: Kind) -> list[Record]:
        """In no particular order."""
        return self._select("kind = ?", kind.value)

    def change(self, record: Record, status: str, **document: Any) -> Record:
        """Give it another status, and these entries of its document; None removes one."""
        merged = {**record.document, **document}
        merged = {name: value for name, value in merged.items() if value is not None}
        changed = replace(record, status=status, modified=time.time(), document=merged)
        self._database.execute(
            "UPDATE resources SET status = ?, modified = ?, document = ? WHERE arn = ?",
            (status, changed.modified, json.dumps(merged), record.arn),
        )
        return changed

    def remove(self, record: Record) -> None:
        """With its tags."""
        self._database.execute("DELETE FROM resources WHERE arn = ?", (record.arn,))

    def tags(self, arn: str) -> dict[str, str]:
        """By key, sorted."""
        return dict(self._database.execute("SELECT key, value FROM tags WHERE arn = ? ORDER BY key", (arn,)))

    def tag(self, arn: str, tags: Mapping[str, str]) -> None:
        """Add tags; a key that is there gets the new value."""
        self._database.executemany(
            "INSERT OR REPLACE INTO tags VALUES (?, ?, ?)", [(arn, key, value) for key, value in tags.items()]
        )

    def untag(self, arn: str, keys: list[str]) -> None:
        """Remove tags; keys that are not there are none of its business."""
        self._database.executemany("DELETE FROM tags WHERE arn = ? AND key = ?", [(arn, key) for key in keys])

    def _select(self, where: str, *values: object) -> list[Record]:
        columns = "kind, name, arn, created, modified, status, document"
        rows = self._database.execute(f"SELECT {columns} FROM resources WHERE {where}", values)
        return [
            Record(Kind(kind), name, arn, created, modified, status, json.loads(document))
            for kind, name, arn, created, modified, status, document in rows
        ]
