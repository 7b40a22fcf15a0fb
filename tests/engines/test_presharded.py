"""Checkpoints that DeepSpeed wrote split, read back for any number of ranks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.support.rank_pair import run_pair
from tests.support.tiny_models import tiny_model

from bloomery.engines.presharded import Joined
from bloomery.engines.reader import CheckpointReader
from bloomery.errors import CheckpointError

# DeepSpeed itself writes them. It can inject BLOOM and run it no more, but what it writes comes before that.
SAVE = """
import json, shutil, sys
import deepspeed, torch, transformers
from bloomery.engines import injection
from bloomery.engines.deepspeed import start_ranks
start_ranks(RANKS, "gloo")
init = deepspeed.init_inference
for name, inject in MODELS.items():
    source, target = f"DIRECTORY/{name}", f"DIRECTORY/{name}-split"
    def saving(*arguments, **options):
        return init(*arguments, save_mp_checkpoint_path=target, **options)
    model = transformers.AutoModelForCausalLM.from_pretrained(source)
    if inject:
        injection.deepspeed.init_inference = saving
        held = injection.inject(model, dtype=torch.float32, tensor_parallel=RANKS, max_tokens=64)
        injection._injected = None
    else:
        saving(model, dtype=torch.float32, tensor_parallel={"tp_size": RANKS})
    shutil.copy(f"{source}/config.json", target)
print(json.dumps({}))
"""

LOAD = """
import json
from bloomery.engines import deepspeed
from bloomery.engines.base import GenerationParameters
found = {}
for name, inject in MODELS.items():
    engine = deepspeed.load(f"DIRECTORY/{name}", kernel_inject=inject, allreduce="gloo")
    steps = engine.generate([[5, 6, 7], [11, 12]], GenerationParameters(max_new_tokens=8, ignore_eos=True))
    found[name] = [step.tokens for step in steps]
    del engine, steps
print(json.dumps(found))
"""
# An injected OPT or GPT-NeoX has an MLP of four times the hidden size.
FAMILIES = {
    "bloom": {},
    "opt": {"ffn_dim": 256},
    "gpt2": {},
    "gpt_neo": {},
    "gptj": {},
    "gpt_neox": {"intermediate_size": 256},
}


def save(directory: Path, models: dict[str, bool], ranks: int) -> None:
    script = SAVE.replace("MODELS", repr(models)).replace("DIRECTORY", str(directory)).replace("RANKS", str(ranks))
    run_pair(script, world_size=ranks)


@pytest.fixture(scope="module")
def from_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("split")
    for family, config in FAMILIES.items():
        tiny_model(family, directory / family, **config)
    save(directory, dict.fromkeys(FAMILIES, True), ranks=2)
    return directory


@pytest.mark.parametrize("family", FAMILIES)
def test_two_injected_shares_read_as_the_unsplit_checkpoint(from_two_ranks: Path, family: str) -> None:
    whole = load_file(from_two_ranks / family / "model.safetensors")
    reader = CheckpointReader(from_two_ranks / f"{family}-split")

    for name, tensor in whole.items():
        stored = "lm_head.weight" if name == "embed_out.weight" else name  # transformers renames while it saves
        assert torch.equal(reader.get(stored), tensor), name


def test_a_checkpoint_split_for_one_rank_serves_two(tmp_path: Path) -> None:
    tiny_model("bloom", tmp_path / "bloom")
    tiny_model("opt", tmp_path / "opt", ffn_dim=256)
    save(tmp_path, {"bloom": True, "opt": True}, ranks=1)
    models = {"bloom": False, "bloom-split": False, "opt": True, "opt-split": True}

    found = run_pair(LOAD.replace("MODELS", repr(models)).replace("DIRECTORY", str(tmp_path)))[0]

    assert found["bloom-split"] == found["bloom"]
    assert found["opt-split"] == found["opt"]


def test_what_automatic_tensor_parallelism_wrote_reads_as_the_unsplit_checkpoint(tmp_path: Path) -> None:
    path = tiny_model("bloom", tmp_path / "bloom")
    save(tmp_path, {"bloom": False}, ranks=2)
    reader = CheckpointReader(tmp_path / "bloom-split")

    for name, tensor in load_file(path / "model.safetensors").items():
        assert torch.equal(reader.get(name), tensor), name


def test_a_directory_that_was_moved_is_read_where_it_is(from_two_ranks: Path, tmp_path: Path) -> None:
    shutil.copytree(from_two_ranks / "bloom-split", tmp_path / "moved")
    described = json.loads((tmp_path / "moved" / "ds_inference_config.json").read_text())
    described["base_dir"] = "/nowhere"
    (tmp_path / "moved" / "ds_inference_config.json").write_text(json.dumps(described))

    assert "transformer.ln_f.weight" in CheckpointReader(tmp_path / "moved").names()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoints": None}, "does not describe a split checkpoint"),
        ({"dtype": "int8"}, "int8 weights as DeepSpeed packs them"),
        ({"tp_size": 3}, "names no tp_\\* files for some of its 3 ranks"),
    ],
)
def test_what_cannot_be_read_is_said(from_two_ranks: Path, tmp_path: Path, change, message: str) -> None:
    shutil.copytree(from_two_ranks / "bloom-split", tmp_path / "copy")
    file = tmp_path / "copy" / "ds_inference_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))

    with pytest.raises(CheckpointError, match=message):
        CheckpointReader(tmp_path / "copy")


def test_slices_across_joined_parts_are_those_of_the_whole() -> None:
    whole = torch.arange(60).view(10, 6)
    joined = Joined((whole[:3], whole[3:4], whole[4:]))

    for start, stop in [(0, 10), (2, 5), (3, 4), (5, 5), (9, 10)]:
        assert torch.equal(joined[start:stop, 1:4], whole[start:stop, 1:4])
