from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.worker_models import settings

from bloomery.errors import BadRequestError, ConfigurationError, ModelLoadError, ModelNotFoundError
from bloomery.serving.model import Model
from bloomery.serving.registry import Registry


@pytest.fixture
def make(tmp_path: Path):
    def make(name: str, version: str | None = None, **changes) -> Model:
        return Model(settings(tmp_path, name=name, version=version, **changes))

    return make


def test_the_only_model_needs_no_name(make):
    registry, model = Registry(), make("a")
    registry.add(model)

    assert registry.get() is registry.get("a") is model


def test_of_several_models_one_must_be_named(make):
    registry = Registry()
    for name in "ab":
        registry.add(make(name))

    with pytest.raises(BadRequestError, match=r"^Parameter model_name is required\.$"):
        registry.get()


def test_an_unknown_model_is_named(make):
    registry = Registry()
    registry.add(make("a"))

    with pytest.raises(ModelNotFoundError, match=r"^Model or workflow not found: zz$"):
        registry.get("zz")
    with pytest.raises(ModelNotFoundError, match="not found: a version 2"):
        registry.get("a", "2")


def test_versions_live_side_by_side_and_the_last_added_is_the_default(make):
    registry = Registry()
    for version in ("1", "2"):
        registry.add(make("a", version))

    assert registry.get("a", "1").version == "1"
    assert registry.get("a").version == "2"


def test_the_same_name_and_version_twice_is_refused(make):
    registry = Registry()
    registry.add(make("a", "1"))

    with pytest.raises(ConfigurationError, match="'a' version 1 is registered twice"):
        registry.add(make("a", "1"))


async def test_the_server_is_healthy_while_every_required_model_can_answer(make):
    registry = Registry()
    registry.add(make("needed"))
    registry.add(make("spare", required=False, entry_point="missing.py"))
    assert not registry.healthy()

    await registry.start()
    await registry.get("needed").loaded()
    with pytest.raises(ModelLoadError, match="missing"):
        await registry.get("spare").loaded()
    healthy = registry.healthy()
    await registry.stop(grace=0)

    assert healthy
    assert not registry.healthy()


@pytest.mark.parametrize("required", [True, False])
async def test_the_failure_of_a_required_model_alone_is_called_back(make, required):
    failures = []
    registry = Registry(on_failure=lambda model, error: failures.append((model.name, error)))
    model = make("a", required=required, properties={"on_load": "raise"})
    registry.add(model)

    await registry.start()
    with pytest.raises(ModelLoadError) as caught:
        await model.loaded()
    await registry.stop(grace=0)

    assert failures == ([("a", caught.value)] if required else [])
