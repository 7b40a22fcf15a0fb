"""Models that cannot be loaded: the container ends with another code than 0, and its last words say why."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

from tests.docker.conftest import opened
from tests.support.containers import HARDENED, running
from tests.support.server import model_directory

HANDLER = """
from djl_python import Output
def handle(inputs):
    {body}
    return None if inputs.is_empty() else Output().add(str(answer))
"""


def model(directory: Path, body: str) -> Path:
    """A model directory of one handler without torch, for a container to read."""
    return opened(model_directory(directory / "model", HANDLER.format(body=body)))


def test_a_handler_that_fails_to_load_ends_the_container_with_1(image: str, tmp_path: Path) -> None:
    handler = model(tmp_path, "raise ValueError('no such layer: h.7')")
    with running(image, *HARDENED, "--volume", f"{handler}:/opt/ml/model:ro") as container:
        assert container.wait() == 1
        assert "model 'model' could not be loaded" in container.log()
        assert "no such layer: h.7" in container.log()


def test_a_setting_that_is_wrong_ends_the_container_with_2(image: str) -> None:
    with running(image, *HARDENED, env={"OPTION_MODEL_ID": "/nowhere/at/all"}) as container:
        assert container.wait() == 2
        assert "environment OPTION_MODEL_ID: option.model_id=/nowhere/at/all: there is no" in container.log()


def test_a_load_that_exceeds_the_memory_limit_is_reported_as_that(image: str, tmp_path: Path) -> None:
    handler = model(tmp_path, 'answer = len(b"x" * (1 << 30))')
    limit = ("--memory", "300m", "--memory-swap", "300m")
    with running(image, *HARDENED[:-4], *limit, "--volume", f"{handler}:/opt/ml/model:ro") as container:
        assert container.wait() == 1
        log = container.log()
        assert "was killed by signal 9 (SIGKILL), the kernel's out-of-memory killer: the limit of 300 MiB" in log
        assert "more memory" in log


def test_requirements_of_a_model_are_installed_from_the_wheels_beside_them(image: str, tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "model", HANDLER.format(body="import anvil; answer = anvil.weight"))
    (directory / "requirements.txt").write_text("anvil==1.5\n")
    (directory / "requirements").mkdir()
    wheel(directory / "requirements", "anvil", "1.5", "weight = 42\n")
    mounted = f"{opened(directory)}:/opt/ml/model:ro"
    offline = {"DJL_OFFLINE": "true"}
    with running(image, *HARDENED, "--network", "none", "--volume", mounted, env=offline) as container:
        container.wait_ready()
        assert container.ask_inside({}).body == b"42"
        assert container.stop()[0] == 0


def wheel(directory: Path, name: str, version: str, source: str) -> None:
    """A wheel of one module."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in files.items()]
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,", ""]))


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
