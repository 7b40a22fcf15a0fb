"""Whether model data is where CreateModel says: a question to S3, the emulated one or the user's."""

from __future__ import annotations

from botocore.exceptions import BotoCoreError, ClientError

from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.aws.clients import Clients
from bloomery.sagemaker.emulator.deployment import ModelData

_ABSENT = {"404", "NoSuchBucket", "NoSuchKey", "NotFound"}


class ModelDataLookup:
    """Asks through ``clients``."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    async def __call__(self, data: ModelData, region: str) -> bool:
        """Whether there is an object at the archive's URI, or any below the prefix. AwsError if S3 does not say."""
        uri = data.archive or data.prefix or ""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        try:
            if data.archive:
                await self._clients.call("s3", region, "head_object", Bucket=bucket, Key=key)
                return True
            found = await self._clients.call("s3", region, "list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)
            return bool(found.get("Contents"))
        except ClientError as error:
            if error.response["Error"]["Code"] in _ABSENT:
                return False
            raise AwsError(f"Could not access model data at {uri}: {error}") from error
        except BotoCoreError as error:
            raise AwsError(f"Could not access model data at {uri}: {error}") from error
