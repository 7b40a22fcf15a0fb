"""Encoder-decoders: what they write is what transformers' generate() writes, padded or not, on one rank and on two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from tests.support.rank_pair import run_pair
from tests.support.tiny_models import tiny_seq2seq

from bloomery.engines import accelerate, deepspeed
from bloomery.engines.base import GenerationParameters
from bloomery.errors import UnsupportedModelError

PROMPTS = [[5, 6, 7, 2], [11, 12, 13, 14, 15, 16, 17, 2]]
NEW = 10


def alone(path: Path) -> list[list[int]]:
    """Each prompt by itself, by transformers' own loop."""
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(path)
    model.generation_config.eos_token_id = None
    return [
        model.generate(torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False, pad_token_id=3)[0, 1:].tolist()
        for prompt in PROMPTS
    ]


@pytest.mark.parametrize("family", ["t5", "bart", "marian"])
def test_rows_of_different_lengths_are_written_as_if_they_were_alone(family: str, tmp_path: Path) -> None:
    engine = accelerate.load(tiny_seq2seq(family, tmp_path))
    steps = list(engine.generate(PROMPTS, GenerationParameters(max_new_tokens=NEW, ignore_eos=True)))
    assert engine.encoder_decoder
    assert [list(row) for row in zip(*(step.tokens for step in steps), strict=True)] == alone(tmp_path)


def test_beams_find_what_transformers_own_search_finds(tmp_path: Path) -> None:
    engine = accelerate.load(tiny_seq2seq("bart", tmp_path))
    steps = engine.generate(PROMPTS, GenerationParameters(max_new_tokens=NEW, num_beams=3))
    rows = [[token for token in row if token is not None] for row in zip(*(step.tokens for step in steps), strict=True)]
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    for prompt, row in zip(PROMPTS, rows, strict=True):
        found = model.generate(torch.tensor([prompt]), max_new_tokens=NEW, num_beams=3, do_sample=False)
        assert row == found[0, 1:].tolist()


RUN = """
import json, torch
from bloomery.engines import deepspeed
from bloomery.engines.base import GenerationParameters
torch.set_num_threads(1)
engine = deepspeed.load(PATH, allreduce="gloo")
steps = engine.generate(PROMPTS, GenerationParameters(max_new_tokens=NEW, ignore_eos=True))
print(json.dumps([list(row) for row in zip(*(step.tokens for step in steps))]))
"""


def test_two_ranks_write_as_one_process_does(tmp_path: Path) -> None:
    path = tiny_seq2seq("t5", tmp_path)
    script = RUN.replace("PATH", repr(str(path))).replace("PROMPTS", repr(PROMPTS)).replace("NEW", str(NEW))
    first, second = run_pair(script)
    assert first == second == alone(path)


def test_an_encoder_decoder_without_a_table_is_refused_over_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UnsupportedModelError, match="with a bart model cannot be split over ranks; use engine=Python"):
        deepspeed.load(tiny_seq2seq("bart", tmp_path))
