"""A model.tar.gz of a model directory: the same files make the same bytes, on any machine and at any time."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from bloomery.errors import PackagingError
from bloomery.sagemaker.finding import Finding, in_order
from bloomery.sagemaker.packaging.linting import AT_THE_ROOT, lint
from bloomery.sagemaker.packaging.members import Member, Members, collect
from bloomery.sagemaker.packaging.stored_gzip import StoredGzip

OUTPUT = "model.tar.gz"
SUFFIX = ".tar.gz"  # SageMaker takes no other
_TOP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Archive:
    """``path``: where it is, None when it was not to be written. ``size``: bytes. ``members``: names in the archive,
    in order; ``left_out``: what of the directory is not in it; ``notes``: what was found, none of it an error."""

    path: Path | None
    name: str  # of the model: the directory's
    sha256: str
    size: int
    members: tuple[str, ...]
    left_out: tuple[str, ...]
    notes: tuple[Finding, ...]


def package(
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = OUTPUT,
    *,
    top: str | None = None,
    exclude: Collection[str] = (),
    allow_large: bool = False,
    strict: bool = False,
) -> Archive:
    """Make the archive of ``directory`` at ``output``; with None only find out what it would be.

    ``top``: a directory of the archive that holds everything; ``exclude``: patterns of names or paths that stay out;
    ``allow_large``: weights may be inside; ``strict``: warnings count as errors.

    Raises PackagingError, with everything that is wrong: nothing is written then.
    """
    source = Path(directory).expanduser()
    if not source.is_dir():
        what = "it is a file" if source.exists() else f"there is no such directory (looked in {Path.cwd()})"
        raise PackagingError(
            f"{directory} cannot be packaged: {what}; name the one with serving.properties or model.py"
        )
    source = source.resolve()
    target = _target(output)
    if top is not None and (not _TOP.fullmatch(top) or len(top) > 100):
        raise PackagingError(f"--top {top}: a directory's name has letters, digits, '.', '_' and '-'")
    members = collect(source, exclude, target)
    try:
        findings = in_order(lint(source, members, top, allow_large=allow_large))
    except OSError as error:  # a file that went away meanwhile
        raise PackagingError(f"{directory} cannot be packaged: {error}") from error
    grave = [each for each in findings if each.level == "error" or (strict and each.level == "warning")]
    if grave:
        raise PackagingError(_refusal(directory, grave), findings)
    name = re.sub(r"[^A-Za-z0-9-]+", "-", source.name).strip("-")[:40] or AT_THE_ROOT
    prefix = f"{top}/" if top else ""
    sha256, size = _written(members, prefix, target)
    names = tuple(prefix + each for each in members.files)
    return Archive(target, name, sha256, size, names, tuple(members.left_out), findings)


def _target(output: str | os.PathLike[str] | None) -> Path | None:
    if output is None:
        return None
    target = Path(output).expanduser().absolute()
    if target.is_dir():
        target = target / OUTPUT
    target = target.parent.resolve() / target.name  # so that it is known when the directory holds it
    if not target.name.endswith(SUFFIX):
        raise PackagingError(f"{output}: SageMaker takes archives that end in {SUFFIX}; write -o {OUTPUT}")
    if not target.parent.is_dir():
        raise PackagingError(f"{output}: there is no directory {target.parent}; make it first")
    return target


def _refusal(directory: object, grave: list[Finding]) -> str:
    count = f"{len(grave)} things are" if len(grave) > 1 else "one thing is"
    return f"{directory} is not packaged, {count} wrong:\n" + "\n".join(f"  {each.labelled}" for each in grave)


def _written(members: Members, prefix: str, target: Path | None) -> tuple[str, int]:
    """Digest and size of the archive; written beside ``target`` and given its name when it is complete."""
    if target is None:
        return _pack(members, prefix, lambda data: None)
    try:
        descriptor, partial = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                result = _pack(members, prefix, file.write)
            os.chmod(partial, 0o666 & ~_umask())  # mkstemp's is for its owner alone
            os.replace(partial, target)
        except BaseException:
            os.unlink(partial)
            raise
    except OSError as error:
        raise PackagingError(f"{target} cannot be written: {error}") from error
    return result


def _pack(members: Members, prefix: str, emit: Callable[[bytes], object]) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0

    def counted(data: bytes) -> None:
        nonlocal size
        digest.update(data)
        size += len(data)
        emit(data)

    zipped = StoredGzip(counted)
    with tarfile.open(mode="w|", fileobj=cast(IO[bytes], zipped), format=tarfile.PAX_FORMAT, encoding="utf-8") as tar:
        for member in members.files.values():
            _add(tar, member, prefix)
    zipped.close()
    return digest.hexdigest(), size


def _add(tar: tarfile.TarFile, member: Member, prefix: str) -> None:
    entry = tarfile.TarInfo(prefix + member.name)  # of nobody, of no time
    entry.size, entry.mode = member.size, 0o755 if member.executable else 0o644
    try:
        with member.path.open("rb") as file:
            tar.addfile(entry, file)
            grown = bool(file.read(1))
    except OSError as error:
        raise PackagingError(f"{member.path} cannot be packaged: {error}") from error
    if grown:
        raise PackagingError(f"{member.path} has grown while it was packaged; try again when nobody writes to it")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
