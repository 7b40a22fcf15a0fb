"""Have the reference look at the answers, in a process of its own, and judge."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Self

import bloomery
from bloomery.bench import tables
from bloomery.bench.endpoint.opening import Place, opened
from bloomery.bench.verifying.judging import SAFETY, UNIT_ROUNDOFF, Bounds, judge
from bloomery.bench.verifying.served import Served, ask_all
from bloomery.errors import BenchmarkError, ConfigurationError

SCHEMA = "bloomery.verify/1"
_TAIL = 1500  # characters of what the child said before it failed


class Reference:
    """The process that has the model, from the moment that its checkpoint is here. A context manager."""

    def __init__(self, checkpoint: str, revision: str | None) -> None:
        """Starts it, and fetches the checkpoint where need be. Raises BenchmarkError."""
        self._checkpoint = checkpoint
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bloomery.bench.verifying.reference"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        try:
            self._path = self._answer({"reference": checkpoint, "revision": revision})["path"]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        with suppress(BrokenPipeError):  # what it did not read any more
            self._process.communicate()
        self._log.close()

    def compare(self, served: Sequence[Served], *, dtype: str | None, new_tokens: int, name: str) -> dict[str, Any]:
        """The report as JSON would have it; ``passed`` is the verdict. Raises BenchmarkError."""
        answers = [each.as_json() for each in served]
        found = self._answer({"path": self._path, "dtype": dtype, "new_tokens": new_tokens, "served": answers})
        bounds = Bounds.of(found["dtype"], found["rows"])
        verdicts = [judge(each, row, bounds) for each, row in zip(served, found["rows"], strict=True)]
        return {
            "schema": SCHEMA,
            "name": name,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "bloomery": bloomery.__version__,
            "reference": self._checkpoint,
            "model": found["model"],
            "passed": all(each.passed for each in verdicts),
            "bounds": asdict(bounds) | {"safety": SAFETY},
            "max_new_tokens": new_tokens,
            "prompts": [asdict(each) | {"passed": each.passed} for each in verdicts],
        }

    def _answer(self, job: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # its log says why
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if line:
            found: dict[str, Any] = json.loads(line)
            if "error" not in found:
                return found
            raise BenchmarkError(f"the reference {self._checkpoint} cannot be used: {found['error']}")
        self._log.seek(0)
        raise BenchmarkError(f"the reference {self._checkpoint} could not be run:\n{self._log.read()[-_TAIL:]}")


def verify(
    endpoint: str,
    place: Place,
    reference: str,
    prompts: Sequence[str],
    new_tokens: int,
    *,
    revision: str | None,
    dtype: str | None,
    parameters: Mapping[str, Any] | None,
    timeout: float,
    answered: Callable[[int], object] = lambda count: None,
) -> dict[str, Any]:
    """The report of ``Reference.compare``. ``answered`` is told how many answers there are, when all are there.

    Raises ConfigurationError, BenchmarkError, TargetError and CallError.
    """
    if dtype not in (None, *UNIT_ROUNDOFF):
        raise ConfigurationError(f"--dtype {dtype}: it must be one of {', '.join(UNIT_ROUNDOFF)}")
    with Reference(reference, revision) as model:
        with opened(endpoint, place, timeout) as target:
            served = ask_all(
                lambda: target.connect(stream=False), target.dialect, prompts, new_tokens, dict(parameters or {})
            )
        answered(len(served))
        return model.compare(served, dtype=dtype, new_tokens=new_tokens, name=endpoint)


def table(report: dict[str, Any]) -> str:
    """Markdown, and the verdict in words."""
    head = ["prompt", "tokens", "same", "first divergence", "gap", "log-prob error", "verdict"]
    bounds = report["bounds"]
    lines = [tables.markdown(head, [_row(each) for each in report["prompts"]]), ""]
    lines.append(
        f"{report['model']}; {bounds['dtype']} explains a gap of {bounds['gap']:.2g} and a log-probability error of "
        f"{bounds['log_prob']:.2g} ({bounds['safety']:g} × what it changes in the reference itself)."
    )
    if any(each["by_text"] for each in report["prompts"]):
        lines.append(
            "The endpoint tells no token ids: its text was compared, token by token as the reference reads it."
        )
    lines += [f"- {_short(each['prompt'])}: {why}" for each in report["prompts"] for why in each["failures"]]
    count = sum(not each["passed"] for each in report["prompts"])
    lines.append("passed" if not count else f"FAILED: {count} of {len(report['prompts'])} prompts")
    return "\n".join(lines)


def _row(prompt: dict[str, Any]) -> list[str]:
    first, error = prompt["first"], prompt["log_prob_error"]
    parted = "none"
    if first:
        parted = f"{first['position']}: {first['served_text']!r}, reference {first['best_text']!r}"
    return [
        _short(prompt["prompt"]),
        str(prompt["tokens"]),
        str(prompt["same"]),
        parted.replace("|", "\\|"),
        f"{first['gap']:.2g}" if first else "–",
        "–" if error is None else f"{error:.2g}",
        "passed" if prompt["passed"] else "FAILED",
    ]


def _short(prompt: str) -> str:
    line = " ".join(prompt.split()).replace("|", "\\|")
    return line if len(line) <= 32 else f"{line[:31]}…"
