"""``bloomery explain``: what it takes."""

from __future__ import annotations

from typing import Annotated

import typer

from bloomery.cli.arguments import Config, Models, Options, Source, Store, Strict


def explain(
    source: Source = None,
    option: Options = None,
    models: Models = None,
    model_store: Store = None,
    config_file: Config = None,
    strict: Strict = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print every setting, its value, its source and what it overrode; secrets as ***."""
    from bloomery.cli import explaining
    from bloomery.cli.reading import Wanted

    wanted = Wanted(source, option or [], models or [], model_store, config_file, strict)
    raise typer.Exit(explaining.explain(wanted, as_json))
