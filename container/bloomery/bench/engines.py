"""All configurations of a model in one interleaved run, so that a busy minute hits all of them alike."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bloomery.bench import checkpoints
from bloomery.bench.configurations import BASELINE, CONFIGURATIONS, Configuration
from bloomery.bench.group import Group
from bloomery.bench.measure import ProcessorTime, in_order, share_of_others
from bloomery.bench.report import Call, Result


@dataclass(frozen=True)
class Work:
    """What every call asks for, and how often."""

    rounds: int = 5
    batch: int = 4
    prompt: int = 32
    new: int = 64
    dtype: str = "fp32"
    allreduce: str = "auto"
    layers: int = checkpoints.LAYERS
    configurations: Sequence[Configuration] = field(default_factory=lambda: CONFIGURATIONS)


def run(models: Sequence[str], work: Work) -> list[Result]:
    """Measure each model in turn."""
    return [result for model in models for result in _measure(model, work)]


def _measure(model: str, work: Work) -> list[Result]:
    path = checkpoints.ensure(model, work.layers)
    with tempfile.TemporaryDirectory(prefix="bloomery-bench-") as directory, contextlib.ExitStack() as stack:
        groups = [_loaded(stack, configuration, path, Path(directory), work) for configuration in work.configurations]
        _say(f"{model}: warming up")
        tokens = {group.configuration.name: _warm_up(group, work) for group in groups}
        calls: dict[str, list[Call]] = {group.configuration.name: [] for group in groups}
        for turn in range(work.rounds):
            for group in in_order(groups, turn):
                call = _call(group, work, seed=turn)
                calls[group.configuration.name].append(call)
                _say(
                    f"{model}: round {turn + 1} of {work.rounds}, {group.configuration.name}: {call.seconds:.2f} s, "
                    f"others' CPU {call.others:.0%}"
                )
        wanted = tokens.get(BASELINE)
        return [
            Result(
                model=model,
                configuration=group.configuration.name,
                dtype=work.dtype,
                tensor_parallel=group.configuration.tensor_parallel,
                tokens_per_call=work.batch * work.new,
                load_seconds=group.load_seconds,
                baseline_bytes=group.baseline_bytes,
                resident_bytes=group.resident_bytes,
                peak_bytes=group.peak_bytes,
                same_tokens=_same(wanted, tokens[group.configuration.name]),
                allreduce=_allreduce(Path(directory), group.configuration),
                calls=calls[group.configuration.name],
            )
            for group in groups
        ]


def _loaded(stack: contextlib.ExitStack, configuration: Configuration, path: Path, logs: Path, work: Work) -> Group:
    _say(f"{path.name}: loading {configuration.name}")
    group = Group(configuration, _log(logs, configuration))
    stack.callback(group.close)
    group.load(path, work.dtype, work.allreduce)
    return group


def _warm_up(group: Group, work: Work) -> list[list[int]]:
    # The first call allocates caches and makes oneDNN choose its kernels.
    tokens: list[list[int]] = group.generate(work.batch, work.prompt, work.new, seed=10**6)["tokens"]
    return tokens


def _call(group: Group, work: Work, seed: int) -> Call:
    watched = [os.getpid(), *group.pids]
    before = ProcessorTime.now(watched)
    answer = group.generate(work.batch, work.prompt, work.new, seed)
    others = share_of_others(before, ProcessorTime.now(watched))
    return Call(float(answer["seconds"]), float(answer["first"]), others)


def _same(wanted: list[list[int]] | None, got: list[list[int]]) -> float:
    """Greedy tokens equal to the baseline's: a check that all compute the same model, near ties aside."""
    if wanted is None:
        return float("nan")
    pairs = [pair for steps in zip(wanted, got, strict=True) for pair in zip(*steps, strict=True)]
    return sum(a == b for a, b in pairs) / len(pairs)


def _allreduce(logs: Path, configuration: Configuration) -> str:
    """What the ranks said they chose."""
    found = re.search(r"all-reduce between ranks: (.*)", _log(logs, configuration).read_text(errors="replace"))
    return found[1] if found else "-"


def _log(logs: Path, configuration: Configuration) -> Path:
    return logs / f"{configuration.name.replace(' ', '-')}.log"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
