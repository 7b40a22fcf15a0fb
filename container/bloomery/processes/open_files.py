"""How many files and connections a process may have open."""

from __future__ import annotations

import resource


def allow_many() -> None:
    """Up to the hard limit, for this process and its children: the usual 1024 are few where one request takes two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # macOS says "unlimited" and takes less
            pass
