"""What a rank finds in its environment."""

from __future__ import annotations

import os
import signal
import socket
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.worker_models import ask, notes, settings, until

from bloomery.processes.ports import ReservedPort
from bloomery.workers import leftovers
from bloomery.workers.allocation import Allocation
from bloomery.workers.command import rank_specs

CPU = Allocation((), 3)


@pytest.fixture
def port():
    reserved = ReservedPort()
    yield reserved
    reserved.close()


async def test_ranks_of_a_job_know_their_place(start_model):
    model = await start_model(2)
    async with model.submit(ask("environment")):
        pass

    for rank in (0, 1):
        (environment,) = notes(model.settings.model_dir, "environment", rank)
        expected = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
        expected |= {f"OMPI_COMM_WORLD_{name}": rank for name in ("RANK", "LOCAL_RANK")}
        expected |= {f"OMPI_COMM_WORLD_{name}": 2 for name in ("SIZE", "LOCAL_SIZE")}
        expected |= {"TENSOR_PARALLEL_DEGREE": 2, "MASTER_ADDR": "127.0.0.1"}
        assert {name: environment[name] for name in expected} == {name: str(value) for name, value in expected.items()}


async def test_the_master_port_is_held_while_the_ranks_run_and_free_afterwards(start_model):
    model = await start_model(2)
    async with model.submit(ask("environment")):
        pass
    (environment,) = notes(model.settings.model_dir, "environment", 0)
    address = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])

    with socket.socket() as thief, pytest.raises(OSError, match="in use"):
        thief.bind(address)
    await model.stop(grace=0)
    with socket.socket() as successor:
        successor.bind(address)


async def test_the_sockets_lie_in_a_private_directory_that_goes_with_the_ranks(start_model):
    model = await start_model(2)
    async with model.submit(ask("environment")):
        pass
    (environment,) = notes(model.settings.model_dir, "environment", 0)
    directory = Path(environment["BLOOMERY_CONTROL_SOCKET"]).parent

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    await model.stop(grace=0)
    assert not directory.exists()


def test_a_lone_process_is_no_member_of_a_job(tmp_path, port, monkeypatch):
    monkeypatch.setenv("RANK", "5")
    (spec,) = rank_specs(settings(tmp_path), 0, tmp_path, port, CPU)

    assert not {"RANK", "WORLD_SIZE", "MASTER_PORT", "OMPI_COMM_WORLD_RANK"} & set(spec.env)
    assert "--tensor-parallel-degree" not in spec.command


def test_a_relative_model_directory_is_not_looked_for_within_itself(tmp_path, port, monkeypatch):
    given = settings(tmp_path)
    monkeypatch.chdir(tmp_path.parent)
    (spec,) = rank_specs(replace(given, model_dir=Path(tmp_path.name)), 0, tmp_path, port, CPU)

    assert spec.cwd == tmp_path
    assert spec.command[spec.command.index("--model-dir") + 1] == str(tmp_path)


@pytest.mark.skipif(not leftovers.SHARED_MEMORY.is_dir(), reason="there is no /dev/shm")
async def test_shared_memory_that_killed_ranks_leave_is_removed(start_model):
    model = await start_model(2)
    async with model.submit(ask("environment")):
        pass
    (environment,) = notes(model.settings.model_dir, "environment", 0)
    name = f"deepspeed_allreduce_buffer_{os.getuid()}_{environment['MASTER_ADDR']}_{environment['MASTER_PORT']}_0"
    buffer = leftovers.SHARED_MEMORY / name
    buffer.touch()

    os.kill(model.status().groups[0].pids[0], signal.SIGKILL)

    await until(lambda: not buffer.exists())


def test_a_group_sees_its_own_devices_only(tmp_path, port):
    specs = rank_specs(settings(tmp_path, ranks=2), 0, tmp_path, port, Allocation(("2", "3"), 1, ("m", None, 0)))

    assert {spec.env["CUDA_VISIBLE_DEVICES"] for spec in specs} == {"2,3"}


def test_a_group_on_the_cpu_sees_no_device(tmp_path, port):
    (spec,) = rank_specs(settings(tmp_path), 0, tmp_path, port, Allocation((), 1, ("m", None, 0)))

    assert spec.env["CUDA_VISIBLE_DEVICES"] == ""


def test_the_models_own_environment_has_the_last_word(tmp_path, port):
    (spec,) = rank_specs(settings(tmp_path, environment={"OMP_NUM_THREADS": "7"}), 0, tmp_path, port, CPU)

    assert spec.env["OMP_NUM_THREADS"] == "7"


def test_handlers_can_import_from_the_model_directory_before_anything_inherited(tmp_path, port, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/inherited")
    (spec,) = rank_specs(settings(tmp_path), 0, tmp_path, port, CPU)

    assert spec.env["PYTHONPATH"].split(os.pathsep)[1:] == [str(tmp_path), "/inherited"]
