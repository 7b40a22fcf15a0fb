"""AddTags, ListTags, DeleteTags."""

from __future__ import annotations

from typing import Any

from bloomery.sagemaker.emulator.api import words
from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.api.call import Call
from bloomery.sagemaker.emulator.api.store import Store

_LIMIT = 50


class Tags:
    """The operations on the tags of whatever has an ARN."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, call: Call) -> dict[str, Any]:
        """AddTags; answers with all of them."""
        arn = self._known(call)
        if len(self._store.tags(arn) | call.tags()) > _LIMIT:
            raise AwsError(words.TOO_MANY_TAGS.format(arn=arn))
        self._store.tag(arn, call.tags())
        return {"Tags": _pairs(self._store.tags(arn))}

    async def list(self, call: Call) -> dict[str, Any]:
        """ListTags. There are never more than one page holds."""
        return {"Tags": _pairs(self._store.tags(self._known(call)))}

    async def delete(self, call: Call) -> dict[str, Any]:
        """DeleteTags."""
        self._store.untag(self._known(call), call.parameters["TagKeys"])
        return {}

    def _known(self, call: Call) -> str:
        arn: str = call.parameters["ResourceArn"]
        record = self._store.by_arn(arn)
        if record is None:
            raise AwsError(words.NO_SUCH_ARN.format(arn=arn))
        return record.arn


def _pairs(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
