"""The server itself: one thread per connection, a log, and a private route through which another process governs it."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Self

from tests.support.faulty_s3.answers import Answer, S3Error
from tests.support.faulty_s3.body import Ended, Sender
from tests.support.faulty_s3.environment import ACCESS_KEY, SECRET_KEY
from tests.support.faulty_s3.faults import Fault, Rules
from tests.support.faulty_s3.http import Gone, Reader, head
from tests.support.faulty_s3.log import Record
from tests.support.faulty_s3.objects import Objects
from tests.support.faulty_s3.operations import Request, perform
from tests.support.faulty_s3.signature import Credentials

_ANSWER_SECONDS = 5.0
CONTROL = "/-/"  # no bucket has so short a name


class FaultyS3:
    """Serves ``directory`` at ``url`` until it is closed.

    ``checks_signatures``: whether who asks must hold SECRET_KEY; ``with_checksums``: whether objects that came without
    a checksum have CRC64NVME; ``certificate``: (certificate, key) for https.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        checks_signatures: bool = True,
        with_checksums: bool = True,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self.objects = Objects(directory, with_checksums)
        self.credentials = Credentials({ACCESS_KEY: SECRET_KEY})
        self._checks_signatures = checks_signatures
        self._rules = Rules()
        self._log: list[Record] = []
        self._closing = threading.Event()
        self._connections: dict[socket.socket, Sender] = {}
        self._accepted = self._sent_before = 0
        self._lock = threading.Lock()
        self._tls = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*certificate)
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every connection, and wait for the threads."""
        self._closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            threads = list(self._threads)
        for thread in threads:
            thread.join(10)

    def inject(self, *faults: Fault) -> None:
        """From now on these go wrong, and no others."""
        self._rules.set(faults)

    def heal(self) -> None:
        """Nothing goes wrong any more. Credentials that have expired stay so."""
        self._rules.set(())

    @property
    def sent(self) -> int:
        """Bytes of bodies that have left the server since its start, those of answers under way included."""
        with self._lock:
            return self._sent_before + sum(sender.sent for sender in self._connections.values())

    def settle(self, seconds: float = 30.0) -> None:
        """Wait until no connection is open, so that the log is complete. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while self._connections:
            if time.monotonic() > end:
                raise TimeoutError(f"{len(self._connections)} connections are still open after {seconds:g} s")
            time.sleep(0.005)

    def requests(self) -> list[Record]:
        """Those answered since the start, or since they were last forgotten. Waits for answers under way, which the
        client may have had already, though not for those that stall."""
        end = time.monotonic() + _ANSWER_SECONDS
        while True:
            with self._lock:
                busy = any(sender.busy for sender in self._connections.values())
                if not busy or time.monotonic() > end:
                    return list(self._log)
            time.sleep(0.002)

    def forget(self) -> None:
        """Empty the log."""
        with self._lock:
            self._log.clear()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                with self._lock:
                    self._threads = [thread, *(each for each in self._threads if each.is_alive())]
                    thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with self._lock:
                self._accepted += 1
                sender = self._connections[connection] = Sender(connection, self._accepted, self._closing)
            reader = Reader(connection)
            while not self._closing.is_set():
                self._answer(reader.request(), connection, sender)
        except (Gone, Ended, OSError):
            pass  # the client hung up, or a fault did
        finally:
            with self._lock:
                self._connections.pop(connection, None)
            connection.close()

    def _answer(self, request: Request, connection: socket.socket, sender: Sender) -> None:
        """One request; raises Ended or OSError when the connection ends with it."""
        if request.path.startswith(CONTROL):
            self._send(self._control(request), request, connection, sender, ())
            return
        faults: list[Fault] = []
        answer = Answer()
        sender.busy = True
        try:
            answer, faults = self._performed(request)
            self._before_head(faults, request, sender)
            self._send(answer, request, connection, sender, faults)
        finally:
            if answer.file is not None:
                answer.file.close()
            self._note(request, answer, sender, faults)

    def _note(self, request: Request, answer: Answer, sender: Sender, faults: Sequence[Fault]) -> None:
        reads = answer.file is not None and request.method == "GET"
        record = Record(
            request.operation,
            request.method,
            request.bucket,
            request.key,
            answer.status,
            answer.start if reads else None,
            answer.length if reads else None,
            sender.sent,
            ",".join(fault.kind for fault in faults),
            sender.number,
        )
        with self._lock:
            self._log.append(record)
            self._sent_before += sender.sent
            sender.sent, sender.busy = 0, False

    def _performed(self, request: Request) -> tuple[Answer, list[Fault]]:
        """The answer, and what else goes wrong with it."""
        faults: list[Fault] = []
        try:
            region = self._region(request)
            faults = self._rules.happening(request.operation, request.key, self._span(request), region)
            for fault in faults:
                self._refuse(fault, request)
            return perform(request, self.objects), faults
        except S3Error as error:
            return error.answer(request.path), faults

    def _region(self, request: Request) -> str:
        if not self._checks_signatures:
            return ""
        return self.credentials.check(request.method, request.path, request.query, request.headers, request.body)

    def _span(self, request: Request) -> range | None:
        """What a GetObject asks for, None when it will be refused anyway."""
        if request.operation != "GetObject":
            return None
        try:
            return request.span(self.objects.get(request.bucket, request.key).size)
        except S3Error:
            return None

    def _refuse(self, fault: Fault, request: Request) -> None:
        """Raise the S3Error that ``fault`` wants instead of an answer."""
        if fault.kind == "error":
            after = {} if fault.retry_after is None else {"Retry_After": f"{fault.retry_after:g}"}
            raise S3Error(fault.status, fault.code, f"{fault.code}: a test wants it so", **after)
        if fault.kind == "expire":
            self.credentials.expire(request.headers)
            self.credentials.check_fresh(request.headers)
        if fault.kind == "wrong_region":
            moved = fault.status == 301
            code = "PermanentRedirect" if moved else "AuthorizationHeaderMalformed"
            message = f"the region is wrong; expecting '{fault.region}'"
            raise S3Error(301 if moved else 400, code, message, x_amz_bucket_region=fault.region)

    def _before_head(self, faults: Sequence[Fault], request: Request, sender: Sender) -> None:
        for fault in faults:
            if fault.kind == "latency":
                sender.wait(fault.seconds)
            elif fault.kind == "replace":
                self.objects.replace(request.bucket, request.key, fault.content)
            elif fault.kind in ("reset", "truncate", "stall") and fault.after_bytes is None:
                sender.end(fault)

    def _send(
        self, answer: Answer, request: Request, connection: socket.socket, sender: Sender, faults: Sequence[Fault]
    ) -> None:
        length = answer.length if answer.file is not None else len(answer.body)
        first = head(answer.status, answer.headers, length)
        if request.method == "HEAD":
            connection.sendall(first)
            return
        if answer.file is None or self._tls is not None:
            connection.sendall(first)
        else:
            connection.sendall(first, socket.MSG_MORE)  # no packet of its own
        sender.send(answer, faults)

    def _control(self, request: Request) -> Answer:
        """GET and DELETE /-/requests, PUT /-/faults."""
        match request.method, request.path.removeprefix(CONTROL):
            case "GET", "requests":
                return Answer(body=json.dumps([asdict(record) for record in self.requests()]).encode())
            case "DELETE", "requests":
                self.forget()
            case "PUT", "faults":
                self.inject(*(Fault(**fault) for fault in json.loads(request.body)))
            case _:
                return Answer(404)
        return Answer()
