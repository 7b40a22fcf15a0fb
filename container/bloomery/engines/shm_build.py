"""Compiles DeepSpeed's shared-memory all-reduce beside a running server: ``shm_build.py PARENT LOCK TARGET LOG``.

Run as ``python -I -S shm_build.py`` by ``shm_operator``. It imports nothing of ours, so that it is there within
milliseconds and can end the compiler, which is its grandchild and would not notice that the server has gone.
``shm_build.py --into DIRECTORY`` compiles it in the foreground, for whoever installs; an image needs no other file.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import importlib.metadata
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
_BUILD = "from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder as B; B().load(verbose=True)"


def file_name() -> str:
    """Of the operator for this Python, torch, DeepSpeed and kind of processor.

    Not for this processor: DeepSpeed compiles for the least of its kind, with functions for AVX2 and AVX-512 in it that
    are chosen when it is loaded.
    """
    parts = [platform.python_version(), platform.machine()]
    parts += [importlib.metadata.version(name) for name in ("torch", "deepspeed")]
    key = hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]
    return f"deepspeed_shm_comm-{key}.so"


def main() -> None:
    """Build once, unless another process is at it; a failure leaves TARGET.failed, success leaves TARGET."""
    if sys.argv[1] == "--into":
        sys.exit(_build_into(Path(sys.argv[2])))
    parent = int(sys.argv[1])
    lock, target, log = (Path(argument) for argument in sys.argv[2:5])
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, _end_group)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        return
    os.nice(19)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go by the kernel, however this process ends
        except OSError:
            return
        if not target.exists():
            _build(target, log)


def _build_into(directory: Path) -> str | None:
    """None, or the compiler's words when it failed."""
    directory.mkdir(parents=True, exist_ok=True)
    target, log = directory / file_name(), directory / "log"
    _build(target, log, jobs=2)
    if not target.exists():
        return next(path for path in (target.with_suffix(".failed"), log) if path.exists()).read_text()
    log.unlink()
    return None


def _build(target: Path, log: Path, jobs: int = 1) -> None:
    for leftover in target.parent.glob("building-*"):  # of a build that was killed: we hold the lock
        shutil.rmtree(leftover, ignore_errors=True)
    directory = Path(tempfile.mkdtemp(prefix="building-", dir=target.parent))
    # A place of its own: DeepSpeed's cache is keyed by less than ours. Each job of the compiler takes 1.5 GB.
    environment = os.environ | {"TORCH_EXTENSIONS_DIR": str(directory), "MAX_JOBS": str(jobs)}
    # Ninja is installed beside the interpreter, whose directory need not be on the path.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    try:
        with log.open("wb") as output:
            done = subprocess.run(
                [sys.executable, "-c", _BUILD], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        made = list(directory.glob("*/*.so"))
        if done.returncode == 0 and made:
            made[0].rename(target)
        elif done.returncode >= 0:  # not killed
            log.rename(target.with_suffix(".failed"))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _end_group(*_: Any) -> None:
    with contextlib.suppress(OSError):
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
