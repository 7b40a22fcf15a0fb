"""One rank of a measured configuration: reads a JSON command per line, blocking, and answers with a JSON line.

Between commands it sleeps in a read, so that configurations which wait cost the measured one nothing but memory.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sys
import time
from typing import Any, TextIO

from bloomery.bench.measure import anonymous_bytes


def main() -> None:
    """Serve commands until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print on standard output must not mix with the answers
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    _serve(sys.stdin, answers)
    answers.flush()
    os._exit(0)  # torch 2.13 may abort when the interpreter tears a gloo group down


def _serve(commands: TextIO, answers: TextIO) -> None:
    import torch
    import transformers  # noqa: F401 (imported here so that loading is timed without it)

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    _say(answers, baseline=anonymous_bytes(os.getpid()))
    engine: Any = None
    for line in commands:
        command = json.loads(line)
        try:
            if command["op"] == "load":
                started = time.perf_counter()
                engine = _load(command)
                _say(answers, seconds=time.perf_counter() - started)
            else:
                _say(answers, **_generate(engine, command))
        except Exception as error:
            logging.exception("%s failed", command["op"])
            _say(answers, error=f"{type(error).__name__}: {error}")


def _say(answers: TextIO, **values: object) -> None:
    answers.write(json.dumps(values) + "\n")


def _load(command: dict[str, Any]) -> Any:
    path, dtype = command["path"], command["dtype"]
    if command["kind"] == "plain":
        return _plain(path, dtype)
    if command["kind"] == "python":
        from bloomery.engines import accelerate

        return accelerate.load(path, dtype=dtype)
    from bloomery.engines import deepspeed

    return deepspeed.load(
        path,
        tensor_parallel=command["tensor_parallel"],
        dtype=dtype,
        kernel_inject=command["kernel_inject"],
        allreduce=command["allreduce"],
    )


def _plain(path: str, dtype: str) -> Any:
    """What a user of accelerate has: the model as transformers loads it, none of our kernels."""
    from transformers import AutoModelForCausalLM

    from bloomery.engines import precision
    from bloomery.engines.generation import TransformersEngine

    number_format = precision.choose(dtype, None, "cpu").dtype
    model = AutoModelForCausalLM.from_pretrained(path, dtype=number_format, device_map="cpu").eval()
    return TransformersEngine(
        name="accelerate", model=model, model_type=model.config.model_type, tokenizer=None, max_tokens=1024
    )


def _generate(engine: Any, command: dict[str, Any]) -> dict[str, Any]:
    from bloomery.engines.base import GenerationParameters

    numbers = random.Random(command["seed"])
    prompts = [[numbers.randrange(10, 50000) for _ in range(command["prompt"])] for _ in range(command["batch"])]
    parameters = GenerationParameters(max_new_tokens=command["new"], ignore_eos=True)
    started = time.perf_counter()
    first = 0.0
    tokens: list[tuple[int | None, ...]] = []
    for step in engine.generate(prompts, parameters):
        first = first or time.perf_counter() - started
        tokens.append(step.tokens)
    return {"seconds": time.perf_counter() - started, "first": first, "tokens": tokens}


if __name__ == "__main__":
    main()
