"""One request that makes something, and the record of what was made, by which it can be taken back."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from bloomery.errors import SageMakerError
from bloomery.sagemaker.deploying import requests
from bloomery.sagemaker.deploying.events import Note, Tell
from bloomery.sagemaker.operating.absence import ask
from bloomery.sagemaker.operating.removal import PATIENCE, Step, take
from bloomery.sagemaker.request import Request
from bloomery.sagemaker.session import Session

_ROUNDED = timedelta(seconds=2)  # a Date header has whole seconds


def make(session: Session, request: Request, made: list[Request], tell: Tell) -> None:
    """Send it, and add it to ``made``. Raises SageMakerError; ``made`` then has it only if it may have been made."""
    made.append(request)  # before it is: an interrupt may come when it has been received already
    began = time.monotonic()
    try:
        session.send(request)
    except SageMakerError as error:
        if not (error.uncertain and _is_there(session, request, began, error)):
            made.pop()
            raise
    tell(Note(f"{request.operation} {_name(request)}"))


def _is_there(session: Session, request: Request, began: float, error: SageMakerError) -> bool:
    """Whether a request was carried out although it failed: its answer got lost, and boto3's second attempt found what
    the first had made, or there was none. ``began``: when it was sent, by the monotonic clock.

    Raises SageMakerError when that cannot be found out.
    """
    description = requests.description(request)
    try:
        found = ask(session, description.service, description.operation, **description.parameters)
    except SageMakerError as second:
        what = f"{request.operation} {_name(request)}"
        raise SageMakerError(
            f"{error}\nwhether {what} was carried out cannot be found out ({second}): look with `bloomery status "
            f"{_name(request)}`, remove what there is with `bloomery delete {_name(request)}`"
        ) from error
    if found is None:
        return False
    said = found.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    there = parsedate_to_datetime(said) if said else datetime.now(UTC)  # its clock, by which it dates what it makes
    created: datetime = found["CreationTime"]
    return created >= there - timedelta(seconds=time.monotonic() - began) - _ROUNDED  # else somebody else's


def take_back(session: Session, made: list[Request], tell: Tell, keep: int = 0) -> None:
    """Delete what was made, in the opposite order, all but the first ``keep``. What cannot be deleted is told of, and
    does not keep the rest."""
    while len(made) > keep:
        name, request = _name(made[-1]), requests.deletion(made[-1])
        takes_long = made[-1].operation in requests.TAKE_LONG
        step = Step(name, request, requests.description(made[-1]) if takes_long else None)
        try:
            if take(session, step, time.monotonic() + PATIENCE, True, lambda line: tell(Note(line))):
                tell(Note(f"{request.operation} {name}"))
        except SageMakerError as error:
            tell(Note(f"{name} is left behind: {error}; remove it with `bloomery delete {name}`"))
        made.pop()


def _name(request: Request) -> str:
    return str(next(iter(request.parameters.values())))
