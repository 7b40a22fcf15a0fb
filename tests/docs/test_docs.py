"""The documents are true: what they link to and name is there, and what is there is named."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
from tests.docs import commands_page

from bloomery.cli import COMMANDS

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "container"
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/*.md"), *ROOT.glob("models/**/*.md")]
)
PROSE = "\n".join(page.read_text() for page in PAGES)
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
# One process tells another; no user sets them.
BETWEEN_PROCESSES = {
    *("RANK", "LOCAL_RANK", "LOCAL_SIZE", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    "AWS_ENDPOINT_URL_STS",  # botocore's own
    *("BLOOMERY_MODEL_NAME", "BLOOMERY_MODEL_URL", "BLOOMERY_MODEL_DIRECTORY", "BLOOMERY_CONTROL_SOCKET"),
}


def ids(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def anchor(heading: str) -> str:
    """The name that a heading has in a link."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_every_link_leads_to_something(page: Path) -> None:
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, fragment = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target} in {page.name}"
        if fragment:
            assert fragment in map(anchor, re.findall(r"(?m)^#+ (.*)$", there.read_text())), f"{target} in {page.name}"


def test_every_file_that_the_architecture_names_is_there() -> None:
    names = set(re.findall(r"[`\s]((?:[\w.-]+/)*[\w-]+\.(?:py|toml))\b", ARCHITECTURE))
    files = [
        f"/{path.relative_to(ROOT)}" for path in [*CONTAINER.rglob("*.py"), *ROOT.glob("*/*.py"), *ROOT.glob("*.toml")]
    ]
    assert len(names) > 80
    assert [name for name in sorted(names) if not any(file.endswith(f"/{name}") for file in files)] == []


def test_every_room_is_in_the_architecture() -> None:
    rooms = [path.parent.name for path in (CONTAINER / "bloomery").glob("*/__init__.py")]
    assert [room for room in sorted(rooms) if f"    {room}/" not in ARCHITECTURE] == []


def options(name: str) -> set[str]:
    return {
        *("-h", "--help"),
        *(word for each in commands_page.command(name).params for word in [*each.opts, *each.secondary_opts]),
    }


def commands_shown() -> list[tuple[str, str, list[str]]]:
    """Page, command and words of every ``bloomery …`` line in a block of a page."""
    shown = []
    for page in PAGES:
        for block in re.findall(r"(?ms)^```\w*\n(.*?)^```", page.read_text()):
            for line in block.replace("\\\n", " ").splitlines():
                if found := re.match(r"(?:\$ )?(?:bloomery|scripts/serve)( .*|$)", line):
                    words = shlex.split(found[1].replace("…", ""), comments=True)
                    if line.lstrip("$ ").startswith("scripts/serve"):
                        words.insert(0, "serve")
                    shown.append((page.name, words[0], words[1:]))
    return shown


def test_every_command_line_that_is_shown_can_be_typed() -> None:
    shown = commands_shown()
    assert len(shown) > 40
    for page, name, words in shown:
        assert name in COMMANDS, f"{name} in {page}"
        for word in words:
            if re.fullmatch(r"\[?--?[a-z][a-z-]*.*", word):
                option = re.split(r"[=\]]", word.lstrip("["))[0]
                assert option in options(name), f"bloomery {name} {word} in {page}"


def test_the_page_of_commands_says_what_their_help_says() -> None:
    assert (ROOT / "docs" / "commands.md").read_text() == commands_page.page(), "see tests/docs/commands_page.py"


def read_variables(path: Path) -> set[str]:
    """Names of environment variables that a module gets from a mapping called environ, environment or env."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Attribute(value=where, attr="get"), args=[ast.Constant(value=str(name)), *_]):
                pass
            case ast.Subscript(value=where, slice=ast.Constant(value=str(name)), ctx=ast.Load()):
                pass
            case _:
                continue
        if re.search(r"(?:environ|environment|env)$", ast.unparse(where)) and re.fullmatch(r"[A-Z][A-Z0-9_]+", name):
            found.add(name)
    return found


def test_every_variable_that_is_read_is_told_of() -> None:
    names = {name for path in [*CONTAINER.rglob("*.py"), ROOT / "code" / "model.py"] for name in read_variables(path)}
    assert len(names) > 25
    told = set(re.findall(r"[A-Z][A-Z0-9_]+", PROSE)) | BETWEEN_PROCESSES | {"PATH"}
    assert sorted(names - told) == []
