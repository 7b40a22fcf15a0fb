"""IAM policies from the files beside this one, with one account's names in them."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from bloomery.errors import ConfigurationError

# What each is for, in the order in which they are needed.
KINDS = {
    "trust": "who may take the execution role: SageMaker, for this account",
    "role": "what the execution role may do: read the model, pull the image, write logs and metrics",
    "async": "what the execution role needs besides for asynchronous inference",
    "deploy": "what the user who deploys may do",
}
_PLACE = re.compile(r"\{\{(\w+)\}\}")
_FORMS = {
    "bucket": (r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "a bucket's name, without s3://"),
    "prefix": (r"[A-Za-z0-9!_.'()/=+@,-]*", "a prefix such as models/, without wildcards"),
    "region": (r"[a-z]{2}(-[a-z]+)+-\d", "a region such as us-east-1"),
    "account": (r"\d{12}", "the twelve digits of the account"),
    "names": (r"[A-Za-z0-9*-]{1,63}", "a name of endpoints, or a pattern such as bloomery-*"),
    "role": (r"[\w+=,.@/*-]+", "the name of a role, with its path if it has one"),
    "repository": (r"[a-z0-9._/*-]+", "the name of a repository in ECR"),
}


@dataclass(frozen=True)
class Names:
    """What a policy is about. ``names``: of endpoints, and of the models and configurations that belong to them; ``*``
    is any text. ``role``: the execution role's name. ``repository``: of the image in ECR.
    """

    region: str
    account: str
    bucket: str = ""
    prefix: str = ""
    names: str = "bloomery-*"
    role: str = "bloomery-execution"
    repository: str = "bloomery"

    @property
    def partition(self) -> str:
        """The first word of an ARN after ``arn``."""
        if self.region.startswith("cn-"):
            return "aws-cn"
        return "aws-us-gov" if self.region.startswith("us-gov-") else "aws"


def policy(kind: str, names: Names) -> dict[str, Any]:
    """The document of ``kind`` (see KINDS). Raises ConfigurationError for another word, or what is no name."""
    if kind not in KINDS:
        raise ConfigurationError(f"there is no policy {kind!r}; there are {', '.join(KINDS)}")
    text = resources.files(__package__).joinpath(f"{kind}.json").read_text("utf-8")
    values = asdict(names) | {"partition": names.partition}
    for field in sorted({match[1] for match in _PLACE.finditer(text)} & _FORMS.keys()):
        form, wanted = _FORMS[field]
        if not re.fullmatch(form, values[field]):
            raise ConfigurationError(f"--{field} {values[field]!r}: it must be {wanted}")
    # A prefix is a folder: what is below models/ is not what begins with models.
    values["prefix"] = f"{names.prefix.strip('/')}/" if names.prefix.strip("/") else ""
    filled: dict[str, Any] = json.loads(_PLACE.sub(lambda match: values[match[1]], text))
    return filled
