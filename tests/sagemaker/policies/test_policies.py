"""The policies: documents that AWS takes, with every right that the product uses and none besides."""

from __future__ import annotations

import json
import subprocess
import sys
from fnmatch import fnmatchcase
from typing import Any

import botocore.session
import pytest
from tests.sagemaker.policies.calls import actions_of, client_calls
from tests.support.emulator import environment

from bloomery.errors import ConfigurationError
from bloomery.sagemaker.policies import KINDS, Names, policy

NAMES = Names("us-east-1", "123456789012", "models", "bloom/", "bloomery-*", "service-role/bloomery", "bloomery")
# Services by the first word of their actions, as boto3 calls them.
SERVICES = {
    "application-autoscaling": ("application-autoscaling",),
    "cloudwatch": ("cloudwatch",),
    "ecr": ("ecr",),
    "iam": ("iam",),
    "logs": ("logs",),
    "pricing": ("pricing",),
    "s3": ("s3",),
    "sagemaker": ("sagemaker", "sagemaker-runtime"),
    "servicequotas": ("service-quotas",),
    "sts": ("sts",),
}
# Actions that are called otherwise than the operations they allow.
NO_OPERATIONS = {
    "iam:PassRole": "a right to name the role in CreateModel",
    "s3:ListBucket": "ListObjectsV2, HeadBucket",
    "s3:ListBucketMultipartUploads": "ListMultipartUploads",
    "s3:ListMultipartUploadParts": "ListParts",
}


# Rights of the deploying user that no call of ours shows by its name, and why they are there.
BESIDES = {
    "iam:PassRole": "CreateModel names the role",
    "iam:CreateServiceLinkedRole": "the first RegisterScalableTarget of an account",
    "sagemaker:AddTags": "Create* with Tags",
    "sagemaker:UpdateInferenceComponent": "scaling to zero (notebooks)",
    "sagemaker:UpdateInferenceComponentRuntimeConfig": "scaling to zero (notebooks)",
    "sagemaker:UpdateEndpoint": "another model without a pause",
    "sagemaker:UpdateEndpointWeightsAndCapacities": "another count of instances without a pause",
}


def statements(kind: str, names: Names = NAMES) -> list[dict[str, Any]]:
    document = policy(kind, names)
    assert document["Version"] == "2012-10-17"
    found: list[dict[str, Any]] = document["Statement"]
    return found


def listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def actions(kind: str) -> set[str]:
    return {action for each in statements(kind) for action in listed(each["Action"])}


def allowed(kind: str, action: str, resource: str, names: Names = NAMES) -> list[dict[str, Any]]:
    """The statements that allow it, conditions aside."""
    return [
        each
        for each in statements(kind, names)
        if action in listed(each["Action"])
        and any(fnmatchcase(resource, pattern) for pattern in listed(each.get("Resource", "*")))
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_that_aws_takes(kind: str) -> None:
    found = statements(kind)
    assert "{{" not in json.dumps(found)
    assert len({each["Sid"] for each in found}) == len(found)
    for each in found:
        assert each["Effect"] == "Allow"
        assert each["Sid"].isalnum()
        assert ("Principal" if kind == "trust" else "Resource") in each
    # The quotas of IAM: characters of a managed policy, and of a trust policy.
    size = len("".join(json.dumps(policy(kind, NAMES)).split()))
    assert size < (2048 if kind == "trust" else 6144)


@pytest.mark.parametrize("kind", KINDS)
def test_every_action_exists(kind: str) -> None:
    session = botocore.session.Session()
    for action in actions(kind):
        prefix, _, name = action.partition(":")
        operations = {one for service in SERVICES[prefix] for one in session.get_service_model(service).operation_names}
        assert name in operations or action in NO_OPERATIONS, action


def test_everything_that_the_clients_call_is_allowed() -> None:
    rights = actions("deploy")
    found = list(client_calls())
    assert len(found) > 10
    for call in found:
        needed = [actions_of(service, operation) for service, operation in call.candidates]
        assert any(rights >= each for each in needed), (
            f"{call.where} calls {call.candidates}, which needs {needed}: add it to policies/deploy.json"
        )


def test_there_is_no_right_that_nobody_uses() -> None:
    used = {
        action
        for call in client_calls()
        for service, operation in call.candidates
        for action in actions_of(service, operation)
    }
    assert not actions("deploy") - used - BESIDES.keys()
    assert actions("deploy") >= BESIDES.keys()


def test_nothing_is_wide_open() -> None:
    for kind in KINDS:
        for each in statements(kind):
            assert not [action for action in listed(each["Action"]) if "*" in action]
            for resource in listed(each.get("Resource", [])):
                assert resource == "*" or "arn:aws:s3:::models" in resource or ":123456789012:" in resource
            if each.get("Resource") == "*" and "Condition" not in each:
                harmless = ("Describe", "List", "Get")
                assert all(action.partition(":")[2].startswith(harmless) for action in listed(each["Action"]))


@pytest.mark.parametrize(
    ("action", "resource", "expected"),
    [
        ("sagemaker:CreateEndpoint", "arn:aws:sagemaker:us-east-1:123456789012:endpoint/bloomery-bloom", True),
        ("sagemaker:CreateEndpoint", "arn:aws:sagemaker:us-east-1:123456789012:endpoint/other", False),
        ("sagemaker:DeleteModel", "arn:aws:sagemaker:eu-west-1:123456789012:model/bloomery-bloom", False),
        ("sagemaker:InvokeEndpoint", "arn:aws:sagemaker:us-east-1:123456789012:endpoint/bloomery-bloom", True),
        ("s3:PutObject", "arn:aws:s3:::models/bloom/code-1/model.tar.gz", True),
        ("s3:PutObject", "arn:aws:s3:::models/bloom-other/x", False),
        ("s3:DeleteObject", "arn:aws:s3:::models/x", False),
        ("iam:PassRole", "arn:aws:iam::123456789012:role/service-role/bloomery", True),
        ("iam:PassRole", "arn:aws:iam::123456789012:role/admin", False),
        (
            "logs:FilterLogEvents",
            "arn:aws:logs:us-east-1:123456789012:log-group:/aws/sagemaker/Endpoints/bloomery-x",
            True,
        ),
        ("cloudwatch:PutMetricAlarm", "arn:aws:cloudwatch:us-east-1:123456789012:alarm:production", False),
    ],
)
def test_what_the_deploying_user_may_do(action: str, resource: str, expected: bool) -> None:
    assert bool(allowed("deploy", action, resource)) is expected


def test_the_role_is_given_to_sagemaker_only() -> None:
    (statement,) = allowed("deploy", "iam:PassRole", "arn:aws:iam::123456789012:role/service-role/bloomery")
    assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    (trust,) = statements("trust")
    assert trust["Condition"]["StringEquals"]["aws:SourceAccount"] == "123456789012"


def test_the_role_only_reads_the_bucket() -> None:
    assert {action for action in actions("role") if action.startswith("s3:")} == {"s3:GetObject", "s3:ListBucket"}
    assert not {action for action in actions("role") if action.startswith(("sagemaker:", "iam:"))}


def test_a_whole_bucket_and_other_partitions() -> None:
    whole = Names("cn-north-1", "123456789012", "models")
    assert allowed("role", "s3:GetObject", "arn:aws-cn:s3:::models/anything", whole)
    government = Names("us-gov-west-1", "123456789012", "models", "/a/b")
    assert allowed("role", "s3:GetObject", "arn:aws-us-gov:s3:::models/a/b/c", government)
    assert not allowed("role", "s3:GetObject", "arn:aws-us-gov:s3:::models/a/bc", government)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bucket": "s3://models"}, "--bucket 's3://models': it must be a bucket's name, without s3://"),
        ({"bucket": ""}, "--bucket ''"),
        ({"account": "1234"}, "twelve digits"),
        ({"region": "Virginia"}, "us-east-1"),
        ({"prefix": "a*"}, "without wildcards"),
        ({"names": "bloom_*"}, "bloomery-*"),
    ],
)
def test_names_that_are_none(changes: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        policy("deploy", Names(**{**vars(NAMES), **changes}))
    assert says in str(caught.value)


def test_another_kind() -> None:
    with pytest.raises(ConfigurationError, match="no policy 'user'; there are trust, role, async, deploy"):
        policy("user", NAMES)


def test_the_command_asks_nobody_when_all_is_said() -> None:
    command = [sys.executable, "-m", "bloomery", "policies", "deploy", "--bucket", "models", "--prefix", "bloom"]
    command += ["--region", "us-east-1", "--account", "123456789012", "--role", "service-role/bloomery"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == policy("deploy", NAMES)
