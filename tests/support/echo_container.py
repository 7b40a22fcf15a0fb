"""A container that does what it is told: /ping and /invocations with nothing but the standard library.

``python echo_container.py serve``. Variables: SLOW_START (seconds before /ping is 200), DIE_AT_START (exit status, at
once), IGNORE_TERM=1, STATUS (of answers that are not asked for one). A body {"do": …} may hold ``status``, ``sleep``,
``headers`` (of the answer), ``stream`` (pieces) with ``pause``, ``break_after`` (pieces) and ``gate`` (a directory:
piece N waits for the file N in it), ``exit``, ``environment``, ``files``, ``write``; any other body comes back.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

STARTED = time.monotonic()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        slow = float(os.environ.get("SLOW_START", 0))
        self._answer(200 if time.monotonic() - STARTED >= slow else 503, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            wanted = json.loads(body)["do"]
        except (ValueError, KeyError, TypeError):
            self._answer(200, body)
            return
        # At one go: print writes the end of the line apart, and another thread's line came in between.
        sys.stdout.write(f"asked to {json.dumps(wanted)}\n")
        sys.stdout.flush()
        time.sleep(wanted.get("sleep", 0))
        if "exit" in wanted:
            os._exit(wanted["exit"])
        if "stream" in wanted:
            self._stream(wanted)
        else:
            self._answer(
                wanted.get("status", int(os.environ.get("STATUS", 200))),
                json.dumps(self._found(wanted)).encode(),
                wanted.get("headers", {}),
            )

    def _found(self, wanted: dict[str, Any]) -> Any:
        if "environment" in wanted:
            return dict(os.environ)
        if "files" in wanted:
            root = Path(wanted["files"])
            files = [path for path in root.rglob("*") if path.is_file()]
            return {str(path.relative_to(root)): oct(path.stat().st_mode) for path in files}
        if "write" in wanted:
            try:
                with open(wanted["write"], "w") as file:
                    file.write("x")
            except OSError as error:
                return {"error": error.strerror}
        return {"did": wanted, "headers": dict(self.headers), "pid": os.getpid()}

    def _stream(self, wanted: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, piece in enumerate(wanted["stream"]):
            if number == wanted.get("break_after"):
                os._exit(9)
            while "gate" in wanted and number and not Path(wanted["gate"], str(number)).exists():
                time.sleep(0.01)
            data = piece.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
            time.sleep(wanted.get("pause", 0))
        self.wfile.write(b"0\r\n\r\n")

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", self.headers.get("Content-Type") or "text/plain")
        self.send_header("Content-Length", str(len(body)))
        if attributes := self.headers.get("X-Amzn-SageMaker-Custom-Attributes"):
            self.send_header("X-Amzn-SageMaker-Custom-Attributes", attributes)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


def main() -> None:
    print("started with", *sys.argv[1:], flush=True)
    if "DIE_AT_START" in os.environ:
        print("cannot find the weights", flush=True)
        sys.exit(int(os.environ["DIE_AT_START"]))
    ignored = os.environ.get("IGNORE_TERM") == "1"
    signal.signal(signal.SIGTERM, signal.SIG_IGN if ignored else lambda *_: os._exit(0))
    Server(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()


if __name__ == "__main__":
    main()
