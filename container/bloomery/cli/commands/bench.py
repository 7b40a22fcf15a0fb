"""``bloomery bench``: what it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bloomery.cli.arguments import EndpointUrl, Profile, Region, Target


def bench(
    endpoint: Annotated[
        str,
        typer.Argument(
            metavar="URL|NAME",
            help="http://host:port (/invocations, unless the path is another, such as /v1/completions), or the name "
            "of a SageMaker endpoint.",
        ),
    ],
    table: Annotated[
        bool, typer.Option("--table", help="The published table: whole calls of 4 × 256 tokens, one after the other.")
    ] = False,
    sweep: Annotated[
        str | None, typer.Option(metavar="concurrency=N,N…", help="Requests under way.  [default: 1,2,4,8]")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="R,R…", help="Requests per second that arrive, answered or not.")
    ] = None,
    burstiness: Annotated[
        float, typer.Option(metavar="K", help="Of the arrivals: 1 Poisson, less in bursts (gamma distribution).")
    ] = 1.0,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Arrivals that were recorded: .jsonl or .csv.")
    ] = None,
    requests: Annotated[
        int | None, typer.Option("--requests", "-n", min=1, help="Per level.  [default: 30, or 8 per connection]")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Per level, instead or besides.")] = None,
    prompts: Annotated[
        str | None,
        typer.Option(metavar="FILE|random:len=N", help="One per line, or N random words.  [default: random:len=32]"),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="New tokens per prompt.")] = 256,
    batch: Annotated[int | None, typer.Option(min=1, help="Prompts per request.  [default: 1; with --table 4]")] = None,
    goodput: Annotated[
        str | None, typer.Option(metavar="ttft=500ms,tpot=50ms", help="Count the requests that meet all of these.")
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(min=0, help="Requests before each level.  [default: one per connection]")
    ] = None,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Ask for whole answers.")] = False,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter", "-p", metavar="NAME=VALUE", help="Send it with each request; null: not; repeatable."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Its name, for OpenAI's API.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(metavar="DIR|FILE", help="Counts tokens where the endpoint does not tell.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of prompts and arrivals.")] = 0,
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="Per request, of a URL.")] = 600.0,
    name: Annotated[str | None, typer.Option(help="Of this measurement in the report.  [default: URL|NAME]")] = None,
    load_seconds: Annotated[float | None, typer.Option(help="Time to load, where the endpoint does not tell.")] = None,
    price_per_hour: Annotated[float | None, typer.Option(min=0, help="Gives cost per request and token.")] = None,
    limit: Annotated[
        str | None,
        typer.Option(metavar="weights=SIZE,bandwidth=SIZE/s", help="Draw what the memory allows, too."),
    ] = None,
    compare: Annotated[
        list[Path] | None, typer.Option(metavar="FILE.json", help="Earlier reports beside this one; repeatable.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="NAME", help="Write NAME.json, NAME.md and NAME.html.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Write the plots as one picture.")] = None,
    target: Target = None,
    region: Region = None,
    profile: Profile = None,
    endpoint_url: EndpointUrl = None,
) -> None:
    """Measure an endpoint: latency, time to first token, throughput, goodput; or the published table."""
    from bloomery.cli import benching

    wanted = benching.Wanted(
        endpoint=endpoint,
        table=table,
        sweep=sweep,
        rate=rate,
        burstiness=burstiness,
        trace=trace,
        requests=requests,
        seconds=seconds,
        prompts=prompts,
        max_new_tokens=max_new_tokens,
        batch=batch,
        goodput=goodput,
        warmup=warmup,
        stream=not no_stream,
        parameters=parameter or [],
        model=model,
        tokenizer=tokenizer,
        seed=seed,
        timeout=timeout,
        name=name,
        load_seconds=load_seconds,
        price_per_hour=price_per_hour,
        limit=limit,
        compare=compare or [],
        output=output,
        picture=picture,
    )
    raise typer.Exit(benching.bench(wanted, benching.Place(target, region, profile, endpoint_url)))
