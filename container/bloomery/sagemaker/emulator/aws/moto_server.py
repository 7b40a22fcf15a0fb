"""The process in which moto answers for S3, STS, IAM, Logs, CloudWatch and whatever else a client asks for.

Run as ``python -m bloomery.sagemaker.emulator.aws.moto_server``; its first line of output is its port.
"""

from __future__ import annotations

import json
import threading
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

_ACCOUNT = "123456789012"  # moto's
_NO_KEY = "AKIAEXAMPLE"  # what moto reads where a key is not in AWS's form, as that of ``sagemaker-local env`` is not
_ROLE = "bloomery-local"
_SOON_WANTED = ("s3", "sts", "iam", "logs", "monitoring")  # names by which requests are signed


class _Quiet(MotoRequestHandler):  # type: ignore[misc]
    def log_request(self, *_: Any) -> None:
        """The emulator has a log of its own."""


def main() -> None:
    """Serve on a free port of loopback until killed."""
    _assume_execution_role()
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    print(server.server_port, flush=True)
    threading.Thread(target=_warm_up, args=(application,), daemon=True).start()
    server.serve_forever()


def _assume_execution_role() -> None:
    """Who comes with the emulator's key is SageMaker's execution role, as in a notebook of SageMaker's: the first line
    of most that are published is ``get_execution_role()``, which asks STS who it is, and IAM where that role is."""
    from moto.iam.models import iam_backends
    from moto.sts.models import sts_backends

    trust = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    role = iam_backends[_ACCOUNT]["aws"].create_role(
        role_name=_ROLE,
        assume_role_policy_document=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
        path="/",
        permissions_boundary=None,
        description="SageMaker's execution role, here",
        tags=[],
        max_session_duration="3600",
    )
    assumed = sts_backends[_ACCOUNT]["aws"].assume_role(
        region_name="us-east-1",
        role_session_name="SageMaker",
        role_arn=role.arn,
        policy="",
        duration=3600,
        external_id="",
    )
    assumed.access_key_id = _NO_KEY


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
