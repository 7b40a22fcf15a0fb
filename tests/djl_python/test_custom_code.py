"""A model.py without a handle: functions that load and predict, and formatters around the built-in handler."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.tiny_models import tiny_model
from tests.support.worker_client import ServeHandler, WorkerProcess, start_worker, write_model

from bloomery.errors import ConfigurationError
from bloomery.protocol.frames import Request
from djl_python import Output
from djl_python.custom_code import CustomCode
from djl_python.formatted_handler import formatted_handler
from djl_python.test_model import create_json_request

Formatted = Callable[[str], WorkerProcess]

MARKED = """
from djl_python import Input, Output
from djl_python.input_parser import init_handler, input_formatter, prediction_handler
from djl_python.output_formatter import output_formatter

@init_handler
def load_it(model_dir, **kwargs):
    return {"factor": 3}

@input_formatter
def numbers(inputs: Input, **kwargs):
    return [float(word) for word in inputs.get_as_string().split()]

@prediction_handler
def multiply(numbers, model, **kwargs):
    return [number * model["factor"] for number in numbers]

@output_formatter
def shown(prediction):
    return Output().add(" ".join(map(str, prediction)))
"""

SAGEMAKER = """
import json

def model_fn(model_dir):
    return 3

def input_fn(body, content_type):
    assert isinstance(body, bytes)
    return json.loads(body) if content_type == "application/json" else [len(body)]

def predict_fn(data, model):
    return [number * model for number in data]

def output_fn(prediction, accept):
    return "|".join(map(str, prediction)), "text/" + accept.partition("/")[2]
"""

MODEL_ONLY = """
class Model:
    def predict(self, rows):
        return [sum(row) for row in rows]

def model_fn(model_dir):
    return Model()
"""


def ready(worker: WorkerProcess, **properties: str) -> WorkerProcess:
    answer = worker.initialise(**properties)
    assert answer.head.code == 204, answer.text
    return worker


def test_marked_functions_of_any_name_are_the_handler(serve_handler: ServeHandler) -> None:
    worker = ready(serve_handler(MARKED))
    assert worker.ask("1 2.5").text == "3.0 7.5"


def test_sagemakers_functions_are_the_handler(serve_handler: ServeHandler) -> None:
    worker = ready(serve_handler(SAGEMAKER))
    answer = worker.ask("[1, 2]", Content_Type="application/json", Accept="text/csv")
    assert (answer.text, answer.head.properties) == ("3|6", {"Content-Type": "text/csv"})


@pytest.mark.parametrize(
    ("body", "properties", "expected"),
    [
        ('{"inputs": [[1, 2], [3, 4]]}', {"Content_Type": "application/json"}, {"predictions": [3, 7]}),
        ("[[1, 2]]", {}, {"predictions": [3]}),
        ("1,2\n3,4\n", {"Content_Type": "text/csv"}, {"predictions": [3, 7]}),
    ],
)
def test_what_a_script_leaves_out_has_defaults(
    serve_handler: ServeHandler, body: str, properties: dict[str, str], expected: object
) -> None:
    assert json.loads(ready(serve_handler(MODEL_ONLY)).ask(body, **properties).text) == expected


def test_joined_requests_of_a_script_are_answered_one_by_one(serve_handler: ServeHandler) -> None:
    worker = ready(serve_handler(MARKED))
    worker.send(batch(b"1", b"2 3"))
    content = {key: bytes(value) for key, value in worker.read_head().content or []}
    assert content == {"batch_0.": b"3.0", "batch_1.": b"6.0 9.0"}


def test_a_script_that_loads_nothing_says_what_is_missing(serve_handler: ServeHandler) -> None:
    answer = serve_handler("def predict_fn(data, model):\n    return data\n").initialise()
    assert answer.head.code == 424
    assert "add model_fn(model_dir) or a function marked @init_handler" in answer.text


def test_a_file_with_a_handle_uses_it_and_finds_its_formatters_in_the_properties(serve_handler: ServeHandler) -> None:
    handle = "\ndef handle(inputs):\n    return Output().add(inputs.get_property('output_formatter').__name__)\n"
    assert serve_handler(MARKED + handle).ask("x").text == "shown"


def test_a_recommended_entry_point_stands_in_for_a_missing_handle(serve_handler: ServeHandler, tmp_path: Path) -> None:
    other = "from djl_python import Output\ndef handle(inputs):\n    return Output().add('recommended')\n"
    worker = serve_handler("import sys\n", "--recommended-entry-point", "other_handler")
    (tmp_path / "0" / "model" / "other_handler.py").write_text(other)
    assert worker.ask("x").text == "recommended"


# --- formatters around the built-in handler

PAYLOADS = """
from djl_python.input_parser import input_formatter
from djl_python.output_formatter import output_formatter

@input_formatter
def prompt_of(payload: dict, tokenizer=None, **kwargs) -> dict:
    return {"inputs": payload.pop("prompt"), "parameters": {"max_new_tokens": 3, "return_full_text": False}, **payload}

@output_formatter
def named(response: dict) -> dict:
    return {"mine": response}
"""

TOKENS = """
import json
from djl_python import Input
from djl_python.encode_decode import decode
from djl_python.input_parser import input_formatter
from djl_python.output_formatter import TextGenerationOutput, output_formatter
from djl_python.request_io import TextInput

@input_formatter
def prompt_of(input_item: Input, **kwargs) -> TextInput:
    given = decode(input_item, input_item.get_property("Content-Type"))
    return TextInput(input_text=given["prompt"], parameters={"max_new_tokens": 3, "stream": given.get("stream", False)})

@output_formatter
def lines(output: TextGenerationOutput) -> str:
    sequence = output.sequences[output.best_sequence_index]
    token, first, last = sequence.get_next_token()
    record = {"id": token.id, "first": first, "last": last, "reason": sequence.finish_reason, "n": len(sequence.tokens)}
    return json.dumps({**record, "prompt": output.input.input_text}) + "\\n"
"""


@pytest.fixture(scope="module")
def formatted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Formatted]:
    """A worker per source of a model.py, with a tiny checkpoint; it starts once, because it loads transformers."""
    directory = tmp_path_factory.mktemp("formatted")
    checkpoint = tiny_model("llama", directory / "llama")
    workers: dict[str, WorkerProcess] = {}

    def worker_for(source: str) -> WorkerProcess:
        if source not in workers:
            private = directory / str(len(workers))
            write_model(private / "model", source)
            workers[source] = start_worker(private / "model", private)
            ready(workers[source], model_id=str(checkpoint))
        return workers[source]

    yield worker_for
    for worker in workers.values():
        worker.stop()


def batch(*bodies: bytes) -> Request:
    """Requests that a server joined."""
    content = [(f"batch_{index:03}.data", body) for index, body in enumerate(bodies)]
    return Request({"handler": "handle", "batch_size": str(len(bodies))}, content)


def test_formatters_see_the_payload_and_the_answer(formatted: Formatted) -> None:
    worker = formatted(PAYLOADS)
    (answer,) = json.loads(worker.ask('{"prompt": "To be"}', Content_Type="application/json").text)
    assert set(answer["mine"]) == {"generated_text"}
    assert not answer["mine"]["generated_text"].startswith("To be")


def test_a_formatter_sees_each_line_of_a_stream(formatted: Formatted) -> None:
    worker = formatted(PAYLOADS)
    answer = worker.ask('{"prompt": "To be", "stream": true}', Content_Type="application/json")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert len(lines) == 3
    assert all(set(line) == {"mine"} for line in lines)


def test_a_request_that_the_built_in_handler_refuses_keeps_its_status(formatted: Formatted) -> None:
    worker = formatted(PAYLOADS)
    assert worker.ask('{"prompt": 5}', Content_Type="application/json").head.code == 400


@pytest.mark.parametrize("stream", [False, True])
def test_a_formatter_sees_every_token(formatted: Formatted, stream: bool) -> None:
    worker = formatted(TOKENS)
    answer = worker.ask(json.dumps({"prompt": "To be", "stream": stream}), Content_Type="application/json")
    assert (answer.head.content is None) == stream
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [(line["first"], line["last"], line["n"]) for line in lines] == [
        (True, False, 1),
        (False, False, 2),
        (False, True, 3),
    ]
    assert [line["reason"] for line in lines] == [None, None, "length"]
    assert {line["prompt"] for line in lines} == {"To be"}


def test_several_prompts_are_formatted_one_after_another(formatted: Formatted) -> None:
    worker = formatted(TOKENS)
    answer = worker.ask('{"prompt": ["To be", "or not"]}', Content_Type="application/json")
    prompts = [json.loads(line)["prompt"] for line in answer.text.splitlines()]
    assert prompts == ["To be"] * 3 + ["or not"] * 3


def test_joined_requests_are_formatted_one_by_one(formatted: Formatted) -> None:
    worker = formatted(TOKENS)
    worker.send(batch(b'{"prompt": "To be"}', b'{"prompt": "or not"}'))
    content = worker.read_head().content or []
    assert [key for key, _value in content] == ["batch_0.", "batch_1."]
    assert [json.loads(bytes(value).splitlines()[0])["prompt"] for _key, value in content] == ["To be", "or not"]


def returns_nothing(payload: dict) -> None:
    return None


def takes_nothing() -> None:
    return None


def misses_a_key(payload: dict) -> dict:
    return {"inputs": payload["prompt"]}


@pytest.mark.parametrize(
    ("formatter", "error", "message"),
    [
        (returns_nothing, TypeError, "must return a TextInput or a dict, not NoneType"),
        (takes_nothing, ConfigurationError, "takes_nothing takes no argument"),
        (misses_a_key, KeyError, "prompt"),
    ],
)
def test_a_formatter_that_fails_is_told_of(
    formatter: Callable[..., object], error: type[Exception], message: str
) -> None:
    handle = formatted_handler(CustomCode(input_formatter=formatter), lambda inputs: Output())
    with pytest.raises(error, match=message):
        handle(create_json_request({}))
