"""The main job end to end: code/model.py, two DeepSpeed ranks, a checkpoint on S3, HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import torch
from moto.server import ThreadedMotoServer
from tests.support.server import REPOSITORY, Server, finish, start
from tests.support.tiny_models import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = ["To be, or not", "Shall"]
BUCKET = "checkpoints"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("bloom", tmp_path_factory.mktemp("bloom"))


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[Server]:
    """``bloomery serve code`` with option.s3url, as an endpoint does it."""
    s3 = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    s3.start()
    endpoint = f"http://127.0.0.1:{s3.get_host_and_port()[1]}"
    credentials = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket=BUCKET)
    for file in checkpoint.iterdir():
        client.put_object(Bucket=BUCKET, Key=f"bloom/{file.name}", Body=file.read_bytes())
    client.close()
    server = start(
        REPOSITORY / "code",
        env={
            **credentials,
            "AWS_ENDPOINT_URL": endpoint,
            "NO_PROXY": "127.0.0.1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "TENSOR_PARALLEL_DEGREE": "2",
            "OPTION_S3URL": f"s3://{BUCKET}/bloom",
        },
    )
    try:
        server.wait_ready(180)
        yield server
    finally:
        finish(server)
        s3.stop()


def test_the_checkpoint_was_fetched_once_into_the_temporary_directory(served: Server) -> None:
    directories = [path for path in (served.scratch / "tmp").iterdir() if (path / "model.safetensors").is_file()]
    assert [path.name.startswith("bloom-") for path in directories] == [True]
    assert "fetching checkpoint s3://checkpoints/bloom" in served.log()
    assert served.log().count("already in") == 1  # what the other rank found


def test_two_ranks_answer_what_unsharded_transformers_answers(served: Server, checkpoint: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    expected = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        expected.append({"generated_text": prompt + tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)})
    reply = served.post({"inputs": PROMPTS, "parameters": {"max_new_tokens": 8}})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json() == expected


def test_a_stream_has_a_line_per_step(served: Server) -> None:
    reply = served.post({"inputs": PROMPTS, "stream": True, "parameters": {"max_new_tokens": 5}})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/jsonlines")
    lines = [json.loads(line) for line in reply.body.splitlines()]
    assert [len(line["outputs"]) for line in lines] == [2] * 5


def test_sampling_with_a_seed_repeats_itself(served: Server) -> None:
    body = {"inputs": "To be", "parameters": {"do_sample": True, "temperature": 5.0, "seed": 7, "max_new_tokens": 12}}
    assert served.post(body).json() == served.post(body).json()


def test_a_malformed_request_is_400_with_its_reason(served: Server) -> None:
    reply = served.post({"inputs": []})
    assert reply.status == 400
    assert "inputs is an empty list" in reply.json()["error"]
