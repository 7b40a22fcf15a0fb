"""One call of an AWS API as a value: it can be shown before it is made, or instead of being made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Request:
    """``service`` in boto3's spelling (sagemaker, s3, application-autoscaling), ``operation`` in the API's
    (CreateEndpoint), ``parameters`` as boto3 takes them.
    """

    service: str
    operation: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """What ``--dry-run`` prints as JSON."""
        return {"service": self.service, "operation": self.operation, "parameters": dict(self.parameters)}
