"""An S3 server for benchmarks, and the checkpoints it serves.

It is the one that the tests inject faults into (tests/support/faulty_s3), as a process of its own: it sends with
sendfile, so that on few cores it takes as little as possible from the client that is measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bloomery.errors import CheckpointError

_REPOSITORY = Path(__file__).parents[3]
_BLOCK = 8 << 20
BUCKET = "bench"


@dataclass(frozen=True)
class S3Server:
    """One that runs. ``environment``: the variables with which an AWS client finds it, and nothing else."""

    url: str
    pid: int
    environment: Mapping[str, str]


@contextmanager
def s3_server(directory: Path) -> Iterator[S3Server]:
    """Serve ``directory``, whose folders are the buckets; the server ends with the block, or with this process."""
    command = [sys.executable, "-m", "tests.support.faulty_s3", str(directory), "--until-eof"]
    with subprocess.Popen(command, cwd=_REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip().decode()
        if not port:
            raise CheckpointError("the S3 server of the tests did not start: run this in a clone of the repository")
        url = f"http://127.0.0.1:{port}"
        try:
            yield S3Server(url, process.pid, client_environment(url))
        finally:
            process.terminate()


def client_environment(url: str) -> dict[str, str]:
    """This process's own environment, with ``url`` as the only S3 there is."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return kept | {
        "AWS_ENDPOINT_URL": url,
        "S3_ENDPOINT_URL": url,  # s5cmd reads this one only
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def write_checkpoint(directory: Path, size: int, shards: int) -> None:
    """``size`` random bytes of weights in so many safetensors files, and what makes them a model directory."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text('{"model_type": "bloom"}\n')
    names = [f"model-{index + 1:05}-of-{shards:05}.safetensors" for index in range(shards)]
    names = names if shards > 1 else ["model.safetensors"]
    for index, name in enumerate(names):
        _write_safetensors(directory / name, f"layer.{index}.weight", size // shards)
    if shards > 1:
        index_of_weights = {f"layer.{index}.weight": name for index, name in enumerate(names)}
        text = json.dumps({"metadata": {"total_size": size // shards * shards}, "weight_map": index_of_weights})
        (directory / "model.safetensors.index.json").write_text(text)


def _write_safetensors(path: Path, tensor: str, size: int) -> None:
    header = json.dumps({tensor: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for start in range(0, size, _BLOCK):
            file.write(os.urandom(min(_BLOCK, size - start)))
