"""Checkpoints that ``bloomery shard`` has split, loaded over any number of ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.rank_pair import run_pair
from tests.support.tiny_models import tiny_model

from bloomery.checkpoints.shard import shard

# Six heads, so that two and three ranks can share them.
SIX: dict[str, dict[str, Any]] = {
    "bloom": {"hidden_size": 96, "n_head": 6},
    "opt": {"hidden_size": 96, "word_embed_proj_dim": 96, "num_attention_heads": 6, "ffn_dim": 384},
    "gpt2": {"n_embd": 96, "n_head": 6},
    "gpt_neox": {"hidden_size": 96, "num_attention_heads": 6, "intermediate_size": 384},
    "llama": {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 6, "intermediate_size": 176},
}

GENERATE = """
import json, torch
from bloomery.engines import deepspeed
from bloomery.engines.base import GenerationParameters
torch.set_num_threads(1)
found = {}
for path, inject in LOADS:
    engine = deepspeed.load(path, kernel_inject=inject, allreduce="gloo", dtype="fp32")
    steps = engine.generate([[5, 6, 7], [11, 12]], GenerationParameters(max_new_tokens=8, ignore_eos=True))
    found[f"{path} {inject}"] = [step.tokens for step in steps]
    del engine, steps
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each family whole, and split for 1 (int8), 2 and 3 ranks."""
    directory = tmp_path_factory.mktemp("checkpoints")
    for family, config in SIX.items():
        path = tiny_model(family, directory / family, **config)
        for ranks in (2, 3):
            shard(str(path), f"{directory}/{family}-{ranks}", tensor_parallel=ranks)
            shard(str(path), f"{directory}/{family}-{ranks}-int8", tensor_parallel=ranks, dtype="int8")
    return directory


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_any_number_of_ranks_says_what_the_unsplit_checkpoint_says(checkpoints: Path, ranks: int) -> None:
    ways = [("bloom", False), ("opt", False), ("llama", False), ("gpt_neox", False), ("gpt2", True), ("bloom", True)]
    loads = [(f"{checkpoints}/{family}{split}", inject) for family, inject in ways for split in ("", "-2", "-3")]

    found = run_pair(GENERATE.replace("LOADS", repr(loads)), world_size=ranks, timeout=240)[0]

    for family, inject in ways:
        for split in ("-2", "-3"):
            assert found[f"{checkpoints}/{family}{split} {inject}"] == found[f"{checkpoints}/{family} {inject}"], family
