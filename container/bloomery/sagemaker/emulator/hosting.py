"""Puts together what runs endpoints: the one entry for the control plane."""

from __future__ import annotations

from bloomery.sagemaker.emulator.asynchronous import Asynchronous
from bloomery.sagemaker.emulator.clients import Clients
from bloomery.sagemaker.emulator.deployment import Hosting, Surroundings
from bloomery.sagemaker.emulator.faults import Faults
from bloomery.sagemaker.emulator.fleet import LocalFleet
from bloomery.sagemaker.emulator.invocations import Invocations
from bloomery.sagemaker.emulator.limits import Limits
from bloomery.sagemaker.emulator.logs import Logs
from bloomery.sagemaker.emulator.metrics import Metrics
from bloomery.sagemaker.emulator.replay import Bodies
from bloomery.sagemaker.emulator.runtime import Runtime


def host(around: Surroundings, limits: Limits | None = None, faults: Faults | None = None) -> Hosting:
    """A fleet of local processes, and the routes to it. Raises ConfigurationError for an ``--image`` that is wrong."""
    limits, faults = limits or Limits(), faults or Faults()
    clients = Clients(around)
    logs, metrics = Logs(clients), Metrics(clients)
    fleet = LocalFleet(around, clients, logs, metrics, faults)
    invocations = Invocations(metrics, Bodies(around.log_bodies), faults)
    asynchronous = Asynchronous(fleet, clients, metrics, invocations, limits)
    return Hosting(fleet, Runtime(around, fleet, asynchronous, invocations, limits).add_routes, faults, metrics.window)
