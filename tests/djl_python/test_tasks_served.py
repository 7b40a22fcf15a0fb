"""Every task through the real server: one model each, by the built-in handlers, compared with plain transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import InferenceClient
from tests.support.server import Server, serving
from tests.support.tiny_models import tiny_encoder, tiny_model, tiny_seq2seq

TEXTS = ["To be, or not to be", "Shall I compare thee to a summer's day?"]
MASKED = [f"{text} [MASK]" for text in TEXTS]
CHECKPOINTS: dict[str, Callable[[Path], Path]] = {
    "text-classification": lambda path: tiny_encoder("SequenceClassification", path),
    "token-classification": lambda path: tiny_encoder("TokenClassification", path, "roberta"),
    "fill-mask": lambda path: tiny_encoder("MaskedLM", path),
    "question-answering": lambda path: tiny_encoder("QuestionAnswering", path),
    "text2text-generation": lambda path: tiny_seq2seq("t5", path),
    "conversational": lambda path: tiny_model("gpt2", path),
    "text-generation": lambda path: tiny_model("bloom", path),
}
OPTIONS = {
    "text-generation": "option.tgi_compat=true\noption.stop_sequence=['#never#']\n",
    "conversational": "option.task=conversational\n",
    "text2text-generation": "option.answer_format=object\n",
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {task: make(tmp_path_factory.mktemp("checkpoint") / task) for task, make in CHECKPOINTS.items()}


@pytest.fixture(scope="module")
def server(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    store = tmp_path_factory.mktemp("store")
    for task, path in checkpoints.items():
        (store / task).mkdir()
        properties = f"engine=Python\noption.model_id={path}\n{OPTIONS.get(task, '')}"
        (store / task / "serving.properties").write_text(properties)
    with serving(store, ready=False) as running:
        for task in checkpoints:
            running.wait_for(f"ready: model {task} on", seconds=180)
        yield running


def ask(server: Server, task: str, inputs: Any, parameters: Any = None, **fields: Any) -> Any:
    reply = server.post({"inputs": inputs, "parameters": parameters, **fields}, f"/predictions/{task}")
    assert reply.status == 200, reply.body
    return reply.json()


def test_classification(server: Server, checkpoints: dict[str, Path]) -> None:
    own = transformers.pipeline("text-classification", model=str(checkpoints["text-classification"]))
    assert ask(server, "text-classification", TEXTS[0]) == approximately(own(TEXTS[0]))
    assert ask(server, "text-classification", TEXTS, {"top_k": 2}) == approximately(own(TEXTS, top_k=2))


def test_tokens(server: Server, checkpoints: dict[str, Path]) -> None:
    own = transformers.pipeline("token-classification", model=str(checkpoints["token-classification"]))
    assert ask(server, "token-classification", TEXTS[0]) == approximately(own(TEXTS[0]))
    assert ask(server, "token-classification", TEXTS) == approximately(own(TEXTS))


def test_filling(server: Server, checkpoints: dict[str, Path]) -> None:
    own = transformers.pipeline("fill-mask", model=str(checkpoints["fill-mask"]))
    assert ask(server, "fill-mask", MASKED[0]) == approximately(own(MASKED[0]))
    assert ask(server, "fill-mask", MASKED, {"top_k": 2}) == approximately(own(MASKED, top_k=2))


def test_questions(server: Server) -> None:
    question = {"question": "Shall I compare thee?", "context": TEXTS[0]}
    found = ask(server, "question-answering", question)
    assert found["answer"] == TEXTS[0][found["start"] : found["end"]] != ""
    assert ask(server, "question-answering", [question, question]) == approximately([found, found])


def test_text_to_text(server: Server, checkpoints: dict[str, Path]) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoints["text2text-generation"])
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(checkpoints["text2text-generation"])
    with torch.no_grad():
        ids = model.generate(**tokenizer(TEXTS[0], return_tensors="pt"), max_new_tokens=8, do_sample=False)
    expected = tokenizer.decode(ids[0], skip_special_tokens=True)
    body = {"inputs": TEXTS[0], "parameters": {"max_new_tokens": 8, "details": True}}
    whole = ask(server, "text2text-generation", **body)
    streamed = server.post({**body, "stream": True}, "/predictions/text2text-generation")
    lines = [json.loads(line) for line in streamed.body.splitlines()]
    assert whole["generated_text"] == lines[-1]["generated_text"] == expected
    assert [line["token"]["id"] for line in lines] == ids[0, 1:].tolist()
    assert whole["details"]["tokens"] == [line["token"] for line in lines]


def test_text_generation_inferences_own_client(server: Server, checkpoints: dict[str, Path]) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoints["text-generation"])
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoints["text-generation"])
    with torch.no_grad():
        ids = model.generate(**tokenizer(TEXTS[0], return_tensors="pt"), max_new_tokens=8, do_sample=False)[0]
    prompt_tokens = len(tokenizer(TEXTS[0])["input_ids"])
    client = InferenceClient(model=f"{server.url}/predictions/text-generation", token="none")

    whole = client.text_generation(TEXTS[0], max_new_tokens=8, details=True)
    pieces = list(client.text_generation(TEXTS[0], max_new_tokens=8, details=True, stream=True))
    sampled = [client.text_generation(TEXTS[0], max_new_tokens=8, temperature=2.0, seed=seed) for seed in (1, 1, 2)]

    assert [token.id for token in whole.details.tokens] == ids[prompt_tokens:].tolist()
    assert [piece.token.id for piece in pieces] == ids[prompt_tokens:].tolist()
    assert pieces[-1].generated_text == whole.generated_text
    assert pieces[-1].details.input_length == prompt_tokens
    assert sampled[0] == sampled[1] != sampled[2]


def test_conversation(server: Server) -> None:
    first = ask(server, "conversational", {"text": "To be?"}, {"max_new_tokens": 4})
    second = ask(server, "conversational", {"text": "And why?", **first["conversation"]}, {"max_new_tokens": 4})
    assert second["conversation"]["past_user_inputs"] == ["To be?", "And why?"]
    assert second["conversation"]["generated_responses"] == [first["generated_text"], second["generated_text"]]


@pytest.mark.parametrize("task", CHECKPOINTS)
def test_a_wrong_request_is_answered_400_in_words(server: Server, task: str) -> None:
    refused = server.post({"inputs": [None]}, f"/predictions/{task}")
    assert (refused.status, refused.json()["code"]) == (400, 400)
    assert "inputs" in refused.json()["error"]


def approximately(value: Any) -> Any:
    """``value`` whose numbers need not agree in their last digits."""
    if isinstance(value, dict):
        return {key: approximately(each) for key, each in value.items()}
    if isinstance(value, list):
        return [approximately(each) for each in value]
    return value if isinstance(value, str | int) else pytest.approx(float(value), rel=1e-4)


def test_two_ranks_of_the_default_handler_classify(checkpoints: dict[str, Path]) -> None:
    path = checkpoints["text-classification"]
    own = transformers.pipeline("text-classification", model=str(path))
    options = ("-o", "engine=DeepSpeed", "-o", "option.tensor_parallel_degree=2", "-o", "option.allreduce=gloo")
    with serving(path, *options) as two_ranks:
        refused = two_ranks.post({"inputs": "be " * 300})
        answered = two_ranks.post({"inputs": TEXTS})
    assert (refused.status, answered.status) == (400, 200)
    assert answered.json() == approximately(own(TEXTS))
