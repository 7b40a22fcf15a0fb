"""An S3 server for benchmarks, and the checkpoints it serves.

It is the one that the tests inject faults into (tests/support/faulty_s3), as a process of its own: it sends with
sendfile, so that on few cores it takes as little as possible from the client that is measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bloomery.errors import CheckpointError

_REPOSITORY = Path(__file__).parents[3]
_BLOCK = 8 << 20
_ROW = 8192  # bytes of a matrix's row
BUCKET = "bench"


@dataclass(frozen=True)
class S3Server:
    """One that runs. ``environment``: the variables with which an AWS client finds it, and nothing else."""

    url: str
    pid: int
    environment: Mapping[str, str]


@contextmanager
def s3_server(directory: Path, certificates: Path | None = None) -> Iterator[S3Server]:
    """Serve ``directory``, whose folders are the buckets; the server ends with the block, or with this process.

    ``certificates``: a directory for its certificate, when it is to speak https.
    """
    command = [sys.executable, "-m", "tests.support.faulty_s3", str(directory), "--until-eof"]
    if certificates is not None:
        command += ["--tls", str(certificates)]
    with subprocess.Popen(command, cwd=_REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip().decode()
        if not port:
            raise CheckpointError("the S3 server of the tests did not start: run this in a clone of the repository")
        url = f"{'http' if certificates is None else 'https'}://127.0.0.1:{port}"
        environment = client_environment(url)
        if certificates is not None:
            environment["AWS_CA_BUNDLE"] = environment["CURL_CA_BUNDLE"] = str(certificates / "certificate.pem")
        try:
            yield S3Server(url, process.pid, environment)
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


def write_checkpoint(directory: Path, size: int, shards: int, tensor_bytes: int | None = None) -> None:
    """``size`` random bytes of weights in so many safetensors files, and what makes them a model directory.

    Tensors are matrices of about ``tensor_bytes``; by default a file holds one.
    """
    directory.mkdir(parents=True)
    (directory / "config.json").write_text('{"model_type": "bloom"}\n')
    names = [f"model-{index + 1:05}-of-{shards:05}.safetensors" for index in range(shards)]
    names = names if shards > 1 else ["model.safetensors"]
    weight_map: dict[str, str] = {}
    for index, name in enumerate(names):
        matrices = max(1, size // shards // (tensor_bytes or size))
        tensors = [f"layer.{index}.{matrix}.weight" for matrix in range(matrices)]
        _write_safetensors(directory / name, tensors, size // shards // matrices // _ROW)
        weight_map |= dict.fromkeys(tensors, name)
    if shards > 1:
        text = json.dumps({"metadata": {"total_size": size // shards * shards}, "weight_map": weight_map})
        (directory / "model.safetensors.index.json").write_text(text)


def _write_safetensors(path: Path, tensors: Sequence[str], rows: int) -> None:
    """``tensors`` of [rows, 4096] in bf16."""
    size = rows * _ROW
    described = {
        name: {"dtype": "BF16", "shape": [rows, _ROW // 2], "data_offsets": [index * size, (index + 1) * size]}
        for index, name in enumerate(tensors)
    }
    header = json.dumps(described).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for start in range(0, size * len(tensors), _BLOCK):
            file.write(os.urandom(min(_BLOCK, size * len(tensors) - start)))
