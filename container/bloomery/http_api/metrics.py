"""GET /metrics: what the server counts, in Prometheus' text form.

Counted live (``serving.metrics``) is only what cannot be asked for later; queues, groups, tokens and load times are
read from the models' status at the moment of the question.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, get_args

from aiohttp import hdrs, web

import bloomery
from bloomery.serving.metrics import Histogram
from bloomery.serving.model import Model
from bloomery.serving.registry import Registry
from bloomery.serving.status import ModelState
from bloomery.workers.group import GroupStatus

if TYPE_CHECKING:  # imported by the first question: a server that nobody watches does without it
    from prometheus_client import Metric

Handler = Callable[[web.Request], Awaitable[web.Response]]
Labels = tuple[str, ...]
Samples = Iterable[tuple[Labels, float]]
_MODEL = ("model", "version")
_GROUP = (*_MODEL, "group")
# Fields of ModelMetrics and of GroupStatus.
_HISTOGRAMS = {
    "request_duration": "From a request's arrival to the end of its answer.",
    "time_to_first_chunk": "From a request's arrival to the first chunk of its stream.",
    "time_per_chunk": "Between two chunks of a stream.",
}
_GROUP_COUNTERS = {
    "prompt_tokens": "Tokens of prompts that the group has read.",
    "generated_tokens": "Tokens that the group has generated.",
    "restarts": "Restarts of the worker group after a loss.",
}


def exposition(registry: Registry) -> Handler:
    """The metrics, or those that ``name[]`` asks for, as often as it is given."""

    async def handle(http: web.Request) -> web.Response:
        from prometheus_client import exposition as prometheus

        encode, content_type = prometheus.choose_encoder(http.headers.get(hdrs.ACCEPT, ""))
        # Never the library's global registry: two servers in one process must not add up.
        body = encode(_Collected(registry.models(), set(http.query.getall("name[]", []))))
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})

    return handle


class _Collected:
    """What the encoder takes for a registry. ``names`` are those of metrics or of their samples; empty: all."""

    def __init__(self, models: Iterable[Model], names: set[str]) -> None:
        self._models, self._names = list(models), names

    def collect(self) -> Iterator[Metric]:
        """Every metric that was asked for."""
        for metric in itertools.chain(_of_server(), _of_models(self._models)):
            if not self._names or metric.name in self._names or {each.name for each in metric.samples} & self._names:
                yield metric


def _of_server() -> Iterator[Metric]:
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.metrics_core import InfoMetricFamily

    yield InfoMetricFamily("bloomery_server", "The server itself.", value={"version": bloomery.__version__})
    yield from ProcessCollector(registry=CollectorRegistry()).collect()


def _of_models(models: list[Model]) -> Iterator[Metric]:
    found = [((model.name, model.version or ""), model, model.status()) for model in models]
    queued = [(key, status.queued) for key, _, status in found]
    held = [(key, sum(group.busy for group in status.groups)) for key, _, status in found]
    states = [((*key, state), state == status.state) for key, _, status in found for state in get_args(ModelState)]
    ended = [((*key, outcome), count) for key, model, _ in found for outcome, count in model.metrics.requests.items()]
    yield _gauge("model_state", "1 for the state that the model is in.", (*_MODEL, "state"), states)
    yield _gauge("queue_depth", "Requests that wait for a worker.", _MODEL, queued)
    yield _gauge("requests_in_flight", "Requests that the workers hold.", _MODEL, held)
    yield _counter(
        "requests",
        "Requests by the class of their status; gone: the client left; broken: its stream was cut short.",
        (*_MODEL, "status"),
        ended,
    )
    for name, text in _HISTOGRAMS.items():
        yield _histogram(f"{name}_seconds", text, [(key, getattr(model.metrics, name)) for key, model, _ in found])
    yield from _of_groups([((*key, str(group.index)), group) for key, _, status in found for group in status.groups])


def _of_groups(groups: list[tuple[Labels, GroupStatus]]) -> Iterator[Metric]:
    phases = [((*key, phase), seconds) for key, group in groups for phase, seconds in group.load_phases.items()]
    ready = [(key, group.state == "ready") for key, group in groups]
    yield _gauge("group_ready", "1 while the worker group can answer.", _GROUP, ready)
    yield _gauge("load_seconds", "What each phase of the group's last load took.", (*_GROUP, "phase"), phases)
    for name, text in _GROUP_COUNTERS.items():
        yield _counter(name, text, _GROUP, [(key, getattr(group, name)) for key, group in groups])


def _gauge(name: str, text: str, labels: Labels, samples: Samples) -> Metric:
    from prometheus_client.metrics_core import GaugeMetricFamily

    family = GaugeMetricFamily(f"bloomery_{name}", text, labels=labels)
    for key, value in samples:
        family.add_metric(key, float(value))
    return family


def _counter(name: str, text: str, labels: Labels, samples: Samples) -> Metric:
    from prometheus_client.metrics_core import CounterMetricFamily

    family = CounterMetricFamily(f"bloomery_{name}", text, labels=labels)
    for key, value in samples:
        family.add_metric(key, float(value))
    return family


def _histogram(name: str, text: str, samples: Iterable[tuple[Labels, Histogram]]) -> Metric:
    from prometheus_client.metrics_core import HistogramMetricFamily

    family = HistogramMetricFamily(f"bloomery_{name}", text, labels=_MODEL)
    for key, histogram in samples:
        bounds = [*map(str, Histogram.BOUNDS), "+Inf"]
        buckets = list(zip(bounds, itertools.accumulate(map(float, histogram.counts)), strict=True))
        family.add_metric(key, buckets, histogram.sum)
    return family
