from __future__ import annotations

import os
from pathlib import Path

import pytest

from bloomery.processes import machine


@pytest.mark.parametrize(
    ("visible", "devices"),
    [
        ("", ()),
        ("-1", ()),
        ("0,1", ("0", "1")),
        ("3, GPU-8f2c", ("3", "GPU-8f2c")),
        ("0,-1,2", ("0",)),
        ("0,1,3", ("0", "1", "3")),
        ("GPU-abc, MIG-def", ("GPU-abc", "MIG-def")),
    ],
)
def test_devices_are_those_that_cuda_would_show(visible, devices, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    assert machine.devices() == devices


def test_there_is_always_a_core_and_never_more_than_the_machine_has():
    assert 1 <= machine.cores() <= (os.cpu_count() or 1)


def nvidia_smi(directory: Path, script: str) -> dict[str, str]:
    program = directory / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"PATH": f"{directory}:/bin:/usr/bin"}


def test_without_the_variable_nvidia_smi_is_asked(tmp_path: Path) -> None:
    listing = "GPU 0: NVIDIA H100 (UUID: GPU-1)\n  MIG 1g.10gb\nGPU 1: NVIDIA H100 (UUID: GPU-2)"
    assert machine.devices(nvidia_smi(tmp_path, f"cat <<'E'\n{listing}\nE")) == ("0", "1")


def test_a_driver_that_fails_offers_nothing(tmp_path: Path) -> None:
    assert machine.devices(nvidia_smi(tmp_path, "echo broken; exit 9")) == ()


def test_without_gpus_the_cores_count() -> None:
    assert machine.tensor_parallel_maximum({"CUDA_VISIBLE_DEVICES": ""}) == machine.cores()


def test_a_figure_of_a_table_is_in_bytes_and_0_where_there_is_none(tmp_path: Path) -> None:
    table = tmp_path / "meminfo"
    table.write_text("MemTotal:       24 kB\nMemAvailable:   17 kB\n")
    assert machine.table_bytes(table, "MemAvailable") == 17 * 1024
    assert machine.table_bytes(table, "Mem") == 0
    assert machine.table_bytes(tmp_path / "absent", "MemAvailable") == 0
