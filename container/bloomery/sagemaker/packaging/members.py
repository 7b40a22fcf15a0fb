"""Which files of a directory belong into a model archive, and which are left out or refused."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from bloomery.sagemaker.finding import Finding

# What programs leave behind, and nobody wants to serve.
_CACHES = re.compile(
    r"__pycache__|\.ipynb_checkpoints|\.git|\.hg|\.svn|\.venv|\.idea|\.vscode|\.(mypy|pytest|ruff)_cache|\.tox|\.nox"
    r"|\.eggs|.+\.egg-info|node_modules|__MACOSX"
    r"|.+\.py[co]|\.DS_Store|\._.*|Thumbs\.db|desktop\.ini|.+~|\..+\.sw[op]|\.#.*|#.+#|\.nfs[0-9a-f]+|\.gitignore"
    r"|\.gitattributes|\.python-version"
)


@dataclass(frozen=True)
class Member:
    """A file of the archive. ``name``: its path below the model directory, with slashes. ``size``: bytes."""

    name: str
    path: Path
    size: int
    executable: bool


@dataclass
class Members:
    """What was found: files by name, in order; what is left out; and what cannot be in an archive."""

    files: dict[str, Member] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def collect(directory: Path, exclude: Collection[str] = (), output: Path | None = None) -> Members:
    """Every file below ``directory``. ``exclude``: patterns, of a file's or directory's name or of its path;
    ``output``: where the archive goes, which is none of its own members."""
    members = Members()
    for member in _walk(directory, "", exclude, output, members):
        members.files[member.name] = member
    # By their bytes: the order is the same on every machine.
    members.files = dict(sorted(members.files.items(), key=lambda item: os.fsencode(item[0])))
    members.left_out.sort()
    return members


def _walk(
    directory: Path, prefix: str, exclude: Collection[str], output: Path | None, members: Members
) -> Iterator[Member]:
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError as error:
        members.findings.append(Finding("error", f"it cannot be read: {error.strerror}", prefix.rstrip("/")))
        return
    for entry in entries:
        name, path = prefix + entry.name, Path(entry.path)
        if path == output or _unwanted(entry, name, exclude):
            members.left_out.append(_shown(name) + ("/" if entry.is_dir(follow_symlinks=False) else ""))
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(path, f"{name}/", exclude, output, members)
        elif refusal := _refusal(entry):
            members.findings.append(Finding("error", refusal, _shown(name)))
        else:
            status = entry.stat(follow_symlinks=False)
            yield Member(name, path, status.st_size, bool(status.st_mode & stat.S_IXUSR))


def _unwanted(entry: os.DirEntry[str], name: str, exclude: Collection[str]) -> bool:
    if any(fnmatchcase(entry.name, each) or fnmatchcase(name, each.rstrip("/")) for each in exclude):
        return True
    # A virtual environment may have any name.
    return _CACHES.fullmatch(entry.name) is not None or os.path.isfile(os.path.join(entry.path, "pyvenv.cfg"))


def _refusal(entry: os.DirEntry[str]) -> str:
    """Why a file cannot be in an archive; "" when it can."""
    if entry.is_symlink():
        return (
            f"it is a link to {os.readlink(entry.path)}, which SageMaker does not unpack: put the file itself "
            "there (cp -rL makes a copy of a directory without links), or leave it out with --exclude"
        )
    if not entry.is_file(follow_symlinks=False):
        return "it is neither a file nor a directory (a socket, a pipe or a device); remove it, or use --exclude"
    if _shown(entry.path) != entry.path:
        return "its name, or that of a directory above it, is not UTF-8; rename it"
    if not os.access(entry.path, os.R_OK):
        return f"it cannot be read; give yourself the right to (chmod u+r {entry.name})"
    return ""


def _shown(name: str) -> str:
    """A name that can be printed, whatever its bytes are."""
    return name.encode("utf-8", "replace").decode()
