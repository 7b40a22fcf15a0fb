"""``bloomery bench`` and ``bloomery verify`` for Python code, such as a notebook: an endpoint of SageMaker, a report.

``markdown``, ``page`` and ``picture`` render what ``measure`` gives, ``table`` what ``verify`` gives.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from bloomery.bench.endpoint import goodput, measuring, plan
from bloomery.bench.endpoint.load import Level
from bloomery.bench.endpoint.opening import Place, opened
from bloomery.bench.endpoint.report import markdown, page, picture
from bloomery.bench.endpoint.workload import Workload
from bloomery.bench.verifying import verifying
from bloomery.bench.verifying.verifying import table
from bloomery.errors import SageMakerError
from bloomery.sagemaker.session import Session

__all__ = ["markdown", "measure", "page", "picture", "table", "under_load", "verify"]
_TIMEOUT = 600.0  # seconds of one request
T = TypeVar("T")


def measure(
    endpoint: str,
    session: Session,
    *,
    table: bool = False,
    sweep: str | None = None,
    rate: str | None = None,
    requests: int | None = None,
    batch: int | None = None,
    max_new_tokens: int = 256,
    prompts: Sequence[str] = (),
    objectives: str = "",
    price_per_hour: float | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """The report of a measurement, as ``bloomery bench --output`` writes it.

    table: the published table's row, requests of 4 prompts one after the other; else ``sweep`` (``"1,2,4"``: requests
    under way at once) and ``rate`` (``"0.5,1"``: a second, at random). requests: of each level, by default 30 or more.
    prompts: by default random ones. objectives: such as ``"ttft=500ms,tpot=50ms"``. price_per_hour: USD. name: in the
    report. Raises ConfigurationError, TargetError, CallError and BenchmarkError.
    """
    levels: tuple[Level, ...] = (plan.table_level(requests),)
    if not table:
        levels = plan.read_levels(sweep=sweep, rate=rate, trace=None, burstiness=1.0, requests=requests, seconds=None)
    wanted = plan.Plan(
        name=name or endpoint,
        workload=Workload(
            prompts=tuple(prompts),
            batch=plan.batch_size(batch, table=table),
            max_new_tokens=max_new_tokens,
            stream=not table,
        ),
        levels=levels,
        table=table,
        objectives=goodput.read_objectives(objectives),
        price_per_hour=price_per_hour,
    )

    def run() -> dict[str, Any]:
        with opened(endpoint, _place(session), _TIMEOUT) as target:
            return measuring.run(wanted, target)

    return _apart(run)


def verify(
    endpoint: str,
    session: Session,
    reference: str,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 32,
    dtype: str | None = None,
    revision: str | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The report of a comparison with the unsharded model, as ``bloomery verify --json`` writes it.

    reference: the checkpoint, a directory, s3://… or a hub's id; it is run here, in a process of its own. dtype: what
    the endpoint computes in; None: as the checkpoint is stored. Raises BenchmarkError, TargetError and CallError.
    """

    def run() -> dict[str, Any]:
        return verifying.verify(
            endpoint,
            _place(session),
            reference,
            list(prompts),
            max_new_tokens,
            revision=revision,
            dtype=dtype,
            parameters=parameters,
            timeout=_TIMEOUT,
        )

    return _apart(run)


@contextmanager
def under_load(ask: Callable[[], object], clients: int) -> Iterator[None]:
    """So many clients call ``ask`` one time after the other, for the length of a ``with`` block. Refused calls are no
    matter here: who comes while an endpoint scales may be refused."""
    done = threading.Event()

    def client() -> None:
        while not done.is_set():
            with suppress(SageMakerError):
                ask()

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(client) for _ in range(clients)]
        try:
            yield
        finally:
            done.set()
    for each in running:
        each.result()


def _place(session: Session) -> Place:
    return Place(session.target, session.region, None, session.url)


def _apart(run: Callable[[], T]) -> T:
    """In another thread: a notebook's own has an event loop that runs already."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()
