"""What is known of a checkpoint, and how little is read for it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.support.faulty_s3 import FaultyS3
from tests.support.faulty_s3.environment import FOREIGN, client_environment
from tests.support.tiny_models import tiny_model
from tests.support.weightless import opt_30b, weightless

from bloomery.checkpoints.source import Body, Connection, Entry, Source
from bloomery.checkpoints.sources import open_source
from bloomery.checkpoints.splitting.shard import shard
from bloomery.errors import CheckpointError, UnsupportedModelError
from bloomery.sagemaker.planning import plan
from bloomery.sagemaker.planning.facts import CheckpointFacts, read_facts


def facts_of(path: Path) -> CheckpointFacts:
    return read_facts(open_source(path))


def as_bin(path: Path, target: Path, files: int = 1) -> Path:
    """The same checkpoint in torch's own files, with the tied head that ``save_pretrained`` used to write, too."""
    target.mkdir()
    shutil.copy(path / "config.json", target)
    state = load_file(path / "model.safetensors")
    embedding = next((name for name in state if name.endswith("embed_tokens.weight")), None)
    if embedding and "lm_head.weight" not in state:
        state = {"lm_head.weight": state[embedding], **state}
    names = list(state)
    if files == 1:
        torch.save(state, target / "pytorch_model.bin")
        return target
    where = {name: f"pytorch_model-{index % files + 1:05d}-of-{files:05d}.bin" for index, name in enumerate(names)}
    for file in set(where.values()):
        torch.save({name: state[name] for name in names if where[name] == file}, target / file)
    (target / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return target


class Counted:
    """A source that counts the bytes that are asked of it, by file."""

    def __init__(self, source: Source) -> None:
        self._source, self.read = source, Counter[str]()
        self.uri, self.licence = source.uri, source.licence
        self.entries, self.checksummed = source.entries, source.checksummed

    def connect(self, http: object = None) -> Connection:
        return CountedConnection(self._source.connect(), self.read)


class CountedConnection:
    def __init__(self, connection: Connection, read: Counter[str]) -> None:
        self._connection, self._read = connection, read
        self.close = connection.close

    def read(self, entry: Entry, start: int, length: int) -> AbstractContextManager[Body]:
        self._read[entry.name] += length
        return self._connection.read(entry, start, length)


def header_bytes(path: Path) -> int:
    """Of a safetensors file."""
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def test_only_headers_are_read_of_60_gb(tmp_path: Path) -> None:
    path = opt_30b(tmp_path)
    source = Counted(open_source(path))
    made = plan("not asked", instance_types=["ml.g5.12xlarge"], source=source)
    assert made.facts.weight_bytes > 59e9
    assert made.facts.parameters == 29_974_540_288
    weights = {name: count for name, count in source.read.items() if name.endswith(".safetensors")}
    assert weights == {file.name: header_bytes(file) for file in path.glob("*.safetensors")}
    assert sum(source.read.values()) < 200_000


def test_only_headers_come_from_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {f"model.decoder.layers.{layer}.fc1.weight": (4096, 1024) for layer in range(8)}
    config = {"model_type": "opt", "hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 8}
    path = weightless(tmp_path / "bucket" / "opt", config | {"vocab_size": 50272}, shapes, files=2)  # 64 MiB
    for name in FOREIGN:
        monkeypatch.delenv(name, raising=False)
    with FaultyS3(tmp_path) as server:
        for name, value in client_environment(server.url).items():
            monkeypatch.setenv(name, value)
        made = plan("s3://bucket/opt")
        read = [item for item in server.requests() if item.operation == "GetObject"]
    assert made.facts.parameters == 8 * 4096 * 1024
    for file in path.glob("*.safetensors"):
        assert sum(item.length or 0 for item in read if item.key.endswith(file.name)) == header_bytes(file)
    assert server.sent < 20_000


@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("family", ["opt", "llama"])
def test_torchs_own_files_say_the_same_as_safetensors(tmp_path: Path, family: str, files: int) -> None:
    path = tiny_model(family, tmp_path / "safe")
    safe, pickled = facts_of(path), facts_of(as_bin(path, tmp_path / "bin", files))
    assert pickled.format == "bin"
    assert {(t.name, t.dtype, t.shape) for t in pickled.tensors} == {(t.name, t.dtype, t.shape) for t in safe.tensors}
    assert pickled.parameters == safe.parameters
    assert pickled.tied == safe.tied == (family == "opt")


def test_pickles_are_advised_against(tmp_path: Path) -> None:
    made = plan(str(as_bin(tiny_model("opt", tmp_path / "safe"), tmp_path / "bin")))
    (sentence,) = [each for each in made.advice if "pickles" in each]
    assert f"bloomery shard {tmp_path / 'bin'} DST" in sentence


@pytest.mark.parametrize("family", ["bloom", "gpt2", "gpt_neo", "gptj", "gpt_neox", "llama", "qwen3"])
def test_parameters_are_those_that_the_model_has(tmp_path: Path, family: str) -> None:
    import transformers

    path = tiny_model(family, tmp_path / family)
    model = transformers.AutoModelForCausalLM.from_pretrained(path)
    assert facts_of(path).parameters == sum(parameter.numel() for parameter in model.parameters())


def test_a_head_that_is_stored_and_tied_counts_once(tmp_path: Path) -> None:
    shapes = {"model.decoder.embed_tokens.weight": (100, 8), "lm_head.weight": (100, 8)}
    config = {"model_type": "opt", "hidden_size": 8, "num_attention_heads": 2}
    tied = facts_of(weightless(tmp_path / "tied", config, shapes, files=1))
    assert (tied.parameters, tied.tied) == (800, True)
    untied = facts_of(weightless(tmp_path / "untied", {**config, "tie_word_embeddings": False}, shapes, files=1))
    assert (untied.parameters, untied.tied) == (1600, False)


def test_masks_of_old_files_are_no_parameters(tmp_path: Path) -> None:
    shapes = {
        "wte.weight": (100, 8),
        "h.0.attn.bias": (1, 1, 1024, 1024),
        "h.0.attn.masked_bias": (),
        "h.0.attn.c_attn.bias": (24,),
    }
    facts = facts_of(weightless(tmp_path, {"model_type": "gpt2"}, shapes, files=1))
    assert facts.parameters == 800 + 24


def test_a_checkpoint_that_was_split_ahead_of_time_is_the_same_model(tmp_path: Path) -> None:
    path = tiny_model("bloom", tmp_path / "bloom")
    shard(str(path), str(tmp_path / "split"), tensor_parallel=2, dtype="int8")
    whole, split = facts_of(path), facts_of(tmp_path / "split")
    assert (split.format, split.split_ranks, split.split_dtype) == ("split", 2, "int8")
    assert split.parameters == whole.parameters
    made = plan(str(tmp_path / "split"), instance_types=["ml.g5.12xlarge"])
    assert (made.form.dtype, made.form.injected) == ("int8", False)


def test_a_directory_without_a_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"holds no config\.json but model\.safetensors"):
        facts_of(tmp_path)


def test_a_checkpoint_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"holds no weights, neither .* but config\.json"):
        facts_of(tmp_path)


@pytest.mark.parametrize(("text", "words"), [("{", "is no JSON"), ("[]", "is no JSON object but list")])
def test_a_damaged_config_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=words):
        facts_of(tmp_path)


def test_what_deepspeed_itself_has_split_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "ds_inference_config.json").write_text("{}")
    with pytest.raises(UnsupportedModelError, match="plan from the checkpoint that it was made of"):
        facts_of(tmp_path)


def test_a_split_checkpoint_that_lacks_a_file_is_refused(tmp_path: Path) -> None:
    shard(str(tiny_model("opt", tmp_path / "opt")), str(tmp_path / "split"), tensor_parallel=2)
    (tmp_path / "split" / "tp_01_00.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"names tp_01_00\.safetensors, which is not there"):
        facts_of(tmp_path / "split")
