"""What commands that talk to SageMaker share: which account, requests that are only shown, and a question before."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from bloomery.errors import ConfigurationError
from bloomery.sagemaker.request import Request
from bloomery.sagemaker.session import Session


@dataclass(frozen=True)
class Account:
    """As ``--target``, ``--region``, ``--profile`` and ``--endpoint-url`` say; None: nothing said."""

    target: str | None = None
    region: str | None = None
    profile: str | None = None
    endpoint_url: str | None = None

    def open(self) -> Session:
        """Raises TargetError."""
        return Session.open(self.target, region=self.region, profile=self.profile, endpoint_url=self.endpoint_url)


def show(requests: Iterable[Request]) -> None:
    """One JSON line each, on stdout."""
    for request in requests:
        print(json.dumps(request.to_dict(), default=str))


def confirm(question: str, yes: bool) -> bool:
    """Whether to go on. Raises ConfigurationError where nobody can be asked."""
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigurationError(f"{question} Nobody can be asked here: say it with --yes, or look with --dry-run")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
