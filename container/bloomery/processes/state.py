"""What the kernel and an exit status say about a process."""

from __future__ import annotations

import signal
from pathlib import Path


def process_state(pid: int) -> str | None:
    """The kernel's letter (R, S, D, T, Z, …), or None where there is no /proc or no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The command's name stands in parentheses and may itself hold parentheses and blanks.
    return stat.rpartition(b")")[2].split()[0].decode()


def exit_in_words(returncode: int) -> str:
    """``exited with code 3``, or ``was killed by signal 9 (SIGKILL)``."""
    if returncode >= 0:
        return f"exited with code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = "unknown"
    return f"was killed by signal {-returncode} ({name})"
