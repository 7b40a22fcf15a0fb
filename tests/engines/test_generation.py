"""Decoding on demand: what a request may ask, what a step holds, and when it stops."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.support.tiny_models import tiny_model

from bloomery.engines import accelerate
from bloomery.engines.base import GenerationParameters
from bloomery.engines.generation import TransformersEngine
from bloomery.errors import BadRequestError, UnsupportedModelError
from bloomery.processes import rank

SHORT, LONG = [5, 6, 7], [11, 12, 13, 14, 15, 16]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    return accelerate.load(tiny_model("bloom", tmp_path_factory.mktemp("bloom")), max_tokens=64)


@pytest.fixture
def request_in_progress() -> Iterator[None]:
    rank.current.begin("r1")
    yield
    rank.current.end()


def tokens(engine: TransformersEngine, prompts: list[list[int]], **parameters: Any) -> list[list[int | None]]:
    steps = list(engine.generate(prompts, GenerationParameters(**{"ignore_eos": True, **parameters})))
    return [list(row) for row in zip(*(step.tokens for step in steps), strict=True)]


def reference(engine: TransformersEngine, prompt: list[int], **options: Any) -> list[int]:
    ids = torch.tensor([prompt])
    config = transformers.GenerationConfig(pad_token_id=3, eos_token_id=None, **options)
    engine.model.generation_config.eos_token_id, kept = None, engine.model.generation_config.eos_token_id
    try:
        return engine.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)[
            0, ids.shape[1] :
        ].tolist()
    finally:
        engine.model.generation_config.eos_token_id = kept


def test_rows_of_different_lengths_continue_as_if_they_were_alone(engine) -> None:
    alone = [reference(engine, prompt, max_new_tokens=12, do_sample=False) for prompt in (SHORT, LONG)]

    assert tokens(engine, [SHORT, LONG], max_new_tokens=12) == alone


def test_a_checkpoint_that_was_saved_without_cache_continues_its_whole_text(tmp_path: Path) -> None:
    path = tiny_model("llama", tmp_path)
    (path / "generation_config.json").write_text(json.dumps({"use_cache": False}))
    engine = accelerate.load(path, max_tokens=64)

    assert tokens(engine, [LONG], max_new_tokens=8) == [reference(engine, LONG, max_new_tokens=8, do_sample=False)]


def test_a_step_is_computed_when_it_is_asked_for_and_not_before(engine, monkeypatch) -> None:
    calls = []
    forward = engine.model.forward
    monkeypatch.setattr(engine.model, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))

    steps = engine.generate([SHORT], GenerationParameters(max_new_tokens=5, ignore_eos=True))
    counts = [len(calls)]
    for _ in range(3):
        next(steps)
        counts.append(len(calls))
    steps.close()

    assert counts == [0, 1, 2, 3]


def test_the_last_allowed_token_ends_a_row_by_length(engine) -> None:
    steps = list(engine.generate([SHORT, LONG], GenerationParameters(max_new_tokens=3, ignore_eos=True)))

    assert [step.finished for step in steps] == [(None, None), (None, None), ("length", "length")]


def test_a_row_ends_with_its_end_token_while_the_others_go_on(engine, monkeypatch) -> None:
    rows = tokens(engine, [SHORT, LONG], max_new_tokens=6)
    only_first = next(token for token in rows[0] if token not in rows[1])
    monkeypatch.setattr(engine.model.generation_config, "eos_token_id", only_first)

    steps = list(engine.generate([SHORT, LONG], GenerationParameters(max_new_tokens=6)))
    end = rows[0].index(only_first)

    assert steps[end].tokens[0] == only_first
    assert steps[end].finished == ("eos_token", None if end < 5 else "length")
    assert [step.tokens[0] for step in steps[end + 1 :]] == [None] * (5 - end)
    assert [step.tokens[1] for step in steps] == rows[1]


def test_generation_ends_when_every_row_has_ended(engine, monkeypatch) -> None:
    first = tokens(engine, [SHORT], max_new_tokens=1)[0][0]
    monkeypatch.setattr(engine.model.generation_config, "eos_token_id", first)

    assert len(list(engine.generate([SHORT], GenerationParameters(max_new_tokens=20)))) == 1


def test_log_probabilities_are_those_of_the_model(engine) -> None:
    step = next(engine.generate([SHORT], GenerationParameters(max_new_tokens=1)))
    with torch.no_grad():
        expected = engine.model(torch.tensor([SHORT])).logits[0, -1].log_softmax(-1)[step.tokens[0]]

    assert step.log_probs[0] == pytest.approx(float(expected), abs=1e-4)


def test_a_seed_repeats_a_sample_and_another_seed_does_not(engine) -> None:
    sample = {"do_sample": True, "temperature": 3.0, "max_new_tokens": 16}

    first, again, other = (tokens(engine, [SHORT], seed=seed, **sample) for seed in (1, 1, 2))

    assert first == again != other


def test_without_a_seed_the_processs_random_state_decides(engine) -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn.append(tokens(engine, [SHORT], do_sample=True, temperature=3.0, max_new_tokens=16))

    assert drawn[0] == drawn[1]


def test_top_k_of_one_is_greedy(engine) -> None:
    assert tokens(engine, [LONG], do_sample=True, top_k=1) == tokens(engine, [LONG])


def test_a_repetition_penalty_changes_the_text_as_in_transformers(engine) -> None:
    expected = reference(engine, LONG, max_new_tokens=12, do_sample=False, repetition_penalty=5.0)

    assert tokens(engine, [LONG], max_new_tokens=12, repetition_penalty=5.0) == [expected]
    assert expected != tokens(engine, [LONG], max_new_tokens=12)[0]


def test_further_arguments_of_generate_are_honoured(engine) -> None:
    expected = reference(engine, LONG, max_new_tokens=12, do_sample=False, no_repeat_ngram_size=1)

    assert tokens(engine, [LONG], max_new_tokens=12, extra={"no_repeat_ngram_size": 1}) == [expected]


def test_the_checkpoints_own_defaults_apply_where_a_request_says_nothing(tmp_path: Path) -> None:
    path = tiny_model("bloom", tmp_path)
    transformers.GenerationConfig(eos_token_id=2, no_repeat_ngram_size=1, max_length=20).save_pretrained(path)
    engine = accelerate.load(path)

    row = tokens(engine, [LONG], max_new_tokens=30)[0]

    assert len(set(row)) == 30


def test_beam_search_finds_what_transformers_finds(engine) -> None:
    expected = reference(engine, LONG, max_new_tokens=6, num_beams=3, do_sample=False, min_new_tokens=6)

    assert tokens(engine, [LONG], max_new_tokens=6, num_beams=3) == [expected]


def test_a_cancelled_request_ends_with_the_next_step(engine, request_in_progress) -> None:
    steps = engine.generate([SHORT, LONG], GenerationParameters(max_new_tokens=20, ignore_eos=True))
    next(steps)

    rank.current.cancel("r1")
    rest = list(steps)

    assert [step.finished for step in rest] == [("cancelled", "cancelled")]
    assert rest[0].tokens == (None, None)


def test_each_step_is_counted_for_the_control_channel(engine, request_in_progress) -> None:
    before = rank.current.status()
    tokens(engine, [SHORT, LONG], max_new_tokens=4)
    after = rank.current.status()

    assert after.tokens - before.tokens == 8
    assert after.steps - before.steps >= 4


def test_gradient_mode_of_the_caller_is_left_alone(engine) -> None:
    steps = engine.generate([SHORT], GenerationParameters(max_new_tokens=3, ignore_eos=True))
    next(steps)

    assert torch.is_grad_enabled()
    steps.close()


@pytest.mark.parametrize(
    ("prompts", "parameters", "message"),
    [
        ([], {}, "no prompt"),
        ([SHORT, []], {}, "prompt 1 is empty"),
        ([[5, 320]], {}, "vocabulary of 320"),
        ([SHORT], {"max_new_tokens": 0}, "max_new_tokens is 0"),
        ([SHORT], {"extra": {"bad_words_ids": [[5, 320]]}}, "'bad_words_ids' holds 320: tokens are from 0 to 319"),
        ([SHORT], {"extra": {"sequence_bias": [[[-1], -400.0]]}}, "'sequence_bias' holds -1"),
        ([SHORT, LONG], {"max_new_tokens": 59}, r"6 prompt tokens \+ 59 new tokens exceed .* 64.* to 58"),
        ([SHORT], {"extra": {"temprature": 2}}, "'temprature' is unknown; did you mean 'temperature'"),
        ([SHORT], {"extra": {"max_new_token": 2}}, "'max_new_token' is unknown; did you mean 'max_new_tokens'"),
        ([SHORT], {"extra": {"max_tokens": 2}}, "'max_tokens' is unknown; did you mean 'max_new_tokens'"),
        ([SHORT], {"extra": {"max_length": 2}}, "'max_length' is not served; send max_new_tokens"),
        ([SHORT], {"extra": {"num_return_sequences": 2}}, "'num_return_sequences' is not served"),
        ([SHORT], {"do_sample": True, "temperature": -1.0}, "temperature"),
        ([SHORT], {"do_sample": True, "top_p": 7.0}, "top_p is 7.0"),
        ([SHORT], {"repetition_penalty": -1.0}, "penalty"),
        ([SHORT], {"num_beams": 0}, "num_beams is 0"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_computed(engine, prompts, parameters, message) -> None:
    with pytest.raises(BadRequestError, match=message):
        engine.generate(prompts, GenerationParameters(**parameters))


def test_a_bias_is_no_token(engine) -> None:
    assert tokens(engine, [SHORT], max_new_tokens=2, extra={"sequence_bias": [[[5], -400.0]]})


def test_the_longest_request_that_fits_is_served(engine) -> None:
    assert len(tokens(engine, [LONG], max_new_tokens=58)[0]) == 58


def test_an_encoder_says_that_it_cannot_continue_a_text(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4
    )
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path)

    with pytest.raises(UnsupportedModelError, match="BertForMaskedLM gives logits"):
        accelerate.load(tmp_path).generate([SHORT], GenerationParameters())
