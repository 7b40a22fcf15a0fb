"""Checkpoints that ``bloomery shard`` has split, loaded over any number of ranks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.support.rank_pair import run_pair
from tests.support.tiny_models import tiny_model

from bloomery.checkpoints.splitting.shard import shard
from bloomery.engines import accelerate
from bloomery.engines.base import GenerationParameters
from bloomery.engines.reader import CheckpointReader
from bloomery.errors import CheckpointError, UnsupportedModelError

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


WAYS = [("bloom", False), ("opt", False), ("llama", False), ("gpt_neox", False), ("gpt2", True), ("bloom", True)]


@pytest.mark.parametrize(
    ("ranks", "ways"),
    [(2, WAYS), *(pytest.param(n, WAYS, marks=pytest.mark.full) for n in (1, 3))],
)
def test_any_number_of_ranks_says_what_the_unsplit_checkpoint_says(
    checkpoints: Path, ranks: int, ways: list[tuple[str, bool]]
) -> None:
    loads = [(f"{checkpoints}/{family}{split}", inject) for family, inject in ways for split in ("", "-2", "-3")]

    found = run_pair(GENERATE.replace("LOADS", repr(loads)), world_size=ranks, timeout=240)[0]

    for family, inject in ways:
        for split in ("-2", "-3"):
            assert found[f"{checkpoints}/{family}{split} {inject}"] == found[f"{checkpoints}/{family} {inject}"], family


def test_a_rank_opens_no_file_of_another(checkpoints: Path, tmp_path: Path) -> None:
    """Over as many ranks as it was split for."""
    for rank in range(2):
        copy = tmp_path / str(rank)
        shutil.copytree(checkpoints / "opt-2", copy)
        (copy / f"tp_{1 - rank:02d}_00.safetensors").unlink()
    script = GENERATE.replace("path, kernel", "path.replace('RANK', os.environ['RANK']), kernel").replace(
        "import json", "import json, os"
    )
    loads = [(f"{tmp_path}/RANK", False), (f"{tmp_path}/RANK", True), (f"{checkpoints}/opt", False)]

    found = run_pair(script.replace("LOADS", repr(loads)), world_size=2)[0]

    assert found[f"{tmp_path}/RANK False"] == found[f"{tmp_path}/RANK True"] == found[f"{checkpoints}/opt False"]


def test_what_is_missing_or_wrong_is_named(checkpoints: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoints / "opt-2", tmp_path / "copy")
    name = "model.decoder.layers.0.fc1.weight"
    (tmp_path / "copy" / "tp_01_00.safetensors").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"tp_01_00.safetensors cannot be read"):
        CheckpointReader(tmp_path / "copy").get(name)
    shutil.copy(tmp_path / "copy" / "non-tp_00.safetensors", tmp_path / "copy" / "tp_01_00.safetensors")
    with pytest.raises(CheckpointError, match=r"tp_01_00.safetensors cannot be read"):
        CheckpointReader(tmp_path / "copy").get(name)
    index = tmp_path / "copy" / "presharded.index.json"
    index.write_text(index.read_text().replace("[[192, 384]]", "[[192, 380]]"))
    with pytest.raises(CheckpointError, match=r"presharded.index.json is no index of a split checkpoint"):
        CheckpointReader(tmp_path / "copy")


def test_without_pickles_a_split_checkpoint_is_welcome(checkpoints: Path) -> None:
    assert "model.decoder.layers.0.fc1.weight" in CheckpointReader(checkpoints / "opt-2", allow_pickle=False)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_int8_is_shown_as_the_numbers_it_stands_for(checkpoints: Path, family: str) -> None:
    """And any piece of it is a piece of the whole."""
    source = load_file(checkpoints / family / "model.safetensors")
    readers = [CheckpointReader(checkpoints / f"{family}-{ranks}-int8") for ranks in (2, 3)]
    assert set(readers[0].names()) == source.keys()
    for name, tensor in source.items():
        whole, other = (reader.get(name) for reader in readers)
        assert torch.equal(whole, other), name
        assert (whole - tensor).norm() <= 0.02 * tensor.norm(), name
        for axis in range(whole.dim()):
            ranges = [(1, whole.shape[axis] // 2), (whole.shape[axis] // 2 + 3, whole.shape[axis])]
            wanted = torch.cat([whole.narrow(axis, start, stop - start) for start, stop in ranges], axis)
            assert torch.equal(readers[1].get(name, ranges, axis), wanted), name


INT8 = """
import json, torch
from bloomery.engines import deepspeed
from bloomery.engines.base import GenerationParameters
from bloomery.engines.linear import KernelLinear
torch.set_num_threads(1)
found = {}
for path, inject, dtype in LOADS:
    engine = deepspeed.load(path, kernel_inject=inject, allreduce="gloo", dtype=dtype)
    layers = {name: layer.kernel for name, layer in engine.model.named_modules() if isinstance(layer, KernelLinear)}
    int8 = {name: kernel for name, kernel in layers.items() if kernel.stored.dtype == torch.int8}
    sums = [[kernel.stored.double().sum().item(), kernel._scales.double().sum().item()] for kernel in int8.values()]
    steps = engine.generate([[5, 6, 7], [11, 12]], GenerationParameters(max_new_tokens=4, ignore_eos=True))
    found[f"{path} {inject} {dtype}"] = [sums, [step.tokens for step in steps]]
    del engine, steps, layers, int8
print(json.dumps(found))
"""


@pytest.mark.full
def test_int8_weights_are_not_rounded_again(checkpoints: Path) -> None:
    """Whatever the number of ranks: what all of them hold together is what is in the files."""
    ways = (
        ("llama", False, 3, "int8"),
        ("llama", False, 2, "auto"),
        ("opt", True, 2, "int8"),
        ("gpt2", True, 3, "int8"),
    )
    loads = [(f"{checkpoints}/{name}-{split}-int8", inject, dtype) for name, inject, split, dtype in ways]
    script = INT8.replace("LOADS", repr(loads))
    one, two = run_pair(script, world_size=1)[0], run_pair(script, world_size=2)

    for path, inject, dtype in loads:
        key = f"{path} {inject} {dtype}"
        files = [load_file(file) for file in Path(path).glob("*.safetensors")]
        total = sum(t.double().sum().item() for file in files for t in file.values() if t.dtype == torch.int8)
        assert sum(sums[0] for sums in one[key][0]) == total, key
        assert sum(sums[0] for rank in two for sums in rank[key][0]) == total, key


def test_plain_transformers_serves_one_too(checkpoints: Path) -> None:
    parameters = GenerationParameters(max_new_tokens=8, ignore_eos=True)
    found = {}
    for name in ("llama", "llama-2", "llama-3"):
        engine = accelerate.load(checkpoints / name)
        found[name] = [step.tokens for step in engine.generate([[5, 6, 7]], parameters)]
    assert found["llama-2"] == found["llama-3"] == found["llama"]
    kept = accelerate.load(checkpoints / "llama-2-int8")
    assert {type(layer).__name__ for layer in kept.model.model.layers[0].mlp.children()} >= {"KernelLinear"}
    with pytest.raises(UnsupportedModelError, match="is split for several ranks"):
        accelerate.load(checkpoints / "llama-2", device_map="auto")
