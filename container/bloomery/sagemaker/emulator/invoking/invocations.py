"""What every invocation of an instance has in common: it counts as outstanding while it lasts, it is measured, and
kept for replay when that is wanted."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from bloomery.sagemaker.emulator.api import words
from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.aws.metrics import Invocation, Metrics
from bloomery.sagemaker.emulator.containers.instance import Instance
from bloomery.sagemaker.emulator.containers.running import Endpoint, Variant
from bloomery.sagemaker.emulator.deployment import EndpointSpec
from bloomery.sagemaker.emulator.faults import Faults, Kind
from bloomery.sagemaker.emulator.invoking.hop import Exchange, refuse_errors
from bloomery.sagemaker.emulator.invoking.replay import Bodies


class Invocations:
    """Hands out one ``Exchange`` per invocation, and looks at it in the end."""

    def __init__(self, metrics: Metrics, bodies: Bodies, faults: Faults) -> None:
        self._metrics, self.bodies, self._faults = metrics, bodies, faults

    def admit(self, operation: str) -> None:
        """Any call of the runtime. Raises AwsError."""
        if self._faults.strike(Kind.THROTTLING, operation=operation):
            raise AwsError(words.THROTTLED.format(), "ThrottlingException")

    def refused(self, spec: EndpointSpec) -> None:
        """One that found no copy of an inference component."""
        dimensions = {"InferenceComponentName": spec.component or ""}
        self._metrics.add(spec.region, dimensions, "NoCapacityInvocationFailures", "None", 1)

    @contextmanager
    def on(
        self,
        operation: str,
        endpoint: Endpoint,
        variant: Variant,
        instance: Instance,
        headers: Mapping[str, str],
        body: bytes,
        arrived: float,
    ) -> Iterator[Exchange]:
        """One invocation of ``instance``; ``arrived`` on the clock of time.perf_counter."""
        exchange, spec = Exchange(), endpoint.spec
        instance.take()
        concurrent = instance.outstanding
        try:
            if rule := self._faults.strike(Kind.MODEL_ERROR, endpoint=spec.name):
                exchange.status, exchange.content = rule.status, words.INJECTED.text.encode()
                refuse_errors(spec, instance, exchange.status, exchange.content)
            instance.invoked()
            yield exchange
        finally:
            instance.release()
            self._metrics.count(
                Invocation(
                    region=spec.region,
                    endpoint=spec.name,
                    variant=variant.spec.name,
                    instances=len(variant.instances),
                    status=exchange.status,
                    model=exchange.model,
                    overhead=time.perf_counter() - arrived - exchange.model,
                    concurrent=concurrent,
                    first_byte=exchange.first_byte,
                    component=spec.component,
                )
            )
            self.bodies.write(operation, spec.name, headers, body, exchange.status, exchange.content)
