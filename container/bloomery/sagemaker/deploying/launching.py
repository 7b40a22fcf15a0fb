"""Model, configuration and endpoint are made, in that order; what cannot be finished is taken back."""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from bloomery.errors import CallError, EndpointFailedError, SageMakerError
from bloomery.sagemaker.deploying import requests
from bloomery.sagemaker.deploying.advice import CAPACITY
from bloomery.sagemaker.deploying.deployment import Deployment
from bloomery.sagemaker.deploying.events import Note, Tell
from bloomery.sagemaker.deploying.making import make, take_back
from bloomery.sagemaker.deploying.watching import COMPONENT, watch
from bloomery.sagemaker.request import Request
from bloomery.sagemaker.session import Session

_LONGEST_PAUSE = 900.0  # seconds


@dataclass(frozen=True)
class Patience:
    """When AWS has no machine: ``retries`` more rounds over all instance types, ``pause`` seconds before the first,
    twice as long before each further one, give or take a quarter, so that many who wait do not come back at once.
    """

    retries: int = 3
    pause: float = 60.0

    def turns(self, types: Collection[str]) -> Iterator[tuple[str, float]]:
        """Instance types to try, in order, and the seconds to wait before each."""
        for round_ in range(self.retries + 1):
            for number, each in enumerate(types):
                again = round_ > 0 and number == 0
                longest = min(_LONGEST_PAUSE, self.pause * 2 ** min(round_ - 1, 20)) if again else 0.0
                yield each, longest * random.uniform(0.75, 1.25)


def launch(
    session: Session,
    wanted: Deployment,
    tell: Tell,
    *,
    present: Collection[str] = (),
    wait: bool = True,
    rollback: bool = False,
    patience: Patience | None = None,
) -> None:
    """Make what ``wanted``, which is resolved and checked, asks for. With ``wait`` return when it is InService.

    ``present``: CreateModel, CreateEndpointConfig (of one instance type only), when that is there and as wanted. Until
    CreateEndpoint is accepted any failure takes back what was made; after that only with ``rollback``, and never for an
    interrupt: the endpoint goes on without us. Raises EndpointFailedError, and SageMakerError of the calls.
    """
    made: list[Request] = []
    try:
        if "CreateModel" not in present:
            make(session, requests.create_model(wanted, datetime.now(UTC)), made, tell)
        _with_capacity(session, wanted, tell, made, present, wait=wait, patience=patience or Patience())
    except BaseException as error:
        accepted = any(each.operation == "CreateEndpoint" for each in made)
        if not accepted or (rollback and isinstance(error, SageMakerError)):
            take_back(session, made, tell)
        raise


def _with_capacity(
    session: Session,
    wanted: Deployment,
    tell: Tell,
    made: list[Request],
    present: Collection[str],
    *,
    wait: bool,
    patience: Patience,
) -> None:
    """Configuration and endpoint, of the first instance type that there is capacity for."""
    turns = list(patience.turns(wanted.instance_types))
    kept = len(made)
    ready = "CreateEndpointConfig" in present
    for number, (instance_type, pause) in enumerate(turns):
        if pause:
            tell(Note(f"{instance_type} is asked for again in {pause:.0f} s"))
            time.sleep(pause)
        try:
            if len(made) == kept and not ready:
                config = requests.create_config(wanted, instance_type, datetime.now(UTC))
                make(session, config, made, tell)
            make(session, requests.create_endpoint(wanted, datetime.now(UTC)), made, tell)
            if wait:
                for event in watch(session, wanted.name):
                    tell(event)
            if wanted.component is not None:
                make(session, requests.create_component(wanted, instance_type, datetime.now(UTC)), made, tell)
                for event in watch(session, wanted.name, COMPONENT):
                    tell(event)
            return
        except (CallError, EndpointFailedError) as error:
            code = error.code if isinstance(error, CallError) else ""
            if not CAPACITY.search(f"{code} {error.reason}") or number + 1 == len(turns):
                raise
            tell(Note(f"AWS has no {instance_type} free now"))
        # The endpoint that failed has the name, and the next configuration may be for another type.
        another = turns[number + 1][0] != instance_type
        take_back(session, made, tell, keep=kept if another or ready else kept + 1)
