from __future__ import annotations

import pytest

from bloomery.errors import ConfigurationError
from bloomery.workers.allocation import Allocator


def test_threads_are_the_cores_shared_by_all_announced_ranks():
    allocator = Allocator(devices=(), cores=8)
    allocator.announce(2)
    allocator.announce(1)

    assert allocator.take(2, "m").threads == 2


def test_a_rank_always_gets_a_thread():
    allocator = Allocator(devices=(), cores=2)
    allocator.announce(5)

    assert allocator.take(1, "m").threads == 1


def test_without_devices_nothing_is_handed_out():
    assert Allocator(devices=(), cores=2).take(4, "m").devices == ()


def test_groups_get_devices_of_their_own_while_there_are_enough():
    allocator = Allocator(devices=("0", "1", "2", "3"), cores=4)

    assert allocator.take(2, "a").devices == ("0", "1")
    assert allocator.take(2, "b").devices == ("2", "3")


def test_devices_that_came_back_are_handed_out_again():
    allocator = Allocator(devices=("0", "1"), cores=4)
    first = allocator.take(1, "a")
    allocator.take(1, "b")
    allocator.give_back(first)

    assert allocator.take(1, "a").devices == ("0",)


def test_a_degree_above_the_number_of_devices_is_refused_with_both_numbers():
    with pytest.raises(ConfigurationError, match=r"'m' wants tensor_parallel_degree=4.* 2 device\(s\) \(0, 1\)"):
        Allocator(devices=("0", "1"), cores=4).take(4, "m")
