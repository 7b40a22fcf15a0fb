"""Whatever JSON a client sends, a task answers it or refuses it with 400; it never fails."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.scripted_engine import ScriptedEngine
from tests.support.tiny_models import tiny_tokenizer

from bloomery import tasks
from bloomery.formats import Style
from bloomery.tasks import AnswerOptions
from bloomery.tasks.pipeline_parameters import TASK_PARAMETERS
from djl_python import Input

TOKENIZER = tiny_tokenizer()
TEXTS = st.text(st.characters(), max_size=8) | st.sampled_from(["[MASK]", "To be", "\ud800", "a,b", "{}"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
NAMES = st.sampled_from(
    ["text", "text_pair", "question", "context", "past_user_inputs", "generated_responses", "conversation_id"]
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXTS, inner, max_size=4), max_leaves=8
)
KNOWN = sorted({name for parameters in TASK_PARAMETERS.values() for name in parameters})
GENERATION = ["max_new_tokens", "stop", "details", "return_full_text", "truncate", "seed", "n", "top_k", "temperature"]


class Same:
    """A fake engine whose result is the item itself."""

    max_tokens = 8
    mask_token: str | None = "[MASK]"

    def __init__(self, task: str) -> None:
        self.task = task

    def count_tokens(self, text: Any) -> int:
        return len(text)

    def run(self, items: Any, parameters: Any) -> list[Any]:
        return list(items)


def request_with(fields: dict[str, Any]) -> Input:
    inputs = Input()
    inputs.properties = {"Content-Type": "application/json"}
    inputs.content.add("data", bytearray(json.dumps(fields).encode()))
    return inputs


def bodies(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    parameters = st.none() | st.dictionaries(st.sampled_from(names), VALUES, max_size=3) | VALUES
    return st.fixed_dictionaries({"inputs": VALUES}, optional={"parameters": parameters, "stream": VALUES})


@pytest.mark.parametrize("task", TASK_PARAMETERS)
def test_pipelines(task: str) -> None:
    @settings(deadline=None, max_examples=60)
    @given(fields=bodies(KNOWN))
    def check(fields: dict[str, Any]) -> None:
        assert tasks.answer(Same(task), request_with(fields)).code in (200, 400)

    check()


@pytest.mark.parametrize("conversational", [False, True])
@pytest.mark.parametrize("shape", ["list", "nested", "object", "tgi"])
def test_text_generation(shape: Any, conversational: bool) -> None:
    options = AnswerOptions(style=Style(shape), conversational=conversational)

    @settings(deadline=None, max_examples=40)
    @given(fields=bodies(GENERATION))
    def check(fields: dict[str, Any]) -> None:
        engine = ScriptedEngine(TOKENIZER, [[70, 71]] * (len(fields["inputs"]) if _is_list(fields) else 1))
        output = tasks.answer(engine, request_with(fields), options)
        assert output.code in (200, 400)
        assert all(isinstance(piece, bytes) for piece in output.stream_content or ())

    check()


def _is_list(fields: dict[str, Any]) -> bool:
    return isinstance(fields["inputs"], list) and len(fields["inputs"]) > 0
