"""A checkpoint that ``bloomery shard`` has split into S3, served by code/model.py over another number of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.support.faulty_s3 import FaultyS3
from tests.support.faulty_s3.environment import FOREIGN, client_environment
from tests.support.server import REPOSITORY, serving
from tests.support.tiny_models import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from bloomery.checkpoints.splitting.shard import shard

PROMPTS = ["To be, or not", "Shall"]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    (tmp_path / "s3" / "models").mkdir(parents=True)
    for name in FOREIGN:
        monkeypatch.delenv(name, raising=False)
    with FaultyS3(tmp_path / "s3") as server:
        for name, value in client_environment(server.url).items():
            monkeypatch.setenv(name, value)
        yield server


def test_split_for_four_it_is_served_by_two(tmp_path: Path, server: FaultyS3) -> None:
    path = tiny_model("bloom", tmp_path / "bloom")
    shard(str(path), "s3://models/bloom-4", tensor_parallel=4)
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    expected = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        expected.append({"generated_text": prompt + tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)})
    environment = {"TENSOR_PARALLEL_DEGREE": "2", "OPTION_S3URL": "s3://models/bloom-4", "PYTHONDONTWRITEBYTECODE": "1"}

    with serving(REPOSITORY / "code", env=environment, ready=False) as served:
        served.wait_ready(180)
        reply = served.post({"inputs": PROMPTS, "parameters": {"max_new_tokens": 8}})

    assert (reply.status, reply.json()) == (200, expected)
