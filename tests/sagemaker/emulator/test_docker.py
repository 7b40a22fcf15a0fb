"""Images by docker: with a daemon of this machine, and an image made of busybox."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.hosting import endpoint, hosted, packed
from tests.support.server import REPOSITORY

from bloomery.errors import DeploymentFailure
from bloomery.sagemaker.emulator.containers.container import sweep
from bloomery.sagemaker.emulator.deployment import ImageRule, ModelData

BUSYBOX = Path(shutil.which("busybox") or "/bin/busybox")
APPLETS = ("sh", "nc", "env", "ls", "cat", "tr", "head", "touch")
ENTRY = """#!/bin/sh
trap 'exit 0' TERM
echo "started with $*"
env > /tmp/env
nc -ll -p 8080 -e /handler &
wait
"""
HANDLER = r"""#!/bin/sh
read -r method path rest
length=0
while read -r line; do
    line=$(echo "$line" | tr -d '\r')
    [ -z "$line" ] && break
    case "$line" in Content-Length:*) length=${line#*: } ;; esac
done
out=ok
[ "$path" = /ping ] || out="$(cat /tmp/env; ls -R /opt/ml/model; touch /opt/ml/model/x 2>&1; head -c "$length")"
printf 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %s\r\n\r\n%s' "${#out}" "$out"
"""


def docker(*arguments: str, data: bytes | None = None) -> str:
    return subprocess.run(["docker", *arguments], input=data, capture_output=True, check=True).stdout.decode()


def daemon() -> bool:
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        docker("version", "--format", "{{.Server.Version}}")
        return BUSYBOX.is_file()
    return False


pytestmark = [pytest.mark.full, pytest.mark.skipif(not daemon(), reason="takes a docker daemon, and a static busybox")]


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    name = f"bloomery-test/{uuid.uuid4().hex}:1"
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for directory in ("bin", "tmp", "opt/ml/model"):
            made = tarfile.TarInfo(directory)
            made.type, made.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(made)
        tar.add(BUSYBOX, "bin/busybox")
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for path, text in (("entry", ENTRY), ("handler", HANDLER)):
            script = tarfile.TarInfo(path)
            script.size, script.mode = len(text), 0o755
            tar.addfile(script, io.BytesIO(text.encode()))
    docker("import", "-c", 'ENTRYPOINT ["/entry"]', "-c", "ENV PATH=/bin", "-", name, data=data.getvalue())
    yield name
    docker("rmi", "--force", name)


def containers(name: str) -> list[str]:
    """Those of an endpoint."""
    return docker("ps", "--all", "--filter", f"name=bloomery-{name}", "--format", "{{.Names}}").split()


async def test_an_image_runs_with_sagemakers_contract(tmp_path: Path, image: str) -> None:
    async with hosted(tmp_path, ImageRule("^by-rule$", f"docker:{image}")) as world:
        uri = world.put("model.tar.gz", packed({"code/model.py": b"x = 1"}))
        spec = endpoint(image="by-rule", data=ModelData(archive=uri), environment={"SECRET": "s3cret"})
        await world.start(spec)
        assert not [
            line for line in Path("/proc").glob("[0-9]*/cmdline") if line.is_file() and b"s3cret" in line.read_bytes()
        ]
        client = world.client("sagemaker-runtime")
        answer = await asyncio.to_thread(client.invoke_endpoint, EndpointName=spec.name, Body=b"to be")
        found = answer["Body"].read().decode().splitlines()
        assert "SECRET=s3cret" in found
        assert "code" in found
        assert "touch: /opt/ml/model/x: Read-only file system" in found
        assert found[-1] == "to be"
        assert any(line.startswith("AWS_ENDPOINT_URL=http://host.docker.internal:") for line in found)
        assert world.fleet.last_lines(spec.name, 1) == ["started with serve"]
        await world.fleet.stop(spec.name)
        assert containers(spec.name) == []


async def test_an_image_that_is_not_there_cannot_start(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint(image="bloomery-test/not-there:1")
        with pytest.raises(DeploymentFailure, match=r"^CannotStartContainerError"):
            await world.start(spec)


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.support.hosting import endpoint, hosted

async def main():
    async with hosted(Path(sys.argv[1])) as world:
        await world.start(endpoint(sys.argv[2], image=sys.argv[3]))
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_what_a_killed_emulator_left_running_is_removed(tmp_path: Path, image: str) -> None:
    name = f"e-{uuid.uuid4().hex[:12]}"
    program = [sys.executable, "-c", KILLED, str(tmp_path), name, image]
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": f"{REPOSITORY}/container:{REPOSITORY}"}
    env |= {key: value for key, value in os.environ.items() if key.startswith("DOCKER_")}
    assert subprocess.run(program, env=env, timeout=120).returncode == -signal.SIGKILL
    assert len(containers(name)) == 1
    sweep(tmp_path)
    assert containers(name) == []
