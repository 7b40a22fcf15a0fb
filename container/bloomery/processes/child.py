"""One child process of the event loop: started in its own group, tied to us, read, watched and ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bloomery.processes import launch_shim
from bloomery.processes.tail import Tail

_READ = 65536
_POLL = 0.05


class Child:
    """Standard output and error share one pipe, so that a traceback stays in place among the prints.

    Not asyncio's own subprocesses: before Python 3.12.4 their ``wait`` does not return while a grandchild holds the
    pipe open (python/cpython#119710), and they reap the child before its group can be signalled safely.
    """

    def __init__(self, process: subprocess.Popen[bytes], on_line: Callable[[str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._process = process
        self.pid = process.pid
        self.tail = Tail(on_line)
        self.exited: asyncio.Future[int] = self._loop.create_future()
        assert process.stdout is not None
        self._output = process.stdout.fileno()
        os.set_blocking(self._output, False)
        self._loop.add_reader(self._output, self._read)
        self._watch_exit()

    @classmethod
    def start(
        cls, command: Sequence[str], env: Mapping[str, str], cwd: Path | None, on_line: Callable[[str], None]
    ) -> Child:
        """Start ``command`` as the leader of its own session; it is killed when this process dies."""
        shim = [sys.executable, "-I", "-S", str(launch_shim.__file__), str(os.getpid())]
        process = subprocess.Popen(
            [*shim, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )
        return cls(process, on_line)

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self.exited.result() if self.exited.done() else None

    def last_lines(self, count: int) -> list[str]:
        """The last lines of its output, including those that still wait in the pipe."""
        while not self.exited.done() and self._read():
            pass
        return self.tail.last(count)

    def signal_group(self, number: int) -> None:
        """Signal the child and everything it started in its session."""
        if self.exited.done():
            return  # the number may belong to somebody else by now
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):  # macOS says EPERM for a zombie leader
            pass

    async def end(self, grace: float) -> int:
        """Terminate, wait ``grace`` seconds, kill; returns the exit status. With no grace, kill at once."""
        if grace > 0 and not self.exited.done():
            self.signal_group(signal.SIGTERM)
            self.signal_group(signal.SIGCONT)  # a stopped process cannot act on SIGTERM
            await asyncio.wait({self.exited}, timeout=grace)
        self.signal_group(signal.SIGKILL)
        return await asyncio.shield(self.exited)

    def _watch_exit(self) -> None:
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # macOS, or a kernel before 5.3
            self._pidfd = -1
            self._loop.call_later(_POLL, self._poll_exit)
        else:
            self._loop.add_reader(self._pidfd, self._reap)

    def _poll_exit(self) -> None:
        if self._process.poll() is None:
            self._loop.call_later(_POLL, self._poll_exit)
        else:
            self._reap()

    def _reap(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
        # While the leader is an unreaped zombie its number cannot be reused: now is the time to end its descendants.
        # (Where its exit was polled it is reaped already; its group's number stays taken while the group has members.)
        self.signal_group(signal.SIGKILL)
        returncode = self._process.wait()
        self._read_rest()
        self.exited.set_result(returncode)

    def _read(self) -> bool:
        """Take what there is; False at the end of the output."""
        try:
            data = os.read(self._output, _READ)
        except BlockingIOError:
            return False
        if data:
            self.tail.feed(data)
            return True
        self._loop.remove_reader(self._output)
        return False

    def _read_rest(self) -> None:
        for _ in range(64):  # a descendant that escaped into another session may still be printing
            if not self._read():
                break
        self._loop.remove_reader(self._output)
        self.tail.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
