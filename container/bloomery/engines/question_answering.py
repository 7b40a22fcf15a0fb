"""Extractive question answering, which transformers 5 has no pipeline for any more: the span of a context that answers
a question. Contexts longer than the model reads are cut into windows that overlap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from bloomery.errors import UnsupportedModelError


@dataclass(frozen=True)
class SpanOptions:
    """What a request may set, with the defaults of transformers' former pipeline. Lengths are in tokens."""

    top_k: int = 1
    doc_stride: int = 128
    max_answer_len: int = 15
    max_seq_len: int = 384
    max_question_len: int = 64
    handle_impossible_answer: bool = False
    align_to_words: bool = True


@dataclass(frozen=True)
class _Span:
    score: float
    start: int  # characters of the context
    end: int


class SpanFinder:
    """Called like a pipeline, with ``{"question": ..., "context": ...}`` items."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        if not tokenizer.is_fast:
            raise UnsupportedModelError(
                "question-answering needs a fast tokenizer (tokenizer.json), which knows where each token stands in "
                "its text"
            )
        self._model, self._tokenizer = model, tokenizer

    def __call__(self, items: Iterable[dict[str, str]], batch_size: int = 1, **options: Any) -> Iterator[Any]:
        """One result per item: ``{"score", "start", "end", "answer"}``, or a list of them when top_k is above 1."""
        asked = SpanOptions(**options)
        for item in items:
            context = item["context"]
            answers = [
                {"score": span.score, "start": span.start, "end": span.end, "answer": context[span.start : span.end]}
                for span in self._spans(item["question"], context, asked, batch_size)
            ]
            yield answers[0] if asked.top_k == 1 else answers

    def _spans(self, question: str, context: str, asked: SpanOptions, batch_size: int) -> list[_Span]:
        """The best spans of all windows, the best one first; none of the same characters twice."""
        windows = self._windows(question, context, asked)
        found: dict[tuple[int, int], float] = {}
        nothing = 1.0
        for first in range(0, len(windows["input_ids"]), batch_size):
            part = range(first, min(first + batch_size, len(windows["input_ids"])))
            for index, start, end in self._logits(windows, part):
                inside = torch.tensor([sequence == 1 for sequence in windows.sequence_ids(index)])
                joint, empty = _probabilities(start, end, inside, self._tokenizer.cls_token_id is not None)
                nothing = min(nothing, empty)
                for score, (left, right) in _best(joint, asked):
                    place = _characters(windows, index, left, right, context, asked.align_to_words)
                    found[place] = max(score, found.get(place, 0.0))
        spans = [_Span(score, *place) for place, score in found.items()]
        if asked.handle_impossible_answer:
            spans.append(_Span(nothing, 0, 0))
        ranked = sorted(spans, key=lambda span: -span.score)[: asked.top_k]
        return ranked or [_Span(nothing, 0, 0)]

    def _windows(self, question: str, context: str, asked: SpanOptions) -> Any:
        tokenizer = self._tokenizer
        ids = tokenizer(question, add_special_tokens=False, truncation=True, max_length=asked.max_question_len)
        around = tokenizer.num_special_tokens_to_add(pair=True)
        width = min(tokenizer.model_max_length, asked.max_seq_len)
        room = max(1, width - len(ids["input_ids"]) - around)
        if len(ids["input_ids"]) == asked.max_question_len:
            question = tokenizer.decode(ids["input_ids"], skip_special_tokens=True)
        return tokenizer(
            question,
            context,
            truncation="only_second",
            max_length=width,
            stride=min(asked.doc_stride, room // 2),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding=True,
        )

    def _logits(self, windows: Any, part: range) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Start and end logits of each window in ``part``, in fp32."""
        wanted = [name for name in self._tokenizer.model_input_names if name in windows]
        device = self._model.device
        inputs = {name: torch.tensor([windows[name][index] for index in part], device=device) for name in wanted}
        with torch.no_grad():
            output = self._model(**inputs, return_dict=True)
        starts, ends = output.start_logits.float().cpu(), output.end_logits.float().cpu()
        yield from zip(part, starts, ends, strict=True)


def _probabilities(
    start: torch.Tensor, end: torch.Tensor, inside: torch.Tensor, knows_none: bool
) -> tuple[torch.Tensor, float]:
    """How likely each [start, end] pair of the context's tokens is, and how likely none is: the classification token,
    the first one, is what models are trained to point at when there is no answer."""
    allowed = inside.clone()
    allowed[0] = knows_none
    starts = start.masked_fill(~allowed, float("-inf")).softmax(0)
    ends = end.masked_fill(~allowed, float("-inf")).softmax(0)
    return torch.outer(starts * inside, ends * inside), float(starts[0] * ends[0])


def _best(joint: torch.Tensor, asked: SpanOptions) -> Iterator[tuple[float, tuple[int, int]]]:
    """The best pairs whose end does not lie before their start and which are not too long; more than wanted, because
    several may lie in the same words."""
    possible = joint.triu().tril(asked.max_answer_len - 1).flatten()
    scores, places = possible.topk(min(2 * asked.top_k + 10, len(possible)))
    for score, place in zip(scores.tolist(), places.tolist(), strict=True):
        if score > 0:
            yield score, divmod(place, joint.shape[1])


def _characters(windows: Any, index: int, left: int, right: int, context: str, align: bool) -> tuple[int, int]:
    """Where the tokens from ``left`` to ``right`` stand in the context; with ``align``, the whole words there."""
    offsets = windows["offset_mapping"][index]
    start, end = offsets[left][0], offsets[right][1]
    if align:
        first, last = windows.token_to_word(index, left), windows.token_to_word(index, right)
        if first is not None and last is not None:
            start = windows.word_to_chars(index, first, sequence_index=1).start
            end = windows.word_to_chars(index, last, sequence_index=1).end
        start += len(context[start:end]) - len(context[start:end].lstrip())  # byte-level words begin with their blank
    return start, end
