"""Serving a model from the disk talks to nobody else, and listens to nobody else."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from tests.support.connections import Recorder, listening
from tests.support.server import REPOSITORY, serving

MODEL = REPOSITORY / "models" / "shakespeare-bloom"
LOOPBACK = {"0100007F", "00000000000000000000000001000000"}  # 127.0.0.1 and ::1
ENGINES = {
    "code/model.py over two ranks": ("-o", "engine=DeepSpeed", "-o", "option.tensor_parallel_degree=2"),
    "transformers": pytest.param(
        ("-o", "engine=Python", "-o", "option.entryPoint=djl_python.huggingface"), marks=pytest.mark.full
    ),
}

pytestmark = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")


@pytest.mark.parametrize("options", ENGINES.values(), ids=list(ENGINES))
def test_nobody_is_called_and_only_this_machine_can_call(tmp_path: Path, options: tuple[str, ...]) -> None:
    recorder = Recorder(tmp_path)
    # Without HF_HUB_OFFLINE: nothing but what the server itself sets keeps the libraries silent.
    environment = {"PYTHONPATH": str(recorder.path), "HF_HUB_OFFLINE": "0"}
    with serving(MODEL, *options, env=environment) as server:
        assert server.post({"inputs": "To be", "parameters": {"max_new_tokens": 3}}).status == 200
        # The server and its ranks; below a rank there may also be a compiler at work, which is no Python.
        processes = [server.process.pid, *(child.pid for child in psutil.Process(server.process.pid).children())]
        listened = {pid: listening(pid) for pid in processes}
        assert recorder.processes() >= len(processes)
        assert listened[server.process.pid] == {"0100007F"}
        elsewhere = {pid: addresses - LOOPBACK for pid, addresses in listened.items() if addresses - LOOPBACK}
        assert not elsewhere
        assert server.stop() == 0
    assert recorder.strangers() == []
