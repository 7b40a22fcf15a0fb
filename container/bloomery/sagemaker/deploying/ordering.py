"""A deployment from the wish to the endpoint: resolve, check, upload, launch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bloomery.errors import CallError, DeploymentRefusedError, SageMakerError
from bloomery.sagemaker.bucket import ensure_bucket
from bloomery.sagemaker.deploying import requests
from bloomery.sagemaker.deploying.account_checks import look, raise_unless_reachable
from bloomery.sagemaker.deploying.checks import check
from bloomery.sagemaker.deploying.deployment import Deployment
from bloomery.sagemaker.deploying.events import Note, Tell
from bloomery.sagemaker.deploying.launching import Patience, launch
from bloomery.sagemaker.deploying.quota import how_to_raise
from bloomery.sagemaker.deploying.resolving import Resolved, resolve
from bloomery.sagemaker.finding import Finding, error
from bloomery.sagemaker.packaging import package, upload
from bloomery.sagemaker.request import Request
from bloomery.sagemaker.session import Session

_LIMIT = "ResourceLimitExceeded"


@dataclass(frozen=True)
class Order:
    """How a deployment is carried out. ``rollback``: a failed endpoint is removed, too."""

    wait: bool = True
    rollback: bool = False
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True)
class Prepared:
    """A deployment that can be made. ``notes``: what to know; ``present``: requests that need not be made."""

    resolved: Resolved
    notes: tuple[Finding, ...]
    present: frozenset[str]

    @property
    def wanted(self) -> Deployment:
        """Complete."""
        return self.resolved.wanted

    def requests(self) -> list[Request]:
        """What would be asked of AWS, the upload of an archive included."""
        every = requests.creation(self.wanted, datetime.now(UTC))
        made = [each for each in every if each.operation not in self.present]
        if self.resolved.archive is None:
            return made
        bucket, _, key = str(self.wanted.model_data).removeprefix("s3://").partition("/")
        return [Request("s3", "PutObject", {"Bucket": bucket, "Key": key}), *made]


def prepare(session: Session, wanted: Deployment) -> Prepared:
    """Look at everything that could be wrong, at once; changes nothing.

    Raises DeploymentRefusedError with all that is, and TargetError.
    """
    raise_unless_reachable(session)
    resolved = resolve(session, wanted)
    refused = {each.subject for each in resolved.findings if each.level == "error"}  # what else is wrong there follows
    findings = [*resolved.findings, *(each for each in check(resolved.wanted) if each.subject not in refused)]
    present: frozenset[str] = frozenset()
    # What is no name, type or address cannot be asked for.
    if not any(each.level == "error" and each.subject in ("name", "instance type") for each in findings):
        account = look(session, resolved.wanted, uploads=resolved.archive is not None)
        findings += account.findings
        present = account.present
    _refuse(wanted, findings)
    return Prepared(resolved, tuple(dict.fromkeys(findings)), present)


def carry_out(session: Session, prepared: Prepared, tell: Tell, order: Order) -> None:
    """Make it. Raises EndpointFailedError, and SageMakerError of the calls."""
    wanted = prepared.wanted
    if wanted.component is not None and not order.wait:
        refusal = error("component", "it is made when the endpoint is InService, so that has to be waited for")
        _refuse(wanted, [refusal])
    if prepared.resolved.archive is not None:
        _upload(session, prepared.resolved, tell)
    try:
        launch(
            session,
            wanted,
            tell,
            present=prepared.present,
            wait=order.wait,
            rollback=order.rollback,
            patience=order.patience,
        )
    except CallError as refused:
        if refused.code != _LIMIT:
            raise
        what = how_to_raise(session, wanted, wanted.instance_types[-1])
        raise SageMakerError(f"{refused}\nwhat to do: {what}") from refused


def _upload(session: Session, resolved: Resolved, tell: Tell) -> None:
    """The archive, under the address that has been announced."""
    assert resolved.directory is not None
    uri = str(resolved.wanted.model_data)
    with tempfile.TemporaryDirectory(prefix="bloomery-") as scratch:
        archive = package(resolved.directory, Path(scratch) / "model.tar.gz")
        assert resolved.archive is not None
        if archive.sha256 != resolved.archive.sha256:
            raise SageMakerError(f"{resolved.directory} has changed while it was packaged: deploy it again")
        ensure_bucket(session, uri)
        sent = upload(archive, resolved.upload_to, session)
    tell(Note(f"model data {sent} ({archive.size} bytes)"))


def _refuse(wanted: Deployment, findings: Iterable[Finding]) -> None:
    """Raise DeploymentRefusedError with every error among ``findings``, if there is one."""
    found = tuple(dict.fromkeys(findings))
    grave = [each for each in found if each.level == "error"]
    if grave:
        lines = "\n".join(f"  {each}" for each in grave)
        raise DeploymentRefusedError(
            f"endpoint {wanted.name} cannot be deployed, and nothing was made:\n{lines}", found
        )
