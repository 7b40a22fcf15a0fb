"""The OpenAI door, by OpenAI's own client."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from tests.support.server import LABORATORY, REPOSITORY, Server, model_directory, serving

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Who goes there?"}]
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('Nobody directs this play') }}{% endif %}"
    "{{ m.role | upper }}.\n{{ m.content }}\n\n{% endfor %}{% if add_generation_prompt %}GHOST.\n{% endif %}"
)
# A handler that tells events as our own do, and stumbles.
STUMBLING = """
from bloomery.protocol.events import CONTENT_TYPE, Token, encode_event
from djl_python import Output

def events():
    yield encode_event(Token(0, 1, "To be"))
    raise ValueError("forgot the rest")

def handle(inputs):
    if inputs.is_empty():
        return None
    return Output().add_property("content-type", CONTENT_TYPE).add_stream_content(events(), output_formatter=None)
"""


def client_of(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demonstration model, with a chat template of the user's."""
    template = tmp_path_factory.mktemp("template") / "ghost.jinja"
    template.write_text(TEMPLATE)
    with serving(env={"OPTION_CHAT_TEMPLATE": str(template), "TENSOR_PARALLEL_DEGREE": "1"}, ready=False) as server:
        server.wait_ready(240)
        yield server


@pytest.fixture(scope="module")
def client(demonstration: Server) -> Iterator[openai.OpenAI]:
    with client_of(demonstration) as made:
        yield made


class TestTheDemonstration:
    def test_it_chats(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(
            model="shakespeare-bloom", messages=MESSAGES, max_tokens=12, temperature=0
        )
        assert (answer.object, answer.model) == ("chat.completion", "shakespeare-bloom")
        assert answer.choices[0].message.role == "assistant"
        assert answer.choices[0].message.content
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 12
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12

    def test_the_template_of_the_option_makes_the_prompt(self, client: openai.OpenAI) -> None:
        chat = client.chat.completions.create(model="any", messages=MESSAGES, max_tokens=12, temperature=0)
        prompt = "USER.\nWho goes there?\n\nGHOST.\n"
        completion = client.completions.create(model="any", prompt=prompt, max_tokens=12, temperature=0)
        assert chat.choices[0].message.content == completion.choices[0].text

    def test_a_streamed_chat_has_the_text_of_a_complete_one(self, client: openai.OpenAI) -> None:
        whole = client.chat.completions.create(model="any", messages=MESSAGES, max_tokens=12, temperature=0)
        with client.chat.completions.create(
            model="any",
            messages=MESSAGES,
            max_tokens=12,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        ) as stream:
            chunks = list(stream)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == whole.choices[0].message.content
        assert chunks[0].choices[0].delta.role == "assistant"
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
        assert chunks[-1].usage == whole.usage

    def test_completions_of_several_prompts_come_in_their_order(self, client: openai.OpenAI) -> None:
        answer = client.completions.create(
            model="any", prompt=["To be", "Shall I"], n=2, max_tokens=4, echo=True, seed=3
        )
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        assert [choice.text[:5] for choice in answer.choices] == ["To be", "To be", "Shall", "Shall"]

    def test_a_completion_is_streamed(self, client: openai.OpenAI) -> None:
        with client.completions.create(model="any", prompt="To be", max_tokens=6, temperature=0, stream=True) as stream:
            text = "".join(chunk.choices[0].text for chunk in stream)
        whole = client.completions.create(model="any", prompt="To be", max_tokens=6, temperature=0)
        assert text == whole.choices[0].text

    def test_sampling_with_a_seed_repeats_itself(self, client: openai.OpenAI) -> None:
        texts = {
            client.completions.create(model="any", prompt="To be", max_tokens=12, seed=7).choices[0].text
            for _ in range(2)
        }
        assert len(texts) == 1

    def test_a_stop_sequence_ends_the_answer(self, client: openai.OpenAI) -> None:
        whole = client.completions.create(model="any", prompt="To be", max_tokens=12, temperature=0).choices[0]
        word = whole.text.split()[-1]
        answer = client.completions.create(model="any", prompt="To be", max_tokens=12, temperature=0, stop=word)
        assert answer.choices[0].text == whole.text[: whole.text.index(word)]
        assert answer.choices[0].finish_reason == "stop"

    def test_log_probabilities_of_the_chosen_tokens(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(
            model="any", messages=MESSAGES, max_tokens=5, temperature=0, logprobs=True
        )
        assert answer.choices[0].logprobs is not None
        assert answer.choices[0].logprobs.content is not None
        assert all(token.logprob < 0 for token in answer.choices[0].logprobs.content)
        told = "".join(token.token for token in answer.choices[0].logprobs.content)
        assert told == answer.choices[0].message.content

    async def test_the_asynchronous_client_is_answered_and_streamed_to(self, demonstration: Server) -> None:
        async with openai.AsyncOpenAI(base_url=f"{demonstration.url}/v1", api_key="none", max_retries=0) as client:
            whole = await client.chat.completions.create(model="any", messages=MESSAGES, max_tokens=6, temperature=0)
            stream = await client.chat.completions.create(
                model="any", messages=MESSAGES, max_tokens=6, temperature=0, stream=True
            )
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert text == whole.choices[0].message.content

    def test_the_models_are_listed(self, client: openai.OpenAI) -> None:
        assert [model.id for model in client.models.list()] == ["shakespeare-bloom"]
        assert client.models.retrieve("shakespeare-bloom").id == "shakespeare-bloom"

    def test_an_unknown_model_is_not_found(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve("organisation/gpt")
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")

    @pytest.mark.parametrize(
        ("wrong", "param", "words"),
        [
            ({"temprature": 1}, "temprature", "did you mean 'temperature'"),
            ({"n": 0}, "n", "n is 0"),
            ({"tools": [{"type": "function"}]}, "tools", "calls no tools"),
        ],
    )
    @pytest.mark.parametrize("stream", [False, True])
    def test_a_wrong_request_is_a_400_in_words_streamed_or_not(
        self, client: openai.OpenAI, wrong: dict[str, Any], param: str, words: str, stream: bool
    ) -> None:
        with pytest.raises(openai.BadRequestError, match=words) as caught:
            client.chat.completions.create(model="any", messages=MESSAGES, stream=stream, extra_body=wrong)
        assert (caught.value.type, caught.value.param) == ("invalid_request_error", param)

    def test_what_does_not_fit_is_a_400_that_programs_understand(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="lower max_tokens to") as caught:
            client.chat.completions.create(model="any", messages=MESSAGES, max_tokens=5000)
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")

    def test_what_the_template_refuses_is_told_in_its_words(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="Nobody directs this play"):
            client.chat.completions.create(model="any", messages=[{"role": "system", "content": "Be brief."}])

    def test_a_client_that_leaves_a_stream_frees_the_model(self, demonstration: Server, client: openai.OpenAI) -> None:
        stream = client.chat.completions.create(
            model="any", messages=MESSAGES, max_tokens=900, stream=True, extra_body={"ignore_eos": True}
        )
        next(stream)
        stream.close()
        # The next request waits for the group; it would time out behind 900 tokens.
        assert client.completions.create(model="any", prompt="To be", max_tokens=2, timeout=60).choices
        metrics = demonstration.request("GET", "/metrics").body.decode()
        assert 'bloomery_requests_total{model="shakespeare-bloom",status="gone",version=""} 1.0' in metrics

    def test_invocations_takes_the_same_bodies(self, demonstration: Server) -> None:
        body = {"messages": MESSAGES, "max_tokens": 4, "temperature": 0}
        whole = demonstration.post(body).json()
        assert (whole["object"], whole["model"]) == ("chat.completion", "shakespeare-bloom")
        lines = demonstration.post({**body, "stream": True})
        assert lines.headers["content-type"] == "application/jsonlines"
        text = "".join(json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines.body.splitlines())
        assert text == whole["choices"][0]["message"]["content"]
        events = demonstration.post({**body, "stream": True}, Accept="text/event-stream")
        assert events.headers["content-type"] == "text/event-stream"
        assert events.body.endswith(b"data: [DONE]\n\n")


class TestAnOpaqueHandler:
    """One that answers in its own way passes unchanged."""

    def test_its_answer_is_passed_on_as_it_is(self, server: Server) -> None:
        order = {"messages": [], "do": "answer", "code": 203, "body": "my own way", "properties": {"X-Pot": "tea"}}
        reply = server.post(order, "/v1/chat/completions")
        assert (reply.status, reply.headers["x-pot"], reply.body) == (203, "tea", b"my own way")

    def test_it_gets_the_body_unchanged(self, server: Server) -> None:
        raw = '{ "prompt" : "To be",\n "colour": 1 }'
        reply = server.request("POST", "/v1/completions", raw, {"Content-Type": "application/json"})
        assert reply.json()["content"] == [["data", raw]]

    def test_its_stream_is_passed_on_as_it_is(self, server: Server) -> None:
        order = {"messages": [], "do": "stream", "content_type": "text/event-stream", "line": "data: {{}}\n\n"}
        reply = server.post(order, "/v1/chat/completions")
        assert reply.headers["content-type"] == "text/event-stream"
        assert reply.body == b"data: {}\n\n" * 3

    def test_its_exception_is_the_servers_fault(self, server: Server) -> None:
        with client_of(server) as client, pytest.raises(openai.InternalServerError, match="the dog ate it") as caught:
            client.chat.completions.create(
                model="any", messages=MESSAGES, extra_body={"do": "fail", "text": "the dog ate it"}
            )
        assert (caught.value.status_code, caught.value.type) == (500, "server_error")

    def test_events_that_are_none_are_the_servers_fault(self, server: Server) -> None:
        events = {"content-type": "application/x-bloomery-events"}
        order = {"messages": [], "do": "answer", "properties": events, "body": "what?"}
        reply = server.post(order, "/v1/chat/completions")
        assert (reply.status, reply.json()["error"]["type"]) == (500, "server_error")
        assert "what?" in reply.json()["error"]["message"]

    def test_streamed_events_that_are_none_break_the_stream(self, server: Server) -> None:
        order = {"messages": [], "do": "stream", "content_type": "application/x-bloomery-events"}
        with closing(server.connect()) as connection:
            connection.request("POST", "/v1/chat/completions", json.dumps(order))
            with pytest.raises(http.client.IncompleteRead) as broken:
                connection.getresponse().read()
        assert json.loads(broken.value.partial.decode().removeprefix("data: "))["error"]["type"] == "server_error"

    def test_its_own_refusal_is_passed_on_as_it_is(self, server: Server) -> None:
        order = {"messages": [], "do": "answer", "code": 418, "body": '{"error": {"message": "a teapot"}}'}
        reply = server.post(order, "/v1/chat/completions")
        assert (reply.status, reply.body) == (418, b'{"error": {"message": "a teapot"}}')


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"model": "x"}', "no field"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_body_that_is_none_is_a_400_in_openais_form(server: Server, path: str, body: bytes, words: str) -> None:
    reply = server.request("POST", path, body, {"Content-Type": "application/json"})
    assert (reply.status, reply.json()["error"]["type"]) == (400, "invalid_request_error")
    assert words in reply.json()["error"]["message"]


@pytest.mark.parametrize("value", [b"[],", b"{},", b"1,"])
def test_a_body_that_would_hold_up_the_server_is_refused_unread(server: Server, value: bytes) -> None:
    body = b'{"prompt": [' + value * (2**20) + b"1]}"
    reply = server.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    assert (reply.status, reply.json()["error"]["type"]) == (400, "invalid_request_error")
    assert "1048576" in reply.json()["error"]["message"]
    assert "not JSON" not in reply.json()["error"]["message"]


def test_a_long_prompt_is_not_refused(server: Server) -> None:
    text = "Friends, Romans, countrymen, lend me your ears; I come to bury Caesar, not to praise him. " * 100_000
    reply = server.post({"prompt": text, "do": "answer", "body": "heard"}, "/v1/completions")
    assert (reply.status, reply.body) == (200, b"heard")


def test_a_model_that_is_no_name_is_a_400(server: Server) -> None:
    reply = server.post({"model": 3, "prompt": "x"}, "/v1/completions")
    assert (reply.status, reply.json()["error"]["param"]) == (400, "model")


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/", "/v1/chat", "/v1/embeddings"])
def test_an_unknown_path_is_a_404_in_openais_form(server: Server, path: str) -> None:
    reply = server.post({"input": "x"}, path)
    assert (reply.status, reply.json()["error"]["type"]) == (404, "invalid_request_error")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_wrong_method_is_a_405_in_openais_form(server: Server, path: str) -> None:
    reply = server.request("GET", path)
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert "use POST" in reply.json()["error"]["message"]


def test_a_body_that_is_announced_too_large_is_refused_in_openais_form(tmp_path: Path) -> None:
    with serving(LABORATORY, env={"SERVING_MAX_REQUEST_SIZE": "1000"}) as server, closing(server.connect()) as waiting:
        waiting.putrequest("POST", "/v1/completions")
        waiting.putheader("Content-Length", "5000")
        waiting.putheader("Expect", "100-continue")
        waiting.endheaders()
        reply = waiting.getresponse()
        assert (reply.status, json.loads(reply.read())["error"]["type"]) == (413, "invalid_request_error")


def test_an_error_that_was_kept_is_collected_in_openais_form(tmp_path: Path) -> None:
    order = {"prompt": "x", "do": "answer", "body": "y" * 2000}
    with serving(LABORATORY, env={"SERVING_ASYNC_MAX_BYTES": "1000"}) as server:
        token = server.post(order, "/v1/completions", **{"x-synchronous": "false"}).headers["x-next-token"]
        while (reply := server.post(order, "/v1/completions", **{"x-starting-token": token})).status == 202:
            pass
        assert (reply.status, reply.json()["error"]["type"]) == (503, "server_error")
        assert "async_max_bytes" in reply.json()["error"]["message"]


def test_a_stream_that_breaks_off_ends_with_an_error_and_without_done(tmp_path: Path) -> None:
    with serving(model_directory(tmp_path / "stumbling", STUMBLING)) as server:
        with client_of(server) as client:
            stream = client.chat.completions.create(model="any", messages=MESSAGES, stream=True)
            assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "To be"]
            with pytest.raises(openai.APIError, match="forgot the rest"):
                next(stream)
        with closing(server.connect()) as connection:
            connection.request("POST", "/v1/completions", json.dumps({"prompt": "x", "stream": True}))
            with pytest.raises(http.client.IncompleteRead) as broken:
                connection.getresponse().read()
        last = broken.value.partial.decode().rstrip().rpartition("\n\n")[2]
        assert json.loads(last.removeprefix("data: "))["error"]["type"] == "server_error"
        assert b"[DONE]" not in broken.value.partial


def test_a_model_without_a_chat_template_names_what_to_do(tmp_path: Path) -> None:
    from tests.support.tiny_models import tiny_model

    checkpoint = tiny_model("bloom", tmp_path / "tiny")
    with serving(checkpoint, ready=False) as server, client_of(server) as client:
        server.wait_ready(240)
        with pytest.raises(openai.BadRequestError, match=r"/v1/completions.*option\.chat_template"):
            client.chat.completions.create(model="tiny", messages=MESSAGES)
        assert client.completions.create(model="tiny", prompt="To be", max_tokens=2).choices


def test_a_chat_template_that_is_none_fails_the_load_in_words(tmp_path: Path) -> None:
    missing = tmp_path / "missing.jinja"
    with serving(
        REPOSITORY / "models" / "shakespeare-bloom", "-o", f"option.chat_template={missing}", ready=False
    ) as server:
        assert server.wait(240) == 1
        assert (
            f"option.chat_template={missing}: it is neither Jinja text nor the path of a readable file" in server.log()
        )


class TestSeveralModels:
    @pytest.fixture(scope="class")
    @classmethod
    def several(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        root = tmp_path_factory.mktemp("models")
        for name in ("hamlet", "lear"):
            model_directory(root / name, (LABORATORY / "model.py").read_text())
        with serving(root) as server:
            for name in ("hamlet", "lear"):
                server.wait_for(f"(?m)^ready: model {name} ")
            yield server

    def test_all_are_listed(self, several: Server) -> None:
        with client_of(several) as client:
            assert {model.id for model in client.models.list()} == {"hamlet", "lear"}

    def test_the_body_names_the_model(self, several: Server) -> None:
        reply = several.post({"model": "lear", "prompt": "x", "do": "report"}, "/v1/completions")
        assert reply.json()["properties"]["model_dir"].endswith("/lear")

    def test_one_that_is_not_there_is_a_404_that_names_those_that_are(self, several: Server) -> None:
        with client_of(several) as client, pytest.raises(openai.NotFoundError, match=r"hamlet|lear") as caught:
            client.chat.completions.create(model="macbeth", messages=MESSAGES)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")

    def test_none_at_all_is_a_400(self, several: Server) -> None:
        reply = several.post({"prompt": "x"}, "/v1/completions")
        assert (reply.status, reply.json()["error"]["type"]) == (400, "invalid_request_error")


def test_a_model_that_loads_is_a_503_that_says_when_to_try_again(tmp_path: Path) -> None:
    release = tmp_path / "release"
    loading = f"""
import os, time
while not os.path.exists({str(release)!r}):
    time.sleep(0.02)
def handle(inputs):
    return None
"""
    with serving(model_directory(tmp_path / "slow", loading), ready=False) as server:
        reply = server.post({"model": "slow", "messages": MESSAGES}, "/v1/chat/completions")
        release.touch()
        assert (reply.status, reply.json()["error"]["code"]) == (503, "service_unavailable")
        assert "is loading" in reply.json()["error"]["message"]
        assert int(reply.headers["retry-after"]) > 0


def test_a_body_over_the_limit_is_a_413(tmp_path: Path) -> None:
    with serving(LABORATORY, env={"SERVING_MAX_REQUEST_SIZE": "1000"}) as server:
        reply = server.post({"prompt": "x" * 2000}, "/v1/completions")
    assert (reply.status, reply.json()["error"]["type"]) == (413, "invalid_request_error")
