from __future__ import annotations

from pathlib import Path

from bloomery.settings.model import DeviceSet, ModelSettings
from bloomery.workers.allocation import Allocator


def model(*placements: DeviceSet, name: str = "m", version: str | None = None) -> ModelSettings:
    return ModelSettings(name, Path(), version=version, placements=placements)


def test_threads_are_the_cores_shared_by_all_announced_ranks():
    allocator = Allocator(cores=8)
    allocator.announce(2)
    allocator.announce(1)

    assert allocator.take(model()).threads == 2


def test_a_rank_always_gets_a_thread():
    allocator = Allocator(cores=2)
    allocator.announce(5)

    assert allocator.take(model()).threads == 1


def test_without_devices_nothing_is_handed_out():
    assert Allocator(cores=2).take(model()).devices == ()


def test_each_group_gets_a_placement_of_its_own_while_there_are_enough():
    allocator, settings = Allocator(cores=4), model(("0", "1"), ("2", "3"))

    assert [allocator.take(settings).devices for _ in range(3)] == [("0", "1"), ("2", "3"), ("0", "1")]


def test_a_model_on_gpu_and_cpu_starts_its_groups_on_both():
    allocator, settings = Allocator(cores=4), model(("0",), (), ())

    assert [allocator.take(settings).devices for _ in range(3)] == [("0",), (), ()]


def test_a_placement_that_came_back_is_handed_out_again():
    allocator, settings = Allocator(cores=4), model(("0",), ("1",), ("2",))
    first, second = allocator.take(settings), allocator.take(settings)
    allocator.take(settings)
    allocator.give_back(second)
    allocator.give_back(first)
    allocator.take(settings)

    assert allocator.take(settings).devices == ("1",)


def test_of_several_equal_placements_the_one_with_the_fewest_strangers_is_taken():
    allocator = Allocator(cores=4)
    allocator.take(model(("0",), name="other"))

    assert allocator.take(model(("0",), ("1",))).devices == ("1",)


def test_versions_of_a_model_count_their_own_groups():
    allocator = Allocator(cores=4)
    allocator.take(model(("0",), (), version="1"))

    assert allocator.take(model((), ("0",), version="2")).devices == ()
