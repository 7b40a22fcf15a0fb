"""``bloomery policies``: an IAM policy, for ``aws iam put-role-policy`` and its kin."""

from __future__ import annotations

import json

from bloomery import cli
from bloomery.sagemaker.policies import Names, policy
from bloomery.sagemaker.session import Session


def show(
    kind: str,
    bucket: str,
    prefix: str,
    names: str,
    role: str,
    repository: str,
    account: str | None,
    target: str | None,
    region: str | None,
    profile: str | None,
    endpoint_url: str | None,
) -> int:
    """Print it. Only what is not said, the account or the region, is asked of AWS."""
    if account is None or region is None:
        with Session.open(target, region=region, profile=profile, endpoint_url=endpoint_url) as session:
            account, region = account or session.account, session.region
    print(json.dumps(policy(kind, Names(region, account, bucket, prefix, names, role, repository)), indent=2))
    return cli.OK
