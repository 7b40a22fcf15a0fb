"""The command line and the environment of a rank: what DJLServing's worker expects, plus our control socket."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import bloomery
from bloomery.processes.ports import ReservedPort
from bloomery.protocol import private
from bloomery.settings.model import ModelSettings
from bloomery.workers.allocation import Allocation
from bloomery.workers.launcher import RankSpec

PYTHON_ROOT = Path(bloomery.__file__).resolve().parent.parent


def rank_specs(
    settings: ModelSettings, group: int, directory: Path, port: ReservedPort, allocation: Allocation
) -> list[RankSpec]:
    """One per rank of the group; sockets lie in ``directory``."""
    return [_rank_spec(settings, group, rank, directory, port, allocation) for rank in range(settings.ranks)]


def _rank_spec(
    settings: ModelSettings, group: int, rank: int, directory: Path, port: ReservedPort, allocation: Allocation
) -> RankSpec:
    socket = directory / "sock"
    control = directory / f"control.{rank}"
    python = settings.python_executable or sys.executable
    model_dir = settings.model_dir.absolute()
    command = [python, "-u", str(PYTHON_ROOT / "djl_python_engine.py"), "--sock-type", "unix", "--sock-name"]
    command += [str(socket), "--model-dir", str(model_dir), "--entry-point", settings.entry_point]
    if settings.distributed:
        command += ["--device-id", "-1", "--tensor-parallel-degree", str(settings.tensor_parallel_degree)]
    else:
        command += ["--device-id", "0" if allocation.devices else "-1"]
    if settings.async_mode:
        command.append("--async-mode")
    return RankSpec(
        label=f"{settings.name}/{group} rank {rank}",
        rank=rank,
        command=command,
        env=_environment(settings, rank, control, port, allocation),
        cwd=model_dir,
        address=directory / f"sock.{rank}" if settings.distributed else socket,
        control_address=control,
    )


def _environment(
    settings: ModelSettings, rank: int, control: Path, port: ReservedPort, allocation: Allocation
) -> dict[str, str]:
    inherited = os.environ.get("PYTHONPATH")
    own = [PYTHON_ROOT, settings.model_dir.absolute(), *([settings.packages] if settings.packages else [])]
    paths = [*map(str, own), *([inherited] if inherited else [])]
    env = dict(os.environ)
    env |= {
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": str(allocation.threads),
        "TENSOR_PARALLEL_DEGREE": str(settings.tensor_parallel_degree),
        private.CONTROL_SOCKET: str(control),
        private.MODEL_NAME: settings.name,
    }
    if allocation.place is not None:  # also where it is on the CPU: a GPU must not be seen then
        env["CUDA_VISIBLE_DEVICES"] = ",".join(allocation.devices)
    if settings.distributed:
        env |= _job(rank, settings.ranks, port)
    else:
        # Of a job that the server itself may have been started in; a lone process must not join it.
        for name in _job(rank, settings.ranks, port):
            env.pop(name, None)
    return env | settings.environment


def _job(rank: int, ranks: int, port: ReservedPort) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": port.host,
        "MASTER_PORT": str(port.number),
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": str(ranks),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(rank),
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(ranks),
    }
