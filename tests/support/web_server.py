"""A web server for tests: what it answers is a function; http or https, on a free port of loopback."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass(frozen=True)
class Asked:
    """One request. ``path``: with its query; ``headers``: names in lower case."""

    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Reply:
    """One answer. ``body`` is cut to the range that was asked for, unless ``ranges`` is off."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    ranges: bool = True


@dataclass
class WebServer:
    """``requests``: those that came. ``replies`` may be replaced at any time."""

    url: str
    replies: Callable[[Asked], Reply]
    requests: list[Asked] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        """What was asked for."""
        return [asked.path for asked in self.requests]


def files(content: Mapping[str, bytes]) -> Callable[[Asked], Reply]:
    """Replies of a server that has these files, by path, with ETags."""

    def reply(asked: Asked) -> Reply:
        data = content.get(asked.path.partition("?")[0])
        if data is None:
            return Reply(404, b"nothing here")
        return Reply(200, data, {"ETag": f'"{hash(data) & 0xFFFFFFFF:x}"', "Last-Modified": formatdate(0)})

    return reply


@contextmanager
def web_server(replies: Callable[[Asked], Reply], certificate: tuple[Path, Path] | None = None) -> Iterator[WebServer]:
    """A server that is up within the block. ``certificate``: (certificate, key), for https."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = Asked(self.path, {name.lower(): value for name, value in self.headers.items()})
            site.requests.append(asked)
            self.answer(site.replies(asked), asked)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def answer(self, reply: Reply, asked: Asked) -> None:
            headers, body, status = dict(reply.headers), reply.body, reply.status
            span = _RANGE.fullmatch(asked.headers.get("range", ""))
            if span and reply.ranges and status == 200:
                first, last = int(span[1]), min(int(span[2] or len(body)), len(body) - 1)
                if first >= len(body):
                    status, headers["Content-Range"], body = 416, f"bytes */{len(body)}", b""
                else:
                    status, headers["Content-Range"] = 206, f"bytes {first}-{last}/{len(body)}"
                    body = body[first : last + 1]
            if "Transfer-Encoding" in headers:
                chunks = [b"%x;x=y\r\n%s\r\n" % (len(part), part) for part in _thirds(body)]
                body = b"".join(chunks) + b"0\r\na: b\r\n\r\n"
            else:
                headers.setdefault("Content-Length", str(len(body)))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that hangs up is what many tests are about."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "http" if certificate is None else "https"
        site = WebServer(f"{scheme}://127.0.0.1:{server.server_port}", replies)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


def _thirds(body: bytes) -> list[bytes]:
    size = len(body) // 3 + 1
    return [body[at : at + size] for at in range(0, len(body), size)]
