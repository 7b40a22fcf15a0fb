"""Every error that bloomery raises on purpose. Catch ``BloomeryError`` to catch them all.

BloomeryError
├── ConfigurationError        a setting is unknown, has a wrong value, or contradicts another
├── AddressError              the server cannot listen where it should
├── CheckpointError           a checkpoint cannot be found, read or trusted
├── UnsupportedModelError     an engine refuses a model, a precision or a request in words
├── ProtocolError             bytes on a worker or control socket are not what the protocol says
├── ModelLoadError            a worker group could not load its model
├── DeploymentFailure         an endpoint of the emulator cannot run; its text is the FailureReason
├── AwsError                  the emulator refuses a call in AWS's terms (sagemaker/emulator/aws_error.py)
├── SageMakerError            a client of SageMaker, or of its emulator, cannot do what it was asked
│   ├── TargetError               there is no way to the account: keys, region, emulator; also a ConfigurationError
│   ├── ScalingRefusedError       an endpoint cannot scale as it was asked to; says what can
│   ├── DeploymentRefusedError    an endpoint is asked for that cannot be: found before anything was made
│   ├── EndpointFailedError       SageMaker gave up on an endpoint; carries its reason and the end of its log
│   ├── InvocationError           an endpoint did not answer; carries the container's status
│   ├── RemovalError              something that was to be removed is still there
│   ├── CallError                 a call was refused; carries AWS's code
│   │   └── AccessError               for want of a permission
│   └── PackagingError            a model directory is not fit for a model.tar.gz; carries what was found in it
├── BenchmarkError            an endpoint cannot be measured or verified: it does not answer, or not in a known form
├── WorkerError               a rank died, hung (UnansweredError), or answered garbage; its group is being restarted
└── RequestError              a request cannot be answered; carries the HTTP status
    ├── BadRequestError           400 (UnsupportedRequestError: also an UnsupportedModelError)
    ├── NotFoundError             404 (ModelNotFoundError)
    ├── ForbiddenError            403
    ├── MethodNotAllowedError     405
    ├── ConflictError             409
    ├── PayloadTooLargeError      413
    ├── HandlerRefusalError       424, or as the handler says: a function of a handler refused a management call
    ├── LoadFailedError           500: a model that was to be added cannot load
    ├── ServiceUnavailableError   503 (CapacityError, DeadlineError)
    ├── InsufficientStorageError  507: there is no memory for another model
    └── StreamError               424 or 503, after the status line has left: ends the stream as its last record

Messages say what, where, the offending value, and what to do.
"""

from __future__ import annotations

from typing import Any


class BloomeryError(Exception):
    """The root of the hierarchy."""


class ConfigurationError(BloomeryError):
    """A setting is unknown, has a wrong value, or contradicts another."""


class AddressError(BloomeryError):
    """The server cannot listen where it should."""


class CheckpointError(BloomeryError):
    """A checkpoint cannot be found, read or trusted."""


class UnsupportedModelError(BloomeryError):
    """An engine refuses a model, a precision or a request; the message says what works instead."""


class ProtocolError(BloomeryError):
    """Bytes on a worker or control socket are not what the protocol says."""


class ModelLoadError(BloomeryError):
    """A worker group could not load its model. ``report`` is the legible block a user reads."""

    def __init__(self, message: str, report: str = "") -> None:
        super().__init__(message)
        self.report = report or message


class DeploymentFailure(BloomeryError):
    """An endpoint of the SageMaker emulator cannot run. The text is its FailureReason, in SageMaker's words."""


class SageMakerError(BloomeryError):
    """A client of SageMaker, or of its emulator, cannot do what it was asked. ``uncertain``: a call failed whose answer
    got lost, so that it may have been carried out all the same."""

    uncertain = False


class TargetError(SageMakerError, ConfigurationError):
    """There is no way to the account: no or old credentials, no region, no emulator where one should be."""


class ScalingRefusedError(SageMakerError):
    """An endpoint cannot scale as it was asked to; the message says what can."""


class RemovalError(SageMakerError):
    """Something that was to be removed is still there; the message says what is gone and what is left."""


class CallError(SageMakerError):
    """A call was refused. ``code`` and ``reason`` are AWS's (ValidationException, and its sentence)."""

    def __init__(self, message: str, code: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.code, self.reason = code, reason or message


class AccessError(CallError):
    """A call was refused for want of a permission."""


class DeploymentRefusedError(SageMakerError):
    """An endpoint is asked for that cannot be. ``findings``: all that is wrong (sagemaker/finding.py)."""

    def __init__(self, message: str, findings: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.findings = findings


class PackagingError(SageMakerError):
    """A model directory is not fit for a model.tar.gz. ``findings``: what was found in it
    (sagemaker/finding.py)."""

    def __init__(self, message: str, findings: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.findings = findings


class EndpointFailedError(SageMakerError):
    """SageMaker gave up on an endpoint. ``reason``: its FailureReason; ``log``: the last lines of its containers."""

    def __init__(self, message: str, reason: str = "", log: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.reason, self.log = reason, log


class InvocationError(SageMakerError):
    """An endpoint did not answer, or its container answered with an error: ``status`` is then the container's,
    ``answer`` the text that it sent, ``log`` its log stream."""

    def __init__(self, message: str, status: int | None = None, answer: str = "", log: str = "") -> None:
        super().__init__(message)
        self.status, self.answer, self.log = status, answer, log


class BenchmarkError(BloomeryError):
    """An endpoint cannot be measured or verified: it does not answer, or in no form that is known."""


class WorkerError(BloomeryError):
    """A rank died, hung, or answered garbage while it held a request."""


class UnansweredError(WorkerError):
    """A rank gave no sign of progress for as long as a request may take."""


class RequestError(BloomeryError):
    """A request cannot be answered. ``type_name`` is the name DJLServing puts into the error body."""

    status = 500
    type_name = "ServerException"


class BadRequestError(RequestError):
    """The request itself is wrong.

    For error documents that have room for them: ``param`` is the field that is to blame, ``reason_code`` a word for
    programs (OpenAI's, such as context_length_exceeded).
    """

    status = 400
    type_name = "BadRequestException"
    param: str | None = None
    reason_code: str | None = None


class UnsupportedRequestError(BadRequestError, UnsupportedModelError):
    """The request asks for what this model or engine cannot do; the message says what works instead."""


class NotFoundError(RequestError):
    """No such path or model."""

    status = 404
    type_name = "ResourceNotFoundException"


class ModelNotFoundError(NotFoundError):
    """No model of that name or version is registered."""

    type_name = "ModelNotFoundException"


class ForbiddenError(RequestError):
    """Not from there, or not at this address; the message says how it is allowed."""

    status = 403
    type_name = "ForbiddenException"


class ConflictError(RequestError):
    """What is to be added is there already."""

    status = 409
    type_name = "BadRequestException"


class HandlerRefusalError(RequestError):
    """A function of a handler refused a management call."""

    type_name = "HandlerException"

    def __init__(self, message: str, status: int = 424) -> None:
        super().__init__(message)
        self.status = status if 400 <= status <= 599 else 424


class LoadFailedError(RequestError):
    """A model that was to be added cannot load; nothing of it is left."""

    type_name = "EngineException"


class InsufficientStorageError(RequestError):
    """There is no memory for another model."""

    status = 507
    type_name = "WlmOutOfMemoryException"


class MethodNotAllowedError(RequestError):
    """The path exists, the method does not."""

    status = 405
    type_name = "MethodNotAllowedException"


class PayloadTooLargeError(RequestError):
    """The body is over ``max_request_size``."""

    status = 413
    type_name = "PayloadTooLargeException"


class ServiceUnavailableError(RequestError):
    """Nobody can answer now: loading, restarting, queue full, deadline passed."""

    status = 503
    type_name = "ServiceUnavailableException"


class CapacityError(ServiceUnavailableError):
    """The queue is full."""

    type_name = "WlmCapacityException"


class DeadlineError(ServiceUnavailableError):
    """The time for an answer has passed."""


class StreamError(RequestError):
    """A stream broke off. The status line is gone already, so ``status`` goes into the stream's last record."""

    status = 424
    type_name = "StreamException"

    def __init__(self, message: str, status: int = 424, record: bytes | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.record = record  # the stream's last record, from who knows its form; None: by its content type
