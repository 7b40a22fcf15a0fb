from __future__ import annotations

import pytest

from bloomery.sagemaker.emulator.containers.placement import Requirements, lacking, machines

GPUS = "ml.g5.12xlarge"  # 48 vCPUs, 192 GiB, 4 GPUs


def needs(accelerators: float = 0, cpus: float = 0, memory: int = 1024) -> Requirements:
    return Requirements(accelerators, cpus, memory)


@pytest.mark.parametrize(
    ("copies", "expected"),
    [
        ([], 0),
        ([(needs(1), 0)], 0),
        ([(needs(1), 4)], 1),
        ([(needs(1), 5)], 2),
        ([(needs(1), 2), (needs(2), 3)], 2),  # the small ones fill what the large ones leave
        ([(needs(cpus=48), 2)], 2),
        ([(needs(memory=100 * 1024), 2)], 2),
    ],
)
def test_copies_are_packed_onto_machines(copies: list[tuple[Requirements, int]], expected: int) -> None:
    assert machines(GPUS, copies) == expected


def test_what_a_machine_lacks_is_told() -> None:
    assert lacking(GPUS, needs(8, memory=512 * 1024)) == (
        "8 accelerator devices (it has 4); 524288 MB of memory (it has 196608)"
    )
    assert lacking(GPUS, needs(4, 48, 192 * 1024)) is None


def test_a_type_that_is_not_in_the_table_holds_anything() -> None:
    assert lacking("ml.x9.huge", needs(64)) is None
    assert machines("ml.x9.huge", [(needs(64), 3)]) == 1
