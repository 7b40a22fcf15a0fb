"""Variables out of env files, command lines and JSON."""

from __future__ import annotations

import pytest

from bloomery.errors import ConfigurationError
from bloomery.settings.variable_text import parse


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A=1\n\n# comment\nB=two words\n", {"A": "1", "B": "two words"}),
        ("export A='1 2'\nENV B=\"x=y\"\n", {"A": "1 2", "B": "x=y"}),
        ("A=1\nA=2\n", {"A": "2"}),
        ("docker run -e A=1 --env B=2 --env=C=3 -eD=4 image", {"A": "1", "B": "2", "C": "3", "D": "4"}),
        ("docker run \\\n  -e A='1 2' \\\n  -e HF_TOKEN \\\n image", {"A": "1 2"}),
        ("  -e A=1\n  -e B=2", {"A": "1", "B": "2"}),
        ("docker run tgi --model-id a/b --num-shard=2 --trust-remote-code --port 80",
         {"MODEL_ID": "a/b", "NUM_SHARD": "2", "TRUST_REMOTE_CODE": "true", "PORT": "80"}),
        ('{"A": "1", "B": 2, "C": true}', {"A": "1", "B": "2", "C": "true"}),
        ('{"Image": "x", "Environment": {"A": "1"}}', {"A": "1"}),
    ],
)  # fmt: skip
def test_each_form_is_read(text: str, found: dict[str, str]) -> None:
    assert parse(text, "file") == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "file has no variables"),
        ("docker run image", "docker run -e NAME=value"),
        ("docker run -e 'A=1", "file line 1: No closing quotation"),
        ("{", "file is no JSON"),
        ('{"A": [1]}', "names and values"),
        ('{"Environment": 3}', "names and values"),
    ],
)
def test_what_has_no_variables_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        parse(text, "file")
