"""Which engine and which handler, and what is refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from bloomery.errors import ConfigurationError
from bloomery.settings import engine
from bloomery.settings.engine import Choice, choose, without_deepspeed
from bloomery.settings.layers import Found


def chosen(path: Path, has_model: bool = True, own: Path | None = None, **stated: str) -> Choice:
    found = {key.replace("__", "."): Found(value, "the test") for key, value in stated.items()}
    return choose(path, path.name, found, has_model, own or path.parent / "code")


@pytest.mark.parametrize(
    ("stated", "entry_point"),
    [("DeepSpeed", "djl_python.deepspeed"), ("MPI", "djl_python.deepspeed"), ("Python", "djl_python.huggingface")],
)
def test_without_a_handler_of_ones_own_the_engine_brings_one(tmp_path: Path, stated: str, entry_point: str) -> None:
    choice = chosen(tmp_path, engine=stated)
    assert (choice.engine, choice.entry_point) == (stated, entry_point)


def test_engine_names_are_read_in_any_case(tmp_path: Path) -> None:
    assert chosen(tmp_path, engine="deepspeed").engine == "DeepSpeed"


def test_model_py_is_the_handler_when_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "model.py").touch()
    assert chosen(tmp_path, engine="DeepSpeed").entry_point == "model.py"


def test_a_file_named_like_the_model_comes_before_model_py(tmp_path: Path) -> None:
    (tmp_path / "model.py").touch()
    (tmp_path / f"{tmp_path.name}.py").touch()
    assert chosen(tmp_path).entry_point == f"{tmp_path.name}.py"


def test_a_stated_entry_point_comes_before_model_py(tmp_path: Path) -> None:
    (tmp_path / "model.py").touch()
    (tmp_path / "other.py").touch()
    assert chosen(tmp_path, option__entryPoint="other.py").entry_point == "other.py"
    assert chosen(tmp_path, option__entryPoint="my_package.handler").entry_point == "my_package.handler"


def test_python_without_handler_and_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no model\.py, no option\.entryPoint and no option\.model_id"):
        chosen(tmp_path, has_model=False)


@pytest.mark.parametrize(
    ("key", "value", "who"),
    [
        ("engine", "vllm", "vLLM"),
        ("engine", "FasterTransformer", "FasterTransformer"),
        ("engine", "OnnxRuntime", "ONNX Runtime"),
        ("option__rolling_batch", "lmi-dist", "lmi-dist"),
        ("option__rolling_batch", "trtllm", "TensorRT-LLM"),
        ("option__rolling_batch", "vllm", "vLLM"),
        ("option__entryPoint", "djl_python.transformers_neuronx", "Neuron"),
        ("option__entryPoint", "djl_python.fastertransformer", "FasterTransformer"),
        ("option__entryPoint", "djl_python.lmi_vllm.vllm_async_service", "vLLM"),
    ],
)
def test_other_systems_are_refused_by_name_with_what_to_use_instead(
    tmp_path: Path, key: str, value: str, who: str
) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        chosen(tmp_path, **{key: value})
    text = str(refusal.value)
    assert f"{who} is not part of bloomery" in text
    assert "; " in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("entry_point", "words"),
    [
        ("missing.py", "there is no"),
        ("https://host/model.py", "not downloaded"),
        ("djl_python.hugingface", "djl_python.huggingface"),
    ],
)
def test_an_entry_point_that_cannot_be_is_refused(tmp_path: Path, entry_point: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        chosen(tmp_path, option__entryPoint=entry_point)


class TestRollingBatch:
    @pytest.fixture
    def own_handler(self, tmp_path: Path) -> Path:
        (tmp_path / "model.py").touch()
        return tmp_path

    @pytest.mark.parametrize("kind", ["disable", "false", "Disable"])
    def test_disable_is_accepted_silently(self, own_handler: Path, kind: str) -> None:
        choice = chosen(own_handler, option__rolling_batch=kind)
        assert (choice.rolling_batch, choice.notices) == (False, ())

    @pytest.mark.parametrize("kind", ["auto", "scheduler", "deepspeed", "my_own_kind"])
    def test_a_users_handler_gets_it(self, own_handler: Path, kind: str) -> None:
        choice = chosen(own_handler, option__rolling_batch=kind)
        assert (choice.rolling_batch, choice.notices) == (True, ())

    def test_a_users_handler_does_not_get_another_system(self, own_handler: Path) -> None:
        with pytest.raises(ConfigurationError, match="vLLM is not part of bloomery"):
            chosen(own_handler, option__rolling_batch="vllm")

    @pytest.mark.parametrize("kind", ["auto", "scheduler", "deepspeed"])
    def test_the_built_in_handlers_say_that_nothing_comes_of_it(self, tmp_path: Path, kind: str) -> None:
        choice = chosen(tmp_path, engine="DeepSpeed", option__rolling_batch=kind)
        assert not choice.rolling_batch
        assert f"option.rolling_batch={kind}: this handler answers requests in static batches" in choice.notices[0]

    def test_the_products_own_handler_too(self, own_handler: Path) -> None:
        choice = chosen(own_handler, own=own_handler, option__rolling_batch="auto")
        assert (choice.rolling_batch, len(choice.notices)) == (False, 1)

    def test_a_kind_that_there_is_not_is_refused_by_the_built_in_handlers(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="no such kind of batching"):
            chosen(tmp_path, engine="DeepSpeed", option__rolling_batch="my_own_kind")


class TestWithoutDeepSpeed:
    @pytest.fixture(autouse=True)
    def _absent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine, "deepspeed_importable", lambda: False)

    def fallback(self, path: Path, degree: int, degree_is_default: bool, own: bool = True, **stated: str) -> Choice:
        choice = chosen(path, engine="DeepSpeed", **stated)
        return without_deepspeed(choice, path, path if own else path / "elsewhere", degree, degree_is_default)

    def test_one_process_of_plain_transformers_serves_and_it_is_said(self, tmp_path: Path) -> None:
        choice = self.fallback(tmp_path, 1, False)
        assert (choice.engine, choice.entry_point, choice.degree) == ("Python", "djl_python.huggingface", 1)
        assert "djl_python.huggingface serves in one process instead" in choice.notices[0]

    def test_a_degree_that_nobody_asked_for_becomes_one(self, tmp_path: Path) -> None:
        assert self.fallback(tmp_path, 2, True).degree == 1

    def test_a_degree_above_one_that_was_asked_for_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="tensor_parallel_degree=2 needs it; set the degree to 1"):
            self.fallback(tmp_path, 2, False)

    def test_a_users_own_handler_is_started_as_asked_with_a_warning(self, tmp_path: Path) -> None:
        (tmp_path / "model.py").touch()
        choice = self.fallback(tmp_path, 2, False, own=False)
        assert (choice.engine, choice.entry_point, choice.degree) == ("DeepSpeed", "model.py", None)
        assert "fail if they import it" in choice.notices[0]
