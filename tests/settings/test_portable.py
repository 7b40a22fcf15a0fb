"""The settings of a model directory, checked for another machine than this one."""

from __future__ import annotations

from pathlib import Path

from bloomery.settings.portable import Checked, check


def checked(directory: Path, properties: str, *, handler: bool = True) -> Checked:
    directory.mkdir(exist_ok=True)
    (directory / "serving.properties").write_text(properties)
    if handler:
        (directory / "model.py").touch()
    return check(directory, "model")


def test_what_only_the_other_machine_has_is_no_error(tmp_path: Path) -> None:
    found = checked(
        tmp_path / "m",
        "engine=DeepSpeed\noption.tensor_parallel_degree=64\nload_on_devices=gpu0;gpu1\n"
        "option.pythonExecutable=/opt/conda/bin/python\noption.model_id=/opt/ml/data/bloom\n",
    )
    assert (found.errors, found.notices, found.remarks) == ([], [], [])
    assert found.entry_point == "model.py"


def test_every_wrong_value_is_told_of(tmp_path: Path) -> None:
    found = checked(tmp_path / "m", "batch_size=none\nretry_threshold=-1\noption.on_disconnect=perhaps\n")
    assert [text.partition(" of ")[0] for text in found.errors] == [
        "serving.properties line 1",
        "serving.properties line 2",
        "serving.properties line 3",
    ]


def test_an_option_that_a_built_in_handler_refuses_is_an_error_only_there(tmp_path: Path) -> None:
    text = "option.model_id=s3://bucket/bloom/\noption.enable_lora=true\n"
    with_own = checked(tmp_path / "own", text)
    built_in = checked(tmp_path / "built-in", text, handler=False)
    assert built_in.entry_point == "djl_python.huggingface"
    assert [len(with_own.errors), len(with_own.notices)] == [0, 1]
    assert [len(built_in.errors), len(built_in.notices)] == [1, 0]


def test_a_file_that_does_not_parse_is_one_error(tmp_path: Path) -> None:
    found = checked(tmp_path / "m", "= nothing\nbatch_size=none\n")
    assert len(found.errors) == 1
    assert "has no key" in found.errors[0]
    assert found.entry_point is None
