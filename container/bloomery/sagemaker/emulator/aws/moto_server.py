"""The process in which moto answers for S3, STS, IAM, Logs, CloudWatch and whatever else a client asks for.

Run as ``python -m bloomery.sagemaker.emulator.aws.moto_server``; its first line of output is its port.
"""

from __future__ import annotations

import threading
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

_SOON_WANTED = ("s3", "sts", "iam", "logs", "monitoring")  # names by which requests are signed


class _Quiet(MotoRequestHandler):  # type: ignore[misc]
    def log_request(self, *_: Any) -> None:
        """The emulator has a log of its own."""


def main() -> None:
    """Serve on a free port of loopback until killed."""
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    print(server.server_port, flush=True)
    threading.Thread(target=_warm_up, args=(application,), daemon=True).start()
    server.serve_forever()


def _warm_up(application: Any) -> None:
    """Import what the first request to a service would have to wait for."""
    for service in _SOON_WANTED:
        application.get_application(
            {
                "HTTP_AUTHORIZATION": f"AWS4-HMAC-SHA256 Credential=k/20170724/us-east-1/{service}/aws4_request, S",
                "HTTP_HOST": "127.0.0.1",
                "PATH_INFO": "/",
                "REQUEST_METHOD": "GET",
            }
        )


if __name__ == "__main__":
    main()
