"""How many instances of a type the account may have in endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bloomery.errors import CallError
from bloomery.sagemaker.deploying.deployment import Deployment
from bloomery.sagemaker.deploying.finding import Finding, error, note
from bloomery.sagemaker.session import Session


@dataclass(frozen=True)
class Quota:
    """``value``: instances."""

    name: str
    code: str
    value: int

    def how_to_raise(self, to: int) -> str:
        """The command that asks AWS for more."""
        return (
            f"aws service-quotas request-service-quota-increase --service-code sagemaker --quota-code {self.code} "
            f"--desired-value {to}"
        )


def endpoint_quotas(session: Session, instance_types: tuple[str, ...]) -> dict[str, Quota]:
    """By instance type. Raises AccessError and CallError."""
    wanted = {f"{each} for endpoint usage": each for each in instance_types}
    found: dict[str, Quota] = {}
    for page in session.pages("service-quotas", "ListServiceQuotas", ServiceCode="sagemaker"):
        for each in page["Quotas"]:
            if (instance_type := wanted.get(each["QuotaName"])) is not None:
                found[instance_type] = Quota(each["QuotaName"], each["QuotaCode"], int(each["Value"]))
        if len(found) == len(wanted):
            break
    return found


def quota_findings(session: Session, wanted: Deployment) -> Iterator[Finding]:
    """An error where the quota is below what is asked for. What is in use counts, too, and only SageMaker knows it."""
    found = endpoint_quotas(session, wanted.instance_types)
    for each in wanted.instance_types:
        quota = found.get(each)
        if quota is None:
            yield note("quota", f"Service Quotas does not list {each!r} for endpoints: it may have none here")
        elif quota.value < wanted.instance_count:
            yield error(
                "quota",
                f"'{quota.name}' is {quota.value} in {session.region}, and {wanted.instance_count} are asked for: take "
                f"another type, or ask for more: {quota.how_to_raise(wanted.instance_count)}",
            )


def how_to_raise(session: Session, wanted: Deployment, instance_type: str) -> str:
    """What to do about a ResourceLimitExceeded."""
    try:
        quota = endpoint_quotas(session, (instance_type,)).get(instance_type)
    except CallError:
        quota = None
    if quota is None:
        return f"ask for more of '{instance_type} for endpoint usage' in the console under Service Quotas, SageMaker"
    more = quota.how_to_raise(quota.value + wanted.instance_count)
    return f"delete endpoints that you need no more (bloomery ls), or ask for more: {more}"
