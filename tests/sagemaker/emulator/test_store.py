from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bloomery.errors import ConfigurationError
from bloomery.sagemaker.emulator.api.store import Kind, Record, Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "file.sqlite")
    yield opened
    opened.close()


def record(name: str, kind: Kind = Kind.MODEL) -> Record:
    return Record(kind, name, f"arn:{kind.value}/{name.lower()}", 1.5, 1.5, "", {"given": {"a": [1, "b"]}})


def test_what_was_added_is_found_whatever_the_case(store: Store) -> None:
    assert store.add(record("Name"), {})
    assert store.get(Kind.MODEL, "nAME") == record("Name") == store.by_arn("arn:model/NAME")
    assert not store.add(record("NAME"), {})


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"no database at all" * 100)
    with pytest.raises(ConfigurationError, match=r"other is not what an emulator wrote .* --state"):
        Store(tmp_path / "other")


def test_kinds_are_apart(store: Store) -> None:
    assert store.add(record("name"), {})
    assert store.add(record("name", Kind.ENDPOINT), {})
    assert store.all(Kind.ENDPOINT_CONFIG) == []
    store.remove(record("name"))
    assert store.all(Kind.ENDPOINT) == [record("name", Kind.ENDPOINT)]


def test_a_change_is_kept(store: Store, tmp_path: Path) -> None:
    store.add(record("name", Kind.ENDPOINT), {"k": "v"})
    changed = store.change(record("name", Kind.ENDPOINT), "Failed", reason="why", given=None)
    assert (changed.status, changed.document) == ("Failed", {"reason": "why"})
    assert changed.modified > changed.created
    store.close()
    again = Store(tmp_path / "file.sqlite")
    assert again.get(Kind.ENDPOINT, "name") == changed
    assert again.tags(changed.arn) == {"k": "v"}
    again.close()
