"""What is asked for: one model on one endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from bloomery.sagemaker.deploying.component import Component
from bloomery.sagemaker.operating.expiry import CREATED_BY, EXPIRES

VARIANT = "AllTraffic"
DOWNLOAD_TIMEOUT = STARTUP_TIMEOUT = 2400  # seconds, enough for the largest checkpoint of the published walk-through
_ARCHIVE = (".tar.gz", ".tgz", ".tar", ".zip")


@dataclass(frozen=True)
class AsyncOutput:
    """Makes an endpoint asynchronous. ``output``, ``failure``: S3 prefixes; ``concurrent``: invocations at a time."""

    output: str
    failure: str | None = None
    concurrent: int | None = None


@dataclass(frozen=True)
class Deployment:
    """``name``: of the endpoint, its configuration and its model.

    ``model_data``: an archive (``s3://….tar.gz``), an uncompressed prefix (``s3://…/``), or a model directory of this
    machine, which is packaged and brought below ``upload_to``. ``checkpoint``: where the container finds the weights.
    ``image``, ``role``: None for this project's own image and for the role that this machine has; a role may be given
    by its name. ``instance_types``: the first that there is capacity for, in this order. ``volume``: GB. Time-outs in
    seconds. ``component``: serve it as an inference component of the same name. ``ttl``: after which ``bloomery delete
    --expired`` removes it; None: never.
    """

    name: str
    instance_types: tuple[str, ...]
    model_data: str | None = None
    checkpoint: str | None = None
    image: str | None = None
    role: str | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    tensor_parallel: int | None = None
    instance_count: int = 1
    volume: int | None = None
    download_timeout: int = DOWNLOAD_TIMEOUT
    startup_timeout: int = STARTUP_TIMEOUT
    async_output: AsyncOutput | None = None
    component: Component | None = None
    routing: str | None = None
    ami_version: str | None = None
    network_isolation: bool = False
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    kms_key: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    ttl: timedelta | None = None
    upload_to: str | None = None

    @property
    def variables(self) -> dict[str, Any]:
        """The container's environment. Values ought to be text; who gives others is told."""
        given = dict(self.environment)
        if self.checkpoint is not None:
            given["OPTION_MODEL_ID"] = self.checkpoint
        if self.tensor_parallel is not None:
            given["TENSOR_PARALLEL_DEGREE"] = str(self.tensor_parallel)
        return given

    @property
    def is_directory(self) -> bool:
        """Whether the model data is a directory of this machine, to be packaged."""
        return self.model_data is not None and "://" not in self.model_data

    @property
    def is_prefix(self) -> bool:
        """Whether the model data is an uncompressed prefix of S3."""
        data = self.model_data
        return data is not None and "://" in data and not data.endswith(_ARCHIVE)

    def all_tags(self, now: datetime) -> dict[str, str]:
        """The user's and ours."""
        from bloomery import __version__

        expires = {EXPIRES: f"{(now + self.ttl).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"} if self.ttl is not None else {}
        return {CREATED_BY: f"bloomery {__version__}", **expires, **self.tags}
