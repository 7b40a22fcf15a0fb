from __future__ import annotations

from typing import Any

import pytest

from bloomery.engines.base import GenerationParameters
from bloomery.errors import BadRequestError
from bloomery.tasks.openai_request import OpenAIRequest, is_openai, read_openai

MESSAGES = [{"role": "user", "content": "Who?"}]


def chat(**fields: Any) -> OpenAIRequest:
    return read_openai({"messages": MESSAGES, **fields})


def completion(**fields: Any) -> OpenAIRequest:
    return read_openai({"prompt": "To be", **fields})


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        ({"messages": MESSAGES}, True),
        ({"prompt": "To be"}, True),
        ({"inputs": "To be", "prompt": "x"}, False),
        ({"inputs": "To be"}, False),
        (["messages"], False),
        ("prompt", False),
    ],
)
def test_a_body_is_of_the_openai_form_by_its_fields(body: object, verdict: bool) -> None:
    assert is_openai(body) is verdict


def test_every_parameter_arrives() -> None:
    request = completion(
        max_tokens=5, temperature=0.7, top_p=0.9, n=2, stop=["\n"], seed=3, stream=True, echo=True,
        stream_options={"include_usage": True}, top_k=7, repetition_penalty=1.1, ignore_eos=True,
    )  # fmt: skip
    assert request == OpenAIRequest(
        messages=(),
        prompts=("To be",),
        parameters=GenerationParameters(
            do_sample=True,
            temperature=0.7,
            top_k=7,
            top_p=0.9,
            repetition_penalty=1.1,
            seed=3,
            stop_sequences=("\n",),
            ignore_eos=True,
        ),
        max_tokens=5,
        copies=2,
        echo=True,
        stream=True,
    )


def test_a_chat_may_fill_what_room_there_is_and_a_completion_gets_openais_sixteen_tokens() -> None:
    assert (chat().max_tokens, completion().max_tokens) == (None, 16)


def test_the_newer_name_of_the_limit_is_the_same_limit() -> None:
    assert chat(max_completion_tokens=7).max_tokens == 7
    assert chat(max_completion_tokens=7, max_tokens=7).max_tokens == 7


def test_without_a_temperature_it_samples_as_openai_does() -> None:
    assert chat().parameters == GenerationParameters(do_sample=True)


@pytest.mark.parametrize("temperature", [0, 0.0, 1e-5])
def test_temperature_0_is_greedy_and_leaves_out_what_only_sampling_reads(temperature: float) -> None:
    parameters = chat(temperature=temperature, top_p=0.5, top_k=3).parameters
    assert parameters == GenerationParameters(do_sample=False)


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("To be", ("To be",)),
        (["To be", "or not"], ("To be", "or not")),
        ([5, 6], ([5, 6],)),
        ([[5, 6], [7]], ([5, 6], [7])),
    ],
)
def test_prompts_are_texts_or_token_ids(prompt: object, prompts: tuple[object, ...]) -> None:
    assert completion(prompt=prompt).prompts == prompts


def test_a_negative_seed_is_a_seed() -> None:
    seed = chat(seed=-1).parameters.seed
    assert seed is not None
    assert 0 <= seed < 2**63


def test_one_stop_sequence_needs_no_list() -> None:
    assert chat(stop="\n").parameters.stop_sequences == ("\n",)


@pytest.mark.parametrize(("read", "value"), [(chat, True), (completion, 0)])
def test_the_chosen_tokens_log_probabilities_can_be_asked_for(read: Any, value: object) -> None:
    assert read(logprobs=value).log_probs
    assert not read(logprobs=None).log_probs


def test_what_is_about_the_client_has_no_effect() -> None:
    fields = {"model": "any", "user": "me", "metadata": {"a": "b"}, "store": True, "service_tier": "auto"}
    assert chat(**fields) == chat()


def test_null_asks_for_nothing() -> None:
    fields = ["max_tokens", "temperature", "n", "stop", "seed", "stream", "stream_options", "tools", "logit_bias"]
    assert chat(**dict.fromkeys(fields)) == chat()


def test_values_that_ask_for_nothing_are_accepted() -> None:
    nothing = {
        "presence_penalty": 0.0,
        "frequency_penalty": 0,
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "logit_bias": {},
        "top_logprobs": 0,
        "parallel_tool_calls": True,
    }
    assert chat(**nothing) == chat()


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"temprature": 1}, "temprature", "Unknown field 'temprature': did you mean 'temperature'?"),
        ({"zzz": 1}, "zzz", "Unknown field 'zzz': there are messages, "),
        ({"temperature": 2.5}, "temperature", "temperature is 2.5: it must be a number from 0 to 2"),
        ({"top_p": 0}, "top_p", "top_p is 0"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens is 0: it must be an integer from 1"),
        ({"n": 129}, "n", "n is 129: it must be an integer from 1 to 128"),
        ({"n": "2"}, "n", 'n is "2"'),
        ({"stop": [""]}, "stop", "stop[0] has 0 characters"),
        ({"seed": 1.5}, "seed", "seed is 1.5"),
        ({"stream": "yes"}, "stream", 'stream is "yes": it must be true or false'),
        ({"logprobs": 1}, "logprobs", "logprobs is 1: it must be true or false"),
        ({"top_logprobs": 2}, "top_logprobs", "alternatives to the chosen token are not told"),
        ({"presence_penalty": 0.5}, "presence_penalty", "repetition_penalty, such as 1.1, is"),
        ({"frequency_penalty": -1}, "frequency_penalty", "frequency_penalty is -1: it is not served"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "it is not served"),
        ({"tools": [{"type": "function"}]}, "tools", "this model calls no tools"),
        ({"response_format": {"type": "json_object"}}, "response_format", 'send {"type": "text"}'),
        ({"modalities": ["text", "audio"]}, "modalities", "this model writes text only"),
        ({"stream_options": 3, "stream": True}, "stream_options", "stream_options is 3: it must be an object"),
        ({"stream_options": {"usage": True}, "stream": True}, "stream_options", "stream_options.usage is unknown"),
        ({"echo": True}, "echo", "Unknown field 'echo'"),
        ({"messages": []}, "messages", "messages is []"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(fields: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        chat(**fields)
    assert words in str(caught.value)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": ""}, "prompt is an empty text"),
        ({"prompt": []}, "prompt is []: it must be a text or a list of texts"),
        ({"prompt": 3}, "prompt is 3"),
        ({"prompt": ["To be", 3]}, "prompt[1] is 3"),
        ({"prompt": [[5], []]}, "prompt[1] is []"),
        ({"prompt": [True]}, "prompt[0] is true"),
        ({"prompt": None}, "prompt is null: it must be given"),
        ({"logprobs": 3}, "logprobs is 3: alternatives to the chosen token are not told; send logprobs=0"),
        ({"suffix": "end"}, "suffix is"),
        ({"best_of": 3}, "best_of is 3 and n is 1"),
        ({"prompt": ["x"] * 5, "n": 128}, "n=128 of 5 prompt(s) are 640 answers: at most 512"),
        ({"echo": True, "logprobs": 0}, "echo and logprobs together"),
        ({"stream_options": {}}, "stream_options is given without stream"),
        ({"messages": MESSAGES}, "both messages and prompt"),
        ({"max_completion_tokens": 3}, "Unknown field 'max_completion_tokens': did you mean 'max_tokens'?"),
    ],
)
def test_a_completion_that_cannot_be_is_refused_in_words(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        completion(**fields)
    assert words in str(caught.value)


def test_two_limits_that_differ_are_refused() -> None:
    with pytest.raises(BadRequestError, match="two names of one limit"):
        chat(max_tokens=3, max_completion_tokens=4)
