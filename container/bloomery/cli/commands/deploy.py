"""``bloomery deploy``: what it takes."""

from __future__ import annotations

from typing import Annotated

import typer

from bloomery.cli.arguments import DryRun, EndpointUrl, Profile, Region, Target, Yes


def deploy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the endpoint, its configuration and its model.")],
    instance_type: Annotated[
        list[str],
        typer.Option("--instance-type", "-t", metavar="TYPE", help="Repeatable: the next when there is no capacity."),
    ],
    model_data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|URI",
            help="A model directory, which is packaged and uploaded; s3://….tar.gz; or s3://…/, an uncompressed model.",
        ),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="URI", help="Where the container finds the weights: s3://…/ or a hub's id.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Container image.  [default: this project's, in your ECR]")] = None,
    role: Annotated[
        str | None, typer.Option(metavar="NAME|ARN", help="Execution role.  [default: that of this notebook]")
    ] = None,
    tensor_parallel: Annotated[int | None, typer.Option(metavar="N", help="TENSOR_PARALLEL_DEGREE.")] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="NAME=VALUE", help="A variable; repeatable.")
    ] = None,
    count: Annotated[int, typer.Option(help="Instances.")] = 1,
    volume: Annotated[int | None, typer.Option(metavar="GB", help="VolumeSizeInGB.")] = None,
    download_timeout: Annotated[
        int | None, typer.Option(metavar="SECONDS", help="Model data: 60 to 3600.  [default: 2400]")
    ] = None,
    startup_timeout: Annotated[
        int | None, typer.Option(metavar="SECONDS", help="Until /ping is 200: 60 to 3600.  [default: 2400]")
    ] = None,
    async_output: Annotated[
        str | None, typer.Option(metavar="s3://…/", help="Make it asynchronous; answers come here.")
    ] = None,
    async_failure: Annotated[str | None, typer.Option(metavar="s3://…/", help="Where failures are told of.")] = None,
    async_concurrency: Annotated[
        int | None, typer.Option(metavar="N", help="Asynchronous invocations at a time, per instance.")
    ] = None,
    component: Annotated[
        bool, typer.Option("--component", help="Serve it as an inference component, which can scale to zero.")
    ] = False,
    copies: Annotated[int, typer.Option(metavar="N", help="Of the component.")] = 1,
    accelerators: Annotated[
        int | None, typer.Option(metavar="N", help="Of each copy.  [default: as many as ranks, or all]")
    ] = None,
    memory: Annotated[
        int | None, typer.Option(metavar="MIB", help="Of each copy.  [default: its share of the machine's]")
    ] = None,
    max_instances: Annotated[
        int | None, typer.Option(metavar="N", help="SageMaker adds instances for copies up to this, and removes them.")
    ] = None,
    routing: Annotated[
        str | None, typer.Option(metavar="STRATEGY", help="LEAST_OUTSTANDING_REQUESTS, RANDOM, ….")
    ] = None,
    ami_version: Annotated[str | None, typer.Option(metavar="NAME", help="InferenceAmiVersion.")] = None,
    network_isolation: Annotated[
        bool, typer.Option("--network-isolation", help="The container has no network.")
    ] = False,
    subnet: Annotated[list[str] | None, typer.Option(metavar="ID", help="Of your VPC; repeatable.")] = None,
    security_group: Annotated[list[str] | None, typer.Option(metavar="ID", help="Of your VPC; repeatable.")] = None,
    kms_key: Annotated[
        str | None, typer.Option(metavar="ID", help="Encrypts the volume, and asynchronous answers.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Repeatable.")] = None,
    ttl: Annotated[
        str | None, typer.Option(metavar="4h", help="Tag it to be removed then by `bloomery delete --expired`.")
    ] = None,
    upload_to: Annotated[
        str | None,
        typer.Option(metavar="s3://…/", help="Where archives go.  [default: s3://sagemaker-REGION-ACCOUNT/bloomery/]"),
    ] = None,
    price_per_hour: Annotated[
        float | None, typer.Option(metavar="USD", help="Of one instance.  [default: AWS's price list]")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Return when it serves, or when it is asked for.")
    ] = True,
    rollback: Annotated[bool, typer.Option("--rollback", help="Remove everything when the endpoint fails.")] = False,
    capacity_retries: Annotated[int, typer.Option(min=0, metavar="N", help="Rounds when AWS has no machine.")] = 3,
    capacity_pause: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Before the first of them; then twice as long each.")
    ] = 60.0,
    dry_run: DryRun = False,
    yes: Yes = False,
    target: Target = None,
    region: Region = None,
    profile: Profile = None,
    endpoint_url: EndpointUrl = None,
) -> None:
    """Make an endpoint: check everything first, show the price, wait, and show what its containers print."""
    from bloomery.cli import deploying
    from bloomery.cli.account import Account
    from bloomery.cli.times import duration
    from bloomery.sagemaker.deploying.component import Component
    from bloomery.sagemaker.deploying.deployment import (
        DOWNLOAD_TIMEOUT,
        STARTUP_TIMEOUT,
        AsyncOutput,
        Deployment,
    )
    from bloomery.sagemaker.deploying.launching import Patience
    from bloomery.sagemaker.deploying.ordering import Order

    of_component = {
        "--copies": copies != 1,
        "--accelerators": accelerators is not None,
        "--memory": memory is not None,
        "--max-instances": max_instances is not None,
    }
    deploying.only_with("--component", component, of_component)
    of_async = {"--async-failure": async_failure is not None, "--async-concurrency": async_concurrency is not None}
    deploying.only_with("--async-output", async_output is not None, of_async)
    wanted = Deployment(
        name=name,
        instance_types=tuple(instance_type),
        model_data=model_data,
        checkpoint=checkpoint,
        image=image,
        role=role,
        environment=deploying.pairs(env, "--env"),
        tensor_parallel=tensor_parallel,
        instance_count=count,
        volume=volume,
        download_timeout=DOWNLOAD_TIMEOUT if download_timeout is None else download_timeout,
        startup_timeout=STARTUP_TIMEOUT if startup_timeout is None else startup_timeout,
        async_output=AsyncOutput(async_output, async_failure, async_concurrency) if async_output else None,
        component=Component(copies, accelerators, memory, max_instances) if component else None,
        routing=routing,
        ami_version=ami_version,
        network_isolation=network_isolation,
        subnets=tuple(subnet or ()),
        security_groups=tuple(security_group or ()),
        kms_key=kms_key,
        tags=deploying.pairs(tag, "--tag"),
        ttl=None if ttl is None else duration(ttl, "--ttl"),
        upload_to=upload_to,
    )
    order = Order(wait, rollback, Patience(capacity_retries, capacity_pause))
    account = Account(target, region, profile, endpoint_url)
    raise typer.Exit(deploying.deploy(account, wanted, order, price_per_hour, dry_run, yes))
