"""An ordered list of key/value pairs whose keys may repeat or be None: the content of an Input or Output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any


class PairList:
    """Pairs in insertion order. ``get`` finds the first pair of a key. ``len`` and iteration work as well."""

    def __init__(
        self,
        keys: Sequence[str | None] | None = None,
        values: Sequence[Any] | None = None,
        pair_list: PairList | Iterable[tuple[str | None, Any]] | None = None,
        pair_map: Mapping[str, Any] | None = None,
    ) -> None:
        self.keys: list[str | None] = list(keys or ())
        self.values: list[Any] = list(values or ())
        if len(self.keys) != len(self.values):
            raise ValueError(f"PairList needs as many keys as values: {len(self.keys)} keys, {len(self.values)} values")
        if pair_list or pair_map:
            for key, value in [*(pair_list or ()), *(pair_map or {}).items()]:
                self.add(key, value)

    def add(
        self,
        key: str | None = None,
        value: Any = None,
        index: int | None = None,
        pair: tuple[str | None, Any] | None = None,
    ) -> None:
        """Append one pair, or insert it before ``index``. A None value is ignored, as DJL does."""
        if pair is not None:
            key, value = pair
        if value is None:
            return
        position = len(self.keys) if index is None else index
        self.keys.insert(position, key)
        self.values.insert(position, value)

    def add_all(self, other: PairList | Iterable[tuple[str | None, Any]]) -> None:
        """Append every pair of ``other``."""
        for key, value in list(other):
            self.add(key, value)

    def get(self, key: str | None) -> Any:
        """The first value of ``key``, None when there is none."""
        return self.values[self.keys.index(key)] if key in self.keys else None

    def contains_key(self, key: str | None) -> bool:
        """Whether a pair has exactly this key."""
        return key in self.keys

    def key_at(self, index: int) -> str | None:
        """The key of the pair at ``index``."""
        return self.keys[index]

    def value_at(self, index: int) -> Any:
        """The value of the pair at ``index``."""
        return self.values[index]

    def get_keys(self) -> list[str | None]:
        """All keys, in order."""
        return self.keys

    def get_values(self) -> list[Any]:
        """All values, in order."""
        return self.values

    def size(self) -> int:
        """How many pairs there are."""
        return len(self.keys)

    def is_empty(self) -> bool:
        """Whether there is no pair."""
        return not self.keys

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[tuple[str | None, Any]]:
        return iter(list(zip(self.keys, self.values, strict=True)))

    def __repr__(self) -> str:
        return f"PairList(keys={self.keys!r})"  # values can be megabytes, or a user's prompt
