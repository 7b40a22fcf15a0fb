"""The recipe of the demonstration model."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

RECIPE = Path(__file__).resolve().parents[2] / "models" / "train_shakespeare.py"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_shakespeare", RECIPE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cleaning_strips_the_source_and_writes_speakers_in_capitals(recipe: ModuleType) -> None:
    raw = "THE PLAY\r\n\r\nThis Project Gutenberg Etext\n\n\n\nFirst Lord.\n   Good   morrow.\n\nKent\nAye.\n"
    assert recipe.clean(raw) == "THE PLAY\n\nFIRST LORD.\nGood morrow.\n\nKENT.\nAye.\n"


def test_two_plays_are_held_out_and_old_spelling_is_left_out(recipe: ModuleType, tmp_path: Path) -> None:
    for name in ("lear_gut.txt", "lear_gut_f.txt", *recipe.HELD_OUT):
        (tmp_path / name).write_text(f"{name}\n")
    training, held_out = recipe.read_corpus(tmp_path)
    assert training == ["lear_gut.txt\n"]
    assert sorted(held_out) == sorted(f"{name}\n" for name in recipe.HELD_OUT)


def test_learning_rate_warms_up_stays_and_falls_to_zero(recipe: ModuleType) -> None:
    rates = [recipe.schedule(step, 1000) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[100] == rates[700] == 1.0
    assert rates[850] == pytest.approx(0.5)
    assert rates[1000] == 0.0


def test_orthogonalised_matrices_have_singular_values_near_one(recipe: ModuleType) -> None:
    import torch

    torch.manual_seed(0)
    for shape in ((32, 96), (96, 32)):
        values = torch.linalg.svdvals(recipe.orthogonalise(torch.randn(shape)))
        assert 0.5 < values.min() <= values.max() < 1.5


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    sizes = {"VOCABULARY": 300, "HIDDEN": 32, "LAYERS": 1, "HEADS": 2, "CONTEXT": 16, "BATCH": 2}
    for name, value in sizes.items():
        monkeypatch.setattr(recipe, name, value)
    for name in ("lear_gut.txt", *recipe.HELD_OUT):
        lines = (f"KENT.\nThe number {n} and {n * 7 % 11} went out, {name}.\n" for n in range(20))
        (tmp_path / name).write_text("\n".join(lines))
    schedule = recipe.schedule
    monkeypatch.setattr(recipe, "schedule", lambda step, _: schedule(step, 30))  # it depends on the number of steps
    recipe.train(tmp_path / "whole", tmp_path, 30, 0.0)
    for steps in (20, 30):
        recipe.train(tmp_path / "parts", tmp_path, steps, 0.0)
    whole, parts = (torch.load(tmp_path / run / "state.pt", weights_only=True)["model"] for run in ("whole", "parts"))
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-4, atol=1e-5)
