"""Reading checkpoints and filling models built on the meta device."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.support.rank_pair import run_pair
from tests.support.tiny_models import tiny_model

from bloomery.engines import deepspeed
from bloomery.engines.loading import read_config
from bloomery.engines.reader import CheckpointReader
from bloomery.errors import CheckpointError, ConfigurationError, UnsupportedModelError
from bloomery.processes import rank

MATRIX = "transformer.h.0.self_attention.query_key_value.weight"
PROMPT = torch.tensor([[11, 12, 13, 14, 15, 16]])


@pytest.fixture
def bloom(tmp_path: Path) -> Path:
    return tiny_model("bloom", tmp_path / "bloom")


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "model.safetensors")


def rewrite(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def logits(path: Path, **options: Any) -> torch.Tensor:
    with torch.no_grad():
        return deepspeed.load(path, **options).model(PROMPT, attention_mask=torch.ones_like(PROMPT)).logits


def expected_logits(path: Path) -> torch.Tensor:
    model = transformers.AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        return model(PROMPT, attention_mask=torch.ones_like(PROMPT)).logits


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_codes_of_a_quantised_weight_are_no_weights(bloom: Path, dtype: torch.dtype) -> None:
    """They have the shape and the name of the weight, and would be copied like numbers, without their scales."""
    tensors = weights(bloom)
    scale = tensors[MATRIX].abs().max() / 127
    rewrite(bloom, {**tensors, MATRIX: (tensors[MATRIX] / scale).to(dtype), f"{MATRIX}_scale": scale.reshape(1)})

    with pytest.raises(CheckpointError, match=rf"{MATRIX} of .* is stored as {dtype}".replace("torch.", "")):
        deepspeed.load(bloom)


def test_a_quantised_checkpoint_is_refused_by_its_configuration(bloom: Path) -> None:
    config = json.loads((bloom / "config.json").read_text())
    (bloom / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))

    with pytest.raises(UnsupportedModelError, match=r"the checkpoint is quantised \(gptq; quantization_config"):
        deepspeed.load(bloom)


class TestReader:
    def test_a_whole_tensor_is_read(self, bloom: Path) -> None:
        assert torch.equal(CheckpointReader(bloom).get(MATRIX), weights(bloom)[MATRIX])

    def test_a_tensor_that_two_files_hold_is_named(self, bloom: Path) -> None:
        """Without an index nothing says which of them is meant."""
        tensors = weights(bloom)
        for name in ("a", "b"):
            save_file({MATRIX: tensors[MATRIX]}, bloom / f"{name}.safetensors")
        (bloom / "model.safetensors").unlink()

        with pytest.raises(CheckpointError, match=rf"holds {MATRIX} twice: in a\.safetensors and in b\.safetensors"):
            CheckpointReader(bloom)

    def test_an_index_that_promises_too_much_is_named(self, bloom: Path) -> None:
        (bloom / "model.safetensors.index.json").write_text('{"weight_map": {"other": "model.safetensors"}}')

        with pytest.raises(CheckpointError, match=r"model\.safetensors lacks other, which the index says it holds"):
            CheckpointReader(bloom).get("other")

    def test_ranges_of_rows_are_joined(self, bloom: Path) -> None:
        whole = weights(bloom)[MATRIX]

        part = CheckpointReader(bloom).get(MATRIX, [(0, 16), (96, 100)])

        assert torch.equal(part, torch.cat([whole[:16], whole[96:100]]))

    def test_ranges_of_columns_are_joined_and_converted(self, bloom: Path) -> None:
        whole = weights(bloom)[MATRIX]

        part = CheckpointReader(bloom).get(MATRIX, [(8, 16), (32, 64)], axis=1, dtype=torch.bfloat16)

        assert torch.equal(part, torch.cat([whole[:, 8:16], whole[:, 32:64]], 1).to(torch.bfloat16))

    def test_a_tensor_larger_than_a_piece_arrives_whole(self, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setattr("bloomery.engines.reader.CHUNK_BYTES", 1000)
        tensor = torch.randn(77, 33)
        rewrite(tmp_path, {"w": tensor})

        assert torch.equal(CheckpointReader(tmp_path).get("w", [(3, 30)], axis=1), tensor[:, 3:30])

    def test_an_index_of_several_files_is_followed(self, bloom: Path, tmp_path: Path) -> None:
        transformers.AutoModelForCausalLM.from_pretrained(bloom).save_pretrained(
            tmp_path / "parts", max_shard_size="100KB"
        )
        assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1

        assert torch.equal(CheckpointReader(tmp_path / "parts").get(MATRIX), weights(bloom)[MATRIX])

    def test_bin_files_are_read_with_advice_to_convert_them(self, bloom: Path, caplog) -> None:
        tensors = weights(bloom)
        torch.save(tensors, bloom / "pytorch_model.bin")
        (bloom / "model.safetensors").unlink()

        with caplog.at_level(logging.WARNING):
            part = CheckpointReader(bloom).get(MATRIX, [(96, 192)])

        assert torch.equal(part, tensors[MATRIX][96:192])
        assert "convert the checkpoint to safetensors" in caplog.text

    def test_bin_files_of_torchs_old_format_are_read_too(self, bloom: Path) -> None:
        tensors = weights(bloom)
        torch.save(tensors, bloom / "pytorch_model.bin", _use_new_zipfile_serialization=False)
        (bloom / "model.safetensors").unlink()

        assert torch.equal(CheckpointReader(bloom).get(MATRIX), tensors[MATRIX])

    def test_a_bin_file_that_would_run_code_is_refused(self, tmp_path: Path) -> None:
        torch.save({"w": Path("/")}, tmp_path / "pytorch_model.bin")

        with pytest.raises(CheckpointError, match=r"pytorch_model\.bin cannot be read"):
            CheckpointReader(tmp_path)

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.data"])
    def test_pickles_are_refused_by_any_name_where_they_are_forbidden(
        self, bloom: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tensors = weights(bloom)
        torch.save(tensors, bloom / name)
        (bloom / "model.safetensors").unlink()
        index = {"weight_map": dict.fromkeys(tensors, name)}
        (bloom / "model.safetensors.index.json").write_text(json.dumps(index))
        reader = CheckpointReader(bloom)
        assert torch.equal(reader.get(MATRIX), tensors[MATRIX])

        monkeypatch.setenv("SAGEMAKER_SECURITY_CONTROLS", "DISALLOW_PICKLE_FILES")
        with pytest.raises(ConfigurationError, match=f"{name}, a pickle is forbidden by DISALLOW_PICKLE_FILES"):
            CheckpointReader(bloom).get(MATRIX)

    def test_a_directory_without_weights_says_what_it_looked_for_and_found(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("")

        with pytest.raises(CheckpointError, match=r"model\.safetensors.*found notes\.txt"):
            CheckpointReader(tmp_path)

    def test_a_file_the_index_names_but_nobody_downloaded_is_reported(self, tmp_path: Path) -> None:
        index = {"weight_map": {"w": "model-00002-of-00002.safetensors"}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))

        with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors is missing"):
            CheckpointReader(tmp_path).get("w")

    def test_a_truncated_file_is_reported(self, bloom: Path) -> None:
        file = bloom / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1000])

        with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged, or no safetensors file"):
            CheckpointReader(bloom)


class TestFilling:
    def test_a_tied_head_shares_the_embeddings_memory(self, bloom: Path) -> None:
        model = deepspeed.load(bloom).model

        assert model.lm_head.weight.data_ptr() == model.transformer.word_embeddings.weight.data_ptr()

    def test_a_base_models_checkpoint_without_the_prefix_is_read(self, bloom: Path) -> None:
        expected = expected_logits(bloom)
        rewrite(bloom, {name.removeprefix("transformer."): tensor for name, tensor in weights(bloom).items()})

        torch.testing.assert_close(logits(bloom), expected, atol=1e-4, rtol=0)

    def test_names_that_transformers_changes_while_saving_are_found(self, tmp_path: Path) -> None:
        path = tiny_model("gpt_neox", tmp_path)
        assert "embed_out.weight" in weights(path)

        torch.testing.assert_close(logits(path), expected_logits(path), atol=1e-4, rtol=0)

    @pytest.mark.parametrize("family", ["llama", "gptj", "gpt_neo"])
    def test_buffers_that_no_checkpoint_holds_are_computed(self, tmp_path: Path, family: str) -> None:
        path = tiny_model(family, tmp_path)
        expected = dict(transformers.AutoModelForCausalLM.from_pretrained(path).named_buffers())

        found = dict(deepspeed.load(path).model.named_buffers())

        assert expected
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)

    def test_rotary_frequencies_keep_their_precision_in_a_bf16_model(self, tmp_path: Path) -> None:
        model = deepspeed.load(tiny_model("llama", tmp_path), dtype="bf16").model

        assert model.model.embed_tokens.weight.dtype == torch.bfloat16
        assert model.model.rotary_emb.inv_freq.dtype == torch.float32

    def test_a_weight_that_is_missing_is_named(self, bloom: Path) -> None:
        tensors = weights(bloom)
        del tensors["transformer.h.1.mlp.dense_h_to_4h.bias"]
        rewrite(bloom, tensors)

        with pytest.raises(CheckpointError, match=r"lacks weights.*transformer\.h\.1\.mlp\.dense_h_to_4h\.bias"):
            deepspeed.load(bloom)

    def test_a_weight_that_holds_nan_is_named(self, bloom: Path) -> None:
        tensors = weights(bloom)
        tensors[MATRIX][5, 5] = torch.nan
        rewrite(bloom, tensors)

        with pytest.raises(CheckpointError, match=r"query_key_value\.weight holds NaN"):
            deepspeed.load(bloom)

    def test_a_config_that_does_not_fit_the_weights_is_reported(self, bloom: Path) -> None:
        config = json.loads((bloom / "config.json").read_text())
        (bloom / "config.json").write_text(json.dumps(config | {"hidden_size": 128}))

        with pytest.raises(CheckpointError, match=r"has shape \[.*config\.json does not describe these weights"):
            deepspeed.load(bloom)

    def test_a_model_type_that_transformers_does_not_know_is_refused(self, bloom: Path) -> None:
        (bloom / "config.json").write_text('{"model_type": "gloom"}')

        with pytest.raises(UnsupportedModelError, match="gloom"):
            deepspeed.load(bloom)


class TestProgress:
    def test_a_load_ends_at_a_hundred_percent(self, bloom: Path) -> None:
        deepspeed.load(bloom)

        assert rank.current.status().percent == 100.0


MEASURE = """
import json, sys, threading
import deepspeed, torch, transformers.models.bloom.modeling_bloom, transformers.generation
from pathlib import Path
from bloomery.checkpoints import Checkpoint
from bloomery.checkpoints.sources.directory import DirectorySource
from bloomery.engines import accelerate, deepspeed as engine, injection, linear, allreduce
torch.set_num_threads(1)

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))

engine.start_ranks(2, "gloo")
baseline, peak, done = anonymous(), 0, threading.Event()

def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, anonymous() - baseline)

watcher = threading.Thread(target=watch)
watcher.start()
loaded = engine.load(PLACE, dtype=DTYPE, kernel_inject=INJECT, allreduce="gloo")
done.set()
watcher.join()
print(json.dumps({"peak": peak, "resident": linear.resident_bytes(loaded.model)}))
"""


@pytest.fixture(scope="module")
def hundred_megabytes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of its bytes are embeddings, which a rank holds whole, and its head is as large."""
    path = tmp_path_factory.mktemp("large")
    config = transformers.BloomConfig(vocab_size=24_000, hidden_size=512, n_layer=7, n_head=8)
    transformers.BloomForCausalLM(config).save_pretrained(path)
    return path


# A directory is mapped; what is streamed lies in the rank's own memory from the start, with the buffers of its threads.
STREAMED = """Checkpoint(Path(PATH), source := DirectorySource(Path(PATH)), tuple(
    entry for entry in source.entries() if entry.name.endswith(".safetensors")))"""


@pytest.mark.parametrize(
    ("dtype", "inject", "stream"),
    [
        ("fp32", False, False),
        ("fp32", False, True),
        pytest.param("fp32", True, False, marks=pytest.mark.full),
        pytest.param("int8", False, False, marks=pytest.mark.full),
        pytest.param("fp32", True, True, marks=pytest.mark.full),
    ],
)
def test_a_rank_never_holds_much_more_than_its_own_weights(
    hundred_megabytes: Path, dtype: str, inject: bool, stream: bool
) -> None:
    script = MEASURE.replace("PLACE", STREAMED if stream else "PATH")
    script = script.replace("PATH", repr(str(hundred_megabytes))).replace("DTYPE", repr(dtype))

    measured = run_pair(script.replace("INJECT", repr(inject)))

    for share in measured:
        assert share["resident"] > 70e6
        assert share["peak"] < 1.25 * share["resident"]


def test_a_lora_adapter_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    with pytest.raises(UnsupportedModelError, match=r"holds a LoRA adapter .*: merge it into its base model"):
        read_config(tmp_path)
