"""What ``parameters`` may hold, task by task, and how each value is checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bloomery.errors import BadRequestError
from bloomery.tasks.fields import boolean, integer, show, text

Check = Callable[[str, object], Any]
MAX_TEXTS = 256


def _one_of(*words: str) -> Check:
    def check(name: str, value: object) -> str:
        if isinstance(value, str) and value in words:
            return value
        raise BadRequestError(f"{name} is {show(value)}: it must be one of {', '.join(words)}.")

    return check


def _texts(name: str, value: object) -> list[str]:
    """A list of texts; a text is taken as a list with commas."""
    entries = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(entries, list) or not entries:
        raise BadRequestError(f'{name} is {show(value)}: it must be a list of texts, such as ["good", "bad"].')
    if len(entries) > MAX_TEXTS:
        raise BadRequestError(f"{name} holds {len(entries)} texts: at most {MAX_TEXTS} are taken.")
    found = [text(f"{name}[{index}]", entry) for index, entry in enumerate(entries)]
    if not all(entry.strip() for entry in found):
        raise BadRequestError(f"{name} is {show(value)}: its texts must not be empty.")
    return found


def _template(name: str, value: object) -> str:
    """A sentence with one {}. Any other brace would be read as a field of a format string."""
    sentence = text(name, value)
    if sentence.count("{}") == 1 and sentence.count("{") == sentence.count("}") == 1:
        return sentence
    raise BadRequestError(
        f'{name} is {show(value)}: it must hold {{}} once, for the label, and no other brace, such as "This is {{}}."'
    )


_COUNT = integer(1, 10_000, 5)
_TOKENS = integer(1, 2**31 - 1, 128)

TASK_PARAMETERS: Mapping[str, Mapping[str, Check]] = {
    "text-classification": {
        "top_k": _COUNT,
        "function_to_apply": _one_of("sigmoid", "softmax", "none"),
        "truncation": boolean,
    },
    "token-classification": {
        "aggregation_strategy": _one_of("none", "simple", "first", "average", "max"),
        "ignore_labels": _texts,
    },
    "fill-mask": {"top_k": _COUNT, "targets": _texts, "truncation": boolean},
    "question-answering": {
        "top_k": _COUNT,
        "doc_stride": _TOKENS,
        "max_answer_len": _TOKENS,
        "max_seq_len": _TOKENS,
        "max_question_len": _TOKENS,
        "handle_impossible_answer": boolean,
        "align_to_words": boolean,
    },
    "zero-shot-classification": {
        "candidate_labels": _texts,
        "hypothesis_template": _template,
        "multi_label": boolean,
    },
    "feature-extraction": {"truncation": boolean},
}
