from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.tiny_models import tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bloomery.tasks.detokenise import Detokeniser

TOKENIZER = tiny_tokenizer()


def pieces_of(tokenizer: Any, text: str, prompt: str = "") -> list[str]:
    prompt_ids = tokenizer(prompt)["input_ids"] if prompt else []
    row = Detokeniser(tokenizer, prompt_ids)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [*(row.add(token) for token in ids), row.flush()]


@pytest.fixture(scope="module")
def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """Llama's kind: words begin with ▁, whose blank is dropped at the start, and unknown characters are byte tokens."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    words = ["▁", "▁To", "▁be", "▁or", "ab", "a", "b"]
    vocabulary = {token: index for index, token in enumerate(["<unk>", "<s>", "</s>", *bytes_, *words])}
    merges = [("a", "b")]
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def test_the_pieces_are_the_text() -> None:
    assert "".join(pieces_of(TOKENIZER, "To be, or not to be")) == "To be, or not to be"


def test_half_a_character_is_held_back_until_it_is_whole() -> None:
    pieces = pieces_of(TOKENIZER, "日本")
    assert pieces == ["", "", "日", "", "", "本", ""]


def test_a_character_that_never_becomes_whole_is_shown_at_the_end_only() -> None:
    row = Detokeniser(TOKENIZER, [])
    ids = TOKENIZER("é")["input_ids"]
    assert len(ids) == 2
    assert row.add(ids[0]) == ""
    assert row.flush() == "\N{REPLACEMENT CHARACTER}"


def test_a_broken_character_is_shown_when_the_next_one_begins() -> None:
    row = Detokeniser(TOKENIZER, [])
    half, letter = TOKENIZER("é")["input_ids"][0], TOKENIZER("a")["input_ids"][0]
    assert [row.add(half), row.add(letter), row.flush()] == ["", "\N{REPLACEMENT CHARACTER}a", ""]


def test_special_tokens_add_nothing() -> None:
    row = Detokeniser(TOKENIZER, TOKENIZER("To")["input_ids"])
    assert [row.add(TOKENIZER.eos_token_id), row.add(TOKENIZER.pad_token_id), row.flush()] == ["", "", ""]


def test_a_token_beyond_the_vocabulary_adds_nothing() -> None:
    row = Detokeniser(TOKENIZER, [])
    assert [row.add(len(TOKENIZER) + 100), row.flush()] == ["", ""]


def test_a_blank_between_prompt_and_text_is_kept(sentencepiece_tokenizer: Any) -> None:
    row = Detokeniser(sentencepiece_tokenizer, sentencepiece_tokenizer.convert_tokens_to_ids(["<s>", "▁To"]))
    assert row.add(sentencepiece_tokenizer.convert_tokens_to_ids("▁be")) == " be"
    assert row.add(sentencepiece_tokenizer.convert_tokens_to_ids("▁or")) == " or"


def test_byte_tokens_of_one_character_come_out_together(sentencepiece_tokenizer: Any) -> None:
    row = Detokeniser(sentencepiece_tokenizer, [])
    ids = sentencepiece_tokenizer.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in "日本".encode()])
    assert [row.add(token) for token in ids] == ["", "", "日", "", "", "本"]


def test_a_prompt_of_byte_tokens_does_not_spoil_the_text(sentencepiece_tokenizer: Any) -> None:
    # The last six byte tokens begin inside a character: as context they would make every following byte invalid.
    prompt = sentencepiece_tokenizer.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in "日é日é".encode()])
    row = Detokeniser(sentencepiece_tokenizer, prompt)
    ids = sentencepiece_tokenizer.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in "本".encode()])
    assert [row.add(token) for token in ids] == ["", "", "本"]


@settings(deadline=None, max_examples=60)
@given(prompt=st.text(max_size=12), text=st.text(max_size=24))
def test_any_text_comes_out_whole_and_never_too_early(prompt: str, text: str) -> None:
    pieces = pieces_of(TOKENIZER, text, prompt)
    assert "".join(pieces) == text
    given_away = ""
    for piece in pieces:
        given_away += piece
        assert text.startswith(given_away)
