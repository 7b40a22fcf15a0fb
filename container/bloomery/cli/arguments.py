"""Arguments that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

Source = Annotated[
    str | None,
    typer.Argument(
        metavar="[DIR|URI]",
        help="A model directory, a checkpoint directory, s3://… or a hub id; none: the demonstration model.",
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="KEY=VALUE", help="A setting, such as option.dtype=bf16; repeatable."),
]
Host = Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")]
Port = Annotated[int | None, typer.Option(help="Port to listen on, 0 for any free one.  [default: 8080]")]
Models = Annotated[
    list[str] | None,
    typer.Option("--models", "-m", metavar="[NAME=]URL", help="Models to load, by name if you like; repeatable."),
]
Store = Annotated[
    str | None, typer.Option("--model-store", "-s", metavar="DIR", help="Directory whose models are loaded.")
]
Config = Annotated[
    str | None,
    typer.Option("--config-file", "-f", metavar="FILE", help="DJLServing's config.properties."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Settings that do nothing, or contradict others, are errors.")]

# Of every command that talks to SageMaker, or to its emulator.
Target = Annotated[
    str | None,
    typer.Option(
        metavar="aws|local",
        help="AWS, or the emulator of `bloomery sagemaker-local`.  [default: local if AWS_ENDPOINT_URL leads there]",
    ),
]
Region = Annotated[str | None, typer.Option(help="Region of AWS.  [default: as for the AWS command line]")]
Profile = Annotated[str | None, typer.Option(help="Profile of your AWS configuration.")]
EndpointUrl = Annotated[
    str | None, typer.Option("--endpoint-url", metavar="URL", help="Where the emulator is.  [default: port 8099]")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the requests as JSON lines and make none of them.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]
PricePerHour = Annotated[
    float | None,
    typer.Option(min=0, metavar="USD", help="Of one instance.  [default: AWS's price list]"),
]
