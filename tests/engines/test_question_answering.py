"""Spans, against an enumeration of every span there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.support.tiny_models import tiny_encoder

from bloomery.engines import accelerate
from bloomery.engines.pipelines import TransformersPipeline

QUESTION = "Shall I compare thee?"
CONTEXT = "To be, or not to be, that is the question: whether 'tis nobler in the mind to suffer"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder("QuestionAnswering", tmp_path_factory.mktemp("qa"))


@pytest.fixture(scope="module")
def engine(path: Path) -> TransformersPipeline:
    loaded = accelerate.load(path)
    assert isinstance(loaded, TransformersPipeline)
    return loaded


def ask(engine: TransformersPipeline, context: str = CONTEXT, **parameters: Any) -> Any:
    return engine.run([{"question": QUESTION, "context": context}], parameters)[0]


def every_span(path: Path, longest: int) -> list[tuple[float, int, int]]:
    """(score, start, end) of all spans of at most ``longest`` tokens, the best first; and the empty one last."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(path)
    encoded = tokenizer(QUESTION, CONTEXT, return_tensors="pt", return_offsets_mapping=True)
    offsets = encoded.pop("offset_mapping")[0].tolist()
    with torch.no_grad():
        output = model(**encoded)
    context = [place for place, sequence in enumerate(encoded.sequence_ids(0)) if sequence == 1]
    kept = [0, *context]
    starts = dict(zip(kept, output.start_logits[0, kept].softmax(0).tolist(), strict=True))
    ends = dict(zip(kept, output.end_logits[0, kept].softmax(0).tolist(), strict=True))
    spans = [
        (starts[first] * ends[last], offsets[first][0], offsets[last][1])
        for first in context
        for last in context
        if first <= last < first + longest
    ]
    return [*sorted(spans, reverse=True), (starts[0] * ends[0], 0, 0)]


def test_the_best_span_is_found(engine: TransformersPipeline, path: Path) -> None:
    score, start, end = every_span(path, longest=15)[0]
    found = ask(engine, align_to_words=False)
    assert found == {
        "score": pytest.approx(score, rel=1e-4),
        "start": start,
        "end": end,
        "answer": CONTEXT[start:end],
    }


def test_several_answers_are_in_the_order_of_their_scores(engine: TransformersPipeline, path: Path) -> None:
    expected = every_span(path, longest=3)[:4]
    found = ask(engine, top_k=4, max_answer_len=3, align_to_words=False)
    assert [(answer["start"], answer["end"]) for answer in found] == [(start, end) for _, start, end in expected]
    assert [answer["score"] for answer in found] == pytest.approx([score for score, _, _ in expected], rel=1e-4)


def test_the_empty_answer_takes_part_when_asked(engine: TransformersPipeline, path: Path) -> None:
    empty = every_span(path, longest=1)[-1][0]
    found = ask(engine, top_k=1000, max_answer_len=1, handle_impossible_answer=True, align_to_words=False)
    assert [answer["score"] for answer in found if not answer["answer"]] == [pytest.approx(empty, rel=1e-4)]


def test_an_answer_has_whole_words(engine: TransformersPipeline) -> None:
    for answer in ask(engine, top_k=20):
        assert CONTEXT[: answer["start"]][-1:] in ("", " ", *",:'")
        assert CONTEXT[answer["end"] :][:1] in ("", " ", *",:'")


def test_no_answer_is_given_twice(engine: TransformersPipeline) -> None:
    found = ask(engine, top_k=20)
    assert len({(answer["start"], answer["end"]) for answer in found}) == len(found)


def test_a_long_context_is_read_in_windows(engine: TransformersPipeline) -> None:
    context = " ".join([CONTEXT] * 20)
    in_one_window = ask(engine, context=CONTEXT)
    found = ask(engine, context=context, top_k=5)
    assert all(context[answer["start"] : answer["end"]] == answer["answer"] for answer in found)
    assert max(answer["start"] for answer in ask(engine, context=context, top_k=1000)) > 2 * len(CONTEXT)
    assert in_one_window["answer"] in CONTEXT


def test_windows_share_a_batch_without_changing_the_answer(engine: TransformersPipeline) -> None:
    items = [{"question": QUESTION, "context": " ".join([CONTEXT] * count)} for count in (1, 8)]
    together = engine.run(items, {"max_seq_len": 64, "doc_stride": 8})
    alone = [engine.run([item], {"max_seq_len": 64, "doc_stride": 8})[0] for item in items]
    assert [(answer["start"], answer["end"]) for answer in together] == [
        (answer["start"], answer["end"]) for answer in alone
    ]
    assert [answer["score"] for answer in together] == pytest.approx([answer["score"] for answer in alone], rel=1e-4)
