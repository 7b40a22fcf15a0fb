"""``bloomery package``: look at a model directory, make its archive, bring it to S3."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from bloomery import cli
from bloomery.cli.account import Account
from bloomery.errors import PackagingError
from bloomery.sagemaker.packaging import Archive, package, upload
from bloomery.sagemaker.packaging.contents import megabytes
from bloomery.sagemaker.packaging.uploading import destination


def make(
    directory: str,
    output: str,
    top: str | None,
    exclude: Sequence[str],
    allow_large: bool,
    strict: bool,
    uri: str | None,
    dry_run: bool,
    as_json: bool,
    account: Account,
) -> int:
    """Do it, and print what was found and made."""
    try:
        archive = package(
            directory,
            None if dry_run else output,
            top=top,
            exclude=exclude,
            allow_large=allow_large,
            strict=strict,
        )
    except PackagingError as error:
        if not as_json:
            raise
        print(json.dumps({"error": str(error), "findings": [each.document() for each in error.findings]}, indent=2))
        return cli.REFUSED
    there = None
    if uri is not None:
        there = destination(archive, uri) if dry_run else _uploaded(archive, uri, account)
    print(json.dumps(_document(archive, there), indent=2) if as_json else "\n".join(_lines(archive, there, dry_run)))
    return cli.OK


def _uploaded(archive: Archive, uri: str, account: Account) -> str:
    with account.open() as session:
        return upload(archive, uri, session)


def _lines(archive: Archive, there: str | None, dry_run: bool) -> list[str]:
    for note in archive.notes:
        print(note.labelled, file=sys.stderr)
    lines = [f"  {name}" for name in archive.members]
    if archive.left_out:
        lines.append(f"left out: {', '.join(archive.left_out)}")
    what = f"{len(archive.members)} files, {megabytes(archive.size)}, sha256 {archive.sha256}"
    lines.append(f"{'would be written' if archive.path is None else archive.path}: {what}")
    if there:
        lines.append(f"{'would go to' if dry_run else 'in S3 as'} {there}")
    return lines


def _document(archive: Archive, there: str | None) -> dict[str, Any]:
    return {
        "path": str(archive.path) if archive.path else None,
        "uri": there,
        "sha256": archive.sha256,
        "size": archive.size,
        "members": archive.members,
        "left_out": archive.left_out,
        "findings": [note.document() for note in archive.notes],
    }
