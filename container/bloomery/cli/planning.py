"""``bloomery plan``: what a checkpoint needs, what it fits on, and how to deploy it there."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bloomery import cli
from bloomery.checkpoints.progress import megabytes
from bloomery.cli.account import Account
from bloomery.errors import ConfigurationError
from bloomery.sagemaker.operating.prices import Prices
from bloomery.sagemaker.planning import Option, Plan, plan
from bloomery.sagemaker.quotas import endpoint_quotas, quota_name
from bloomery.sagemaker.session import Session

_GIB = 1 << 30
_COLUMNS = (
    "instance type",
    "GPUs",
    "ranks",
    "copies",
    "usable GiB",
    "weights",
    "cache",
    "other",
    "free",
    "largest batch",
    "largest length",
    "load s",
)
_WIDTH = 112  # of the whole table
_QUOTAS = 6  # types of which the text names the account's quota


def show(
    checkpoint: str,
    prices: Sequence[str],
    account: Account,
    as_json: bool,
    *,
    check_quota: bool,
    check_price: bool,
    **wanted: Any,
) -> int:
    """Print the plan; ``wanted``: as ``planning.plan`` takes it. The exit code says whether something fits."""
    given = _prices(prices, wanted["instance_types"])
    made = plan(checkpoint, prices=given, **wanted)
    if check_quota or check_price:
        fitting = list(dict.fromkeys(option.instance_type for option in made.options if option.fits))
        with account.open() as session:
            if check_price:  # a price that is given counts more
                made = made.priced({**_listed(session, fitting), **given})
            if check_quota:
                made = replace(made, quotas=endpoint_quotas(session, fitting))
    if as_json:
        print(json.dumps(made.to_dict(), indent=2))
    else:
        _print(made, chosen=bool(wanted["instance_types"]))
    return cli.OK if made.recommended else cli.REFUSED


def _listed(session: Session, instance_types: Sequence[str]) -> Mapping[str, float]:
    """AWS's prices, as far as its list has them."""
    known = Prices(session)
    return {name: price for name in instance_types if (price := known.of(name).per_hour) is not None}


def _prices(given: Sequence[str], instance_types: Sequence[str]) -> Mapping[str, float]:
    """``ml.g5.12xlarge=7.09``, or ``7.09`` where one instance type is named."""
    found = {}
    for text in given:
        name, separator, value = text.rpartition("=")
        if not separator and len(instance_types) == 1:
            name = instance_types[0]
        try:
            found[name] = float(value)
        except ValueError:
            name = ""
        if not name or not math.isfinite(found[name]):
            raise ConfigurationError(
                f"--price {text}: give TYPE=USD, such as ml.g5.12xlarge=7.09, or USD alone with one --instance-type"
            )
    return found


def _print(made: Plan, chosen: bool) -> None:
    for line in _head(made):
        print(line)
    print()
    options = list(made.options) if chosen else [option for option in made.best_of_each() if option.fits]
    if options:
        priced = any(option.price is not None for option in options)
        _table((*_COLUMNS, "USD/h") if priced else _COLUMNS, [_row(option, priced) for option in options])
        print()
    small = [] if chosen else [option for option in made.best_of_each() if not option.fits]
    if small:
        print(_too_small(small))
        print()
    for line in _tail(made):
        print(line)


def _head(made: Plan) -> Iterator[str]:
    facts, form = made.facts, made.form
    stored = ", ".join(f"{megabytes(size)} {dtype}" for dtype, size in facts.stored_dtypes.items())
    split = f", split over {facts.split_ranks} ranks ahead of time" if facts.split_ranks else ""
    way = "DeepSpeed's own kernels" if form.injected else "automatic tensor parallelism"
    computed = f", computed in {form.computed}" if form.dtype != form.computed else ""
    document = made.to_dict()
    yield facts.uri
    yield f"  model              {facts.model_type or '?'}, {facts.parameters:,} parameters"
    yield f"  stored             {facts.format}: {stored}{split}"
    yield f"  planned            {form.dtype}{computed}, {way}"
    yield f"  kernel injection   {document['kernel_injection']['remark']}"
    yield f"  licence            {made.licence.name or 'none named'}: {made.licence.remark}"
    yield f"  work               batch {made.work.batch} of {made.work.length} tokens, prompt and answer together"
    yield f"  cache              {made.cache_per_token / 1000:,.0f} KB per token on all ranks together"
    fullest = max(made.ranks, key=lambda rank: rank.total)
    parts = (
        (fullest.whole, "whole"),
        (fullest.part, "its part"),
        (fullest.head_copy, "its part of the tied head"),
        (fullest.scales, "scales"),
    )
    said = " + ".join(f"{megabytes(size)} {name}" for size, name in parts if size)
    ranks = "on one rank" if len(made.ranks) == 1 else f"on each of {len(made.ranks)} ranks"
    yield f"  weights            {megabytes(fullest.total)} {ranks}: {said}"


def _row(option: Option, priced: bool) -> list[str]:
    memory = option.memory
    cells = [
        option.instance_type,
        f"{option.accelerators} {option.accelerator}",
        str(option.degree),
        str(option.copies),
        _gib(option.usable),
        _gib(memory.weights),
        _gib(memory.cache),
        _gib(memory.activations + memory.overhead),
        _gib(option.free),
        f"{option.largest_batch}",
        f"{option.largest_length}",
        f"{option.load.expected:.0f}",
    ]
    if priced:
        cells.append("" if option.price is None else f"{option.price:.2f}")
    return cells


def _tail(made: Plan) -> Iterator[str]:
    if option := made.recommended:
        disk = f"do not set it: {option.volume.local} GB of local NVMe" if option.volume.local else option.volume.size
        yield f"recommended: {option.instance_type}"
        variables = " ".join(f"{name}={value}" for name, value in made.environment(option).items())
        yield f"  Environment                                   {variables}"
        yield f"  VolumeSizeInGB                                {disk}"
        yield f"  ModelDataDownloadTimeoutInSeconds             {option.timeouts.download}"
        yield f"  ContainerStartupHealthCheckTimeoutInSeconds   {option.timeouts.startup}"
        yield f"  quota to check                                {quota_name(option.instance_type)}"
    else:
        yield "recommended: nothing fits"
    for quota in list(made.quotas.values())[:_QUOTAS]:
        more = "" if quota.value else f"; ask for more before you deploy: {quota.how_to_raise(1)}"
        yield f"  this account's quota                          {quota.name}: {quota.value}{more}"
    for sentence in made.advice:
        yield f"note: {sentence}"


def _too_small(small: Sequence[Option]) -> str:
    sizes: dict[str, list[str]] = {}
    for option in small:
        family, _, size = option.instance_type.rpartition(".")
        sizes.setdefault(family, []).append(size)
    names = ", ".join(f"{family}.{{{','.join(each)}}}" for family, each in sorted(sizes.items()))
    nearest = small[0]
    return f"too small: {names}; the nearest, {nearest.instance_type}, lacks {_gib(-nearest.free)} GiB on each GPU"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
        for number, name in enumerate(columns):
            header = name.replace(" ", "\n") if number else name
            table.add_column(header, justify="right" if number > 1 else "left", no_wrap=True, vertical="bottom")
        for row in rows:
            table.add_row(*row, style="dim" if row[8].startswith("-") else None)
        # A narrow terminal breaks a line in two, which is better than rich's shortening numbers.
        Console(width=max(_WIDTH, shutil.get_terminal_size().columns)).print(table)
        return
    widths = [max(len(row[number]) for row in (columns, *rows)) for number in range(len(columns))]
    for row in (columns, *rows):
        cells = (cell.ljust(w) if n < 2 else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True)))
        print("  ".join(cells).rstrip())


def _gib(size: float) -> str:
    return f"{size / _GIB:.1f}"
