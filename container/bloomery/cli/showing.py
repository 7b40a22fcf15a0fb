"""``bloomery status``: one endpoint, at one look or until nothing is going on."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime

from bloomery import cli
from bloomery.cli import human
from bloomery.cli.account import Account
from bloomery.cli.interruption import terminable
from bloomery.errors import SageMakerError
from bloomery.sagemaker.operating.description import CHANGING, Description, describe
from bloomery.sagemaker.operating.metrics import Metrics
from bloomery.sagemaker.operating.status import Status, look

FAILED, GOING_ON = 1, 3
_PERIOD, _PERIOD_HERE = 10.0, 0.5  # seconds between two looks, at AWS and at an emulator


def status(account: Account, name: str, watch: bool, as_json: bool) -> int:
    """Print it; the exit code says how it is."""
    with terminable(), account.open() as session:
        found = look(session, name, datetime.now(UTC))
        said = ""
        while watch and found.endpoint.status in CHANGING:
            line = _going_on(found)
            if line != said:
                print(f"{human.span(found.elapsed):>9}  {line}", file=sys.stderr, flush=True)
            said = line
            time.sleep(_PERIOD_HERE if session.is_emulator else _PERIOD)
            try:
                found = look(session, name, datetime.now(UTC))
            except SageMakerError:
                if describe(session, name) is not None:
                    raise
                print(f"endpoint {name} is gone", file=sys.stderr)
                return FAILED
    print(human.as_json(found)) if as_json else _print(found)
    return _exit_code(found.endpoint)


def _exit_code(found: Description) -> int:
    if found.status in CHANGING:
        return GOING_ON
    return cli.OK if found.status == "InService" else FAILED


def _going_on(found: Status) -> str:
    return found.endpoint.status + (f": {found.phase}" if found.phase else "")


def _print(found: Status) -> None:
    endpoint = found.endpoint
    print(f"{endpoint.name}: {_going_on(found)} (for {human.span(found.elapsed)})")
    if endpoint.failure:
        print(f"reason: {endpoint.failure}")
    for variant in endpoint.variants:
        count = f"{variant.there}" if variant.there == variant.wanted else f"{variant.there} of {variant.wanted}"
        kind = variant.instance_type or " or ".join(variant.pools) or human.UNKNOWN
        runs = "serverless" if variant.serverless else f"{kind} × {count}"
        print(f"variant {variant.name}: {runs}" + (f", model {variant.model}" if variant.model else ""))
    for component in found.components:
        count = f"{component.copies} of {component.wanted} copies"
        print(f"component {component.name}: {component.status}, {count}")
        if component.failure:
            print(f"  reason: {component.failure}")
    for each in found.metrics:
        print(_measured(each))
    if found.lines:
        print("the log ends:")
    for line in found.lines:
        print(f"  {line.at:%H:%M:%S}  {line.text}")
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)


def _measured(found: Metrics) -> str:
    text = f"last 15 minutes of {found.what}: {found.invocations} invocations"
    if found.invocations:
        text += f", {found.client_errors} errors of 4xx, {found.server_errors} of 5xx; model latency"
        # An emulator has no percentiles.
        p50, p90 = found.latency.p50, found.latency.p90
        figures = {"p50": p50, "p90": p90} if p50 is not None else {"mean": found.latency.mean}
        text += " " + ", ".join(f"{name} {human.latency(value)}" for name, value in figures.items())
        text += f", at most {human.latency(found.latency.most)}"
    return text
