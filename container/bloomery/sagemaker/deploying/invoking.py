"""Invocations: what a user gives becomes a body, what comes back an answer, what goes wrong an InvocationError."""

from __future__ import annotations

import codecs
import json
import mimetypes
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bloomery.errors import CallError, InvocationError
from bloomery.sagemaker.deploying.asynchronous import AsyncInvocation
from bloomery.sagemaker.session import Session

JSON, BYTES = "application/json", "application/octet-stream"
LARGEST, LARGEST_INLINE = 6_291_456, 128_000  # bytes of a body; of an asynchronous invocation's, by the service model


@dataclass(frozen=True)
class Answer:
    """``variant``: that answered. ``custom_attributes``: the container's."""

    body: bytes
    content_type: str
    variant: str
    custom_attributes: str = ""

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode(errors="replace")

    @property
    def value(self) -> Any:
        """Of JSON, what it says; of text, the text; else the bytes."""
        kind = self.content_type.partition(";")[0].strip().lower()
        if kind == JSON or kind.endswith("+json"):
            return json.loads(self.body)
        return self.text if kind.startswith("text/") or kind == "application/jsonlines" else self.body


@dataclass(frozen=True)
class Options:
    """What an invocation may say beside its body."""

    content_type: str | None = None
    accept: str | None = None
    target_variant: str | None = None
    inference_component: str | None = None
    custom_attributes: str | None = None
    session_id: str | None = None

    def parameters(self, guessed_type: str) -> dict[str, str]:
        """As boto3 takes them."""
        given = {
            "ContentType": self.content_type or guessed_type,
            "Accept": self.accept,
            "TargetVariant": self.target_variant,
            "InferenceComponentName": self.inference_component,
            "CustomAttributes": self.custom_attributes,
            "SessionId": self.session_id,
        }
        return {name: value for name, value in given.items() if value is not None}


def body_of(value: Any) -> tuple[bytes, str]:
    """The bytes of ``value``, and the type that they probably have.

    bytes are sent as they are; a Path is read; a string is a prompt, ``{"inputs": …}``; anything else becomes JSON.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value), BYTES
    if isinstance(value, Path):
        try:
            return value.read_bytes(), mimetypes.guess_type(value.name)[0] or BYTES
        except OSError as error:
            raise InvocationError(f"{value} cannot be read: {error.strerror}") from error
    try:
        return json.dumps({"inputs": value} if isinstance(value, str) else value).encode(), JSON
    except (TypeError, ValueError) as error:
        raise InvocationError(f"{type(value).__name__} cannot be sent as JSON ({error}): give bytes instead") from error


def invoke(session: Session, name: str, value: Any, options: Options) -> Answer:
    """One answer. It is asked for once: who wants to try again does it knowing that it may have been computed."""
    body, kind = _checked(value, LARGEST, "to S3, and invoke an asynchronous endpoint")
    with _explained(session, name):
        found = session.runtime.invoke_endpoint(EndpointName=name, Body=body, **options.parameters(kind))
        return Answer(
            found["Body"].read(),
            found.get("ContentType", BYTES),
            found.get("InvokedProductionVariant", ""),
            found.get("CustomAttributes", ""),
        )


def stream(session: Session, name: str, value: Any, options: Options) -> Stream:
    """An answer piece by piece. Raises InvocationError when it does not begin."""
    body, kind = _checked(value, LARGEST, "in parts")
    with _explained(session, name):
        found = session.streaming_runtime.invoke_endpoint_with_response_stream(
            EndpointName=name, Body=body, **options.parameters(kind)
        )
    return Stream(session, name, found)


class Stream:
    """An answer that is still coming. Iterate once, over ``chunks`` (bytes) or itself (text); ``close`` stops early."""

    def __init__(self, session: Session, name: str, found: Mapping[str, Any]) -> None:
        self._session, self._name, self._events = session, name, found["Body"]
        self.content_type = str(found.get("ContentType", BYTES))
        self.variant = str(found.get("InvokedProductionVariant", ""))

    def chunks(self) -> Iterator[bytes]:
        """As they come. Raises InvocationError when the stream breaks before its end."""
        try:
            with _explained(self._session, self._name, begun=True):
                for event in self._events:
                    if "PayloadPart" in event:
                        yield event["PayloadPart"]["Bytes"]
        finally:
            self.close()

    def __iter__(self) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a piece may end within a character
        for chunk in self.chunks():
            if text := decoder.decode(chunk):
                yield text
        if rest := decoder.decode(b"", final=True):
            yield rest

    def close(self) -> None:
        """The container hears that nobody listens any more."""
        self._events.close()


def invoke_async(
    session: Session,
    name: str,
    value: Any,
    options: Options,
    *,
    input_location: str | None = None,
    request_ttl: int | None = None,
    invocation_timeout: int | None = None,
) -> AsyncInvocation:
    """Put a request in the queue of an asynchronous endpoint: ``value``, or what lies at ``input_location`` (s3://…).

    ``request_ttl``: seconds that it may wait; ``invocation_timeout``: seconds that its answer may take.
    """
    given: dict[str, Any] = {"RequestTTLSeconds": request_ttl, "InvocationTimeoutSeconds": invocation_timeout}
    if input_location is not None:
        given |= {"InputLocation": input_location, **options.parameters(JSON)}
    else:
        body, kind = _checked(value, LARGEST_INLINE, "to S3, and give its address as input_location (--input)")
        given |= {"Body": body, **options.parameters(kind)}
    for foreign in ("TargetVariant", "SessionId"):
        if foreign in given:
            raise InvocationError(f"an asynchronous invocation takes no {foreign}")
    given = {key: each for key, each in given.items() if each is not None}
    with _explained(session, name):
        found = session.runtime.invoke_endpoint_async(EndpointName=name, **given)
    return AsyncInvocation(
        session, name, found.get("InferenceId", ""), found["OutputLocation"], found.get("FailureLocation"), time.time()
    )


def _checked(value: Any, largest: int, instead: str) -> tuple[bytes, str]:
    body, kind = body_of(value)
    if len(body) > largest:
        raise InvocationError(f"the body has {len(body)} bytes, and SageMaker takes {largest}: send it {instead}")
    return body, kind


@contextmanager
def _explained(session: Session, name: str, *, begun: bool = False) -> Iterator[None]:
    """Raise what the runtime's client raises as an InvocationError, TargetError or CallError."""
    from botocore.exceptions import BotoCoreError, ClientError, EventStreamError, HTTPClientError

    try:
        yield
    except EventStreamError as error:
        said = error.response.get("Error", {})
        raise InvocationError(
            f"the stream of endpoint {name} broke off: {said.get('Message') or error} ({said.get('Code', 'unknown')}); "
            f"`bloomery logs {name}` shows why"
        ) from error
    except ClientError as error:
        raise _refused(session, name, error) from error
    except HTTPClientError as error:
        kind = type(error).__name__
        if kind == "ReadTimeoutError":
            raise InvocationError(_SILENT[begun].format(name=name)) from error
        if begun:
            raise InvocationError(f"the stream of endpoint {name} broke off: {error}") from error
        raise session.in_words(error, f"endpoint {name}") from error
    except BotoCoreError as error:
        raise session.in_words(error, f"endpoint {name}") from error


_SILENT = {
    False: (
        "endpoint {name} did not answer in time; SageMaker allows a minute: ask for fewer tokens, take a stream, or "
        "make the endpoint asynchronous. The request was not sent again: it may still be computed"
    ),
    True: "the stream of endpoint {name} stands still; SageMaker allows eight minutes for all of it",
}


def _refused(session: Session, name: str, error: Any) -> Exception:
    response = error.response
    code = response["Error"].get("Code", "")
    if code == "ModelError":
        status, text = response.get("OriginalStatusCode"), str(response.get("OriginalMessage", ""))
        log = str(response.get("LogStreamArn", "")).partition("log-group:")[2]
        where = f"\nits log: {log} (bloomery logs {name})" if log else ""
        shown = _said(text) or response["Error"].get("Message", "")
        what = f"answered {status}" if status else "failed"
        return InvocationError(f"the container of endpoint {name} {what}: {shown}{where}", status, text, log)
    told = session.in_words(error, f"endpoint {name}")
    if isinstance(told, CallError) and code in ("ValidationError", "ValidationException"):
        hint = next((hint for sign, hint in _HINTS.items() if sign in told.reason), "")
        return InvocationError(told.reason.rstrip(".") + hint.format(name=name, region=session.region))
    return told


# By words of SageMaker's sentences.
_HINTS = {
    "not found": ": `bloomery status {name}` tells whether it is InService; `bloomery ls` lists those of {region}",
    "has no AsyncInferenceConfig": " (leave --async out)",
    "InvokeEndpointAsync": ": it answers to S3 (bloomery invoke {name} --async)",
    "Inference Component Name header": ": name one with --component",
}


def _said(text: str) -> str:
    """The sentence in a container's error document: DJLServing's, OpenAI's; else all of it."""
    try:
        document = json.loads(text)
    except ValueError:
        return text.strip()
    found = document.get("error", document.get("message")) if isinstance(document, dict) else None
    found = found.get("message") if isinstance(found, dict) else found
    return found if isinstance(found, str) and found else text.strip()
