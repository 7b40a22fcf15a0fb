"""``bloomery invoke``: what is asked, and how the answer is printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bloomery import cli
from bloomery.cli.account import Account, show
from bloomery.cli.interruption import terminable
from bloomery.errors import ConfigurationError
from bloomery.sagemaker.deploying import invoking
from bloomery.sagemaker.deploying.generated import pieces, text_of
from bloomery.sagemaker.deploying.invoking import Options
from bloomery.sagemaker.request import Request
from bloomery.sagemaker.session import Session

_SHOWN = 2000  # characters of a body that --dry-run shows


@dataclass(frozen=True)
class Said:
    """The body, in one of five ways, and ``parameters`` that are added to it."""

    text: str | None
    json_text: str | None
    file: str | None
    stdin: bool
    input_location: str | None
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class How:
    """As the command line has it. ``wait``: seconds."""

    stream: bool
    asynchronous: bool
    wait: float
    raw: bool
    dry_run: bool


def invoke(account: Account, name: str, said: Said, how: How, given: Mapping[str, str | None]) -> int:
    """Ask, and print the answer on stdout; the exit code."""
    if how.stream and how.asynchronous:
        raise ConfigurationError("--stream and --async exclude each other: an asynchronous answer comes whole, to S3")
    if said.input_location is not None and not how.asynchronous:
        raise ConfigurationError("--input is for --async; a body that is sent comes from --file")
    options = Options(**given)
    value = _value(said, how.stream)
    with terminable(), account.open() as session:
        if how.dry_run:
            show([_request(name, value, said, how, options)])
        elif how.asynchronous:
            _queue(session, name, value, said, how, options)
        elif how.stream:
            _stream(session, name, value, how, options)
        else:
            answer = invoking.invoke(session, name, value, options)
            _print(answer.body, None if how.raw else _text(answer.body))
    return cli.OK


def _value(said: Said, stream: bool) -> Any:
    ways = {
        "TEXT": said.text is not None,
        "--json": said.json_text is not None,
        "--file": said.file is not None,
        "--stdin": said.stdin,
        "--input": said.input_location is not None,
    }
    given = [way for way, is_given in ways.items() if is_given]
    if len(given) != 1:
        named = " and ".join(given) if given else "nothing"
        raise ConfigurationError(f"{named} given: say what to send with one of {', '.join(ways)}")
    if said.input_location is not None:
        return None
    if said.file is not None or said.stdin:
        if said.parameters:
            raise ConfigurationError("--parameters go with TEXT and --json; a file is sent as it is")
        return sys.stdin.buffer.read() if said.stdin else Path(str(said.file)).expanduser()
    document = _document(said)
    if isinstance(document, dict):
        if said.parameters:
            document["parameters"] = {**document.get("parameters", {}), **_parameters(said.parameters)}
        if stream and "stream" not in document:
            document["stream"] = True  # without it a container answers at one go
    return document


def _document(said: Said) -> Any:
    if said.json_text is None:
        return {"inputs": said.text}
    try:
        document = json.loads(said.json_text)
    except ValueError as error:
        raise ConfigurationError(f"--json is no JSON ({error}): {said.json_text[:80]}") from error
    if said.parameters and not isinstance(document, dict):
        raise ConfigurationError("--parameters are added to an object: --json '{\"inputs\": …}'")
    return document


def _parameters(given: tuple[str, ...]) -> dict[str, Any]:
    """Values are JSON where they can be: 64, true, ["a"]; else text."""
    found: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not (name and equals):
            raise ConfigurationError(f"--parameters takes KEY=VALUE, such as max_new_tokens=64; got {each!r}")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _request(name: str, value: Any, said: Said, how: How, options: Options) -> Request:
    operation = "InvokeEndpointAsync" if how.asynchronous else "InvokeEndpoint"
    operation = "InvokeEndpointWithResponseStream" if how.stream else operation
    if said.input_location is not None:
        body: dict[str, Any] = {"InputLocation": said.input_location}
        kind = invoking.JSON
    else:
        content, kind = invoking.body_of(value)
        body = {"Body": content.decode(errors="replace")[:_SHOWN]}
    return Request("sagemaker-runtime", operation, {"EndpointName": name, **body, **options.parameters(kind)})


def _stream(session: Session, name: str, value: Any, how: How, options: Options) -> None:
    answer = invoking.stream(session, name, value, options)
    if how.raw:
        for chunk in answer.chunks():
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
        return
    last = ""
    try:
        structured = answer.content_type.startswith(("application/json", "text/event-stream"))
        for text in pieces(answer) if structured else answer:
            sys.stdout.write(text)
            sys.stdout.flush()
            last = text or last
    finally:  # what is printed next, an error perhaps, begins a line
        if not last.endswith("\n"):
            print(flush=True)


def _queue(session: Session, name: str, value: Any, said: Said, how: How, options: Options) -> None:
    queued = invoking.invoke_async(session, name, value, options, input_location=said.input_location)
    if not how.wait:
        print(queued.output)
        return
    print(f"queued as {queued.inference_id}; the answer comes to {queued.output}", file=sys.stderr)
    body = queued.result(how.wait)
    _print(body, None if how.raw else _text(body))


def _text(body: bytes) -> str | None:
    try:
        return text_of(json.loads(body))
    except ValueError:
        return None


def _print(body: bytes, text: str | None) -> None:
    if text is not None:
        print(text)
        return
    sys.stdout.buffer.write(body)
    if not body.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()
