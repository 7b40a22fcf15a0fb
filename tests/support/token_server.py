"""An endpoint that makes tokens without a model: LMI's answers, as many tokens as are asked for, each at once.

In a test: ``with token_server() as server``. As a SageMaker container: ``python token_server.py serve``.
``server.answer`` may be another function: (number of the request from 0, its body) -> (status, body) or None, which
means the usual.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[int, dict[str, Any]], "tuple[int, bytes] | None"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        text = b""
        if self.path == "/metrics":
            for phase, seconds in (("starting", 1.5), ("loading weights", 2.25)):
                text += f'bloomery_load_seconds{{group="0",model="m",phase="{phase}",version=""}} {seconds}\n'.encode()
        self._send(200, text)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number = self.server.count()
        self.server.bodies.append(body)
        other = self.server.answer(number, body)
        if other is not None:
            self._send(*other)
            return
        prompts = [body["inputs"]] if isinstance(body["inputs"], str) else body["inputs"]
        new = body["parameters"]["max_new_tokens"]
        details = [{"finish_reason": "length", "generated_tokens": new} for _ in prompts]
        if not body.get("stream"):
            rows = [{"generated_text": " a" * new, "details": each} for each in details]
            self._send(200, json.dumps(rows).encode())
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/jsonlines")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(new):
            self._chunk({"outputs": [" a"] * len(prompts)})
        self._chunk({"outputs": [""] * len(prompts), "details": details})
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, record: dict[str, Any]) -> None:
        line = json.dumps(record).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.flush()

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """``bodies``: every request's, in the order of arrival."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answer: Answer = lambda number, body: None
        self.bodies: list[dict[str, Any]] = []
        self._lock, self._number = threading.Lock(), -1

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def count(self) -> int:
        """The number of this request."""
        with self._lock:
            self._number += 1
            return self._number


@contextlib.contextmanager
def token_server() -> Iterator[Server]:
    """In a thread, for the length of a ``with`` block."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    Server(int(os.environ["SAGEMAKER_BIND_TO_PORT"])).serve_forever()
