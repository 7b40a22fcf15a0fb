"""``bloomery bench``: measure an endpoint, print the tables, write the reports."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bloomery import cli
from bloomery.bench.endpoint import goodput, measuring, plan, workload
from bloomery.bench.endpoint.load import Level
from bloomery.bench.endpoint.opening import Opened, Place, opened
from bloomery.bench.endpoint.report import markdown, page, picture
from bloomery.cli.interruption import terminable
from bloomery.errors import ConfigurationError

__all__ = ["Place", "Wanted", "bench"]


@dataclass(frozen=True)
class Wanted:
    """The command line's words."""

    endpoint: str
    table: bool
    sweep: str | None
    rate: str | None
    burstiness: float
    trace: Path | None
    requests: int | None
    seconds: float | None
    prompts: str | None
    max_new_tokens: int
    batch: int | None
    goodput: str | None
    warmup: int | None
    stream: bool
    parameters: list[str]
    model: str | None
    tokenizer: str | None
    seed: int
    timeout: float
    name: str | None
    load_seconds: float | None
    price_per_hour: float | None
    limit: str | None
    compare: list[Path]
    output: Path | None
    picture: Path | None


def bench(wanted: Wanted, place: Place) -> int:
    """Do it. Raises ConfigurationError before anything is asked; the exit code is 1 when no request succeeded."""
    before = [_earlier(path) for path in wanted.compare]
    _writable(wanted)
    with terminable(), opened(wanted.endpoint, place, wanted.timeout) as endpoint, _progress() as progress:
        found = measuring.run(_plan(wanted, endpoint), endpoint, progress)
    reports = [found, *before]
    print(markdown.render(reports), end="")
    _write(wanted, found, reports)
    return cli.OK if any(level["succeeded"] for level in found["levels"]) else cli.REFUSED


def _plan(wanted: Wanted, endpoint: Opened) -> plan.Plan:
    prompts, words = workload.read_prompts(wanted.prompts or "random")
    asked = workload.Workload(
        dialect=endpoint.dialect,
        prompts=prompts,
        words=words,
        batch=plan.batch_size(wanted.batch, table=wanted.table),
        max_new_tokens=wanted.max_new_tokens,
        stream=wanted.stream and not wanted.table,
        parameters=plan.read_parameters(wanted.parameters),
        model=wanted.model or "",
        seed=wanted.seed,
    )
    if asked.dialect == "chat" and asked.batch > 1:
        raise ConfigurationError(f"--batch {asked.batch}: a chat is one prompt; use /v1/completions, or leave it out")
    return plan.Plan(
        name=wanted.name or wanted.endpoint,
        workload=asked,
        levels=_levels(wanted),
        table=wanted.table,
        warmup=wanted.warmup,
        objectives=goodput.read_objectives(wanted.goodput or ""),
        price_per_hour=wanted.price_per_hour,
        limit=plan.read_limit(wanted.limit) if wanted.limit else None,
        load_seconds=wanted.load_seconds,
        counter=plan.token_counter(wanted.tokenizer) if wanted.tokenizer else None,
    )


def _levels(wanted: Wanted) -> tuple[Level, ...]:
    if not wanted.table:
        return plan.read_levels(
            sweep=wanted.sweep,
            rate=wanted.rate,
            trace=wanted.trace,
            burstiness=wanted.burstiness,
            requests=wanted.requests,
            seconds=wanted.seconds,
        )
    if wanted.sweep or wanted.rate or wanted.trace:
        raise ConfigurationError("--table: its calls come one after the other; leave out --sweep, --rate and --trace")
    return (plan.table_level(wanted.requests, wanted.seconds),)


def _earlier(path: Path) -> dict[str, Any]:
    try:
        found: Any = json.loads(path.read_text())
        schema = found["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"--compare {path}: no report of bloomery bench ({error})") from error
    if schema != measuring.SCHEMA:
        raise ConfigurationError(f"--compare {path}: its schema is {schema!r}; this bloomery reads {measuring.SCHEMA}")
    return dict(found)


def _writable(wanted: Wanted) -> None:
    for option, path in (("--output", wanted.output), ("--picture", wanted.picture)):
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigurationError(f"{option} {path}: there is no directory {path.absolute().parent}")
    if wanted.picture and wanted.picture.suffix != ".svg":
        raise ConfigurationError(f"--picture {wanted.picture}: it is an SVG, so its name ends in .svg")


def _write(wanted: Wanted, found: dict[str, Any], reports: Sequence[dict[str, Any]]) -> None:
    texts: dict[Path, str] = {}
    if wanted.output:
        texts[wanted.output.with_name(f"{wanted.output.name}.json")] = json.dumps(found, indent=1) + "\n"
        texts[wanted.output.with_name(f"{wanted.output.name}.md")] = markdown.render(reports)
        texts[wanted.output.with_name(f"{wanted.output.name}.html")] = page.render(reports)
    if wanted.picture:
        texts[wanted.picture] = picture.render(reports)
    for path, text in texts.items():
        path.write_text(text)
    if texts:
        print(f"\nwritten: {', '.join(map(str, texts))}")


@contextmanager
def _progress() -> Iterator[measuring.Progress]:
    """A bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield measuring.unheard
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda name, done, total: bar.update(task, description=name, completed=done, total=total)
