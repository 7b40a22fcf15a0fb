from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bloomery.processes.lock import FileLock

CONTAINER = Path(__file__).parents[2] / "container"
HOLD = """
import sys, time
from pathlib import Path
from bloomery.processes.lock import FileLock
print(FileLock(Path(sys.argv[1])).acquired(), flush=True)
time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "lock"


def test_one_holds_it_at_a_time(path: Path) -> None:
    first, second = FileLock(path), FileLock(path)
    assert first.acquired()
    assert not second.acquired()
    first.release()
    assert second.acquired()
    assert not first.acquired()
    second.release()


def test_the_file_goes_with_the_lock(path: Path) -> None:
    lock = FileLock(path)
    assert lock.acquired()
    assert path.exists()
    lock.release()
    lock.release()
    assert not path.exists()


def test_who_does_not_hold_it_removes_nothing(path: Path) -> None:
    holder, other = FileLock(path), FileLock(path)
    assert holder.acquired()
    assert not other.acquired()
    other.release()
    assert path.exists()
    holder.release()


def test_a_lock_on_a_file_that_was_removed_meanwhile_counts_for_nothing(path: Path) -> None:
    first = FileLock(path)
    assert first.acquired()
    path.unlink()
    second = FileLock(path)
    assert second.acquired()  # on the file that all others see
    first.release()
    assert not FileLock(path).acquired()
    second.release()


def test_the_kernel_frees_it_when_its_holder_is_killed(path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, env={"PYTHONPATH": str(CONTAINER)}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "True"
        lock = FileLock(path)
        assert not lock.acquired()
        process.kill()
        process.wait()
        assert lock.acquired()
        lock.release()


def test_a_link_in_its_place_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        FileLock(path).acquired()
