from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from bloomery.processes.state import exit_in_words, process_state


@pytest.fixture
def sleeper(tmp_path):
    # A name that could confuse whoever splits /proc/PID/stat at blanks.
    program = tmp_path / "a) Z (b"
    program.symlink_to(subprocess.check_output(["which", "sleep"], text=True).strip())
    with subprocess.Popen([program, "600"]) as process:
        yield process
        process.kill()


def becomes(pid: int, expected: str) -> bool:
    deadline = time.monotonic() + 20
    while process_state(pid) != expected and time.monotonic() < deadline:
        time.sleep(0.01)
    return process_state(pid) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc elsewhere")
def test_the_states_of_a_process_are_told_apart(sleeper):
    assert becomes(sleeper.pid, "S")
    sleeper.send_signal(signal.SIGSTOP)
    assert becomes(sleeper.pid, "T")
    sleeper.kill()
    assert becomes(sleeper.pid, "Z")


def test_a_process_that_does_not_exist_has_no_state():
    with subprocess.Popen(["true"]) as process:
        pass

    assert process_state(process.pid) is None


def test_our_own_process_runs():
    assert process_state(os.getpid()) in ("R", None)


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (-9, "was killed by signal 9 (SIGKILL)"),
        (-63, "was killed by signal 63 (unknown)"),
    ],
)
def test_an_exit_is_told_in_words(returncode, words):
    assert exit_in_words(returncode) == words
