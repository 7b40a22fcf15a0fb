"""Load times on paper, and what follows from them."""

from __future__ import annotations

import pytest

from bloomery.sagemaker.instances import INSTANCE_TYPES
from bloomery.sagemaker.planning.load_time import LoadTime, load_time, timeouts, volume

P4D, G5_24, G5_1, P3 = (
    INSTANCE_TYPES[name] for name in ("ml.p4d.24xlarge", "ml.g5.24xlarge", "ml.g5.xlarge", "ml.p3.8xlarge")
)
GB = 10**9


def test_streaming_bloom_and_opt_takes_what_operations_md_says() -> None:
    # 180 GB over eight ranks: each takes 22.5 GB at 1 GB/s; 60 GB over four: 15 s. Then 15 s for everything else.
    assert load_time(P4D, 180 * GB, 180 * GB, 22_500_000_000).expected_streaming == pytest.approx(22.5 + 15)
    assert load_time(G5_24, 60 * GB, 60 * GB, 15 * GB).expected_streaming == pytest.approx(15 + 15)


def test_a_small_machine_waits_for_its_network() -> None:
    # 2.5 Gbit/s, four fifths of it: 0.25 GB/s.
    assert load_time(G5_1, 10 * GB, 10 * GB, 10 * GB).fetch == pytest.approx(40)


def test_more_than_one_interface_helps_no_single_process() -> None:
    # 400 Gbit/s are four interfaces; what is left of one hundred is 10 GB/s, and one interpreter fetches 1 GB/s.
    assert load_time(P4D, 180 * GB, 180 * GB, 0).fetch == pytest.approx(180)


def test_without_local_disks_a_volume_sets_the_pace() -> None:
    # 4 x 60 s at 0.25 GB/s. Then the page cache has it.
    load = load_time(P3, 60 * GB, 60 * GB, 15 * GB)
    assert (load.fetch, load.fill) == (pytest.approx(240), pytest.approx(15))


def test_a_checkpoint_larger_than_the_memory_is_read_from_the_disk_again() -> None:
    assert load_time(G5_1, 30 * GB, 30 * GB, 1 * GB).fill == pytest.approx(15)  # 2 GB/s


@pytest.mark.parametrize(
    ("fetch", "fill", "download", "startup", "needed", "short"),
    [
        (1.0, 1.0, 60, 240, 240, False),  # 3 x 17 + 180 = 231, in whole minutes
        (300.0, 85.0, 900, 1380, 1380, False),
        (1000.0, 200.0, 3000, 3600, 3840, True),
        (2000.0, 200.0, 3600, 3600, 6840, True),
    ],
)
def test_timeouts_are_three_times_the_expected_within_what_sagemaker_takes(
    fetch: float, fill: float, download: int, startup: int, needed: int, short: bool
) -> None:
    found = timeouts(LoadTime(fetch, fill, 0))
    assert (found.download, found.startup, found.needed, found.short) == (download, startup, needed, short)


def test_a_machine_with_local_disks_gets_no_volume() -> None:
    found = volume(P4D, 350 * GB)
    assert (found.size, found.local, found.enough) == (None, 8000, True)


def test_local_disks_may_be_too_small() -> None:
    assert not volume(G5_1, 240 * GB).enough  # of 250


def test_a_volume_holds_the_checkpoint_twice() -> None:
    assert volume(P3, 60 * GB).size == 140


def test_a_volume_has_512_gb_at_most() -> None:
    found = volume(P3, 400 * GB)
    assert (found.size, found.enough) == (512, True)  # once
    assert not volume(P3, 500 * GB).enough
