"""``bloomery policies``: an IAM policy, for ``aws iam put-role-policy`` and its kin."""

from __future__ import annotations

import json
from collections.abc import Mapping

from bloomery import cli
from bloomery.cli.account import Account
from bloomery.sagemaker.policies import Names, policy


def show(kind: str, known: Mapping[str, str], digits: str | None, account: Account) -> int:
    """Print it. Only what is not said, the account's ``digits`` or the region, is asked of AWS."""
    region = account.region
    if digits is None or region is None:
        with account.open() as session:
            digits, region = digits or session.account, session.region
    print(json.dumps(policy(kind, Names(region, digits, **known)), indent=2))
    return cli.OK
