"""What a plan says of each rank's weights, against what DeepSpeed's engine holds in two real ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.rank_pair import run_pair
from tests.support.tiny_models import tiny_encoder, tiny_model, tiny_seq2seq

from bloomery.checkpoints.sources import open_source
from bloomery.sagemaker.planning.facts import read_facts
from bloomery.sagemaker.planning.form import Form
from bloomery.sagemaker.planning.weights import rank_weights

# A CPU computes in fp32 what a GPU computes in fp16.
PLAIN, INT8, INJECTED = Form("fp32", "fp32", False), Form("int8", "fp32", False), Form("fp32", "fp32", True)
# hidden_size 64 is one grain of a head, which one rank gets; 192 is three, of which one rank gets two.
CASES: dict[str, tuple[str, dict[str, Any], Form]] = {
    "bloom": ("bloom", {}, PLAIN),
    "bloom-int8": ("bloom", {"hidden_size": 192}, INT8),
    "bloom-injected": ("bloom", {}, INJECTED),
    "opt": ("opt", {"hidden_size": 192, "word_embed_proj_dim": 192, "ffn_dim": 768}, PLAIN),
    "opt-injected": ("opt", {"ffn_dim": 256}, INJECTED),
    "gpt2-injected": ("gpt2", {}, INJECTED),
    "gpt_neox": ("gpt_neox", {}, PLAIN),
    "gpt_neox-int8": ("gpt_neox", {}, INT8),
    "gptj": ("gptj", {}, PLAIN),
    "llama-untied": ("llama", {"intermediate_size": 192}, PLAIN),
    "qwen2-tied-int8": ("qwen2", {"tie_word_embeddings": True}, INT8),
    "qwen3": ("qwen3", {}, PLAIN),
    "t5": ("t5", {}, PLAIN),
    "t5-int8": ("t5", {}, INT8),
    "bert": ("bert", {}, PLAIN),
    "roberta": ("roberta", {}, PLAIN),
}

# Weights only: masks and frequencies, which every rank computes, are no part of a checkpoint.
HELD = """
import json, torch
from bloomery.engines import deepspeed
from bloomery.engines.kernels import Kernel
torch.set_num_threads(1)
found = {}
for name, (path, dtype, inject) in MODELS.items():
    model = deepspeed.load(path, dtype=dtype, kernel_inject=inject, allreduce="gloo").model
    tensors = {t.data_ptr(): t.nbytes for t in model.parameters() if t.numel()}
    kernels = [k for k in model.modules() if isinstance(k, Kernel) and k.owns_memory and not list(k.parameters())]
    found[name] = sum(tensors.values()) + sum(kernel.nbytes for kernel in kernels)
    del model
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    where = tmp_path_factory.mktemp("models")
    return {name: made(family, where / name, config) for name, (family, config, _) in CASES.items()}


def made(family: str, directory: Path, config: dict[str, Any]) -> Path:
    if family == "t5":
        return tiny_seq2seq(family, directory, **config)
    if family in ("bert", "roberta"):
        return tiny_encoder("SequenceClassification", directory, family, **config)
    return tiny_model(family, directory, **config)


@pytest.fixture(scope="module")
def held(models: dict[str, Path]) -> list[dict[str, int]]:
    """Bytes of weights by case, of each rank."""
    wanted = {name: (str(path), CASES[name][2].dtype, CASES[name][2].injected) for name, path in models.items()}
    return run_pair(HELD.replace("MODELS", json.dumps(wanted).replace("true", "True").replace("false", "False")))


@pytest.mark.parametrize("name", CASES)
def test_each_rank_holds_what_was_planned(name: str, models: dict[str, Path], held: list[dict[str, int]]) -> None:
    facts = read_facts(open_source(models[name]))
    planned = rank_weights(facts, CASES[name][2], 2)
    assert [rank.total for rank in planned] == [rank[name] for rank in held]
