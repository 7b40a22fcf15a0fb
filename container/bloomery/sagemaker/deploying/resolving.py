"""What was left out is filled in: the image, the role, and where the archive of a directory goes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from bloomery import __version__
from bloomery.errors import CallError, PackagingError, SageMakerError
from bloomery.sagemaker.bucket import default_bucket
from bloomery.sagemaker.deploying.deployment import Deployment
from bloomery.sagemaker.finding import Finding, error, remark
from bloomery.sagemaker.packaging import Archive, package
from bloomery.sagemaker.packaging.uploading import destination
from bloomery.sagemaker.session import Session

REPOSITORY = "bloomery"
_PREFIX = "bloomery/"
_ROLE_NAME = re.compile(r"[\w+=,.@/-]+")
_ASSUMED = re.compile(r"arn:[\w-]+:sts::\d+:assumed-role/([^/]+)/")
# What Studio and notebook instances know of themselves.
_METADATA = Path("/opt/ml/metadata/resource-metadata.json")


@dataclass(frozen=True)
class Resolved:
    """``wanted`` is complete, unless ``findings`` has errors. ``archive``, of ``directory``: what has to be brought
    below ``upload_to`` to be where ``model_data`` says."""

    wanted: Deployment
    findings: tuple[Finding, ...]
    directory: str | None = None
    upload_to: str = ""
    archive: Archive | None = None


def resolve(session: Session, wanted: Deployment) -> Resolved:
    """Ask AWS for what ``wanted`` leaves out. Changes nothing."""
    findings: list[Finding] = []
    if wanted.image is None:
        wanted = replace(wanted, image=_image(session))
        findings.append(remark("image", f"none is given: {wanted.image}"))
    role = _role(session, wanted.role, findings)
    wanted = replace(wanted, role=role)
    if not wanted.is_directory:
        return Resolved(wanted, tuple(findings))
    directory = str(wanted.model_data)
    try:
        archive = package(directory, None)
        upload_to = wanted.upload_to or f"{default_bucket(session)}{_PREFIX}"
        uri = destination(archive, upload_to)
    except PackagingError as refusal:
        return Resolved(wanted, (*findings, error("model data", str(refusal))))
    findings += [remark("model data", each.labelled) for each in archive.notes if each.level != "remark"]
    return Resolved(replace(wanted, model_data=uri), tuple(findings), directory, upload_to, archive)


def _image(session: Session) -> str:
    """This project's own, from the account's registry; an emulator runs this very installation for it."""
    if session.is_emulator:
        return f"{REPOSITORY}:{__version__}"
    suffix = "amazonaws.com.cn" if session.partition == "aws-cn" else "amazonaws.com"
    return f"{session.account}.dkr.ecr.{session.region}.{suffix}/{REPOSITORY}:{__version__}"


def _role(session: Session, given: str | None, findings: list[Finding]) -> str | None:
    if given is not None and given.startswith("arn:"):
        return given
    if given is not None and not _ROLE_NAME.fullmatch(given):
        findings.append(error("role", f"{given!r} is neither a role's name nor its ARN (arn:aws:iam::ACCOUNT:role/…)"))
        return None
    if given is None and session.is_emulator:
        return f"arn:{session.partition}:iam::{session.account}:role/bloomery-local"
    name = given.rpartition("/")[2] if given is not None else None
    if name is None:
        own = _own_role(session)
        if own is not None and own.startswith("arn:"):
            return own
        name = own
    if name is None:
        findings.append(
            error(
                "role",
                "none is given, and this machine has none of SageMaker's: give --role, the name or ARN of an execution "
                "role (`bloomery policies` prints what it needs)",
            )
        )
        return None
    try:
        return str(session.call("iam", "GetRole", RoleName=name)["Role"]["Arn"])
    except SageMakerError as refusal:
        if isinstance(refusal, CallError) and refusal.code in ("NoSuchEntity", "NoSuchEntityException"):
            findings.append(error("role", f"account {session.account} has no role {name!r}: `aws iam list-roles`"))
            return None
        findings.append(remark("role", f"IAM could not be asked for its ARN ({refusal})"))
        return f"arn:{session.partition}:iam::{session.account}:role/{given or name}"


def _own_role(session: Session) -> str | None:
    """ARN or name of the execution role of the notebook that this runs in; None anywhere else."""
    try:
        document = json.loads(_METADATA.read_text())
    except (OSError, ValueError):
        return None
    if arn := document.get("ExecutionRoleArn"):
        return str(arn)
    found = _ASSUMED.match(str(session.call("sts", "GetCallerIdentity")["Arn"]))
    return found[1] if found else None
