from __future__ import annotations

import os

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
    ],
)
def test_devices_are_those_that_cuda_would_show(visible, devices, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    assert machine.devices() == devices


def test_there_is_always_a_core_and_never_more_than_the_machine_has():
    assert 1 <= machine.cores() <= (os.cpu_count() or 1)
