"""DeepSpeed's shared-memory all-reduce: where its compiled form is kept, how it gets there, and how it is joined.

Each rank maps every rank's buffer of 66 MiB in /dev/shm. The operator was written to be loaded by DeepSpeed's
TorchBackend, which compiles it on the spot and leaves the buffers' names behind; here it is compiled in the background
and its names are removed once every rank has mapped them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from bloomery.engines import cpu, shm_build
from bloomery.processes.machine import table_bytes
from bloomery.processes.shared_memory import SHARED_MEMORY, allreduce_buffer

log = logging.getLogger(__name__)

BUFFER_BYTES = 2 * 2**20 + 2 * 32 * 2**20 + 4096  # shm.cpp: struct allreduce_workspace
# cc1plus was measured at 1.6 GB: a server that fills its machine must not be pushed over by a compiler.
BUILD_MEMORY = 2500 * 2**20
MODULE = "deepspeed_shm_comm"
INSTALLED = Path(sys.prefix) / "share" / "bloomery"


def cache_directory() -> Path:
    """Where compiled operators are kept: TORCH_EXTENSIONS_DIR, else the user's cache, else the temporary directory."""
    given = os.environ.get("TORCH_EXTENSIONS_DIR")
    if given:
        return Path(given) / "bloomery"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bloomery"
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.gettempdir()) / f"bloomery-{os.getuid()}"
    return home if os.access(home, os.W_OK) else Path(tempfile.gettempdir()) / f"bloomery-{os.getuid()}"


def compiled_path() -> Path:
    """The operator for this Python, torch and DeepSpeed: what was installed beside the interpreter, as in an image;
    else in the cache, where it need not exist yet."""
    name = shm_build.file_name()
    installed = INSTALLED / name
    return installed if installed.exists() else cache_directory() / name


def obstacle(world_size: int) -> str:
    """Why the operator cannot be used on this machine at all; empty when nothing stands against it."""
    if sys.platform != "linux" or not SHARED_MEMORY.is_dir():
        return "there is no /dev/shm here"
    if not cpu.has_avx2():
        return "its fp32 kernel needs AVX2"
    if int(os.environ.get("LOCAL_WORLD_SIZE") or world_size) != world_size:
        return "the ranks are not all on this machine"
    if not os.access(SHARED_MEMORY, os.W_OK | os.X_OK):
        return "/dev/shm is not writable"
    needed, free = world_size * BUFFER_BYTES, shutil.disk_usage(SHARED_MEMORY).free
    if free < needed + 2**20:
        return (
            f"/dev/shm has {free / 2**20:.0f} MiB free and {world_size} ranks need {needed / 2**20:.0f}; "
            f"start the container with --shm-size={-(-needed // 2**20) + 64}m"
        )
    return ""


def build_in_background() -> str:
    """Start the compilation unless that is hopeless; says in words what happens. Never waits, never raises."""
    target = compiled_path()
    failed = target.with_suffix(".failed")
    if failed.exists():
        return f"compiling the shared-memory all-reduce failed earlier (remove {failed}, which says why, to try again)"
    compiler = os.environ.get("CXX") or "c++"
    if not shutil.which(compiler) and not shutil.which("g++"):
        return f"there is no C++ compiler ({compiler}) to build the shared-memory all-reduce"
    available = table_bytes("/proc/meminfo", "MemAvailable")
    if available < BUILD_MEMORY:
        return (
            f"{available / 2**20:.0f} MiB of memory are available and compiling the shared-memory all-reduce takes "
            f"{BUILD_MEMORY / 2**20:.0f}"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _start_build(target)
    except OSError as error:
        return f"the shared-memory all-reduce cannot be compiled: {error}"
    return "the shared-memory all-reduce is being compiled in the background, for the next start"


def _start_build(target: Path) -> None:
    ours = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", "BLOOMERY_", "OMPI_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    script = [sys.executable, "-I", "-S", str(shm_build.__file__), str(os.getpid())]
    process = subprocess.Popen(
        [*script, str(target.with_suffix(".lock")), str(target), str(target.with_suffix(".log"))],
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    threading.Thread(target=process.wait, name="shm-build", daemon=True).start()  # else it would stay a zombie


def load() -> Any:
    """The compiled module, imported; raises ImportError or OSError when it does not fit this process."""
    import torch  # noqa: F401 (the module is linked against its libraries)

    path = compiled_path()
    spec = importlib.util.spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python extension module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def remove_name(rank: int) -> None:
    """Unlink this rank's own buffer; whoever has mapped it keeps it. MASTER_PORT is held for our group alone."""
    name = allreduce_buffer(os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", ""), rank)
    with contextlib.suppress(FileNotFoundError):
        (SHARED_MEMORY / name).unlink()
