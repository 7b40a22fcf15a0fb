"""``bloomery shard``: exit codes, what is printed, and what is left when it is told to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.faulty_s3 import Fault, FaultyS3
from tests.support.faulty_s3.environment import client_environment
from tests.support.server import REPOSITORY
from tests.support.tiny_models import tiny_model


def command(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bloomery", "shard", *map(str, arguments)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY / "container"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_prints_the_ranks_and_each_layers_error(tmp_path: Path) -> None:
    path = tiny_model("opt", tmp_path / "opt")
    out, err = command(path, tmp_path / "split", "-t", "2", "--dtype", "int8").communicate(timeout=60)

    lines = out.splitlines()
    assert len(lines) == 13, err
    assert lines[0].startswith("model.decoder.layers.0.fc1.weight: largest error 0.00")
    assert lines[0].endswith("%")
    assert lines[-1].startswith(f"{tmp_path / 'split'}: 10 files, rank 0 ")

    again = command(path, tmp_path / "split", "-t", "2", "--dtype", "int8")
    assert "there already" in again.communicate(timeout=60)[0]
    assert again.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [(["-t", "3"], 1, "does not divide the 4 attention heads"), (["-t", "2", "--dtype", "int4"], 2, "dtype='int4'")],
)
def test_what_cannot_be_done_has_an_exit_code(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    process = command(tiny_model("opt", tmp_path / "opt"), tmp_path / "split", *arguments)
    err = process.communicate(timeout=60)[1]
    assert (process.returncode, err.startswith("bloomery: "), words in err) == (code, True, True), err


@pytest.mark.parametrize("to_s3", [False, True])
def test_told_to_stop_it_leaves_nothing(tmp_path: Path, to_s3: bool) -> None:
    (tmp_path / "s3" / "models").mkdir(parents=True)
    path = tiny_model("opt", tmp_path / "s3" / "models" / "opt", hidden_size=512, word_embed_proj_dim=512, ffn_dim=8192)
    with FaultyS3(tmp_path / "s3") as server:
        # Slow enough that it cannot be done before it is stopped, whatever this machine does.
        server.inject(Fault("rate", "GetObject", "*.safetensors", rate=100_000, skip=2))
        target = "s3://models/split" if to_s3 else str(tmp_path / "split")
        process = command("s3://models/opt", target, "-t", "2", **client_environment(server.url))
        while not server.requests() or not any("model.safetensors" in record.key for record in server.requests()):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 130, (out, err)
        assert not list(server.objects.uploads("models"))
        assert {key.partition("/")[0] for key in server.objects.keys("models")} == {"opt"}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["s3"]
    assert (path / "config.json").is_file()
