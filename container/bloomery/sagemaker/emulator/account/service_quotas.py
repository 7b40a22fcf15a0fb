"""Service Quotas: how many instances of each type endpoints may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bloomery.sagemaker.emulator.account.account_tables import QUOTA, AccountTables, quota_code
from bloomery.sagemaker.emulator.api import words
from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.api.call import Call
from bloomery.sagemaker.emulator.api.json_api import Operation
from bloomery.sagemaker.emulator.api.offsets import page

PREFIX, SERVICE = "ServiceQuotasV20190624.", "service-quotas"
_PAGE = 100


class ServiceQuotas:
    """The operations. Only sagemaker has quotas here, and only those of endpoints."""

    def __init__(self, tables: AccountTables) -> None:
        self._tables = tables

    def operations(self) -> Mapping[str, Operation]:
        """By name."""
        return {
            "ListServiceQuotas": self.every,
            "ListAWSDefaultServiceQuotas": self.every,
            "GetServiceQuota": self.get,
            "GetAWSDefaultServiceQuota": self.get,
        }

    async def every(self, call: Call) -> dict[str, Any]:
        """ListServiceQuotas, ListAWSDefaultServiceQuotas."""
        given = call.parameters
        quotas = [each for each in self._all(call) if given.get("QuotaCode", each["QuotaCode"]) == each["QuotaCode"]]
        shown, more = page(quotas, given.get("MaxResults", _PAGE), given.get("NextToken"))
        return {"Quotas": shown, **more}

    async def get(self, call: Call) -> dict[str, Any]:
        """GetServiceQuota, GetAWSDefaultServiceQuota."""
        code = call.parameters["QuotaCode"]
        for quota in self._all(call):
            if quota["QuotaCode"] == code:
                return {"Quota": quota}
        raise AwsError(words.NO_QUOTA.format(code=code), "NoSuchResourceException")

    def _all(self, call: Call) -> list[dict[str, Any]]:
        service = call.parameters["ServiceCode"]
        if service != "sagemaker":
            raise AwsError(words.NO_QUOTAS_OF.format(service=service), "NoSuchResourceException")
        default = "Default" in call.operation
        return [
            {
                "ServiceCode": service,
                "ServiceName": "Amazon SageMaker",
                "QuotaArn": f"arn:aws:servicequotas:{call.region}:{call.account}:sagemaker/{quota_code(name)}",
                "QuotaCode": quota_code(name),
                "QuotaName": f"{name} for endpoint usage",
                "Value": float(QUOTA if default else self._tables.quota(name)),
                "Unit": "None",
                "Adjustable": True,
                "GlobalQuota": False,
            }
            for name in self._tables.types
        ]
