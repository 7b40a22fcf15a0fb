"""Whether an account has something: each service of AWS says in its own way that it has not."""

from __future__ import annotations

import re
from typing import Any

from bloomery.errors import CallError
from bloomery.sagemaker.session import Session

_CODES = (
    "ResourceNotFound",
    "ResourceNotFoundException",
    "ObjectNotFoundException",
    "NoSuchBucket",
    "NoSuchKey",
    "NoSuchUpload",
)
# SageMaker has one code for everything that is wrong with a request.
_SENTENCE = re.compile(r"could not find|does not exist|cannot find|not found", re.IGNORECASE)


def is_absence(error: CallError) -> bool:
    """Whether a call was refused because what it names is not there."""
    return error.code in _CODES or (error.code == "ValidationException" and bool(_SENTENCE.search(error.reason)))


def ask(session: Session, service: str, operation: str, **parameters: Any) -> Any | None:
    """The answer of a call that describes something; None when that is not there. Raises SageMakerError."""
    try:
        return session.call(service, operation, **parameters)
    except CallError as error:
        if is_absence(error):
            return None
        raise
