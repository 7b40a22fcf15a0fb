"""How many instances of a type an account may have in endpoints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bloomery.sagemaker.session import Session


@dataclass(frozen=True)
class Quota:
    """``name`` and ``code``: as Service Quotas has them. ``value``: instances."""

    name: str
    code: str
    value: int

    def how_to_raise(self, to: int) -> str:
        """The command that asks AWS for more."""
        return (
            f"aws service-quotas request-service-quota-increase --service-code sagemaker --quota-code {self.code} "
            f"--desired-value {to}"
        )


def quota_name(instance_type: str) -> str:
    """What the quota of a type is called."""
    return f"{instance_type} for endpoint usage"


def endpoint_quotas(session: Session, instance_types: Iterable[str]) -> dict[str, Quota]:
    """By instance type; a type for which the account has none is left out. Raises TargetError and CallError."""
    wanted = {quota_name(each): each for each in instance_types}
    found: dict[str, Quota] = {}
    for page in session.pages("service-quotas", "ListServiceQuotas", ServiceCode="sagemaker"):
        for each in page["Quotas"]:
            if each["QuotaName"] in wanted:
                found[wanted[each["QuotaName"]]] = Quota(each["QuotaName"], each["QuotaCode"], int(each["Value"]))
        if len(found) == len(wanted):  # an account has thousands
            break
    return found
