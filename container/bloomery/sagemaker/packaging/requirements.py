"""A model's requirements.txt, as pip will read it in the container: far from the machine where it was written."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from bloomery.sagemaker.finding import Finding, Level
from bloomery.sagemaker.packaging.members import Member
from bloomery.settings.secret import redact

FILE = "requirements.txt"
_NAME = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[^\]]*\])?\s*(.*)", re.DOTALL)
_VERSION = r"(?:===|==|~=|!=|<=|>=|<|>)\s*[^\s,;()]+"
_REST = re.compile(rf"\(?(?:{_VERSION}(?:\s*,\s*{_VERSION})*)?\)?\s*(?:;.*)?")
_FILES = re.compile(r"(?:-r|--requirement|-c|--constraint)[\s=]*(\S+)")
_EDITABLE = re.compile(r"(?:-e|--editable)[\s=]*(\S+)")
_INDEX = re.compile(r"(--index-url|--extra-index-url|--find-links|--trusted-host|-i|-f)[\s=]*(\S+)")
_ARCHIVE = re.compile(r".+\.(whl|tar\.gz|zip)")
_PER_REQUIREMENT = re.compile(r"\s--(hash|config-settings|global-option)\b.*", re.DOTALL)
_USER = re.compile(r"://(?!git@|\$\{)[^/\s@]+@")  # ssh's user, or a variable that the container has
_Tell = Callable[[Level, str], None]


@dataclass
class Requirements:
    """What is asked for. ``names``: distributions, normalised (PEP 503), with the line that asks. ``unnamed``: lines
    whose distribution only their content tells."""

    names: dict[str, str] = field(default_factory=dict)
    unnamed: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def normalised(name: str) -> str:
    """A distribution's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read(members: Mapping[str, Member], root: str = "") -> Requirements:
    """Of the requirements.txt in ``root`` (a directory of the archive, "" or with a slash at its end), and of the
    files that it includes."""
    requirements = Requirements()
    if root + FILE in members:
        _Reader(members, root, requirements).file(root + FILE, set())
    return requirements


@dataclass
class _Reader:
    members: Mapping[str, Member]
    root: str
    found: Requirements

    def file(self, name: str, seen: set[str]) -> None:
        seen.add(name)
        for number, line in _lines(self.members[name].path.read_bytes().decode("utf-8-sig", "replace")):
            for included in self._line(name, number, line):
                if included not in seen:
                    self.file(included, seen)

    def _line(self, file: str, number: int, line: str) -> Iterator[str]:
        """Names of the files that ``line`` includes."""

        def tell(level: Level, message: str) -> None:
            self.found.findings.append(Finding(level, f"{redact(line)}: {message}", file, number))

        if _USER.search(line):
            tell("error", "it holds a password or a token; use a public index, or put the wheels into requirements/")
        elif match := _FILES.match(line):
            name = posixpath.normpath(posixpath.join(posixpath.dirname(file), match[1]))
            if name in self.members:
                yield name
            else:
                tell("error", "there is no such file in the archive; put it there")
        elif match := _EDITABLE.match(line):
            self._place(match[1], "-e ", tell)
        elif match := _INDEX.match(line):
            if "://" in match[2] or match[1] == "--trusted-host":
                tell("warning", "the container has to reach this host when it starts (not with network isolation)")
            elif not self._inside(match[2]):
                tell("error", "this directory is not in the archive; put the wheels into requirements/ beside the file")
        elif line.startswith("-"):
            return
        else:
            self._requirement(line, tell)

    def _requirement(self, line: str, tell: _Tell) -> None:
        text = _PER_REQUIREMENT.sub("", line).strip()
        match = _NAME.fullmatch(text)
        name, rest = (match[1], match[2].strip()) if match else ("", "")
        if match and rest.startswith("@"):
            self.found.names[normalised(name)] = line
            self._place(rest[1:].strip(), "", tell)
        elif text.startswith((".", "/", "~", "\\")) or "://" in text or "/" in text or _ARCHIVE.fullmatch(text):
            self._place(text, "", tell)
        elif match and _REST.fullmatch(rest):
            self.found.names[normalised(name)] = line
        else:
            advice = f"; write {name}={rest}" if re.match(r"=[^=]", rest) else "; write name==version"
            tell("error", f"pip cannot read this line{advice}")

    def _place(self, place: str, editable: str, tell: _Tell) -> None:
        """Of a requirement that says where it lies."""
        self.found.unnamed.append(place)
        if place.startswith("git+") or re.match(r"(hg|svn|bzr)\+", place):
            tell("warning", "the container needs git and has to reach this host when it starts; a wheel is safer")
        elif place.startswith(("http://", "https://")):
            tell("warning", "the container has to reach this host when it starts (not with network isolation)")
        elif not self._inside(place):
            tell(
                "error",
                "this is a place on your machine, which the container does not have; put the package (a wheel, or its "
                "source) into the model directory, or name a released version",
            )
        elif editable:
            tell("warning", "-e makes a link to the source, which cannot be where the model is read-only; leave -e out")

    def _inside(self, place: str) -> bool:
        """Whether a path is in the archive; pip runs in the model directory."""
        if place.startswith(("/", "~", "file:", "\\")) or re.match(r"[A-Za-z]:\\", place):
            return False
        path = posixpath.normpath(self.root + re.sub(r"\[[^\]]*\]$", "", place.partition(" ;")[0]))
        return path in self.members or any(name.startswith(f"{path}/") for name in self.members)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that ask for something, without comments; one that ends in a backslash goes on in the next."""
    start = 0
    parts: list[str] = []
    for number, raw in enumerate(text.splitlines(), 1):
        start = start if parts else number
        if raw.endswith("\\"):
            parts.append(raw[:-1])
            continue
        line = re.sub(r"(^|\s)#.*", "", "".join([*parts, raw])).strip()
        parts = []
        if line:
            yield start, line
