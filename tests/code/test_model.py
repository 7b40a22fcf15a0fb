"""code/model.py as it is shipped, in real worker processes, with tiny checkpoints."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.tiny_models import tiny_model
from tests.support.worker_client import Answer, WorkerProcess, running_worker
from transformers import AutoModelForCausalLM, AutoTokenizer

from bloomery.protocol.frames import Request

CODE = Path(__file__).parents[2] / "code"
PROMPTS = ["To be, or not", "Shall"]
QUIET = {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            made[family] = tiny_model(family, tmp_path_factory.mktemp(family))
        return made[family]

    return of


@contextmanager
def ranks(private_dir: Path, degree: int) -> Iterator[list[WorkerProcess]]:
    """``degree`` workers that find each other, as the server starts them."""
    with closing(socket.socket()) as reserved, ExitStack() as stack:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        workers = []
        for rank in range(degree):
            env = {"TENSOR_PARALLEL_DEGREE": str(degree), "MASTER_ADDR": "127.0.0.1"}
            env["MASTER_PORT"] = str(reserved.getsockname()[1])
            for prefix in ("", "OMPI_COMM_WORLD_", "OMPI_COMM_WORLD_LOCAL_", "LOCAL_"):
                env[f"{prefix}RANK"] = str(rank)
                env[f"{prefix}{'SIZE' if 'OMPI' in prefix else 'WORLD_SIZE'}"] = str(degree)
            worker = running_worker(
                CODE,
                private_dir,
                "--tensor-parallel-degree",
                str(degree),
                env={**QUIET, **env},
                suffix=f".{rank}",
            )
            workers.append(stack.enter_context(worker))
        yield workers


def initialise(workers: list[WorkerProcess], **options: str) -> None:
    for worker in workers:  # all at once: loading is a meeting of all ranks
        worker.send(Request({"handler": "handle", **options}, []))
    for worker in workers:
        head = worker.read_answer().head
        assert head.code in (200, 204), worker.output


def ask(workers: list[WorkerProcess], **fields: Any) -> list[Answer]:
    body = json.dumps(fields).encode()
    for worker in workers:
        properties = {"handler": "handle", "Content-Type": "application/json"}
        worker.send(Request(properties, [("data", body)]))
    return [worker.read_answer() for worker in workers]


def greedy(path: Path, new_tokens: int) -> list[str]:
    """What unsharded transformers makes of each prompt alone."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    texts = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, do_sample=False)
        texts.append(prompt + tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    return texts


def test_model_py_is_short_enough_to_read_first() -> None:
    assert len((CODE / "model.py").read_text().splitlines()) < 80
    assert (CODE / "serving.properties").read_text() == "engine=DeepSpeed\n"


@pytest.fixture(scope="module")
def bloom(
    checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, list[WorkerProcess]]]:
    """One rank that serves a BLOOM checkpoint, for the tests that leave it as it was."""
    with ranks(tmp_path_factory.mktemp("sockets"), 1) as workers:
        initialise(workers, model_id=str(checkpoint("bloom")))
        yield checkpoint("bloom"), workers


def test_a_bloom_checkpoint_is_injected_and_answers(bloom: tuple[Path, list[WorkerProcess]]) -> None:
    path, workers = bloom
    (answer,) = ask(workers, inputs=PROMPTS, parameters={"max_new_tokens": 8})
    assert answer.head.code == 200, answer.text
    assert json.loads(answer.text) == [{"generated_text": text} for text in greedy(path, 8)]
    assert "no kernel injection" not in workers[0].output


def test_a_stream_is_lines_whose_texts_together_are_the_answer(bloom: tuple[Path, list[WorkerProcess]]) -> None:
    path, workers = bloom
    (answer,) = ask(workers, inputs=PROMPTS, stream=True, parameters={"max_new_tokens": 8})
    assert answer.head.properties["content-type"] == "application/jsonlines"
    lines = [json.loads(line)["outputs"] for line in answer.text.splitlines()]
    texts = [prompt + "".join(line[row] for line in lines) for row, prompt in enumerate(PROMPTS)]
    assert texts == greedy(path, 8)


def test_a_malformed_request_is_answered_400_and_the_next_one_is_served(
    bloom: tuple[Path, list[WorkerProcess]],
) -> None:
    _, workers = bloom
    (refused,) = ask(workers, inputs=3)
    assert (refused.head.code, refused.head.message) == (400, "Bad Request")
    (unknown,) = ask(workers, inputs="To be", parameters={"no_such_setting": 1})
    assert unknown.head.code == 400
    assert "no_such_setting" in unknown.text
    (served,) = ask(workers, inputs="To be", parameters={"max_new_tokens": 1})
    assert served.head.code == 200


def test_two_ranks_answer_what_one_model_answers(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    path = checkpoint("bloom")
    with ranks(tmp_path, 2) as workers:
        initialise(workers, model_id=str(path))
        answers = ask(workers, inputs=PROMPTS, parameters={"max_new_tokens": 8})
        assert [answer.head.code for answer in answers] == [200, 200]
        assert json.loads(answers[0].text) == [{"generated_text": text} for text in greedy(path, 8)]
        # A stop sequence ends the generation before the engine would: on both ranks at the same step, or the next
        # request would find them apart.
        first = greedy(path, 8)[1].removeprefix(PROMPTS[1])[1:3]
        stopped = ask(workers, inputs=PROMPTS[1], stream=True, parameters={"max_new_tokens": 200, "stop": [first]})
        assert stopped[0].head.content is None
        assert len(stopped[0].chunks) < 100
        again = ask(workers, inputs=PROMPTS, parameters={"max_new_tokens": 8})
        assert json.loads(again[0].text) == json.loads(answers[0].text)


def test_a_llama_checkpoint_is_split_without_injection_and_says_so(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    path = checkpoint("llama")
    with ranks(tmp_path, 1) as workers:
        initialise(workers, model_id=str(path), enable_streaming="true")
        assert "no kernel injection" in workers[0].output
        (answer,) = ask(workers, inputs=PROMPTS, stream=False, parameters={"max_new_tokens": 8})
        assert json.loads(answer.text) == [{"generated_text": text} for text in greedy(path, 8)]
        (streamed,) = ask(workers, inputs=PROMPTS, parameters={"max_new_tokens": 2})
        assert len(streamed.text.splitlines()) == 2


def test_a_checkpoint_that_is_not_there_fails_the_load_with_its_name(tmp_path: Path) -> None:
    with ranks(tmp_path, 1) as workers:
        missing = tmp_path / "nowhere"
        answer = workers[0].initialise(model_id=str(missing))
        assert answer.head.code >= 300
        assert f"{missing} does not exist" in json.loads(answer.text)["error"]
