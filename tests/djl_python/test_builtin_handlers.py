"""djl_python.deepspeed and djl_python.huggingface in real worker processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.support.tiny_models import tiny_model
from tests.support.worker_client import running_worker
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = ["To be, or not", "Shall"]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("gpt2", tmp_path_factory.mktemp("gpt2"))


def greedy(path: Path, new_tokens: int) -> list[dict[str, str]]:
    """What plain transformers makes of each prompt alone."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    answers = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, do_sample=False)
        text = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        answers.append({"generated_text": prompt + text})
    return answers


@pytest.mark.parametrize("entry_point", ["djl_python.deepspeed", "djl_python.huggingface"])
def test_a_checkpoint_is_served_without_a_model_py(gpt2: Path, tmp_path: Path, entry_point: str) -> None:
    with running_worker(tmp_path, tmp_path, entry_point=entry_point) as worker:
        loaded = worker.initialise(model_id=str(gpt2), enable_streaming="true", data_type="fp32")
        assert loaded.head.code == 204, worker.output
        body = {"inputs": PROMPTS, "parameters": {"max_new_tokens": 6}}
        streamed = worker.ask(json.dumps(body), Content_Type="application/json")
        assert streamed.head.content is None
        assert len(streamed.text.splitlines()) == 6
        whole = worker.ask(json.dumps({**body, "stream": False}), Content_Type="application/json")
        assert json.loads(whole.text) == greedy(gpt2, 6)


def test_the_model_directory_is_the_checkpoint_when_none_is_named(gpt2: Path, tmp_path: Path) -> None:
    with running_worker(gpt2, tmp_path, entry_point="djl_python.huggingface") as worker:
        assert worker.initialise().head.code == 204, worker.output
        assert worker.ask("To be", Content_Type="text/plain").head.code == 200
