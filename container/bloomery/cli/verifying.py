"""``bloomery verify``: compare an endpoint with the unsharded model, print, and fail on what is not explained."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bloomery import cli
from bloomery.bench.endpoint import plan, workload
from bloomery.bench.endpoint.opening import Place
from bloomery.bench.verifying import verifying
from bloomery.cli.interruption import terminable

__all__ = ["Place", "verify"]
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
    with terminable():
        report = verifying.verify(
            endpoint,
            place,
            reference,
            _prompts(prompts),
            new_tokens,
            revision=revision,
            dtype=dtype,
            parameters=plan.read_parameters(parameters),
            timeout=timeout,
            answered=lambda count: print(f"{count} answers; comparing with {reference} …", file=sys.stderr),
        )
    print(verifying.table(report))
    if output:
        output.write_text(json.dumps(report, indent=1) + "\n")
    return cli.OK if report["passed"] else cli.REFUSED


def _prompts(choice: str | None) -> list[str]:
    found, words = workload.read_prompts(choice or f"random:len={_WORDS}")
    random = workload.Workload(words=words)
    return list(found) or [random.prompt(index) for index in range(_PROMPTS)]
