from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from bloomery.engines.base import GenerationParameters
from bloomery.errors import BadRequestError
from bloomery.formats import Compat, Style
from bloomery.tasks.options import AnswerOptions
from bloomery.tasks.request import GenerationRequest, read_request
from djl_python import Input

MakeInput = Callable[..., Input]


def test_one_text_is_one_prompt(request_of: MakeInput) -> None:
    assert read_request(request_of(b'{"inputs": "To be"}')) == GenerationRequest(prompts=("To be",))


def test_a_list_is_one_prompt_each(request_of: MakeInput) -> None:
    assert read_request(request_of(b'{"inputs": ["To be", "or not"]}')).prompts == ("To be", "or not")


def test_a_text_body_is_one_prompt(request_of: MakeInput) -> None:
    body = "Être\n{".encode()
    assert read_request(request_of(body, "text/plain; charset=utf-8")).prompts == ("Être\n{",)


def test_a_csv_body_with_a_column_of_inputs_is_one_prompt_for_each_row(request_of: MakeInput) -> None:
    body = b'"id","inputs"\r\n1,To be\n2,"or not, to be"\n'
    assert read_request(request_of(body, "text/csv; charset=utf-8")).prompts == ("To be", "or not, to be")


@pytest.mark.parametrize("body", ["To be, or not", 'To be, "or not', "my inputs are\nthese", "inputs"])
def test_other_csv_is_one_prompt(request_of: MakeInput, body: str) -> None:
    assert read_request(request_of(body.encode(), "text/csv")).prompts == (body,)


@pytest.mark.parametrize("body", ['inputs,a\n""\n', "a,inputs\nx\n"])
def test_a_row_of_csv_without_its_text_is_refused(request_of: MakeInput, body: str) -> None:
    with pytest.raises(BadRequestError, match=r"inputs\[0\]"):
        read_request(request_of(body.encode(), "text/csv"))


def test_csv_that_is_none_is_refused(request_of: MakeInput) -> None:
    with pytest.raises(BadRequestError, match="not CSV: field larger"):
        read_request(request_of(b"inputs\n" + b"x" * 200_000, "text/csv"))


def test_an_object_is_json_whatever_curl_says_of_it(request_of: MakeInput) -> None:
    assert read_request(request_of(b' {"inputs": "a"}', "application/x-www-form-urlencoded")).prompts == ("a",)


def test_every_parameter_arrives(request_of: MakeInput) -> None:
    parameters = {
        "max_new_tokens": 5,
        "do_sample": True,
        "temperature": 1,
        "top_k": 7,
        "top_p": 0.5,
        "repetition_penalty": 1.2,
        "num_beams": 2,
        "seed": 3,
        "stop": "\n",
        "ignore_eos": True,
        "return_full_text": False,
        "penalty_alpha": 0.5,
    }
    read = read_request(request_of(json.dumps({"inputs": "a", "parameters": parameters, "stream": True}).encode()))
    assert read.parameters == GenerationParameters(
        max_new_tokens=5,
        do_sample=True,
        temperature=1.0,
        top_k=7,
        top_p=0.5,
        repetition_penalty=1.2,
        num_beams=2,
        seed=3,
        stop_sequences=("\n",),
        ignore_eos=True,
        extra={"penalty_alpha": 0.5},
    )
    assert (read.return_full_text, read.stream) == (False, True)


def test_null_means_the_default(request_of: MakeInput) -> None:
    body = b'{"inputs": "a", "parameters": {"temperature": null, "seed": null}, "stream": null}'
    assert read_request(request_of(body)) == GenerationRequest(prompts=("a",))


def test_a_parameter_that_asks_for_nothing_is_accepted(request_of: MakeInput) -> None:
    parameters = {
        "n": 1,
        "watermark": False,
        "best_of": 1,
        "use_cache": True,
        "top_n_tokens": 0,
        "frequency_penalty": 0,
    }
    body = json.dumps({"inputs": "a", "parameters": parameters}).encode()
    assert read_request(request_of(body)) == GenerationRequest(prompts=("a",))


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("n", 2, "send the prompt several times"),
        ("best_of", 3, "send the prompt several times"),
        ("num_return_sequences", 2, "send the prompt several times"),
        ("top_n_tokens", 5, "details: true"),
        ("decoder_input_details", True, "send false"),
        ("watermark", True, "send false"),
        ("presence_penalty", 0.5, "repetition_penalty"),
        ("logprobs", 1, "details: true"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_can(
    request_of: MakeInput, name: str, value: object, remedy: str
) -> None:
    body = json.dumps({"inputs": "a", "parameters": {name: value}}).encode()
    with pytest.raises(BadRequestError) as caught:
        read_request(request_of(body))
    assert f"parameters.{name} is {json.dumps(value)}: " in str(caught.value)
    assert remedy in str(caught.value)


def test_what_the_answer_shall_tell_is_read(request_of: MakeInput) -> None:
    body = b'{"inputs": ["a"], "parameters": {"details": true, "return_full_text": false, "truncate": 3}}'
    read = read_request(request_of(body))
    assert (read.listed, read.details, read.return_full_text, read.truncate) == (True, True, False, 3)


def test_a_request_without_stop_sequences_gets_the_models(request_of: MakeInput) -> None:
    options = AnswerOptions(stop_sequences=("###",))
    own = b'{"inputs": "a", "parameters": {"stop": ["!"]}}'
    none = b'{"inputs": "a", "parameters": {"stop": []}}'
    requests = [request_of(b'{"inputs": "a"}'), request_of(b"a", "text/plain"), request_of(own), request_of(none)]
    found = [read_request(request, options).parameters.stop_sequences for request in requests]
    assert found == [("###",), ("###",), ("!",), ()]


@pytest.mark.parametrize(("compat", "sampled"), [("documented", False), ("0.27", False), ("0.36", True)])
def test_a_temperature_alone_means_sampling_since_lmi_0_32(
    request_of: MakeInput, compat: Compat, sampled: bool
) -> None:
    options = AnswerOptions(style=Style(compat=compat))
    hot = read_request(request_of(b'{"inputs": "a", "parameters": {"temperature": 0.7}}'), options)
    said = read_request(request_of(b'{"inputs": "a", "parameters": {"top_p": 0.7, "do_sample": false}}'), options)
    assert (hot.parameters.do_sample, said.parameters.do_sample) == (sampled, False)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The body is empty"),
        (b"{", "The body is not JSON"),
        (b"\xff", "byte 0xff at offset 0"),
        (b"[1]", "The body is [1]: it must be a JSON object"),
        (b"[" * 100_000, "nested too deeply"),
        (b"{}", "no field 'inputs'"),
        (b'{"inputs": "a", "prompt": "b"}', "Unknown field 'prompt'"),
        (b'{"inputs": "a", "temperature": 1}', "belong into parameters"),
        (b'{"inputs": {"text": "a"}}', 'inputs is {"text": "a"}: it must be a text or a list of texts'),
        (b'{"inputs": []}', "inputs is an empty list"),
        (b'{"inputs": ""}', "inputs is an empty text"),
        (b'{"inputs": ["a", ""]}', "inputs[1] is an empty text"),
        (b'{"inputs": ["a", 3]}', "inputs[1] is 3: it must be a text"),
        (b'{"inputs": "a\\ud83d"}', "half a surrogate pair"),
        (json.dumps({"inputs": ["a"] * 513}).encode(), "inputs holds 513 texts: at most 512"),
        (b'{"inputs": "a", "stream": "yes"}', 'stream is "yes": it must be true or false'),
        (b'{"inputs": "a", "parameters": [1]}', "parameters is [1]: it must be an object"),
    ],
)
def test_a_malformed_body_is_refused_in_words(request_of: MakeInput, body: bytes, message: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        read_request(request_of(body))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_new_tokens", 0, "parameters.max_new_tokens is 0: it must be an integer from 1"),
        ("max_new_tokens", -1, "is -1"),
        ("max_new_tokens", 3.5, "is 3.5: it must be an integer"),
        ("max_new_tokens", True, "is true: it must be an integer"),
        ("max_new_tokens", "30", 'is "30": it must be an integer'),
        ("max_new_tokens", 10**30, "it must be an integer"),
        ("do_sample", "true", 'parameters.do_sample is "true": it must be true or false'),
        (
            "temperature",
            0,
            "parameters.temperature is 0: for the most probable token",
        ),
        ("temperature", 1e-5, "must be a number from 0.0001 to 10000.0, such as 0.7"),
        ("temperature", "hot", 'is "hot"'),
        ("top_p", 1.5, "parameters.top_p is 1.5"),
        ("top_k", -1, "parameters.top_k is -1"),
        ("seed", -1, "parameters.seed is -1"),
        ("num_beams", 65, "from 1 to 64"),
        ("repetition_penalty", 0, "parameters.repetition_penalty is 0"),
        ("stop", 3, "parameters.stop is 3: it must be a list of texts"),
        ("stop_sequences", [""], "parameters.stop_sequences[0] has 0 characters"),
        ("stop_sequences", ["a"] * 65, "holds 65 texts"),
        ("return_full_text", 1, "parameters.return_full_text is 1"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_value(request_of: MakeInput, name: str, value: Any, message: str) -> None:
    body = json.dumps({"inputs": "a", "parameters": {name: value}}).encode()
    with pytest.raises(BadRequestError) as caught:
        read_request(request_of(body))
    assert message in str(caught.value)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_numbers_that_are_not_finite_are_refused(request_of: MakeInput, number: bytes) -> None:
    with pytest.raises(BadRequestError, match="not finite"):
        read_request(request_of(b'{"inputs": "a", "parameters": {"anything": [' + number + b"]}}"))


def test_a_parameter_under_two_names_is_refused(request_of: MakeInput) -> None:
    body = b'{"inputs": "a", "parameters": {"stop": ["a"], "stop_sequences": ["b"]}}'
    with pytest.raises(BadRequestError, match="two names"):
        read_request(request_of(body))


def test_a_content_type_that_is_no_request_is_refused(request_of: MakeInput) -> None:
    with pytest.raises(BadRequestError, match="Content-Type 'image/png' is not served here"):
        read_request(request_of(b"\x89PNG", "image/png"))


def test_a_long_value_is_cut_in_the_message(request_of: MakeInput) -> None:
    with pytest.raises(BadRequestError) as caught:
        read_request(request_of(json.dumps({"inputs": {"text": "a" * 10_000}}).encode()))
    assert len(str(caught.value)) < 300
