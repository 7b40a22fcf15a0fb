"""Runs a command that cannot outlive its parent: ``launch_shim.py PARENT_PID COMMAND...``.

A file of its own that imports nothing of ours, because it runs as ``python -I -S launch_shim.py`` between fork and
exec: a ``preexec_fn`` would run Python in a forked copy of a threaded server, which may deadlock.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent, then become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        # Survives exec. The kernel means the parent *thread*: children are started from the event loop's thread.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before prctl, so no signal will come
        os._exit(1)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"cannot run {command[0]!r}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main()
