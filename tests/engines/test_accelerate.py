"""Plain transformers in one process."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.support.tiny_models import tiny_model

from bloomery.engines import accelerate
from bloomery.engines.base import GenerationParameters
from bloomery.errors import CheckpointError, ConfigurationError, UnsupportedModelError

PROMPTS = [[5, 6, 7], [11, 12, 13, 14, 15, 16]]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("llama", tmp_path_factory.mktemp("llama"))


def greedy(engine) -> list[tuple[int | None, ...]]:
    return [step.tokens for step in engine.generate(PROMPTS, GenerationParameters(max_new_tokens=8, ignore_eos=True))]


def test_logits_are_those_of_transformers(llama: Path) -> None:
    ids = torch.tensor(PROMPTS[1:])
    with torch.no_grad():
        expected = transformers.AutoModelForCausalLM.from_pretrained(llama)(ids).logits
        found = accelerate.load(llama).model(ids).logits

    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_the_engine_knows_its_model_and_tokenizer(llama: Path) -> None:
    engine = accelerate.load(llama, max_tokens=100)

    assert (engine.name, engine.model_type, engine.max_tokens) == ("accelerate", "llama", 100)
    assert engine.tokenizer.padding_side == "left"


def test_positions_the_model_does_not_have_are_not_promised(llama: Path) -> None:
    assert accelerate.load(llama, max_tokens=100_000).max_tokens == 256


def test_a_device_map_places_the_model(llama: Path) -> None:
    assert greedy(accelerate.load(llama, device_map="auto")) == greedy(accelerate.load(llama))


def test_int8_weights_give_nearly_the_same_logits(llama: Path) -> None:
    ids = torch.tensor(PROMPTS[1:])
    with torch.no_grad():
        whole, rounded = (accelerate.load(llama, dtype=name).model(ids).logits for name in ("fp32", "int8"))

    error = (whole - rounded).norm() / whole.norm()
    assert 0 < error < 0.2


def test_fp16_is_computed_in_fp32_on_a_cpu_and_the_log_says_so(llama: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        engine = accelerate.load(llama, dtype="fp16")

    assert engine.model.dtype == torch.float32
    assert "fp16 is computed in fp32" in caplog.text


def test_auto_takes_the_checkpoints_own_precision(llama: Path) -> None:
    assert accelerate.load(llama, dtype="auto").model.dtype == torch.float32


def test_an_unknown_precision_is_refused_with_the_known_ones(llama: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"dtype='int4' is not one of fp32, fp16, bf16, int8, auto"):
        accelerate.load(llama, dtype="int4")


def test_a_checkpoint_that_lacks_a_weight_is_refused_and_not_filled_with_random_numbers(tmp_path: Path) -> None:
    path = tiny_model("llama", tmp_path)
    weights = load_file(path / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(CheckpointError, match=r"lacks weights.*model\.norm\.weight"):
        accelerate.load(path)


@pytest.mark.parametrize("suffix", ["_scale", "_scale_inv"])
def test_codes_without_their_scales_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tiny_model("llama", tmp_path / "llama")
    tensors = load_file(path / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    tensors |= {name: (tensors[name] * 100).to(torch.int8), name + suffix: torch.tensor([0.01])}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(UnsupportedModelError, match=f"is quantised.*nobody wants {name}{suffix}"):
        accelerate.load(path)


def test_a_directory_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        accelerate.load(tmp_path)


def test_a_checkpoint_of_pickles_is_refused_where_they_are_forbidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tiny_model("llama", tmp_path / "llama")
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    assert accelerate.load(directory)

    monkeypatch.setenv("SAGEMAKER_SECURITY_CONTROLS", "DISALLOW_PICKLE_FILES")
    with pytest.raises(ConfigurationError, match=r"pytorch_model\.bin, a pickle by its name is forbidden"):
        accelerate.load(directory)
