"""One container as a process: a program of this machine, or ``docker run``. It is started once, watched, and ended."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bloomery.processes import machine
from bloomery.processes.child import Child
from bloomery.processes.ports import ReservedPort
from bloomery.sagemaker.emulator.containers import environment, isolation
from bloomery.sagemaker.emulator.containers.images import MODEL_DIRECTORY, DockerImage, Images
from bloomery.sagemaker.emulator.deployment import ContainerSpec, Surroundings

_RECORDS = "instances"  # below the state directory: what a killed emulator would leave behind


class Container:
    """``port``: on loopback. ``exited`` is done when it has ended by itself or was ended."""

    def __init__(self, child: Child, port: ReservedPort, scratch: Path, record: Path, docker: list[str]) -> None:
        self._child, self._port, self._scratch, self._record, self._docker = child, port, scratch, record, docker
        self.port = port.number
        self.exited = child.exited

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self._child.returncode

    def kill(self) -> None:
        """As the kernel does when memory is short; ``end`` is still to come."""
        self._child.signal_group(signal.SIGKILL)

    async def end(self, grace: float) -> None:
        """SIGTERM, ``grace`` seconds, SIGKILL; then nothing of it is left, neither processes nor files."""
        await self._child.end(grace)
        if self._docker:  # the command is gone; its container may not be
            await asyncio.to_thread(subprocess.run, self._docker, capture_output=True)
        self._port.close()
        await asyncio.to_thread(_remove, self._scratch)
        self._record.unlink(missing_ok=True)

    @classmethod
    async def start(
        cls,
        name: str,
        spec: ContainerSpec,
        model_dir: Path,
        region: str,
        around: Surroundings,
        images: Images,
        on_line: Callable[[str], None],
    ) -> Container:
        """Start ``spec`` as the container ``name``. Raises DeploymentFailure when nothing can stand for its image."""
        program, isolated = await asyncio.to_thread(lambda: (images.find(spec.image), isolation.available()))
        record = around.state / _RECORDS / f"{name}.json"
        scratch = Path(tempfile.mkdtemp(prefix="bloomery-sm-"))  # not below the state: sockets need short paths
        port = ReservedPort()
        remove = [program.docker, "rm", "--force", name] if isinstance(program, DockerImage) else []
        try:
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps({"scratch": str(scratch), "docker": remove}))
            if isinstance(program, DockerImage):
                variables = environment.of_docker(spec, around, region)
                command = _docker_run(program, name, port.number, model_dir, variables)
                env = _of_docker_command(variables, scratch)
                port.close()  # docker binds it without SO_REUSEADDR
            else:
                seen = Path(MODEL_DIRECTORY) if isolated else model_dir
                command, variables = program.filled(seen, port.number, spec.image)
                env = environment.of_program(
                    spec, variables, around, region, model_dir=seen, port=port.number, scratch=scratch
                )
                if isolated:
                    command = isolation.mounted(command, model_dir)
            return cls(Child.start(command, env, scratch, on_line), port, scratch, record, remove)
        except BaseException:
            port.close()
            shutil.rmtree(scratch, ignore_errors=True)
            record.unlink(missing_ok=True)
            raise


def sweep(state: Path) -> None:
    """Remove what containers of a killed emulator left: files, and docker's containers. Its processes died with it."""
    for record in (state / _RECORDS).glob("*.json"):
        try:
            left = json.loads(record.read_text())
            scratch, docker = Path(left["scratch"]), list(left["docker"])
        except (ValueError, KeyError, TypeError):  # killed while it was written: nothing had been started
            record.unlink(missing_ok=True)
            continue
        if scratch.name.startswith("bloomery-sm-"):
            shutil.rmtree(scratch, ignore_errors=True)
        if docker:
            subprocess.run(docker, capture_output=True, timeout=60)
        record.unlink(missing_ok=True)


def _remove(scratch: Path) -> None:
    """What was killed may still be dying, and writing, for a moment."""
    for _ in range(20):
        shutil.rmtree(scratch, ignore_errors=True)
        if not scratch.exists():
            return
        time.sleep(0.05)


def _docker_run(image: DockerImage, name: str, port: int, model_dir: Path, variables: dict[str, str]) -> list[str]:
    """SageMaker's contract. Values of variables stay out of the command line, which everybody can read."""
    named = [part for variable in variables for part in ("--env", variable)]
    devices = ["--gpus", "all"] if machine.devices() else []
    return [
        *(image.docker, "run", "--rm", "--name", name, "--publish", f"127.0.0.1:{port}:{environment.PORT}"),
        *("--volume", f"{model_dir}:{MODEL_DIRECTORY}:ro", "--add-host", "host.docker.internal:host-gateway"),
        *("--shm-size", "2g", *devices, *named, image.image, "serve"),
    ]


def _of_docker_command(variables: dict[str, str], scratch: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG") or key.startswith("DOCKER_")}
    return {"HOME": str(scratch), **kept, **variables}
