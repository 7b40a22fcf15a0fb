"""The image under test, and the containers that several tests look at. ``docker/test`` builds the image and runs these;
the ordinary run of the tests leaves them out."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.containers import HARDENED, Container, docker, running
from tests.support.server import REPOSITORY

IMAGE = os.environ.get("BLOOMERY_IMAGE")
collect_ignore_glob = [] if IMAGE else ["test_*.py"]


@pytest.fixture(scope="session")
def image() -> str:
    """Its tag."""
    assert IMAGE is not None
    return IMAGE


@pytest.fixture(scope="session")
def tools() -> Path:
    """Where hadolint, container-structure-test and rclone are."""
    return Path(os.environ["BLOOMERY_DOCKER_TOOLS"])


@pytest.fixture(scope="session")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """code/ as it is below /opt/ml/model once SageMaker has unpacked model.tar.gz: other users may read it."""
    directory = tmp_path_factory.mktemp("artefact") / "model"
    shutil.copytree(REPOSITORY / "code", directory, ignore=shutil.ignore_patterns("__pycache__"))
    return opened(directory)


def opened(directory: Path) -> Path:
    """The same, with a path that every user may follow: the container's is not the test's."""
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for parent in directory.parents:
        if parent.stat().st_uid == os.getuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    return directory


@pytest.fixture(scope="session")
def started(image: str, artefact: Path) -> Iterator[dict[str, Container]]:
    """Two containers that load at the same time: one as a careful operator runs it, one as SageMaker does."""
    model = {"OPTION_MODEL_ID": "/opt/bloomery/models/shakespeare-bloom", "TENSOR_PARALLEL_DEGREE": "2"}
    sagemaker = {**model, "SAGEMAKER_BIND_TO_PORT": "9090"}
    as_root = ("--user", "0", "--shm-size", "256m", "--publish", "127.0.0.1::9090")
    quick = ("--health-interval", "1s")
    with (
        running(image, *HARDENED, *quick, "--network", "none") as hardened,
        running(image, *as_root, *quick, "--volume", f"{artefact}:/opt/ml/model:ro", env=sagemaker) as hosted,
    ):
        yield {"hardened": hardened, "hosted": hosted}


@pytest.fixture(scope="module")
def hardened(started: dict[str, Container]) -> Container:
    """Read-only root, uid 10001, no capabilities, no network, 64 MB of /dev/shm; the demonstration model, ready."""
    started["hardened"].wait_ready()
    return started["hardened"]


@pytest.fixture(scope="module")
def hosted(started: dict[str, Container]) -> Container:
    """As root, with the artefact at /opt/ml/model, listening where SAGEMAKER_BIND_TO_PORT says; ready."""
    started["hosted"].wait_ready()
    return started["hosted"]


@pytest.fixture(scope="session")
def s3_image(tools: Path) -> Iterator[str]:
    """An image of rclone alone, a static program, called as the upstream image is."""
    name = "localhost/bloomery-test-rclone:1"
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.add(tools / "rclone", "rclone")
    docker("import", "--change", 'ENTRYPOINT ["/rclone"]', "-", name, data=data.getvalue())
    yield name
    docker("rmi", "--force", name)
