"""Which devices a model's groups get, and how many groups there are."""

from __future__ import annotations

import pytest
from tests.support.settings_world import World

from bloomery.errors import ConfigurationError
from bloomery.settings.model import DeviceSet

FOUR = {"CUDA_VISIBLE_DEVICES": "4,5,6,7"}


def placements(world: World, *lines: str, **environment: str) -> tuple[DeviceSet, ...]:
    world.write("mine/serving.properties", "\n".join(lines))
    return world.model("mine", **environment).placements


def test_a_model_starts_a_group_on_every_gpu(world: World) -> None:
    assert placements(world, **FOUR) == (("4",), ("5",), ("6",), ("7",))


def test_without_a_gpu_it_starts_one_group(world: World) -> None:
    model = world.model("mine")
    assert (model.min_workers, model.placements) == (1, ())


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        ("*", (("4",), ("5",), ("6",), ("7",))),
        ("gpu1;gpu3", (("5",), ("7",))),
        ("2", (("6",),)),
        ("gpu0, gpu0", (("4",),)),
        ("cpu", ((),)),
        ("-1", ((),)),
        ("gpu0;cpu", (("4",), ())),
    ],
)
def test_load_on_devices_chooses_among_the_visible_ones(
    world: World, stated: str, found: tuple[DeviceSet, ...]
) -> None:
    assert placements(world, f"load_on_devices={stated}", **FOUR) == found


def test_a_model_of_degree_two_gets_pairs_and_what_is_left_over_serves_nothing(world: World) -> None:
    three = {"CUDA_VISIBLE_DEVICES": "0,1,2"}
    assert placements(world, "option.tensor_parallel_degree=2", **three) == (("0", "1"),)


def test_degree_max_is_the_number_of_chosen_devices(world: World) -> None:
    world.write("mine/serving.properties", "option.tensor_parallel_degree=max\nload_on_devices=gpu0;gpu2\n")
    model = world.model("mine", **FOUR)
    assert (model.tensor_parallel_degree, model.placements) == (2, (("4", "6"),))


def test_workers_are_counted_per_device(world: World) -> None:
    world.write("mine/serving.properties", "minWorkers=2\nmaxWorkers=3\nload_on_devices=gpu0;gpu1\n")
    model = world.model("mine", **FOUR)
    assert (model.min_workers, model.max_workers) == (4, 6)
    assert model.placements == (("4",), ("4",), ("5",), ("5",))


def test_gpus_and_the_cpu_have_numbers_of_their_own(world: World) -> None:
    world.write("mine/serving.properties", "gpu.minWorkers=1\ncpu.minWorkers=2\nload_on_devices=gpu0;cpu\n")
    model = world.model("mine", **FOUR)
    assert (model.min_workers, model.placements) == (3, (("4",), (), ()))


def test_a_number_for_one_kind_beats_the_general_one_of_the_same_file(world: World) -> None:
    assert len(placements(world, "minWorkers=3", "gpu.minWorkers=2", "load_on_devices=gpu0", **FOUR)) == 2


def test_a_general_number_of_a_stronger_source_beats_it(world: World) -> None:
    world.write("mine/serving.properties", "gpu.minWorkers=2\nload_on_devices=gpu0\n")
    assert world.model("mine", "minWorkers=3", **FOUR).min_workers == 3


@pytest.mark.parametrize("line", ["engine=MPI", "option.tensor_parallel_degree=2"])
def test_a_split_model_has_one_group_per_set_of_gpus_and_it_is_said(world: World, line: str) -> None:
    world.write("mine/serving.properties", f"minWorkers=2\n{line}\nload_on_devices=gpu0;gpu1\n")
    settings = world.settings("mine", **FOUR)
    assert len(set(settings.models[0].placements)) == settings.models[0].max_workers
    assert "one group per set" in settings.notices[0]


def test_on_the_cpu_it_has_as_many_as_stated(world: World) -> None:
    world.write("mine/serving.properties", "minWorkers=2\nengine=MPI\n")
    assert world.model("mine").min_workers == 2


def test_the_handler_hears_the_number_for_its_kind_of_device(world: World) -> None:
    world.write("mine/serving.properties", "gpu.minWorkers=2\ncpu.minWorkers=3\n")
    properties = world.model("mine").properties
    assert (properties["minWorkers"], "gpu.minWorkers" in properties) == ("3", False)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("load_on_devices=gpu4", "gpu4 is not there; this machine shows 4 GPU"),
        ("load_on_devices=tpu0", "'tpu0' is no device; write"),
        ("option.tensor_parallel_degree=5", r"may use 4 device\(s\) \(4, 5, 6, 7\); lower the degree"),
    ],
)
def test_devices_that_are_not_there_are_refused(world: World, line: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        placements(world, line, **FOUR)


@pytest.mark.parametrize(
    "lines",
    [
        ("minWorkers=99999",),
        ("minWorkers=30000", "load_on_devices=gpu0;gpu1;gpu2;cpu"),
        ("engine=MPI", "option.entryPoint=djl_python.huggingface", "option.tensor_parallel_degree=99999"),
    ],
)
def test_more_processes_than_a_machine_can_have_are_refused(world: World, lines: tuple[str, ...]) -> None:
    gpus = FOUR if "load_on_devices" in lines[-1] else {}
    with pytest.raises(ConfigurationError, match=r"processes for one model; a machine of \d+ cores takes \d+ at most"):
        placements(world, *lines, **gpus)


def test_what_each_group_gets_is_explained(world: World) -> None:
    world.write("mine/serving.properties", "load_on_devices=gpu0;gpu1;cpu\n")
    (row,) = [row for row in world.settings("mine", **FOUR).explained if row.key == "devices"]
    assert row.value == "4 | 5 | cpu"


def test_a_gpu_on_a_machine_without_one_is_refused(world: World) -> None:
    with pytest.raises(ConfigurationError, match="this machine shows no GPU"):
        placements(world, "load_on_devices=gpu0")
