"""``bloomery invoke``: what it takes."""

from __future__ import annotations

from typing import Annotated

import typer

from bloomery.cli.arguments import DryRun, EndpointUrl, Profile, Region, Target


def invoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the endpoint.")],
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help='A prompt; it is sent as {"inputs": TEXT}.')
    ] = None,
    json_text: Annotated[str | None, typer.Option("--json", metavar="JSON", help="The body.")] = None,
    file: Annotated[str | None, typer.Option("--file", "-f", metavar="FILE", help="The body is this file.")] = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="The body is what comes in there.")] = False,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--parameters", "-p", metavar="KEY=VALUE", help="Such as max_new_tokens=64; repeatable."),
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Show the answer as it comes.")] = False,
    asynchronous: Annotated[
        bool, typer.Option("--async", help="Of an asynchronous endpoint: queue, and wait.")
    ] = False,
    input_location: Annotated[
        str | None, typer.Option("--input", metavar="s3://…", help="With --async: where the body lies.")
    ] = None,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", help="With --async: for the answer; 0 prints where it will be.")
    ] = 900.0,
    content_type: Annotated[str | None, typer.Option(help="Of the body.")] = None,
    accept: Annotated[str | None, typer.Option(help="Of the answer.")] = None,
    variant: Annotated[str | None, typer.Option(help="Production variant that is to answer.")] = None,
    component: Annotated[str | None, typer.Option(help="Inference component that is to answer.")] = None,
    attributes: Annotated[str | None, typer.Option(help="CustomAttributes, for the container.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Print what comes, not only the text in it.")] = False,
    dry_run: DryRun = False,
    target: Target = None,
    region: Region = None,
    profile: Profile = None,
    endpoint_url: EndpointUrl = None,
) -> None:
    """Ask an endpoint, and print its answer."""
    from bloomery.cli import invoking
    from bloomery.cli.account import Account

    said = invoking.Said(text, json_text, file, stdin, input_location, tuple(parameters or ()))
    how = invoking.How(stream, asynchronous, wait, raw, dry_run)
    options = {
        "content_type": content_type,
        "accept": accept,
        "target_variant": variant,
        "inference_component": component,
        "custom_attributes": attributes,
    }
    raise typer.Exit(invoking.invoke(Account(target, region, profile, endpoint_url), name, said, how, options))
