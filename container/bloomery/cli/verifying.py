"""``bloomery verify``: compare an endpoint with the unsharded model, print, and fail on what is not explained."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bloomery import cli
from bloomery.bench.endpoint import plan, workload
from bloomery.bench.endpoint.opening import Place, opened
from bloomery.bench.verifying import verifying
from bloomery.bench.verifying.served import ask_all
from bloomery.cli.interruption import terminable
from bloomery.errors import ConfigurationError

__all__ = ["Place", "verify"]
DTYPES = ("fp16", "bf16", "fp32", "int8")
_PROMPTS, _WORDS = 8, 12


def verify(
    endpoint: str,
    place: Place,
    *,
    reference: str,
    revision: str | None,
    prompts: str | None,
    new_tokens: int,
    dtype: str | None,
    parameters: list[str],
    timeout: float,
    output: Path | None,
) -> int:
    """Exit code 0: the format explains every difference; 1: it does not."""
    if dtype not in (None, *DTYPES):
        raise ConfigurationError(f"--dtype {dtype}: it must be one of {', '.join(DTYPES)}")
    asked = _prompts(prompts)
    sent = plan.read_parameters(parameters)
    with terminable(), verifying.Reference(reference, revision) as model:
        with opened(endpoint, place, timeout) as target:
            served = ask_all(lambda: target.connect(stream=False), target.dialect, asked, new_tokens, sent)
        print(f"{len(served)} answers; comparing with {reference} …", file=sys.stderr)
        report = model.compare(served, dtype=dtype, new_tokens=new_tokens, name=endpoint)
    print(verifying.table(report))
    if output:
        output.write_text(json.dumps(report, indent=1) + "\n")
    return cli.OK if report["passed"] else cli.REFUSED


def _prompts(choice: str | None) -> list[str]:
    found, words = workload.read_prompts(choice or f"random:len={_WORDS}")
    random = workload.Workload(words=words)
    return list(found) or [random.prompt(index) for index in range(_PROMPTS)]
