"""Measure an image made with ``docker/build --debian``: ``python3 docker/figures.py IMAGE``. Standard library only.

Prints a table: its size, its starts, the memory of the serving process, a build after a change of the application.
A figure beyond its limit, which is several times the target because machines differ, ends it with exit code 1.
"""

from __future__ import annotations

import argparse
import http.client
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONTEXT = ("Dockerfile", ".dockerignore", "LICENSE", "code", "container", "docker", "models", "requirements.txt")
MEGABYTE = 1_000_000


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def status(address: str) -> int:
    """Of GET /ping; 0 while nobody answers."""
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def until(condition: Callable[[], bool], seconds: float = 300) -> float:
    """The monotonic time at which it became true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing within {seconds:.0f} s")
        time.sleep(0.01)
    return time.monotonic()


def start(image: str) -> tuple[float, float, float]:
    """Seconds from ``docker run`` to the first answer and to ready, and the serving process's memory in MB."""
    began = time.monotonic()
    container = docker("run", "--detach", "--read-only", "--tmpfs", "/tmp", "--publish", "127.0.0.1::8080", image)
    try:
        address = docker("port", container, "8080/tcp").split()[0]
        first = until(lambda: status(address) != 0)
        ready = until(lambda: status(address) == 200)
        memory = docker("exec", container, "sed", "-n", r"s/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p", "/proc/1/status")
        return first - began, ready - began, int(memory) * 1024 / MEGABYTE
    finally:
        docker("rm", "--force", container)


def rebuild(image: str) -> float:
    """Seconds that docker/build takes when one line of the application has changed."""
    with tempfile.TemporaryDirectory(prefix="bloomery-") as scratch:
        copy = Path(scratch)
        for name in (*CONTEXT, "serving.properties"):
            place = ROOT / name
            if place.is_dir():
                shutil.copytree(place, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(place, copy / name)
        with (copy / "container" / "bloomery" / "__init__.py").open("a") as changed:
            changed.write(f"# {time.time()}\n")
        tag = f"{image.rpartition(':')[0]}:changed"
        began = time.monotonic()
        command = [copy / "docker" / "build", "--debian", "--image-only", "--tag", tag]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        seconds = time.monotonic() - began
        docker("rmi", "--force", tag)
        return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    image = parser.parse_args().image
    size = int(docker("image", "inspect", "--format", "{{.Size}}", image)) / MEGABYTE
    docker("run", "--rm", image, "--version")  # what it takes to start is read from the disk
    first, ready, memory = start(image)
    rows = [
        ("image", size, "MB", 1100.0, 1200.0),
        ("start to the first answer of /ping", first, "s", 1.5, 10.0),
        ("start to ready, demonstration model, two ranks", ready, "s", None, 120.0),
        ("memory of the serving process", memory, "MB", None, 150.0),
        ("build after a change of the application", rebuild(image), "s", 10.0, 60.0),
    ]
    print("| figure | measured | target |\n|---|---|---|")
    for name, value, unit, target, _ in rows:
        print(f"| {name} | {value:.1f} {unit} | {'' if target is None else f'{target:g} {unit}'} |")
    beyond = [name for name, value, _, _, limit in rows if value > limit]
    if beyond:
        print(f"beyond the limit: {', '.join(beyond)}", file=sys.stderr)
    return 1 if beyond else 0


if __name__ == "__main__":
    sys.exit(main())
