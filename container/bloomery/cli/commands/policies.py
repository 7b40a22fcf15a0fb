"""``bloomery policies``: what it takes."""

from __future__ import annotations

from typing import Annotated

import typer

from bloomery.cli.arguments import EndpointUrl, Profile, Region, Target


def policies(
    kind: Annotated[str, typer.Argument(metavar="trust|role|async|deploy", help="Which one; docs/iam.md tells.")],
    bucket: Annotated[str, typer.Option(metavar="BUCKET", help="Where archives and checkpoints are.")] = "",
    prefix: Annotated[str, typer.Option(metavar="PREFIX", help="Below which prefix of it.")] = "",
    names: Annotated[str, typer.Option(metavar="PATTERN", help="What the endpoints are called.")] = "bloomery-*",
    role: Annotated[str, typer.Option(metavar="NAME", help="The execution role.")] = "bloomery-execution",
    repository: Annotated[str, typer.Option(metavar="NAME", help="The image's repository in ECR.")] = "bloomery",
    account: Annotated[
        str | None, typer.Option(metavar="DIGITS", help="The account.  [default: that of your credentials]")
    ] = None,
    target: Target = None,
    region: Region = None,
    profile: Profile = None,
    endpoint_url: EndpointUrl = None,
) -> None:
    """Print an IAM policy with your names in it: for the execution role, or for the user who deploys."""
    from bloomery.cli import permitting
    from bloomery.cli.account import Account

    known = {"bucket": bucket, "prefix": prefix, "names": names, "role": role, "repository": repository}
    raise typer.Exit(permitting.show(kind, known, account, Account(target, region, profile, endpoint_url)))
