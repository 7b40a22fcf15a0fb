"""How many devices there are, without torch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bloomery.settings import devices


@pytest.mark.parametrize(
    ("value", "expected"),
    [("0,1,3", ["0", "1", "3"]), ("GPU-abc, MIG-def", ["GPU-abc", "MIG-def"]), ("", []), ("-1", []), ("0,-1,2", ["0"])],
)
def test_cuda_visible_devices_counts_as_cuda_reads_it(value: str, expected: list[str]) -> None:
    assert devices.visible_gpus({"CUDA_VISIBLE_DEVICES": value, "PATH": ""}) == expected


def nvidia_smi(directory: Path, script: str) -> dict[str, str]:
    program = directory / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"PATH": f"{directory}:/bin:/usr/bin"}


def test_without_the_variable_nvidia_smi_is_asked(tmp_path: Path) -> None:
    listing = "GPU 0: NVIDIA H100 (UUID: GPU-1)\n  MIG 1g.10gb\nGPU 1: NVIDIA H100 (UUID: GPU-2)"
    assert devices.visible_gpus(nvidia_smi(tmp_path, f"cat <<'E'\n{listing}\nE")) == ["0", "1"]


def test_a_driver_that_fails_offers_nothing(tmp_path: Path) -> None:
    assert devices.visible_gpus(nvidia_smi(tmp_path, "echo broken; exit 9")) == []


def test_without_gpus_the_cores_count() -> None:
    assert devices.count({"CUDA_VISIBLE_DEVICES": ""}) == len(os.sched_getaffinity(0))
