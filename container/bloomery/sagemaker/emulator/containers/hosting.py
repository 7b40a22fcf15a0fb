"""Puts together what runs endpoints: the one entry for the control plane."""

from __future__ import annotations

from bloomery.sagemaker.emulator.aws.clients import Clients
from bloomery.sagemaker.emulator.aws.logs import Logs
from bloomery.sagemaker.emulator.aws.metrics import Metrics
from bloomery.sagemaker.emulator.containers.fleet import LocalFleet
from bloomery.sagemaker.emulator.deployment import Hosting, Surroundings
from bloomery.sagemaker.emulator.faults import Faults
from bloomery.sagemaker.emulator.invoking.asynchronous import Asynchronous
from bloomery.sagemaker.emulator.invoking.invocations import Invocations
from bloomery.sagemaker.emulator.invoking.limits import Limits
from bloomery.sagemaker.emulator.invoking.replay import Bodies
from bloomery.sagemaker.emulator.invoking.runtime import Runtime


def host(around: Surroundings, limits: Limits | None = None, faults: Faults | None = None) -> Hosting:
    """A fleet of local processes, and the routes to it. Raises ConfigurationError for an ``--image`` that is wrong."""
    limits, faults = limits or Limits(), faults or Faults()
    clients = Clients(around)
    logs, metrics = Logs(clients), Metrics(clients)
    fleet = LocalFleet(around, clients, logs, metrics, faults)
    invocations = Invocations(metrics, Bodies(around.log_bodies), faults)
    asynchronous = Asynchronous(fleet, clients, metrics, invocations, limits)
    return Hosting(fleet, Runtime(around, fleet, asynchronous, invocations, limits).add_routes, faults, metrics.window)
