from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.tiny_models import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from djl_python.streaming_utils import StreamingUtils

PROMPTS = ["To be, or not", "Shall"]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    path: Path = tiny_model("llama", tmp_path_factory.mktemp("llama"))
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32), AutoTokenizer.from_pretrained(path)


def stream(loaded: tuple[Any, Any], engine: str = "DeepSpeed", **parameters: Any) -> list[list[str]]:
    return list(StreamingUtils.get_stream_generator(engine)(*loaded, PROMPTS, "cpu", **parameters))


def test_each_step_gives_a_text_per_prompt_and_together_they_are_the_greedy_text(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    steps = stream(loaded, max_new_tokens=6)
    assert len(steps) == 6
    for row, prompt in enumerate(PROMPTS):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
        expected = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert "".join(step[row] for step in steps) == expected


def test_fifty_tokens_are_the_default(loaded: tuple[Any, Any]) -> None:
    loaded[0].generation_config.eos_token_id = []
    assert len(stream(loaded, "Accelerate")) == StreamingUtils.DEFAULT_MAX_NEW_TOKENS


def test_a_sampling_parameter_means_sampling_and_a_seed_repeats_it(loaded: tuple[Any, Any]) -> None:
    first = stream(loaded, max_new_tokens=8, temperature=5.0, manual_seed=1)
    assert stream(loaded, max_new_tokens=8, temperature=5.0, manual_seed=1) == first
    assert stream(loaded, max_new_tokens=8, temperature=5.0, manual_seed=2) != first


def test_the_name_of_the_hugging_face_streamer_streams_too(loaded: tuple[Any, Any]) -> None:
    streamed = list(StreamingUtils.use_hf_default_streamer(*loaded, PROMPTS, "cpu", max_new_tokens=4))
    assert streamed == stream(loaded, max_new_tokens=4)


def test_the_handlers_wrapper_is_looked_through(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded

    class Wrapper:
        module = model

    assert stream((Wrapper(), tokenizer), max_new_tokens=3) == stream(loaded, max_new_tokens=3)


def test_an_unknown_library_is_refused() -> None:
    with pytest.raises(ValueError, match="Paddle engine is not supported for streaming; it must be one of Accelerate"):
        StreamingUtils.get_stream_generator("Paddle")


@pytest.mark.parametrize("inputs", [[], "To be"])
def test_inputs_that_are_no_list_of_texts_are_refused(loaded: tuple[Any, Any], inputs: Any) -> None:
    with pytest.raises(ValueError, match="list of at least one text"):
        next(StreamingUtils.get_stream_generator("DeepSpeed")(*loaded, inputs, "cpu"))


def test_beams_are_refused(loaded: tuple[Any, Any]) -> None:
    with pytest.raises(ValueError, match="beams cannot be streamed"):
        stream(loaded, beam_size=2)
