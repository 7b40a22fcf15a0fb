"""What a licence's name says."""

from __future__ import annotations

import pytest

from bloomery.sagemaker.planning.licence import judged


@pytest.mark.parametrize(
    ("name", "commercial"),
    [
        ("apache-2.0", True),
        ("mit", True),
        ("bsd-3-clause", True),
        ("cc0-1.0", True),
        ("bigscience-bloom-rail-1.0", True),
        ("openrail", True),
        ("cc-by-nc-4.0", False),
        ("cc-by-nc-sa-4.0", False),
        ("other, non-commercial", False),
        ("opt-noncommercial (https://x.org/l)", False),
        ("llama2", None),
        ("other", None),
        ("francium", None),
        (None, None),
    ],
)
def test_a_licence_is_judged_by_its_name(name: str | None, commercial: bool | None) -> None:
    found = judged(name)
    assert (found.name, found.commercial) == (name, commercial)


def test_restrictions_are_named() -> None:
    assert "with restrictions" in judged("bigscience-bloom-rail-1.0").remark


def test_a_card_without_a_licence_says_whom_to_ask() -> None:
    assert "ask who published" in judged(None).remark
