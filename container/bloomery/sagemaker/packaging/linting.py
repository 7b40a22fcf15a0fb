"""Everything that is wrong with a model directory, found before it is an archive: nothing of it is run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from bloomery.errors import ConfigurationError
from bloomery.sagemaker.finding import Finding, Level
from bloomery.sagemaker.packaging import contents, requirements
from bloomery.sagemaker.packaging.code import CodeCheck
from bloomery.sagemaker.packaging.members import Members
from bloomery.settings import portable, properties, source
from bloomery.settings.layers import Layer
from bloomery.settings.source import PROPERTIES

_LINE = re.compile(r"\S*" + re.escape(PROPERTIES) + r" line (\d+)(?: of (?:(?!: ).)*)?: ", re.DOTALL)
_URI = re.compile(r"[a-z][a-z0-9+.-]*://")
_CONTAINERS_OWN = ("/opt/ml/", "/opt/djl/", "/tmp/")  # paths that SageMaker, or the container, makes
AT_THE_ROOT = "model"  # what a model at the root of an archive is called: SageMaker unpacks it into /opt/ml/model


def lint(directory: Path, members: Members, top: str | None = None, *, allow_large: bool = False) -> list[Finding]:
    """What is to be said about the archive of ``members``, which lie in ``directory`` and will lie below ``top``."""
    found = [*members.findings, *contents.secrets(members.files.values())]
    if not allow_large:
        found += contents.weights(members.files.values())
    models = list(_models(directory, members, top))
    for root, name in models:
        found += _of_model(directory, root, name, members)
    if not models:
        found.append(_no_model(directory, members, top))
    return found


def _models(directory: Path, members: Members, top: str | None) -> Iterator[tuple[str, str]]:
    """The model directories, as the server finds them: the root, or each directory in it. Their path ("" or with a
    slash at its end), and what they will be called."""
    if source.is_model_dir(directory):
        yield "", top or AT_THE_ROOT
        return
    for child in sorted({name.partition("/")[0] for name in members.files if "/" in name}):
        # The server looks one directory down, not two.
        if top is None and source.is_model_dir(directory / child):
            yield f"{child}/", child


def _no_model(directory: Path, members: Members, top: str | None) -> Finding:
    below = next(_models(directory, members, None), None)
    if top is not None and below is not None:
        return Finding(
            "error",
            f"below --top {top} the model would be two directories down, where the server does not look; leave --top "
            "out, or package this directory alone",
            below[0].rstrip("/"),
        )
    listing = ", ".join(sorted({name.partition("/")[0] for name in members.files})[:8]) or "nothing"
    return Finding(
        "error",
        f"there is no model.py and no {PROPERTIES} in {directory}, nor in a directory of it, so nothing says what to "
        f"serve; it holds {listing}. Add a model.py with a handle(inputs) function, or a {PROPERTIES} with "
        "option.model_id=s3://bucket/prefix/",
    )


def _of_model(directory: Path, root: str, name: str, members: Members) -> list[Finding]:
    found: list[Finding] = []
    if root + PROPERTIES in members.files:
        found += _of_file(members.files[root + PROPERTIES].path, root + PROPERTIES)
    model_dir = directory / root
    checked = portable.check(model_dir, name)
    levels: dict[Level, list[str]] = {"error": checked.errors, "warning": checked.notices, "remark": checked.remarks}
    for level, texts in levels.items():
        found += (_placed(level, text, root, model_dir) for text in texts)
    found += _of_checkpoint(checked.stated, root)
    asked = requirements.read(members.files, root)
    found += asked.findings
    entry = checked.entry_point
    if entry and entry.endswith(".py") and (refusal := _of_entry(entry, root, name, model_dir.name, members)):
        return [*found, refusal]
    if entry is not None:
        found += CodeCheck(members.files, root, asked).run(entry, checked.handler)
    return found


def _of_entry(entry: str, root: str, name: str, here: str, members: Members) -> Finding | None:
    """Whether the handler's file will be found where the archive is unpacked."""
    place = root + PROPERTIES if root + PROPERTIES in members.files else root.rstrip("/")
    if entry.startswith("/"):
        return Finding(
            "error", f"option.entryPoint={entry}: name a file of the model directory, without its path", place
        )
    if root + entry not in members.files:
        return Finding(
            "error", f"the handler {entry} is left out of the archive; rename it, or change --exclude", place
        )
    if entry == f"{here}.py" and here != name:
        return Finding(
            "error",
            f"a handler of this name is only found in a directory of the same name, and the container's is {name!r}; "
            f"rename the file to model.py, or give --top {here}",
            root + entry,
        )
    return None


def _of_file(path: Path, name: str) -> Iterator[Finding]:
    """What the text itself says: marks of editors, and keys that are there twice."""
    data = path.read_bytes()
    if data.startswith(b"\xef\xbb\xbf"):
        yield Finding(
            "warning",
            "the file begins with a byte order mark, which DJLServing takes for a part of the first key; save it as "
            "UTF-8 without one",
            name,
            1,
        )
    if b"\r" in data:
        line = data[: data.index(b"\r")].count(b"\n") + 1
        yield Finding("warning", "lines end as on Windows (CRLF); save the file with LF, as Linux has it", name, line)
    seen: dict[str, tuple[int, str]] = {}
    try:
        for line, key, value in properties.parse(data.decode("utf-8-sig"), PROPERTIES):
            if key in seen:
                first, before = seen[key]
                kind: Level = "remark" if before == value else "warning"
                message = f"{key} is set in line {first} already ({before}); the last one counts ({value})"
                yield Finding(kind, f"{message}: remove one of them", name, line)
            seen[key] = line, value
    except (ConfigurationError, UnicodeDecodeError):
        return  # which the check of the settings tells


def _of_checkpoint(stated: Layer, root: str) -> Iterator[Finding]:
    """A checkpoint that is named by a path of this machine."""
    found = stated.get("option.model_id")
    text = found.text.strip() if found else ""
    if not found or not text.startswith(("/", "~")) or text.startswith(_CONTAINERS_OWN) or _URI.match(text):
        return
    message = (
        f"option.model_id={text}: the container has no such path unless its image does; bring the checkpoint to S3 "
        f"(bloomery upload {text} s3://bucket/prefix/) and write option.model_id=s3://bucket/prefix/"
    )
    match = _LINE.match(f"{found.origin}: ")
    yield Finding("error", message, root + PROPERTIES, int(match[1]) if match else None)


def _placed(level: Level, text: str, root: str, directory: Path) -> Finding:
    """A text of the settings with the line that it begins with taken out of it."""
    match = _LINE.match(text)
    message = text[match.end() :] if match else text
    message = message.replace(f"{directory}/", "").replace(str(directory), "the model directory")
    if match:
        return Finding(level, message, root + PROPERTIES, int(match[1]))
    return Finding(level, message, root.rstrip("/"))
