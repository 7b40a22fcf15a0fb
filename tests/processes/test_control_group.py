from __future__ import annotations

from pathlib import Path

import pytest

from bloomery.processes.control_group import ControlGroup

MIB = 2**20


def made(root: Path, files: dict[str, str], entry: str) -> ControlGroup:
    """A control group whose files hold what ``files`` says, seen by a process with this /proc/self/cgroup."""
    for name, text in files.items():
        path = root / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "mount").mkdir(exist_ok=True)
    (root / "entry").write_text(entry)
    return ControlGroup(root / "mount", root / "entry")


@pytest.fixture(params=["version 1", "version 1 from outside", "version 2", "version 2 from outside"])
def limited(request: pytest.FixtureRequest, tmp_path: Path) -> ControlGroup:
    """512 MiB, of which 200 are used and 50 of these are cache; three kills; one and a half processors."""
    outside = "outside" in request.param
    inside = "docker/abc/" if outside else ""
    if "1" in request.param:
        files = {
            f"memory/{inside}memory.limit_in_bytes": f"{512 * MIB}\n",
            f"memory/{inside}memory.usage_in_bytes": f"{200 * MIB}\n",
            f"memory/{inside}memory.stat": f"cache 1\ninactive_file 7\ntotal_inactive_file {50 * MIB}\n",
            f"memory/{inside}memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
            f"cpu,cpuacct/{inside}cpu.cfs_quota_us": "150000\n",
            f"cpu,cpuacct/{inside}cpu.cfs_period_us": "100000\n",
        }
        group = made(tmp_path, files, "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/\n")
        (tmp_path / "mount" / "cpu").symlink_to("cpu,cpuacct")
        return group
    files = {
        f"{inside}memory.max": f"{512 * MIB}\n",
        f"{inside}memory.current": f"{200 * MIB}\n",
        f"{inside}memory.stat": f"anon 1\ninactive_file {50 * MIB}\n",
        f"{inside}memory.events": "low 0\nhigh 0\nmax 9\noom 4\noom_kill 3\n",
        f"{inside}cpu.max": "150000 100000\n",
    }
    return made(tmp_path, files, "0::/docker/abc\n")


def test_limits_and_kills_are_read_in_both_versions(limited: ControlGroup) -> None:
    assert limited.memory_limit() == 512 * MIB
    assert limited.memory_left() == 362 * MIB
    assert limited.out_of_memory_kills() == 3
    assert limited.processors() == 1.5


@pytest.mark.parametrize(
    ("files", "entry"),
    [
        ({}, ""),
        ({"memory/memory.limit_in_bytes": f"{2**63 - 4096}", "cpu/cpu.cfs_quota_us": "-1"}, "4:memory:/\n1:cpu:/\n"),
        ({"memory.max": "max\n", "cpu.max": "max 100000\n"}, "0::/\n"),
    ],
    ids=["nothing", "version 1", "version 2"],
)
def test_no_limit_is_none(files: dict[str, str], entry: str, tmp_path: Path) -> None:
    group = made(tmp_path, files, entry)

    assert group.memory_limit() is None
    assert group.memory_left() is None
    assert group.processors() is None
    assert group.out_of_memory_kills() == 0


def test_the_tightest_of_the_groups_above_counts(tmp_path: Path) -> None:
    files = {
        "memory.max": "max",
        "pod/memory.max": str(100 * MIB),
        "pod/memory.current": str(90 * MIB),
        "pod/container/memory.max": str(512 * MIB),
        "pod/container/memory.current": str(20 * MIB),
    }
    group = made(tmp_path, files, "0::/pod/container\n")

    assert group.memory_limit() == 100 * MIB
    assert group.memory_left() == 10 * MIB


def test_here_it_is_read_without_an_error() -> None:
    group = ControlGroup()

    assert (group.memory_limit() or 1) > 0
    assert group.out_of_memory_kills() >= 0
