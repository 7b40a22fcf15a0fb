"""The environment of a container: what SageMaker gives it, and nothing of the user's own.

PATH and LANG are this machine's, because a local program needs them; HOME and TMPDIR are the container's own; the only
AWS credentials are the emulator's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from bloomery.sagemaker.emulator.containers.images import MODEL_DIRECTORY
from bloomery.sagemaker.emulator.deployment import ContainerSpec, Surroundings

PORT = 8080
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "CUDA_VISIBLE_DEVICES")


def of_program(
    spec: ContainerSpec,
    variables: Mapping[str, str],
    around: Surroundings,
    region: str,
    *,
    model_dir: Path | str,
    port: int,
    scratch: Path,
) -> dict[str, str]:
    """For a process of this machine, whose private directories are below ``scratch``."""
    return {
        **{name: os.environ[name] for name in _KEPT if name in os.environ},
        **_directories(scratch),
        "PYTHONUNBUFFERED": "1",  # as Python images set it: a log that comes late is no help
        **variables,
        **contract(around, region, str(model_dir)),
        **spec.environment,
        # Last: several containers share this machine, so each listens where it is told.
        "SAGEMAKER_BIND_TO_PORT": str(port),
    }


def of_docker(spec: ContainerSpec, around: Surroundings, region: str) -> dict[str, str]:
    """For an image. It reaches this machine by the name that docker gives it."""
    return {**contract(around, region, MODEL_DIRECTORY, "host.docker.internal"), **spec.environment}


def contract(around: Surroundings, region: str, model_dir: str, host: str | None = None) -> dict[str, str]:
    """What the hosting service promises, and the way to the emulated AWS; ``host`` stands for loopback in URLs."""
    return {"SM_MODEL_DIR": model_dir, "SAGEMAKER_REGION": region, **aws(around, region, host)}


def aws(around: Surroundings, region: str, host: str | None = None) -> dict[str, str]:
    """How an AWS client finds the emulator, and only it."""
    return {
        "AWS_ACCESS_KEY_ID": around.access_key,
        "AWS_SECRET_ACCESS_KEY": around.secret_key,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_ENDPOINT_URL": _reached(around.url, host),
        "AWS_ENDPOINT_URL_S3": _reached(around.s3_url, host),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def _directories(scratch: Path) -> dict[str, str]:
    home, temporary = scratch / "home", scratch / "tmp"
    home.mkdir(exist_ok=True)
    temporary.mkdir(exist_ok=True)
    return {"HOME": str(home), "TMPDIR": str(temporary)}


def _reached(url: str, host: str | None) -> str:
    if host is None:
        return url
    for local in ("127.0.0.1", "localhost", "0.0.0.0", "[::1]"):
        url = url.replace(f"//{local}:", f"//{host}:")
    return url
