"""Where things go in S3 when nobody says where."""

from __future__ import annotations

from bloomery.errors import CallError
from bloomery.sagemaker.session import Session


def default_bucket(session: Session) -> str:
    """``s3://…/`` of the one that AWS's own SDK for SageMaker uses, too. Asks STS once. Raises TargetError."""
    return f"s3://sagemaker-{session.region}-{session.account}/"


def ensure_bucket(session: Session, uri: str) -> None:
    """An emulator begins empty: there the bucket of ``uri`` is made. In an account it is made by who will pay for it.

    Raises SageMakerError.
    """
    if not session.is_emulator:
        return
    bucket = uri.removeprefix("s3://").partition("/")[0]
    place = {} if session.region == "us-east-1" else {"LocationConstraint": session.region}
    try:
        session.call("s3", "HeadBucket", Bucket=bucket)
    except CallError:
        session.call("s3", "CreateBucket", Bucket=bucket, **({"CreateBucketConfiguration": place} if place else {}))
