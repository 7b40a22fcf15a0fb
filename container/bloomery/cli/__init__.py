"""The command line. It parses, calls one function and prints; every import that costs time happens in a command.

Exit codes: 0 done, or stopped by a signal after the requests in flight were answered; 1 a required model could not be
loaded or kept alive, or a command refuses or fails; 2 the configuration or the command line is wrong; 3 the address
cannot be bound, for instance because its port is in use; 130 a second signal ended the server at once.
"""

from __future__ import annotations

import gc
import importlib
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from bloomery.errors import AddressError, BloomeryError, ConfigurationError

OK, MODEL_FAILED, CONFIGURATION, ADDRESS, INTERRUPTED = 0, 1, 2, 3, 130
REFUSED = 1  # by a command that only looks

# In the order of ``bloomery --help``. The module cli.commands.<name> has the function <name>, or, where a command has
# commands of its own, a Typer of that name; it is imported when the command is used.
COMMANDS = (
    "serve",
    "explain",
    "check",
    "fetch",
    "shard",
    "upload",
    "package",
    "plan",
    "deploy",
    "invoke",
    "ls",
    "status",
    "logs",
    "autoscale",
    "cost",
    "delete",
    "bench",
    "verify",
    "policies",
    "sagemaker-local",
)


# What is no dependency of the core, and which extra of the package brings it.
_EXTRAS = {
    **dict.fromkeys(("awscrt", "boto3", "botocore", "huggingface_hub", "numpy"), "checkpoints"),
    **dict.fromkeys(("torch", "transformers", "safetensors"), "engines"),
}


class _Commands(TyperGroup):
    """All commands, each made when it is asked for: to make them all takes longer than a small command's work."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = dict.fromkeys(COMMANDS)  # typer lists, and suggests, their names

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        found = getattr(importlib.import_module(f"bloomery.cli.commands.{name}"), name)
        if not isinstance(found, typer.Typer):
            function, found = found, typer.Typer(add_completion=False, rich_markup_mode=None)
            found.command(cmd_name)(function)
        return get_command(found)


app = typer.Typer(
    name="bloomery",
    cls=_Commands,
    help="Serve large language models the way SageMaker, DJLServing and DeepSpeed-MII users expect.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """Options of the program itself."""
    if version:
        import bloomery

        print(f"bloomery {bloomery.__version__}")
        raise typer.Exit


def main() -> None:
    """The console script."""
    try:
        app()
    except BloomeryError as error:
        from bloomery.settings.secret import redact

        print(f"bloomery: {redact(str(error))}", file=sys.stderr)
        sys.exit(exit_code(error))
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        advice = f"pip install 'bloomery[{_EXTRAS[package]}]'"
        print(f"bloomery: this command needs {package}, which is not installed: {advice}", file=sys.stderr)
        sys.exit(CONFIGURATION)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        gc.freeze()  # all that is left ends with the process: to look for cycles in it takes a twentieth of a second


def exit_code(error: BloomeryError) -> int:
    """The exit code that stands for ``error``."""
    if isinstance(error, ConfigurationError):
        return CONFIGURATION
    return ADDRESS if isinstance(error, AddressError) else MODEL_FAILED
