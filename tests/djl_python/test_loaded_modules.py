"""What a worker process has loaded, and what it has not."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.tiny_models import tiny_model
from tests.support.worker_client import ServeHandler

REPORT = """
import json, sys
from djl_python import Output
{imports}

def handle(inputs):
    {load}
    if inputs.is_empty():
        return None
    return Output().add(json.dumps(sorted(sys.modules)))
"""


def test_a_handler_without_an_engine_loads_none(serve_handler: ServeHandler) -> None:
    worker = serve_handler(REPORT.format(imports="", load="pass"))
    worker.initialise()
    loaded = {name.partition(".")[0] for name in json.loads(worker.ask().text)}
    heavy = {"torch", "transformers", "deepspeed", "numpy", "boto3", "accelerate", "huggingface_hub"}
    assert not loaded & (heavy | {"aiohttp", "uvloop", "typer", "rich", "pydantic"})


def test_a_rank_with_an_engine_loads_no_serving_room_and_no_other_engine(
    serve_handler: ServeHandler, tmp_path: Path
) -> None:
    checkpoint = tiny_model("llama", tmp_path / "checkpoint")
    load = "huggingface.handle(inputs) if inputs.is_empty() else None"
    worker = serve_handler(REPORT.format(imports="from djl_python import huggingface", load=load))
    assert worker.initialise(model_id=str(checkpoint)).head.code < 300
    loaded = json.loads(worker.ask().text)
    assert "bloomery.engines.accelerate" in loaded
    serving_rooms = ("bloomery.workers", "bloomery.serving", "bloomery.http_api", "bloomery.cli", "aiohttp", "uvloop")
    assert not [name for name in loaded if name.startswith(serving_rooms)]
    # accelerate itself imports deepspeed and boto3 where they are installed; ours is what we answer for.
    assert "bloomery.engines.deepspeed" not in loaded
