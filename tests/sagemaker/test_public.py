"""What ``from bloomery.sagemaker import …`` offers: everything it names, at no cost to who does not ask."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from bloomery import sagemaker
from bloomery.exports import lazily


def test_every_name_is_there() -> None:
    for name in sagemaker.__all__:
        assert getattr(sagemaker, name) is not None


def test_type_checkers_see_the_same_names() -> None:
    (typed,) = (each for each in ast.parse(Path(sagemaker.__file__).read_text()).body if isinstance(each, ast.If))
    seen = [alias.name for each in typed.body if isinstance(each, ast.ImportFrom) for alias in each.names]
    assert sorted(seen) == sagemaker.__all__


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    script = (
        "import sys, bloomery.sagemaker, bloomery.checkpoints\n"
        "heavy = {'boto3', 'botocore', 'rich', 'bloomery.sagemaker.session', 'bloomery.checkpoints.uploading.upload'}\n"
        "found = heavy & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_what_is_not_there() -> None:
    with pytest.raises(AttributeError, match=r"module 'bloomery\.sagemaker' has no attribute 'Endpiont'"):
        _ = sagemaker.Endpiont
    get = lazily("bloomery", {"errors": ("BloomeryError",)})
    with pytest.raises(AttributeError, match="module 'bloomery' has no attribute 'errors2'"):
        get("errors2")
