"""``python -m bloomery.bench.startup_baseline URI``, once per rank: what one does without us. Prints one JSON line.

Rank 0 downloads everything with boto3, then every rank reads the whole checkpoint with ``from_pretrained`` and has
DeepSpeed split it. The phases are those of ``startup``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main(uri: str) -> None:
    """See above. TMPDIR, RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT come from the environment."""
    began = time.perf_counter()
    phases: dict[str, float] = {}

    def over(phase: str) -> None:
        nonlocal began
        phases[phase], began = time.perf_counter() - began, time.perf_counter()

    import deepspeed
    import torch
    import transformers

    from bloomery.bench import transfer_manager
    from bloomery.engines.deepspeed import start_ranks  # DeepSpeed's own way compiles an operator here for a minute

    transformers.AutoModelForCausalLM  # noqa: B018 - the package loads its parts when they are named
    over("libraries")
    rank, directory = int(os.environ["RANK"]), Path(os.environ["TMPDIR"], "model")
    start_ranks(int(os.environ["WORLD_SIZE"]), "gloo")
    if rank == 0:
        directory.mkdir()
        transfer_manager.main(uri, directory)
    torch.distributed.barrier()
    over("transfer")
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    over("fill")
    engine = deepspeed.init_inference(
        model, dtype=torch.float32, tensor_parallel={"tp_size": int(os.environ["WORLD_SIZE"])}
    )
    with torch.no_grad():
        engine.module(torch.tensor([[2, 3, 4]]))
    torch.distributed.barrier()
    over("engine")
    print(json.dumps(phases), flush=True)
    sys.stdout.flush()
    os._exit(0)  # gloo aborts now and then when the interpreter tears it down


if __name__ == "__main__":
    main(sys.argv[1])
