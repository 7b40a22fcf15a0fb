"""One call of SageMaker's control plane, and what every operation needs around it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bloomery.sagemaker.emulator.api import words
from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.api.store import Kind, Record, Store

_SCOPE = re.compile(r"Credential=[^/]+/\d{8}/([a-z0-9-]+)/")


@dataclass(frozen=True)
class Call:
    """``parameters`` fit botocore's model and the rules."""

    operation: str
    parameters: Mapping[str, Any]
    region: str
    account: str

    def arn(self, kind: Kind, name: str) -> str:
        """The ARN of what is called so."""
        partition = "aws-cn" if self.region.startswith("cn-") else "aws-us-gov" if "-gov-" in self.region else "aws"
        return f"arn:{partition}:sagemaker:{self.region}:{self.account}:{kind.value}/{name.lower()}"

    def tags(self) -> dict[str, str]:
        """Those of the request."""
        return {tag["Key"]: tag["Value"] for tag in self.parameters.get("Tags") or ()}


def region(authorization: str, default: str) -> str:
    """The region that a request is signed for."""
    match = _SCOPE.search(authorization)
    return match[1] if match else default


def create(store: Store, call: Call, kind: Kind, name: str, document: Mapping[str, Any], status: str = "") -> Record:
    """Keep something new; AwsError when it exists."""
    record = Record.new(kind, name, call.arn(kind, name), document, status)
    if not store.add(record, call.tags()):
        raise AwsError(words.EXISTS.format(kind=kind.words, arn=record.arn))
    return record


def find(store: Store, call: Call, kind: Kind, name: str) -> Record:
    """What is called ``name``; AwsError when there is none."""
    record = store.get(kind, name)
    if record is None:
        raise AwsError(words.NO_RESOURCE.format(kind=kind.words, arn=call.arn(kind, name)))
    return record
