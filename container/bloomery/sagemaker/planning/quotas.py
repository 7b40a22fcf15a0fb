"""How many instances of a type an account may have for endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bloomery.sagemaker.session import Session


def quota_name(instance_type: str) -> str:
    """As Service Quotas calls it."""
    return f"{instance_type} for endpoint usage"


def endpoint_quotas(session: Session, instance_types: Iterable[str]) -> Mapping[str, int]:
    """The account's quota of each type; a type for which Service Quotas has none is left out.

    Raises TargetError and CallError.
    """
    wanted = {quota_name(name): name for name in instance_types}
    return {
        wanted[quota["QuotaName"]]: int(quota["Value"])
        for page in session.pages("service-quotas", "ListServiceQuotas", ServiceCode="sagemaker")
        for quota in page["Quotas"]
        if quota["QuotaName"] in wanted
    }
