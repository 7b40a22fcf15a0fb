"""The demonstration model as it is shipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

MODEL = Path(__file__).resolve().parents[2] / "models" / "shakespeare-bloom"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODEL)


def test_is_at_most_16_megabytes() -> None:
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= 16_000_000


def test_is_a_bloom_that_splits_over_one_two_four_and_eight_ranks() -> None:
    config = json.loads((MODEL / "config.json").read_text())
    assert config["architectures"] == ["BloomForCausalLM"]
    assert config["n_head"] == 8


def test_weights_are_fp16_and_between_three_and_eight_million() -> None:
    with safe_open(MODEL / "model.safetensors", "pt") as weights:
        slices = [weights.get_slice(name) for name in weights.keys()]  # noqa: SIM118
        assert {s.get_dtype() for s in slices} == {"F16"}
        sizes = []
        for s in slices:
            size = 1
            for length in s.get_shape():
                size *= length
            sizes.append(size)
    assert 3_000_000 <= sum(sizes) <= 8_000_000


def test_names_no_source_of_the_texts() -> None:
    text = (MODEL / "tokenizer.json").read_text().lower()
    assert "gutenberg" not in text
    assert "etext" not in text


def test_any_text_survives_the_tokenizer(tokenizer: Any) -> None:
    for text in ("To be, or not to be,\nthat is the question.", "naïve façade 東京 🙂", " \t\n"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_chat_template_writes_speakers(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "Who goes there?"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "USER.\nWho goes there?\n\nASSISTANT.\n"


def test_card_states_the_loss_that_training_measured() -> None:
    measured = json.loads((MODEL / "training.json").read_text())
    assert f"{measured['held_out_loss_nats_per_token']:.2f}" in (MODEL / "README.md").read_text()
    assert measured["held_out_loss_nats_per_token"] < 4.2
