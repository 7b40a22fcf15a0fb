"""Whether the account may have as many instances as are asked for."""

from __future__ import annotations

from collections.abc import Iterator

from bloomery.errors import CallError
from bloomery.sagemaker.deploying.deployment import Deployment
from bloomery.sagemaker.finding import Finding, error, remark
from bloomery.sagemaker.quotas import endpoint_quotas, quota_name
from bloomery.sagemaker.session import Session


def quota_findings(session: Session, wanted: Deployment) -> Iterator[Finding]:
    """An error where the quota is below what is asked for. What is in use counts, too, and only SageMaker knows it."""
    found = endpoint_quotas(session, wanted.instance_types)
    for each in wanted.instance_types:
        quota = found.get(each)
        if quota is None:
            yield remark("quota", f"Service Quotas does not list {each!r} for endpoints: it may have none here")
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
        return f"ask for more of '{quota_name(instance_type)}' in the console under Service Quotas, SageMaker"
    more = quota.how_to_raise(quota.value + wanted.instance_count)
    return f"delete endpoints that you need no more (bloomery ls), or ask for more: {more}"
