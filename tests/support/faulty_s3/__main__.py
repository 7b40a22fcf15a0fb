"""``python -m tests.support.faulty_s3 DIR [--port N]``: prints its port, and serves until it is ended."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from pathlib import Path

from tests.support.certificates import make_certificate
from tests.support.faulty_s3.faults import Fault
from tests.support.faulty_s3.server import FaultyS3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIR", help="its folders are the buckets")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--no-signatures", action="store_true", help="answer anybody")
    parser.add_argument("--no-checksums", action="store_true", help="have no checksum that a client did not send")
    parser.add_argument("--rate", type=float, default=0.0, help="bytes per second of each connection")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--tls", type=Path, metavar="DIR", help="https, with a certificate that is made in DIR")
    parser.add_argument("--until-eof", action="store_true", help="end when the standard input does")
    options = parser.parse_args()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, lambda *_: ended.set())
    with FaultyS3(
        options.directory,
        port=options.port,
        checks_signatures=not options.no_signatures,
        with_checksums=not options.no_checksums,
        certificate=make_certificate(options.tls) if options.tls else None,
    ) as server:
        slow = [Fault("rate", rate=options.rate)] if options.rate else []
        late = [Fault("latency", operation="*", seconds=options.latency)] if options.latency else []
        server.inject(*slow, *late)
        print(server.port, flush=True)
        if options.until_eof:
            threading.Thread(target=_until_eof, args=(ended,), daemon=True).start()
        ended.wait()


def _until_eof(ended: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    ended.set()


if __name__ == "__main__":
    main()
