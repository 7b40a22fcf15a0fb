from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bloomery.bench.endpoint.clients import address
from bloomery.bench.endpoint.workload import Workload, read_prompts
from bloomery.errors import ConfigurationError


def body(workload: Workload, number: int = 0) -> Any:
    return json.loads(workload.body(number))


def test_an_invocation_asks_for_just_so_many_tokens_and_their_number() -> None:
    asked = body(Workload(max_new_tokens=7))
    assert asked["parameters"] == {"max_new_tokens": 7, "do_sample": False, "ignore_eos": True, "details": True}
    assert asked["stream"] is True
    assert isinstance(asked["inputs"], str)


def test_parameters_replace_ours_and_null_takes_them_away() -> None:
    asked = body(Workload(parameters={"ignore_eos": None, "top_k": 3}, stream=False))
    assert "ignore_eos" not in asked["parameters"]
    assert asked["parameters"]["top_k"] == 3
    assert "stream" not in asked


def test_a_batch_is_a_list_and_no_two_random_prompts_are_alike() -> None:
    workload = Workload(batch=4, words=12)
    prompts = [prompt for number in range(20) for prompt in body(workload, number)["inputs"]]
    assert len(set(prompts)) == 80
    assert {len(prompt.split()) for prompt in prompts} == {12}
    assert workload.body(3) == workload.body(3) != Workload(batch=4, words=12, seed=1).body(3)


def test_given_prompts_come_in_turns() -> None:
    workload = Workload(prompts=("a", "b", "c"), batch=2)
    assert [body(workload, number)["inputs"] for number in range(2)] == [["a", "b"], ["c", "a"]]


def test_openai_is_asked_in_its_own_words() -> None:
    chat = body(Workload(dialect="chat", prompts=("hello",), model="m", max_new_tokens=5))
    assert chat["messages"] == [{"role": "user", "content": "hello"}]
    assert (chat["model"], chat["max_tokens"], chat["stream_options"]) == ("m", 5, {"include_usage": True})
    assert body(Workload(dialect="completions", prompts=("hello",)))["prompt"] == "hello"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h:8080", ("http://h:8080/invocations", "invocations")),
        ("http://h:8080/", ("http://h:8080/invocations", "invocations")),
        ("http://h/predictions/m", ("http://h/predictions/m", "invocations")),
        ("https://h/v1/completions", ("https://h/v1/completions", "completions")),
        ("http://h:1/v1/chat/completions", ("http://h:1/v1/chat/completions", "chat")),
    ],
)
def test_the_path_says_which_api(url: str, expected: tuple[str, str]) -> None:
    assert address(url) == expected


@pytest.mark.parametrize("url", ["http://", "http://h:99999", "http://h:x"])
def test_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="such as http"):
        address(url)


def test_prompts_of_a_file(tmp_path: Path) -> None:
    plain, records = tmp_path / "p.txt", tmp_path / "p.jsonl"
    plain.write_text("To be\n\nor not\n")
    records.write_text('{"prompt": "To be"}\n{"inputs": "or"}\n"not"\n')
    assert read_prompts(str(plain)) == (("To be", "or not"), 0)
    assert read_prompts(str(records)) == (("To be", "or", "not"), 0)
    assert read_prompts("random:len=9") == ((), 9)


@pytest.mark.parametrize("choice", ["random:len=0", "random:long", "/nowhere/at.txt"])
def test_wrong_prompts_are_refused(choice: str) -> None:
    with pytest.raises(ConfigurationError, match="--prompts"):
        read_prompts(choice)
