"""Check this machine and bring .venv up to date with the requirements files named. Standard library only.

The virtual environment records the hash of what it was made from, so that a prepared start costs milliseconds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED_DISK_GB = 4.0
NEEDED_MEMORY_GB = 3.0
MEGABYTE = 1_000_000
CUDA_ADVICE = """\
  pip's configuration offers the CUDA build of torch. To fetch the much smaller CPU build instead, stop this (Ctrl-C),
  point pip at PyTorch's own package index for CPU wheels (PyTorch's "get started" page names it) with
  PIP_EXTRA_INDEX_URL=…/whl/cpu, and run the same command with TORCH=2.13.0+cpu in front."""


def memory_gb() -> float | None:
    """Physical memory, None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (ValueError, OSError):
        return None


def check_machine(venv: Path) -> None:
    """Refuse what cannot work, warn of what may not; well under a second."""
    system, machine = platform.system(), platform.machine()
    if (system, machine) not in {
        ("Linux", "x86_64"),
        ("Linux", "aarch64"),
        ("Darwin", "arm64"),
    }:
        raise SystemExit(
            f"bloomery runs on Linux (x86_64, aarch64) and macOS (arm64); this is {system} {machine}. "
            "On Windows use WSL 2."
        )
    if system == "Darwin":
        print("macOS: DeepSpeed does not run here; the accelerate engine serves with one rank instead.")
    free = shutil.disk_usage(venv.parent).free / 1e9
    if not venv.exists() and free < NEEDED_DISK_GB:
        raise SystemExit(f"{venv.parent} has {free:.1f} GB free; the installation needs about {NEEDED_DISK_GB:.0f} GB")
    memory = memory_gb()
    if memory is not None and memory < NEEDED_MEMORY_GB:
        print(f"warning: this machine has {memory:.1f} GB of memory; below {NEEDED_MEMORY_GB:.0f} GB loading may fail")


def fingerprint(requirements: list[Path]) -> str:
    """What the environment was made from."""
    digest = hashlib.sha256(sys.version.encode())
    for path in [*requirements, ROOT / "pyproject.toml"]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def download_size(url: str) -> int:
    """Bytes of one distribution; 0 for a local file, because nothing is fetched."""
    if url.startswith("file:"):
        return 0
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=20) as answer:
        return int(answer.headers.get("Content-Length") or 0)


def announce(pip: list[str], wanted: list[str], venv: Path) -> None:
    """Say what pip is about to fetch, and how to choose the CPU build of torch where it would fetch CUDA's."""
    print("asking pip what it would fetch …", flush=True)
    command = [*pip, "install", "--dry-run", "--quiet", "--report", "-", *wanted]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if answer.returncode:
        raise SystemExit(f"pip cannot find what bloomery needs:\n{answer.stderr.strip()[-2000:]}")
    packages = json.loads(answer.stdout[answer.stdout.index("{") :])["install"]
    urls = [package["download_info"]["url"] for package in packages]
    try:
        with ThreadPoolExecutor(16) as pool:
            size = sum(pool.map(download_size, urls))
        figure = f"up to {size / MEGABYTE:,.0f} MB (less what pip has cached)"
    except (OSError, ValueError) as error:
        figure = f"an unknown amount ({error})"
    local = sum(url.startswith("file:") for url in urls)
    beside = f" (and take {local} from this disk)" if local else ""
    print(f"pip will fetch {len(urls) - local} packages, {figure}{beside}, into {ROOT.name}/{venv.name}", flush=True)
    if any(package["metadata"]["name"].lower().startswith(("nvidia-", "cuda-")) for package in packages):
        print(CUDA_ADVICE, flush=True)


def requirement_arguments(requirements: list[Path], scratch: Path) -> list[str]:
    """pip's arguments; TORCH=VERSION in the environment replaces torch's pin."""
    torch = os.environ.get("TORCH")
    arguments = []
    for path in requirements:
        if torch:
            text = re.sub(r"(?m)^torch==.*$", f"torch=={torch}", path.read_text())
            path = scratch / f"{path.parent.name}-{path.name}"
            path.write_text(text)
        arguments += ["-r", str(path)]
    return arguments


def pins_hashes(path: Path) -> bool:
    """pip wants a hash for every package of a call that has one, so such a file is installed by a call of its own."""
    return "--hash=" in path.read_text()


def create(venv: Path) -> None:
    """An empty virtual environment with a pip that knows ``--report``."""
    made = subprocess.run([sys.executable, "-m", "venv", str(venv)], capture_output=True, text=True)
    if made.returncode:
        shutil.rmtree(venv, ignore_errors=True)
        raise SystemExit(
            f"{sys.executable} -m venv failed: {(made.stderr + made.stdout).strip()[-500:]}\n"
            "On Debian and Ubuntu: apt-get install python3-venv"
        )
    subprocess.run([venv / "bin/python", "-m", "pip", "install", "--quiet", "--upgrade", "pip"], check=True)


def install(venv: Path, requirements: list[Path], *, bare: bool = False) -> None:
    """Everything the requirements name, then bloomery itself, editable, unless ``bare``."""
    started = time.monotonic()
    if not (venv / "bin/python").exists():
        create(venv)
    pip = [str(venv / "bin/python"), "-m", "pip", "--disable-pip-version-check"]
    # DS_BUILD_OPS=0: DeepSpeed's operators are compiled when they are first wanted, in the background.
    environment = {**os.environ, "DS_BUILD_OPS": "0"}
    unpinned = [path for path in requirements if not pins_hashes(path)]
    pinned = [path for path in requirements if pins_hashes(path)]
    wanted = [requirement_arguments(unpinned, venv)]
    wanted += [["--require-hashes", "--no-deps", "-r", str(path)] for path in pinned]
    for arguments in wanted:
        announce(pip, arguments, venv)
    if not bare:
        wanted.append(["--no-deps", "--editable", str(ROOT)])
    for arguments in wanted:
        done = subprocess.run([*pip, "install", *arguments], cwd=ROOT, env=environment)
        if done.returncode:
            raise SystemExit(f"pip failed with exit code {done.returncode}; its message is above")
    print(f"installed in {time.monotonic() - started:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, required=True)
    parser.add_argument("--bare", action="store_true", help="leave bloomery itself out")
    parser.add_argument("requirements", type=Path, nargs="+")
    arguments = parser.parse_args()
    check_machine(arguments.venv)
    requirements = [ROOT / path for path in arguments.requirements]
    stamp = arguments.venv / f"bloomery-{'-'.join(path.parent.name for path in requirements)}.sha256"
    wanted = fingerprint(requirements)
    if not (stamp.exists() and stamp.read_text() == wanted):
        install(arguments.venv, requirements, bare=arguments.bare)
        stamp.write_text(wanted)


if __name__ == "__main__":
    main()
