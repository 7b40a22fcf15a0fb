"""The Dockerfile and the image, looked at from outside."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.support.server import REPOSITORY

STRUCTURE = Path(__file__).parent / "structure.yaml"


def test_hadolint_has_nothing_to_say(tools: Path) -> None:
    done = subprocess.run([tools / "hadolint", REPOSITORY / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_has_the_structure_that_it_should_have(tools: Path, image: str) -> None:
    command = [tools / "container-structure-test", "test", "--image", image, "--config", STRUCTURE, "--no-color"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_licences_and_bill_of_materials_name_everything_that_is_in_it(image: str) -> None:
    directory = REPOSITORY / "build" / "image"
    rows = [line.split("\t") for line in (directory / "licences.txt").read_text().splitlines()]
    licences = {(kind, name): licence for kind, name, _, licence in rows}
    components = json.loads((directory / "sbom.cdx.json").read_text())["components"]
    listed = {component["name"] for component in components}
    assert "Apache-2.0" in licences["python", "torch"]
    assert ("debian", "libc6") in licences
    assert {"torch", "deepspeed", "transformers", "aiohttp", "libc6"} <= listed
    assert [name for (_, name), licence in licences.items() if licence == "not stated"] == []
