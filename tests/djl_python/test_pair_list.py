from __future__ import annotations

import pytest

from djl_python import PairList


def test_pairs_keep_their_order_and_keys_may_repeat() -> None:
    pairs = PairList(["a", None, "a"], [1, 2, 3])
    assert list(pairs) == [("a", 1), (None, 2), ("a", 3)]
    assert (pairs.get("a"), pairs.key_at(1), pairs.value_at(2), pairs.size(), len(pairs)) == (1, None, 3, 3, 3)


def test_a_list_is_made_of_keys_and_values_of_pairs_or_of_a_map() -> None:
    assert list(PairList(pair_list=[("a", 1)], pair_map={"b": 2})) == [("a", 1), ("b", 2)]
    assert list(PairList(pair_list=PairList(["a"], [1]))) == [("a", 1)]


def test_as_many_keys_as_values_are_needed() -> None:
    with pytest.raises(ValueError, match="1 keys, 2 values"):
        PairList(["a"], [1, 2])


def test_pairs_are_added_at_the_end_at_an_index_or_as_pairs() -> None:
    pairs = PairList()
    pairs.add("b", 2)
    pairs.add("a", 1, index=0)
    pairs.add(pair=("c", 3))
    pairs.add_all(PairList(["d"], [4]))
    assert pairs.get_keys() == ["a", "b", "c", "d"]
    assert pairs.get_values() == [1, 2, 3, 4]


def test_a_list_can_be_added_to_itself() -> None:
    pairs = PairList(["a"], [1])
    pairs.add_all(pairs)
    assert list(pairs) == [("a", 1), ("a", 1)]


def test_none_is_not_a_value() -> None:
    pairs = PairList()
    pairs.add("a", None)
    assert pairs.is_empty()


def test_a_missing_key_is_none() -> None:
    assert PairList(["a"], [1]).get("b") is None
    assert not PairList(["a"], [1]).contains_key("b")


def test_the_representation_holds_no_values() -> None:
    assert "secret prompt" not in repr(PairList(["data"], ["secret prompt"]))
