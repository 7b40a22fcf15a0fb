"""Handlers that implement the rolling batch protocol with djl_python's own parts, and the shapes they answer in."""

from __future__ import annotations

import json
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from djl_python import Input, Output
from djl_python.input_parser import parse_input_with_formatter
from djl_python.output_formatter import TextGenerationOutput, TextInput, Token, get_output_formatter
from djl_python.request import Request
from djl_python.rolling_batch import RollingBatch, rolling_batch_inference, stop_on_any_exception
from djl_python.rolling_batch.rolling_batch import filter_unused_generation_params
from djl_python.test_model import TestHandler, create_concurrent_batch_request, decode_encoded_output_binary

NONE = SimpleNamespace(output_formatter="none")


class Letters(RollingBatch):
    """Generates the letters of a prompt, one per step."""

    @stop_on_any_exception
    def inference(self, new_requests: list[Request]) -> list[dict[str, Any]]:
        self.get_new_requests(new_requests)
        for request in self.active_requests:
            made = len(request.request_output.sequences[0].tokens)
            letter = str(request.input_text)[made]
            if letter == "!":
                raise ValueError("no such letter")
            last = made == len(str(request.input_text)) - 1
            request.set_next_token(Token(ord(letter), letter, -0.5), last, "length" if last else None)
        return self.postprocess_results()


def module_of(batch: RollingBatch) -> ModuleType:
    module = ModuleType("letters")

    def handle(inputs: Input) -> Output | None:
        if inputs.is_empty():
            return None
        parsed = parse_input_with_formatter(inputs, configs=batch.configs, rolling_batch=batch)
        return rolling_batch_inference(parsed, inputs, Output(), batch)

    module.handle = handle  # type: ignore[attr-defined]
    return module


def ask(handler: TestHandler, *bodies: object) -> list[dict[str, str]]:
    output = handler.inference(create_concurrent_batch_request(bodies))
    assert output.content.get_keys() == [f"batch_{index}." for index in range(len(bodies))]
    return [decode_encoded_output_binary(value) for value in output.content.values]


@pytest.fixture
def handler() -> TestHandler:
    return TestHandler(module_of(Letters(NONE)))


def test_every_request_gets_its_text(handler: TestHandler) -> None:
    texts = handler.inference_rolling_batch([{"inputs": "abc"}, {"inputs": "d"}, {"inputs": "ef"}])
    assert texts == {0: "abc", 1: "d", 2: "ef"}


def test_a_request_joins_those_that_are_running(handler: TestHandler) -> None:
    assert ask(handler, {"inputs": "abc"}) == [{"data": "a", "last": "False", "step_token_num": "1", "request_id": "0"}]
    first, second = ask(handler, b"", {"inputs": "x"})
    assert (first["data"], first["last"], first["request_id"]) == ("b", "False", "0")
    assert (second["data"], second["last"], second["request_id"]) == ("x", "True", "1")
    (last,) = ask(handler, b"")
    assert (last["data"], last["last"]) == ("c", "True")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"no json", "Expecting value"),
        ({"prompt": "x"}, 'field "inputs"'),
        ({"inputs": "x", "parameters": [1]}, "parameters must be an object, not list"),
    ],
)
def test_a_request_that_cannot_be_parsed_is_answered_and_harms_nobody(
    handler: TestHandler, body: object, reason: str
) -> None:
    good, bad = ask(handler, {"inputs": "ab"}, body)
    assert (good["data"], good["last"]) == ("a", "False")
    assert (bad["data"], bad["last"], bad["code"]) == ("", "True", "424")
    assert reason in bad["error"]
    assert ask(handler, b"")[0]["data"] == "b"


def test_a_step_that_fails_ends_all_requests_with_the_error(handler: TestHandler) -> None:
    steps = ask(handler, {"inputs": "a!"}, {"inputs": "bcd"})
    assert [step["last"] for step in steps] == ["False", "False"]
    assert [step["last"] for step in ask(handler, b"", b"")] == ["True", "True"]
    assert ask(handler, {"inputs": "new"})[0]["request_id"] == "0"


def test_a_batch_with_another_number_of_results_is_an_error() -> None:
    class Forgetful(Letters):
        def inference(self, new_requests: list[Request]) -> list[dict[str, Any]]:
            return []

    with pytest.raises(RuntimeError, match="a result for 0 requests, and the server waits for 1"):
        ask(TestHandler(module_of(Forgetful(NONE))), {"inputs": "x"})


def test_the_content_type_of_each_request_is_a_property() -> None:
    handler = TestHandler(module_of(Letters(SimpleNamespace(output_formatter=None))))
    bodies = [{"inputs": "ab", "stream": True}, {"inputs": "ab"}]
    output = handler.inference(create_concurrent_batch_request(bodies))
    assert output.get_properties() == {
        "batch_0_Content-Type": "application/jsonlines",
        "batch_1_Content-Type": "application/json",
    }


def test_the_servers_seed_is_a_parameter() -> None:
    inputs = create_concurrent_batch_request([{"inputs": "x"}])
    inputs.content.add("batch_000.seed", b"7")
    (request,) = parse_input_with_formatter(inputs).requests
    assert request.parameters["seed"] == "7"


def test_parameters_that_nobody_knows_are_warned_of_and_taken_out(caplog: pytest.LogCaptureFixture) -> None:
    parameters = {"top_k": 1, "beams": 2}
    assert filter_unused_generation_params(parameters, {"top_k"}, "Letters", True) == {"top_k": 1}
    assert "Letters does not know the parameters ['beams']" in caplog.text


# --- shapes


def written(formatter: str | None, stream: bool = False, tgi_compat: bool = False, **parameters: Any) -> str:
    """What a client reads of two tokens."""
    text = TextInput(input_text='say "hi"', parameters={**parameters, "stream": stream}, tgi_compat=tgi_compat)
    text.server_parameters = {"output_formatter": formatter}
    request = Request(text)
    request.set_next_token(Token(1, 'a"', -0.5))
    first = request.get_next_token()
    request.reset_next_token()
    request.set_next_token(Token(2, "é\n", -1.0), last_token=True, finish_reason="eos_token")
    return first + request.get_next_token()


TOKENS = [{"id": 1, "text": 'a"', "log_prob": -0.5}, {"id": 2, "text": "é\n", "log_prob": -1.0}]


def test_json_is_one_object() -> None:
    assert json.loads(written("json")) == {"generated_text": 'a"é\n'}
    assert json.loads(written(None)) == {"generated_text": 'a"é\n'}


def test_json_can_begin_with_the_prompt_and_tell_details() -> None:
    answer = json.loads(written("json", return_full_text=True, details=True))
    assert answer["generated_text"] == 'say "hi"a"é\n'
    expected = {"finish_reason": "eos_token", "generated_tokens": 2, "inputs": 'say "hi"', "tokens": TOKENS}
    assert answer["details"] == expected


def test_jsonlines_are_a_line_per_token() -> None:
    first, last = [json.loads(line) for line in written(None, stream=True, details=True).splitlines()]
    assert first == {"token": TOKENS[0]}
    assert (last["token"], last["generated_text"]) == (TOKENS[1], 'a"é\n')
    assert last["details"] == {"finish_reason": "eos_token", "generated_tokens": 2, "inputs": 'say "hi"'}


def test_tgi_has_its_own_dialect() -> None:
    (answer,) = json.loads(written("json", tgi_compat=True))
    assert answer["details"]["tokens"][0] == {"id": 1, "text": 'a"', "logprob": -0.5}
    events = written(None, stream=True, tgi_compat=True).split("\n\n")
    assert json.loads(events[0].removeprefix("data: ")) == {"token": {"id": 1, "text": 'a"', "logprob": -0.5}}


def test_none_is_the_text_itself() -> None:
    assert written("none") == 'a"é\n'


def test_a_formatter_of_the_users_own_has_no_content_type() -> None:
    def own(output: TextGenerationOutput) -> str:
        token, first, last = output.sequences[0].get_next_token()
        return f"{token and token.id}{first}{last};"

    assert get_output_formatter(own, False) == (own, None)
    text = TextInput(output_formatter=own)
    request = Request(text)
    request.set_next_token("a")
    request.set_next_token("b", last_token=True)
    assert request.get_next_token() == "-1TrueFalse;-1FalseTrue;"


def test_an_unknown_formatter_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    _, content_type = get_output_formatter("yaml", stream=True)
    assert content_type == "application/jsonlines"
    assert "no output formatter 'yaml'" in caplog.text
