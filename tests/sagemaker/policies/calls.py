"""Which operations of AWS the client side of the product calls, read from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import botocore.session
from botocore import xform_name

SOURCE = Path(__file__).parents[3] / "container" / "bloomery"
# Rooms that call AWS on behalf of the user who deploys.
ROOMS = ("sagemaker", "checkpoints/sources", "checkpoints/uploading", "bench/endpoint", "bench/verifying")
OTHERS = ("sagemaker/emulator", "sagemaker/sdk_shim")
SERVICES = (
    "sagemaker", "sagemaker-runtime", "s3", "sts", "iam", "logs", "cloudwatch", "application-autoscaling",
    "service-quotas", "pricing", "ecr", "ec2",
)  # fmt: skip
# What an operation needs, where that is not the action of its own name.
NEEDS = {
    ("s3", "HeadObject"): {"s3:GetObject"},
    ("s3", "ListObjectsV2"): {"s3:ListBucket"},
    ("s3", "HeadBucket"): {"s3:ListBucket"},
    ("s3", "ListParts"): {"s3:ListMultipartUploadParts"},
    ("s3", "ListMultipartUploads"): {"s3:ListBucketMultipartUploads"},
    ("s3", "CreateMultipartUpload"): {"s3:PutObject"},
    ("s3", "UploadPart"): {"s3:PutObject"},
    ("s3", "CompleteMultipartUpload"): {"s3:PutObject"},
    ("s3", "DeleteObjects"): {"s3:DeleteObject"},
    ("sts", "GetCallerIdentity"): set(),  # everybody may
    ("s3", "CreateBucket"): set(),  # in an emulator only
}
PREFIX = {"service-quotas": "servicequotas", "sagemaker-runtime": "sagemaker"}


@dataclass(frozen=True)
class Call:
    """``candidates``: services and operations of which this is one: a method's name alone does not tell whose."""

    where: str
    candidates: tuple[tuple[str, str], ...]


def actions_of(service: str, operation: str) -> set[str]:
    """The rights that an operation needs."""
    return NEEDS.get((service, operation), {f"{PREFIX.get(service, service)}:{operation}"})


def client_calls() -> Iterator[Call]:
    """Every call, in three forms: service and "Operation" side by side; a method; a method's name in quotes."""
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if name.startswith(ROOMS) and not name.startswith(OTHERS):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                for candidates in _found(node):
                    yield Call(f"{name}:{getattr(node, 'lineno', 0)}", candidates)


def _found(node: ast.AST) -> Iterator[tuple[tuple[str, str], ...]]:
    if isinstance(node, ast.Call):
        for service, operation in pairwise(node.args):
            if isinstance(operation, ast.Constant):
                # The service may have a name, too: then any service with such an operation may be it.
                known = [service.value] if isinstance(service, ast.Constant) else list(SERVICES)
                candidates = [(each, operation.value) for each in known if operation.value in _names(each)]
                if candidates:
                    yield tuple(candidates)
    method = node.attr if isinstance(node, ast.Attribute) else node.value if isinstance(node, ast.Constant) else None
    if isinstance(method, str) and "_" in method:
        candidates = [(service, known[method]) for service, known in _operations().items() if method in known]
        if candidates:
            yield tuple(candidates)


def _names(service: object) -> set[str]:
    return set(_operations().get(str(service), {}).values())


@cache
def _operations() -> dict[str, dict[str, str]]:
    """Service -> method -> operation."""
    session = botocore.session.Session()
    return {
        service: {xform_name(name): name for name in session.get_service_model(service).operation_names}
        for service in SERVICES
    }
