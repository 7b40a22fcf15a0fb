"""code/model.py with option.load_format=stream: two ranks, a checkpoint on an S3 that is having a bad day, HTTP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.support.faulty_s3 import Fault, FaultyS3
from tests.support.faulty_s3.environment import client_environment
from tests.support.server import REPOSITORY, Server, finish, start
from tests.support.tiny_models import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPT = "To be, or not"
WEIGHTS = "opt/model.safetensors"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("s3")
    tiny_model("opt", directory / "models" / "opt")
    return directory


@pytest.fixture(scope="module")
def s3(bucket: Path) -> Iterator[FaultyS3]:
    with FaultyS3(bucket) as server:
        busy = Fault("error", key=WEIGHTS, fraction=0.3, retry_after=0.05)
        server.inject(busy, Fault("reset", key=WEIGHTS, every=3))
        yield server


def environment(s3: FaultyS3) -> dict[str, str]:
    return {
        **client_environment(s3.url),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TENSOR_PARALLEL_DEGREE": "2",
        "OPTION_MODEL_ID": "s3://models/opt",
        "OPTION_LOAD_FORMAT": "stream",
        "OPTION_KERNEL_INJECT": "false",
    }


@pytest.fixture(scope="module")
def served(s3: FaultyS3) -> Iterator[Server]:
    server = start(REPOSITORY / "code", env=environment(s3))
    try:
        server.wait_ready(180)
        yield server
    finally:
        finish(server)


def test_two_ranks_answer_what_unsharded_transformers_answers(served: Server, bucket: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bucket / "models" / "opt")
    model = AutoModelForCausalLM.from_pretrained(bucket / "models" / "opt", dtype=torch.float32)
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    text = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)

    reply = served.post({"inputs": PROMPT, "parameters": {"max_new_tokens": 8}})

    assert reply.json() == [{"generated_text": PROMPT + text}]


def test_the_weights_were_never_on_the_disk(served: Server) -> None:
    found = {path.name for path in (served.scratch / "tmp").rglob("*") if path.is_file()}
    assert {"config.json", "tokenizer.json"} <= found
    assert not any(name.endswith(".safetensors") for name in found)


def test_the_log_says_who_read_what_and_that_it_is_intact(served: Server) -> None:
    log = served.wait_for(r"streamed s3://models/opt: .*", seconds=5)[0]
    assert "checksums of 1 files are right" in log
    assert "from other ranks" in log


def test_both_ranks_together_asked_for_each_byte_once(served: Server, s3: FaultyS3, bucket: Path) -> None:
    size = (bucket / "models" / WEIGHTS).stat().st_size
    header = 8 + int.from_bytes((bucket / "models" / WEIGHTS).read_bytes()[:8], "little")
    times = Counter[int]()
    for record in s3.requests():
        if record.key == WEIGHTS and record.operation == "GetObject" and not record.fault:
            times.update(range(record.start or 0, (record.start or 0) + (record.length or 0)))
    assert {times[byte] for byte in range(header, size)} == {1}


@pytest.mark.full
def test_a_flipped_byte_is_the_reason_why_the_model_does_not_load(s3: FaultyS3, bucket: Path) -> None:
    s3.inject(Fault("flip", key=WEIGHTS, offset=200_000))
    server = start(REPOSITORY / "code", env=environment(s3))
    try:
        assert server.wait() == 1
        assert "model.safetensors of s3://models/opt is damaged" in server.err.read_text().partition("what:")[2]
    finally:
        finish(server)
