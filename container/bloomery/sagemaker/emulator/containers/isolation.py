"""A process that sees its model at /opt/ml/model, read-only, and whose descendants all end with it.

This takes a mount and a process namespace of its own, which root may make (util-linux's unshare). Elsewhere a program
is told where its model is: {model_dir} in its command, SM_MODEL_DIR in its environment.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bloomery.sagemaker.emulator.containers.images import MODEL_DIRECTORY

# As its own /proc shows, the program is process 1, as in a container. --kill-child: it dies with unshare, and with
# process 1 the kernel ends whatever it started.
_NAMESPACES = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_MOUNT = 'mount --bind "$1" "$2" && mount -o remount,bind,ro "$2" && shift 2 && exec "$@"'


@functools.cache
def available() -> bool:
    """Whether namespaces can be made here; asked once."""
    unshare = shutil.which("unshare")
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or unshare is None:
        return False
    try:
        os.makedirs(MODEL_DIRECTORY, exist_ok=True)  # only an empty place to mount at
        probe = mounted(["true"], Path(MODEL_DIRECTORY))
        return subprocess.run(probe, capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def mounted(command: list[str], model_dir: Path) -> list[str]:
    """``command`` with ``model_dir`` at /opt/ml/model; it becomes process 1 of its namespace."""
    shell = ["/bin/sh", "-c", _MOUNT, "sh", str(model_dir), MODEL_DIRECTORY]
    return ["unshare", *_NAMESPACES, "--", *shell, *command]
