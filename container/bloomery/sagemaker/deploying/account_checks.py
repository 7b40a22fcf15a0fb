"""What only the account can tell: whether names are taken, objects are there, the role is one, the quota suffices.

Everything is asked at once. What may not be asked is noted, and does not keep a deployment from being made.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bloomery.errors import CallError
from bloomery.sagemaker.deploying import requests, stored_data
from bloomery.sagemaker.deploying.deployment import Deployment
from bloomery.sagemaker.deploying.quota import quota_findings
from bloomery.sagemaker.finding import Finding, error, remark
from bloomery.sagemaker.operating.absence import ask
from bloomery.sagemaker.session import Session

_THREADS = 8
_TRUSTED = "sagemaker.amazonaws.com"
# Members that make a difference by being there.
_MATTER = (
    "AsyncInferenceConfig",
    "EnableNetworkIsolation",
    "Environment",
    "InferenceAmiVersion",
    "KmsKeyId",
    "ManagedInstanceScaling",
    "ModelDataSource",
    "ModelDataUrl",
    "RoutingConfig",
    "VolumeSizeInGB",
    "VpcConfig",
)
_TAKEN = "delete it first (bloomery delete {name}), or take another name"


@dataclass(frozen=True)
class Account:
    """``present``: CreateModel, CreateEndpointConfig, where what it would make is there, and as wanted."""

    findings: tuple[Finding, ...]
    present: frozenset[str]


def look(session: Session, wanted: Deployment, *, uploads: bool = False) -> Account:
    """At the account, for ``wanted``, which is resolved. ``uploads``: the archive is not there yet, and will be."""
    present: set[str] = set()
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("name", lambda: _endpoint(session, wanted)),
        ("name", lambda: _existing(session, wanted, present)),
        ("role", lambda: _role(session, wanted)),
        ("model data", lambda: stored_data.model_data(session, wanted, uploads=uploads)),
        ("checkpoint", lambda: stored_data.checkpoint(session, wanted)),
        ("image", lambda: _image(session, wanted)),
        ("quota", lambda: quota_findings(session, wanted)),
    ]

    def run(check: tuple[str, Callable[[], Iterator[Finding]]]) -> list[Finding]:
        what, find = check
        found: list[Finding] = []
        try:
            found.extend(find())
        except CallError as refusal:  # not a TargetError: without keys nothing else would work either
            found.append(remark(what, f"could not be checked: {refusal}"))
        return found

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="check") as threads:
        findings = [each for found in threads.map(run, checks) for each in found]
    return Account(tuple(findings), frozenset(present))


def _endpoint(session: Session, wanted: Deployment) -> Iterator[Finding]:
    found = ask(session, "sagemaker", "DescribeEndpoint", EndpointName=wanted.name)
    if found is not None:
        yield error(
            "name",
            f"there is an endpoint {found['EndpointName']}, {found['EndpointStatus']}, made "
            f"{found['CreationTime']:%Y-%m-%d %H:%M}: {_TAKEN.format(name=found['EndpointName'])}",
        )


def _existing(session: Session, wanted: Deployment, present: set[str]) -> Iterator[Finding]:
    """A model and a configuration that an earlier deployment has left: used again when they are the same."""
    now = datetime.now(UTC)
    for kind, word, request in (
        ("Model", "model", requests.create_model(wanted, now)),
        ("EndpointConfig", "endpoint configuration", requests.create_config(wanted, wanted.instance_types[0], now)),
    ):
        found = ask(session, "sagemaker", f"Describe{kind}", **{f"{kind}Name": wanted.name})
        if found is None:
            continue
        differences = list(_differences(request.parameters, found))
        if len(wanted.instance_types) > 1 and kind == "EndpointConfig":
            differences.append("it is for one instance type only")
        if differences:
            yield error(
                "name",
                f"there is another {word} {wanted.name}, and it would be used: {'; '.join(differences)}: "
                f"{_TAKEN.format(name=wanted.name)}",
            )
        else:
            present.add(f"Create{kind}")
            made = f"made {found['CreationTime']:%Y-%m-%d %H:%M}"
            yield remark("name", f"the {word} {wanted.name}, {made}, is the same, and is used again")


def _differences(wanted: Mapping[str, Any], found: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Where ``found`` is not as ``wanted``. What it has beside that is SageMaker's own, but for ``_MATTER`` and the
    variables of an environment."""
    for name, value in wanted.items():
        if name in ("Tags", "ModelName", "EndpointConfigName") and not path:
            continue
        where, other = f"{path}{name}", found.get(name)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            yield from _differences(value, other, f"{where}.")
        elif isinstance(value, list) and isinstance(other, list) and len(value) == len(other) == 1:
            if isinstance(value[0], Mapping):
                yield from _differences(value[0], other[0], f"{where}.")
            elif value != other:
                yield f"{where} is {other}, not {value}"
        elif value != other:
            yield f"{where} is {_short(other)}, not {_short(value)}"
    for name, other in found.items():
        if name not in wanted and other and (name in _MATTER or path.endswith("Environment.")):
            yield f"{path}{name} is {_short(other)}, and none is wanted"


def _short(value: Any) -> str:
    if value is None:
        return "missing"
    text = json.dumps(value, default=str) if isinstance(value, (Mapping, list)) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _role(session: Session, wanted: Deployment) -> Iterator[Finding]:
    """Whether it is there, and SageMaker may take it."""
    arn = wanted.role
    if arn is None or ":role/" not in arn or session.is_emulator:  # which asks for the form of an ARN only
        return
    name = arn.rpartition("/")[2]
    try:
        role = session.call("iam", "GetRole", RoleName=name)["Role"]
    except CallError as refusal:
        if refusal.code not in ("NoSuchEntity", "NoSuchEntityException"):
            raise
        yield error("role", f"account {session.account} has no role {name}: `aws iam list-roles`, or make one")
        return
    yield from trust_findings(name, role.get("AssumeRolePolicyDocument") or {})


def trust_findings(name: str, policy: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether a role's trust policy lets SageMaker in."""
    statements = policy.get("Statement") or []
    for each in [statements] if isinstance(statements, Mapping) else statements:
        services = (each.get("Principal") or {}) if isinstance(each.get("Principal"), Mapping) else {}
        named = services.get("Service", [])
        if each.get("Effect") == "Allow" and _TRUSTED in ([named] if isinstance(named, str) else named):
            return
    yield error("role", f"{name} does not trust {_TRUSTED}: `bloomery policies trust` prints the policy that it needs")


def _image(session: Session, wanted: Deployment) -> Iterator[Finding]:
    """Whether an image of the account's own registry is there."""
    registry, _, rest = (wanted.image or "").partition("/")
    if ".dkr.ecr." not in registry or session.is_emulator:
        return
    account, region = registry.split(".")[0], registry.split(".")[3]
    if region != session.region:
        yield error("image", f"{wanted.image} is in {region}, and SageMaker pulls from {session.region} only")
        return
    if account != session.account:  # a registry of AWS's own, or another account's: only SageMaker can tell
        return
    repository, _, tag = rest.partition("@") if "@" in rest else rest.partition(":")
    wanted_id = {"imageDigest": tag} if "@" in rest else {"imageTag": tag or "latest"}
    try:
        session.call("ecr", "DescribeImages", repositoryName=repository, imageIds=[wanted_id])
    except CallError as refusal:
        if refusal.code not in ("RepositoryNotFoundException", "ImageNotFoundException"):
            raise
        yield error(
            "image",
            f"{wanted.image} is not in the registry ({refusal.code}): push it there, or give --image with another, "
            "such as one of AWS's djl-inference images",
        )


def raise_unless_reachable(session: Session) -> None:
    """Raise TargetError when there is no way to the account, before anything else is said."""
    with contextlib.suppress(CallError):  # who may not ask who it is may still deploy
        _ = session.account
