from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from tests.support.worker_models import alive, until

from bloomery.processes import launch_shim
from bloomery.processes.child import Child


@pytest.fixture
async def start():
    children: list[Child] = []

    def start(*command: str, cwd: Path | None = None) -> Child:
        children.append(Child.start(command, os.environ, cwd, lambda _line: None))
        return children[-1]

    yield start
    for child in children:
        await child.end(0)


def sh(script: str) -> tuple[str, ...]:
    return "sh", "-c", script


async def test_output_and_exit_code_are_kept(start):
    child = start(*sh("echo out; echo err >&2; exit 3"))

    assert await child.exited == 3
    assert child.tail.last(5) == ["out", "err"]


async def test_the_last_lines_include_what_still_waits_in_the_pipe(start, tmp_path):
    child = start(*sh("echo out; touch done; sleep 600"), cwd=tmp_path)
    while not (tmp_path / "done").exists():
        pass  # the event loop must not read meanwhile

    assert child.last_lines(1) == ["out"]


async def test_an_exit_is_noticed_where_the_kernel_has_no_pidfd(start, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)

    child = start(*sh("sleep 600 & echo $!; exit 3"))

    assert await child.exited == 3
    (line,) = child.tail.last(1)
    await until(lambda: not alive(int(line)))


async def test_a_command_that_does_not_exist_says_so(start):
    child = start("no-such-command")

    assert await child.exited == 127
    assert child.tail.last(1) == ["cannot run 'no-such-command': No such file or directory"]


async def test_a_child_that_heeds_sigterm_may_clean_up(start):
    child = start(*sh("trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done"))
    await until(lambda: child.tail.last(1) == ["ready"])

    assert await child.end(grace=30) == 5
    assert child.tail.last(1) == ["bye"]


async def test_a_child_that_ignores_sigterm_is_killed(start):
    child = start(*sh("trap '' TERM; echo ready; while :; do sleep 0.05; done"))
    await until(lambda: child.tail.last(1) == ["ready"])

    assert await child.end(grace=0.1) == -signal.SIGKILL


async def test_a_stopped_child_can_be_ended(start):
    child = start("sleep", "600")
    os.kill(child.pid, signal.SIGSTOP)

    assert await child.end(grace=30) == -signal.SIGTERM


async def test_what_a_child_started_ends_with_it(start):
    child = start(*sh("sleep 600 & echo $!; wait"))
    (line,) = await until(lambda: child.tail.last(1))

    await child.end(0)
    await until(lambda: not alive(int(line)))


async def test_what_a_child_left_behind_ends_when_it_exits(start):
    child = start(*sh("sleep 600 & echo $!"))

    assert await child.exited == 0
    (line,) = child.tail.last(1)
    await until(lambda: not alive(int(line)))


async def test_a_child_leads_its_own_session(start):
    child = start("sleep", "600")

    await until(lambda: os.getsid(child.pid) == child.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_a_child_whose_parent_died_before_it_could_be_tied_does_not_start():
    command = [sys.executable, "-I", "-S", launch_shim.__file__, "1", "echo", "started"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)

    output, _ = await process.communicate()

    assert (process.returncode, output) == (1, b"")
