"""Whoever asks the endpoint: over HTTP, or through SageMaker's runtime. A client never raises for what the endpoint
does; its reply says what went wrong, because errors are counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol
from urllib.parse import urlsplit

from bloomery.bench.endpoint.call import Reply
from bloomery.bench.endpoint.workload import Dialect
from bloomery.errors import ConfigurationError

now = time.perf_counter
_KEPT = 500  # characters of an error's body


class Client(Protocol):
    """Asks one endpoint, any number of requests at once."""

    async def ask(self, body: bytes, *, stream: bool) -> Reply:
        """Send ``body`` and read the answer to its end."""

    async def close(self) -> None:
        """Let connections go."""


class HttpClient:
    """POSTs to one URL over kept-open connections. Made inside a running event loop."""

    def __init__(self, url: str, timeout: float, headers: Mapping[str, str] | None = None) -> None:
        import aiohttp

        self._url = url
        self._errors = aiohttp.ClientError
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # the load decides how many connections there are
            timeout=aiohttp.ClientTimeout(total=timeout),
            headers={"Content-Type": "application/json", **(headers or {})},
        )

    async def ask(self, body: bytes, *, stream: bool) -> Reply:
        """``stream`` makes no difference: how the answer comes is in the body."""
        pieces: list[tuple[float, bytes]] = []
        content_type = ""
        try:
            async with self._session.post(self._url, data=body) as answer:
                content_type = answer.content_type
                async for data in answer.content.iter_any():
                    pieces.append((now(), data))
                status = answer.status
        except TimeoutError:
            return Reply(tuple(pieces), content_type, "timeout", "no complete answer in time")
        except (self._errors, OSError) as error:
            kind = "broken stream" if pieces else "connection"
            return Reply(tuple(pieces), content_type, kind, f"{type(error).__name__}: {error}"[:_KEPT])
        if status >= 300:
            text = b"".join(data for _, data in pieces).decode(errors="replace")
            return Reply(tuple(pieces), content_type, f"HTTP {status}", text[:_KEPT])
        return Reply(tuple(pieces), content_type)

    async def close(self) -> None:
        await self._session.close()


class RuntimeClient:
    """sagemaker-runtime, one thread per request that is under way. ``client`` is boto3's, without retries (a generation that
    is asked for again would be measured twice), and stays its owner's."""

    def __init__(self, client: Any, arguments: Mapping[str, str], threads: int) -> None:
        self._client, self._arguments = client, dict(arguments)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="invoke")

    async def ask(self, body: bytes, *, stream: bool) -> Reply:
        """With ``stream`` by InvokeEndpointWithResponseStream."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, body, stream)

    async def close(self) -> None:
        self._threads.shutdown()

    def _ask(self, body: bytes, stream: bool) -> Reply:
        from botocore.exceptions import BotoCoreError, ClientError

        pieces: list[tuple[float, bytes]] = []
        content_type = ""
        arguments = self._arguments | {"Body": body, "ContentType": "application/json"}
        try:
            if stream:
                answer = self._client.invoke_endpoint_with_response_stream(**arguments)
                content_type = answer.get("ContentType", "")
                with answer["Body"] as events:
                    pieces += ((now(), event["PayloadPart"]["Bytes"]) for event in events if "PayloadPart" in event)
            else:
                answer = self._client.invoke_endpoint(**arguments)
                content_type = answer.get("ContentType", "")
                with answer["Body"] as whole:
                    pieces.append((now(), whole.read()))
        except ClientError as error:  # an EventStreamError among them
            return Reply(tuple(pieces), content_type, _kind(error.response), str(error)[:_KEPT])
        except (BotoCoreError, OSError) as error:
            name = type(error).__name__
            kind = "timeout" if "Timeout" in name else "broken stream" if pieces else "connection"
            return Reply(tuple(pieces), content_type, kind, f"{name}: {error}"[:_KEPT])
        return Reply(tuple(pieces), content_type)


def _kind(response: Mapping[str, Any]) -> str:
    code = str(response.get("Error", {}).get("Code", "unknown"))
    status = response.get("OriginalStatusCode")
    return f"{code} {status}" if status else code


def is_url(target: str) -> bool:
    """Whether TARGET names a server; else it is the name of a SageMaker endpoint."""
    return target.startswith(("http://", "https://"))


def address(url: str) -> tuple[str, Dialect]:
    """(where to POST, whose API it speaks): the path says; without one it is /invocations. Raises
    ConfigurationError."""
    parts = urlsplit(url)
    try:
        known = bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise ConfigurationError(f"{url}: no host and port, such as http://127.0.0.1:8080")
    path = parts.path.rstrip("/")
    dialect: Dialect = "invocations"
    if path.endswith("/chat/completions"):
        dialect = "chat"
    elif path.endswith("/completions"):
        dialect = "completions"
    return parts._replace(path=path or "/invocations").geturl(), dialect
