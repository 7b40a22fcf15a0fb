"""Print docs/commands.md: every command with its options.

``PYTHONPATH=container:. .venv/bin/python -m tests.docs.commands_page > docs/commands.md``
"""

from __future__ import annotations

from typing import Any

import typer
from typer.main import get_command

from bloomery.cli import COMMANDS, app

# Who is asked: the same for all commands of endpoints, and told of once.
TARGET = ("--target", "--region", "--profile", "--endpoint-url")
HEAD = """# Commands

Every command with its arguments and options, as `bloomery COMMAND --help` prints them. This page is made by
`tests/docs/commands_page.py`. What `-o` may set, and the exit codes: [configuration.md](configuration.md).

Commands marked with \\* also take `--target aws|local` (AWS, or the emulator of `bloomery sagemaker-local`; without it
local if `AWS_ENDPOINT_URL` leads there), `--region`, `--profile`, and `--endpoint-url` (where the emulator is).
"""


def command(name: str) -> Any:
    """The command as typer makes it; ``.params`` are its options and arguments."""
    group: Any = get_command(app)
    return group.get_command(typer.Context(group), name)


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(_section(name, command(name)) for name in COMMANDS)])


def _section(name: str, found: Any) -> str:
    context = typer.Context(found)
    rows = [_row(each, context) for each in found.params if not set(each.opts) & set(TARGET)]
    mark = " \\*" if "--target" in {word for each in found.params for word in each.opts} else ""
    lines = [f"## {name}{mark}", "", *_paragraphs(found.help), "| | |", "|---|---|", *rows]
    subcommands = getattr(found, "commands", {})
    for sub, each in subcommands.items():
        lines.append(f"| `{name} {sub}` | {_cell(each.get_short_help_str(200))} |")
    return "\n".join([*lines, ""])


def _paragraphs(text: str) -> list[str]:
    return [line for part in text.strip().split("\n\n") for line in (_cell(part), "")]


def _row(param: Any, context: Any) -> str:
    names, text = param.get_help_record(context) or (param.make_metavar(context), param.help or "")
    return f"| `{names.replace('|', chr(92) + '|')}` | {_cell(text)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("*", "\\*")


if __name__ == "__main__":
    print(page(), end="")
