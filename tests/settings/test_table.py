"""The table of settings and the page that documents it say the same."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from bloomery.settings import ModelSettings, ServerSettings, image_variables, security, server_table, table
from bloomery.settings.server_table import SERVER
from bloomery.settings.table import Setting

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
ROWS = {line.split("|")[1].split()[0]: line for line in PAGE.splitlines() if line.startswith("| `")}


@pytest.mark.parametrize("setting", [*table.MODEL, *SERVER], ids=lambda setting: setting.key)
def test_a_setting_is_documented_with_its_variables_and_default(setting: Setting) -> None:
    row = ROWS[f"`{setting.key}`"]
    for name in (*setting.variables, *setting.aliases):
        assert f"`{name}`" in row
    if setting.key.startswith("option."):
        assert f"`OPTION_{setting.key.removeprefix('option.').upper()}`" in row
    default = {**vars(ModelSettings("m", Path())), **vars(ServerSettings())}.get(setting.field)
    if isinstance(default, bool):
        assert f"| `{str(default).lower()}` |" in row
    elif isinstance(default, (int, float)) and setting.key not in ("maxWorkers",):
        shown = default * 1000 if setting.key == "max_batch_delay" else default
        assert f"| {shown:.0f} |" in row


@pytest.mark.parametrize("name", [*table.OPTION_VARIABLES, "SAGEMAKER_BIND_TO_PORT", "SAGEMAKER_MAX_PAYLOAD_IN_MB"])
def test_a_variable_is_documented(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", [*image_variables.WITHOUT_EFFECT, *image_variables.REMARKS, *security.CONTROLS])
def test_a_variable_without_effect_and_a_security_control_are_documented(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("key", [*server_table.KEYS_WITHOUT_EFFECT, *server_table.KEYSTORES])
def test_a_key_of_config_properties_without_effect_is_documented(key: str) -> None:
    assert f"`{key}" in PAGE


@pytest.mark.parametrize("key", [key for key in table.WITHOUT_EFFECT if not key.startswith("gpu.")])
def test_a_key_without_effect_is_documented(key: str) -> None:
    assert f"`{key}`" in PAGE


def test_every_row_of_a_model_fills_a_field_of_its_settings() -> None:
    assert {setting.field for setting in table.MODEL} <= {field.name for field in fields(ModelSettings)}
    assert {setting.field for setting in SERVER} <= {field.name for field in fields(ServerSettings)}
