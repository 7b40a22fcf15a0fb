"""SageMaker's security controls hold for what a handler loads by itself, where no search of the server's looks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.support.server import REPOSITORY, model_directory, serving

HANDLER = """
from pathlib import Path
from bloomery.engines import accelerate

engine = None

def handle(inputs):
    global engine
    if engine is None:
        engine = accelerate.load(Path({checkpoint!r}))
    return None
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A handler that loads the demonstration model, which brings a chat template."""
    checkpoint = shutil.copytree(REPOSITORY / "models" / "shakespeare-bloom", tmp_path / "checkpoint")
    return model_directory(tmp_path / "model", HANDLER.format(checkpoint=str(checkpoint)))


def test_a_chat_template_fails_the_load_in_words(model: Path) -> None:
    with serving(model, env={"SAGEMAKER_SECURITY_CONTROLS": "DISALLOW_CHAT_TEMPLATE"}, ready=False) as server:
        assert server.wait(240) == 1
        assert (
            "chat_template.jinja, which brings a chat template is forbidden by DISALLOW_CHAT_TEMPLATE" in server.log()
        )


def test_what_is_not_forbidden_is_served(model: Path) -> None:
    with serving(model, env={"SAGEMAKER_SECURITY_CONTROLS": "DISALLOW_PICKLE_FILES"}, ready=False) as server:
        server.wait_ready(240)
        assert server.ping().status == 200
