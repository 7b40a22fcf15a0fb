from __future__ import annotations

import pytest

from bloomery.errors import ConfigurationError
from bloomery.formats import Style
from bloomery.tasks import AnswerOptions


def test_the_defaults_are_a_flat_list_and_json_lines() -> None:
    assert AnswerOptions.read({"model_id": "org/name"}) == AnswerOptions(False, Style("list", "jsonlines"), ())


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"answer_format": "object"}, AnswerOptions(False, Style("object"))),
        ({"answer_format": "nested", "compat": "0.27"}, AnswerOptions(False, Style("nested", compat="0.27"))),
        ({"rolling_batch": "auto"}, AnswerOptions(False, Style("object"))),
        ({"rolling_batch": "auto", "answer_format": "list"}, AnswerOptions(False, Style("list"))),
        ({"rolling_batch": "disable"}, AnswerOptions(False, Style("list"))),
        ({"tgi_compat": "true"}, AnswerOptions(False, Style("tgi", "sse"))),
        ({"answer_format": "tgi", "output_formatter": "jsonlines"}, AnswerOptions(True, Style("tgi", "jsonlines"))),
        ({"output_formatter": "sse"}, AnswerOptions(True, Style("list", "sse"))),
        ({"output_formatter": "jsonlines", "enable_streaming": "false"}, AnswerOptions(False, Style())),
        ({"output_formatter": "json", "enable_streaming": "huggingface"}, AnswerOptions(True, Style())),
        ({"output_formatter": "jsonlines_chat"}, AnswerOptions(True, Style())),
        ({"output_formatter": "none"}, AnswerOptions(False, Style(stream_form="text", plain=True))),
    ],
)
def test_the_style_is_chosen_by_options(properties: dict[str, str], expected: AnswerOptions) -> None:
    assert AnswerOptions.read(properties) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("['a','b']", ("a", "b")),
        ('["a, b"]', ("a, b",)),
        ("###", ("###",)),
        (r"['\n\n']", ("\n\n",)),
    ],
)
def test_stop_sequences_are_a_list_as_python_or_json_writes_it(text: str, expected: tuple[str, ...]) -> None:
    assert AnswerOptions.read({"stop_sequence": text}).stop_sequences == expected


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"answer_format": "xml"}, "option.answer_format=xml: it must be one of list, nested, object, tgi"),
        ({"compat": "0.20"}, "option.compat=0.20: it must be one of documented, 0.27, 0.36"),
        ({"output_formatter": "3p_stream"}, "third-party models are not made here; use one of json, jsonlines, sse"),
        ({"output_formatter": "yaml"}, "option.output_formatter=yaml"),
        ({"tgi_compat": "true", "answer_format": "list"}, "exclude each other"),
        ({"enable_streaming": "1"}, "option.enable_streaming=1: it must be one of true, false, huggingface"),
        ({"stop_sequence": "['a'"}, "option.stop_sequence=['a': it must be a list of texts"),
        ({"stop_sequence": "[1]"}, "it must be a list of texts"),
        ({"stop_sequence": "['']"}, "it must be a list of texts"),
    ],
)
def test_a_wrong_option_is_named_with_its_value(properties: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AnswerOptions.read(properties)
    assert message in str(caught.value)


def test_functions_among_the_properties_are_no_options() -> None:
    assert AnswerOptions.read({"output_formatter": print, "enable_streaming": True}).stream is True
