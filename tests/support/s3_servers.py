"""S3 servers that others wrote, as a second opinion: rclone over a directory, and SeaweedFS.

``scripts/test --full`` installs them beside the interpreter (tests/peers/requirements.txt).
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.faulty_s3.environment import ACCESS_KEY, SECRET_KEY

_START_SECONDS = 60.0
_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


def program(name: str) -> Path:
    """Where pip put it. Raises FileNotFoundError, which says how to get it."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise FileNotFoundError(f"{name} is not installed: scripts/test --full does that")
    return path


@contextmanager
def rclone(directory: Path, log: Path) -> Iterator[str]:
    """The URL at which rclone serves ``directory`` (its folders are the buckets), to KEY and SECRET only."""
    command = [program("rclone"), "serve", "s3", directory, "--addr", "127.0.0.1:0", "--config", "/dev/null"]
    with _running([*command, "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"], log) as process:
        yield _wait(process, log, lambda: _first_address(log))


@contextmanager
def seaweedfs(directory: Path, log: Path) -> Iterator[str]:
    """The URL of an empty SeaweedFS that keeps its volumes in ``directory``."""
    config = directory / "s3.json"
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    config.write_text(json.dumps({"identities": [{"name": "t", "credentials": credentials, "actions": ["Admin"]}]}))
    # All ports are ours to name: by default the volume server listens on 8080, which is SageMaker's.
    names = ("master", "volume", "filer", "s3")
    ports = dict(zip([f"{n}.port{g}" for n in names for g in ("", ".grpc")], _free_ports(8), strict=True))
    command = [program("weed"), "server", "-s3", f"-dir={directory}", "-ip=127.0.0.1", f"-s3.config={config}"]
    command += [f"-{name}={port}" for name, port in ports.items()]
    command += [
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=0",
    ]
    url = f"http://127.0.0.1:{ports['s3.port']}"
    with _running(command, log) as process:
        yield _wait(process, log, lambda: url if _seaweedfs_is_ready(log, ports["s3.port"]) else None)
    for socket_of_its_own in [
        path for port in ports.values() for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")
    ]:
        socket_of_its_own.unlink()


def _seaweedfs_is_ready(log: Path, port: int) -> bool:
    # The gateway listens before the volume server has reported to the master, and then an upload fails.
    with socket.socket() as probe:
        listens = probe.connect_ex(("127.0.0.1", port)) == 0
    return listens and "added volume server" in log.read_text(errors="replace")


@contextmanager
def _running(command: Sequence[str | Path], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()  # nothing is to be kept, and SeaweedFS takes half a minute to end by itself
        process.wait()


def _wait(process: subprocess.Popen[bytes], log: Path, address: Callable[[], str | None]) -> str:
    end = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        if found := address():
            return found
        time.sleep(0.05)
    raise RuntimeError(f"{process.args} was not ready within {_START_SECONDS:g} s:\n{log.read_text()[-3000:]}")


def _first_address(log: Path) -> str | None:
    match = _ADDRESS.search(log.read_text(errors="replace"))
    return match[0] if match else None


def _free_ports(count: int) -> list[int]:
    """Ports that are free now; all are held until the last is known, so that no two are equal."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()
