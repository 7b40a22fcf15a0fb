"""Precedence, types, origins and refusals, over a clone of the repository made for the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.support.settings_world import ROOT, World

from bloomery.errors import ConfigurationError
from bloomery.settings import Secret, Settings, image_variables, load
from bloomery.settings.source import Home


class TestPrecedence:
    """From the strongest to the weakest: the next test takes the strongest away."""

    def dtype(self, world: World, *options: str, **environment: str) -> tuple[str | None, str]:
        model = world.model(None, *options, **environment)
        return model.properties.get("dtype"), world.origin("option.dtype", None, *options, **environment)

    def test_command_line(self, world: World) -> None:
        world.write("clone/code/serving.properties", "option.dtype=archive\n")
        found = self.dtype(world, "option.dtype=command", OPTION_DTYPE="environment")
        assert found == ("command", "command line -o option.dtype")

    def test_archive(self, world: World) -> None:
        file = world.write("clone/code/serving.properties", "# comment\noption.dtype=archive\n")
        assert self.dtype(world, OPTION_DTYPE="environment") == (
            "archive",
            f"serving.properties line 2 of {file.parent}",
        )

    def test_environment(self, world: World) -> None:
        assert self.dtype(world, OPTION_DTYPE="environment") == ("environment", "environment OPTION_DTYPE")

    def test_root(self, world: World) -> None:
        assert self.dtype(world) == ("root", f"serving.properties line 4 of {world.path / 'clone'}")

    def test_default(self, world: World) -> None:
        model = world.model()
        assert (model.tensor_parallel_degree, model.job_queue_size, model.engine) == (1, 1000, "Python")
        assert world.origin("job_queue_size") == "default"

    def test_a_servers_variable_beats_root_and_yields_to_the_archive(self, world: World) -> None:
        world.write("clone/serving.properties", ROOT + "job_queue_size=3\n")
        assert world.model(None).job_queue_size == 3
        assert world.model(None, SERVING_JOB_QUEUE_SIZE="5").job_queue_size == 5
        world.write("clone/code/serving.properties", "job_queue_size=7\n")
        assert world.model(None, SERVING_JOB_QUEUE_SIZE="5").job_queue_size == 7


class TestRootIsUnread:
    def test_without_a_source_it_gives_the_demonstration_model(self, world: World) -> None:
        model = world.model(None)
        assert model.properties["model_id"] == str(world.path / "clone/models/demo")
        assert (model.name, model.tensor_parallel_degree, model.model_dir) == ("demo", 2, world.home.model_dir)

    @pytest.mark.parametrize(
        ("argument", "options", "environment"),
        [
            ("mine", (), {}),
            ("clone/models/demo", (), {}),
            ("s3://bucket/x", (), {}),
            (None, ("option.model_id=a/b",), {}),
            (None, ("option.s3url=s3://bucket/x",), {}),
            (None, (), {"OPTION_MODEL_ID": "a/b"}),
            (None, (), {"OPTION_S3URL": "s3://bucket/x"}),
            (None, (), {"HF_MODEL_ID": "a/b"}),
        ],
    )
    def test_once_a_model_source_is_given(
        self, world: World, argument: str | None, options: tuple[str, ...], environment: dict[str, str]
    ) -> None:
        model = world.model(argument, *options, **environment)
        assert "dtype" not in model.properties
        assert model.tensor_parallel_degree == 1

    def test_also_when_the_archive_names_one(self, world: World) -> None:
        world.write("clone/code/serving.properties", "engine=DeepSpeed\noption.model_id=a/b\n")
        model = world.model(None)
        assert (model.properties["model_id"], "dtype" in model.properties) == ("a/b", False)

    def test_the_clones_code_directory_is_no_source_of_its_own(self, world: World) -> None:
        assert world.model("clone/code").properties["dtype"] == "root"


class TestModelSource:
    def test_a_checkpoint_inside_the_model_directory_is_the_model(self, world: World) -> None:
        for file in ("config.json", "model.safetensors"):
            world.write(f"mine/{file}", "")
        assert world.model().properties["model_id"] == str(world.path / "mine")

    def test_a_named_checkpoint_beats_the_one_inside(self, world: World) -> None:
        for file in ("config.json", "model.safetensors"):
            world.write(f"mine/{file}", "")
        assert world.model("mine", HF_MODEL_ID="a/b").properties["model_id"] == "a/b"

    def test_a_relative_path_is_meant_from_where_it_is_written(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.write("mine/weights/config.json", "")
        world.write("mine/serving.properties", "option.model_id=weights\n")
        assert world.model().properties["model_id"] == str(world.path / "mine/weights")
        monkeypatch.chdir(world.path / "clone")
        assert world.model("mine", "option.model_id=models/demo").properties["model_id"].endswith("clone/models/demo")

    @pytest.mark.parametrize("path", ["./gone", "/no/such/place", "models/gone"])
    def test_a_path_that_is_not_there_is_refused_with_its_line(self, world: World, path: str) -> None:
        world.write("mine/models/here/config.json", "")
        world.write("mine/serving.properties", f"engine=Python\noption.model_id={path}\n")
        with pytest.raises(ConfigurationError, match=r"serving\.properties line 2 of .*mine: option\.model_id="):
            world.model()

    def test_model_id_and_s3url_together_are_refused(self, world: World) -> None:
        world.write("mine/serving.properties", "option.model_id=a/b\noption.s3url=s3://bucket/x\n")
        with pytest.raises(ConfigurationError, match="exclude each other"):
            world.model()

    def test_a_stronger_source_replaces_a_weaker_one_of_the_other_kind(self, world: World) -> None:
        world.write("mine/serving.properties", "option.s3url=s3://bucket/x\n")
        properties = world.model("mine", "option.model_id=a/b").properties
        assert (properties["model_id"], "s3url" in properties) == ("a/b", False)


class TestDegree:
    @pytest.mark.parametrize(
        ("environment", "degree"),
        [
            ({}, 1),
            ({"TENSOR_PARALLEL_DEGREE": "4"}, 4),
            ({"SM_NUM_GPUS": "8"}, 8),
            ({"SM_NUM_GPUS": "0"}, 1),
            ({"TENSOR_PARALLEL_DEGREE": "2", "SM_NUM_GPUS": "8"}, 2),
            ({"OPTION_TENSOR_PARALLEL_DEGREE": "3", "TENSOR_PARALLEL_DEGREE": "2"}, 3),
            ({"TENSOR_PARALLEL_DEGREE": "max", "CUDA_VISIBLE_DEVICES": "0,1,2,5"}, 4),
            ({"TENSOR_PARALLEL_DEGREE": ""}, 1),
        ],
    )
    def test_it_comes_from_the_environment(self, world: World, environment: dict[str, str], degree: int) -> None:
        assert world.model("mine", **environment).tensor_parallel_degree == degree

    def test_max_is_the_number_of_cores_where_there_is_no_gpu(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("bloomery.processes.machine.cores", lambda: 6)
        assert world.model("mine", TENSOR_PARALLEL_DEGREE="max").tensor_parallel_degree == 6

    def test_the_handler_learns_the_resolved_number(self, world: World) -> None:
        properties = world.model("mine", TENSOR_PARALLEL_DEGREE="max", CUDA_VISIBLE_DEVICES="0,1").properties
        assert properties["tensor_parallel_degree"] == "2"

    @pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
    def test_other_values_are_refused_with_what_is_allowed(self, world: World, text: str) -> None:
        with pytest.raises(ConfigurationError) as refusal:
            world.model("mine", TENSOR_PARALLEL_DEGREE=text)
        assert "environment TENSOR_PARALLEL_DEGREE" in str(refusal.value)
        assert f"={text}:" in str(refusal.value)
        assert "at least 1, or max" in str(refusal.value)


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("minWorkers=2", "min_workers", 2),
        ("minWorkers=2", "max_workers", 2),
        ("maxWorkers=3", "max_workers", 3),
        ("cpu.minWorkers=4", "min_workers", 4),
        ("gpu.minWorkers=4", "min_workers", 1),
        ("job_queue_size=7", "job_queue_size", 7),
        ("batch_size=4", "batch_size", 4),
        ("max_dynamic_batch_size=4", "batch_size", 4),
        ("max_batch_delay=250", "max_batch_delay", 0.25),
        ("max_batch_delay=0", "max_batch_delay", 0.0),
        ("option.predict_timeout=9.5", "predict_timeout", 9.5),
        ("option.model_loading_timeout=60", "model_loading_timeout", 60.0),
        ("chunked_read_timeout=30", "stream_idle_timeout", 30.0),
        ("retry_threshold=0", "retry_threshold", 0),
        ("option.rolling_batch=auto", "rolling_batch", True),
        ("option.max_rolling_batch_size=8", "max_rolling_batch_size", 8),
        ("crash_loop_limit=2", "crash_loop_limit", 2),
        ("crash_loop_window=60", "crash_loop_window", 60.0),
        ("option.async_mode=TRUE", "async_mode", True),
        ("option.on_disconnect=restart", "on_disconnect", "restart"),
        ("option.handler=predict", "handler", "predict"),
        ("option.env=A=1,B=x=y", "environment", {"A": "1", "B": "x=y"}),
        ("option.pythonExecutable=python3", "python_executable", "python3"),
        ("engine=mpi", "engine", "MPI"),
        ("option.mpi_mode=true", "engine", "MPI"),
    ],
)
def test_each_key_of_a_models_file_arrives_with_its_type(world: World, line: str, field: str, value: Any) -> None:
    world.write("mine/serving.properties", line + "\n")
    assert getattr(world.model(), field) == value


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("SERVING_MIN_WORKERS", "2", "min_workers", 2),
        ("SERVING_MAX_WORKERS", "2", "max_workers", 2),
        ("SAGEMAKER_NUM_MODEL_WORKERS", "3", "min_workers", 3),
        ("SERVING_JOB_QUEUE_SIZE", "7", "job_queue_size", 7),
        ("MAX_CONCURRENT_REQUESTS", "7", "job_queue_size", 7),
        ("SERVING_BATCH_SIZE", "4", "batch_size", 4),
        ("SERVING_MAX_BATCH_DELAY", "10", "max_batch_delay", 0.01),
        ("PREDICT_TIMEOUT", "11", "predict_timeout", 11.0),
        ("OPTION_PREDICT_TIMEOUT", "12", "predict_timeout", 12.0),
        ("SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", "13", "predict_timeout", 13.0),
        ("MODEL_LOADING_TIMEOUT", "14", "model_loading_timeout", 14.0),
        ("SAGEMAKER_STARTUP_TIMEOUT", "15", "model_loading_timeout", 15.0),
        ("SERVING_CHUNKED_READ_TIMEOUT", "16", "stream_idle_timeout", 16.0),
        ("SERVING_RETRY_THRESHOLD", "3", "retry_threshold", 3),
        ("SERVING_CRASH_LOOP_LIMIT", "3", "crash_loop_limit", 3),
        ("SERVING_CRASH_LOOP_WINDOW", "3", "crash_loop_window", 3.0),
        ("OPTION_MAX_ROLLING_BATCH_SIZE", "3", "max_rolling_batch_size", 3),
        ("MAX_BATCH_SIZE", "3", "max_rolling_batch_size", 3),
        ("OPTION_ENGINE", "MPI", "engine", "MPI"),
        ("OPTION_ENTRYPOINT", "djl_python.huggingface", "entry_point", "djl_python.huggingface"),
        ("DJL_ENTRY_POINT", "djl_python.huggingface", "entry_point", "djl_python.huggingface"),
        ("OPTION_PYTHONEXECUTABLE", "python3", "python_executable", "python3"),
        ("PYTHON_EXECUTABLE", "python3", "python_executable", "python3"),
        ("OPTION_ON_DISCONNECT", "restart", "on_disconnect", "restart"),
    ],
)
def test_each_variable_arrives_with_its_type(world: World, name: str, text: str, field: str, value: Any) -> None:
    assert getattr(world.model("mine", **{name: text}), field) == value


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("HF_MODEL_ID", "model_id"),
        ("HF_REVISION", "revision"),
        ("HF_TASK", "task"),
        ("HF_MODEL_TRUST_REMOTE_CODE", "trust_remote_code"),
        ("HF_MODEL_QUANTIZE", "quantize"),
        ("MAX_BATCH_PREFILL_TOKENS", "max_rolling_batch_prefill_tokens"),
        ("OPTION_SOMETHING_OF_THE_HANDLERS", "something_of_the_handlers"),
    ],
)
def test_these_variables_become_options_of_the_handler(world: World, name: str, key: str) -> None:
    assert world.model("mine", **{name: "a/b"}).properties[key] == "a/b"


def test_the_handler_receives_options_without_prefix_and_other_keys_as_they_are(world: World) -> None:
    world.write("mine/serving.properties", "option.max_tokens=512\noption.own=x\nbatch_size=2\n")
    properties = world.model().properties
    assert (properties["max_tokens"], properties["own"], properties["batch_size"]) == ("512", "x", "2")
    assert not [key for key in properties if key.startswith("option.")]


def test_a_secret_reaches_the_handler_and_prints_nowhere(world: World) -> None:
    world.write("mine/serving.properties", "option.hf_token=hush\noption.env=API_KEY=hush\n")
    settings = world.settings("mine")
    held = settings.models[0].properties["hf_token"]
    assert isinstance(held, Secret)
    assert held.reveal() == "hush"
    assert "hush" not in repr(settings)
    assert "hush" not in "".join(row.value for row in settings.explained)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("minWorkers=none", "minWorkers=none: it must be a whole number of at least 1"),
        ("max_batch_delay=soon", "milliseconds"),
        ("option.predict_timeout=0", "seconds above 0"),
        ("option.async_mode=maybe", "true or false"),
        ("option.on_disconnect=weep", "finish, restart"),
        ("option.pythonExecutable=/no/such/python", "interpreter that exists"),
        ("engine=Pyhton", "no such engine"),
    ],
)
def test_a_wrong_value_is_refused_with_file_line_key_value_and_what_is_allowed(
    world: World, line: str, words: str
) -> None:
    world.write("mine/serving.properties", f"# first line\n{line}\n")
    with pytest.raises(ConfigurationError) as refusal:
        world.model()
    text = str(refusal.value)
    assert text.startswith(f"serving.properties line 2 of {world.path / 'mine'}: {line}")
    assert words in text


def test_variables_that_are_none_are_refused_without_their_text_which_may_hold_secrets(world: World) -> None:
    with pytest.raises(ConfigurationError, match=r"option\.env=\*\*\*: it must be NAME=value pairs"):
        world.model("mine", "option.env=TOKEN:sesame")


def test_more_workers_at_least_than_at_most_are_refused_with_both_places(world: World) -> None:
    world.write("mine/serving.properties", "minWorkers=3\nmaxWorkers=1\n")
    with pytest.raises(ConfigurationError, match=r"minWorkers=3 \(.*line 1.*maxWorkers=1 \(.*line 2"):
        world.model()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("job_queue_sise=3", "did you mean job_queue_size?"),
        ("dtype=fp16", "did you mean option.dtype?"),
        ("tensor_parallel_degree=2", "did you mean option.tensor_parallel_degree?"),
        ("option.tensor_paralel_degree=2", "did you mean option.tensor_parallel_degree?"),
        ("option.DTYPE=fp16", "did you mean option.dtype?"),
        ("option.entrypoint=model.py", "did you mean option.entryPoint?"),
        ('option.model_id="org/name"', "option.model_id: the quotes around the value are part of it; leave them out"),
        ("max_request_size=3", "SERVING_MAX_REQUEST_SIZE"),
        ("max_idle_time=60", "no effect"),
    ],
)
def test_a_key_that_does_nothing_is_warned_of(world: World, line: str, words: str) -> None:
    world.write("mine/serving.properties", line + "\n")
    (notice,) = world.settings("mine").notices
    assert notice.startswith(f"serving.properties line 1 of {world.path / 'mine'}: ")
    assert words in notice


def test_known_keys_and_a_handlers_own_are_not(world: World) -> None:
    world.write("mine/serving.properties", "engine=MPI\noption.dtype=fp32\noption.mine=1\ngpu.minWorkers=1\n")
    assert world.settings("mine").notices == []


@pytest.mark.parametrize(
    ("name", "notice"),
    [
        ("SERVING_WARMUP", "environment SERVING_WARMUP has no effect in this server"),
        (
            "SERVING_JOB_QUEUE_SIZES",
            "environment SERVING_JOB_QUEUE_SIZES has no effect in this server; did you mean SERVING_JOB_QUEUE_SIZE?",
        ),
    ],
)
def test_an_unknown_variable_of_the_server_is_warned_of(world: World, name: str, notice: str) -> None:
    assert world.settings("mine", **{name: "1"}).notices == [notice]


@pytest.mark.parametrize("name", image_variables.WITHOUT_EFFECT)
def test_a_variable_of_djlservings_images_without_effect_is_told_of(world: World, name: str) -> None:
    (notice,) = world.settings("mine", **{name: "1"}).notices
    assert notice == f"environment {name} has no effect in this server: {image_variables.WITHOUT_EFFECT[name]}"


def test_a_variable_that_is_not_meant_for_us_is_only_remarked_upon(world: World) -> None:
    settings = world.settings("mine", OMP_NUM_THREADS="1")
    assert settings.notices == []
    assert settings.remarks[0].startswith("environment OMP_NUM_THREADS has no effect")


def test_what_libraries_read_for_themselves_is_left_alone(world: World) -> None:
    settings = world.settings("mine", HF_TOKEN="hush", HF_HOME="/x", NCCL_DEBUG="INFO")
    assert (settings.notices, settings.remarks) == ([], [])


def test_an_unknown_bare_key_on_the_command_line_is_refused(world: World) -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean option\.dtype"):
        world.model("mine", "dtype=fp16")


class TestWithoutTheRepository:
    def test_a_checkpoint_is_served_by_the_built_in_handler(self) -> None:
        (model,) = load("s3://bucket/opt-30b/", environ={}, home=Home(None)).models
        assert (model.name, model.entry_point, model.engine) == ("opt-30b", "djl_python.deepspeed", "DeepSpeed")
        assert model.model_dir.is_dir()

    def test_no_argument_is_refused_with_an_example(self) -> None:
        with pytest.raises(ConfigurationError, match="bloomery serve facebook/opt-125m"):
            load(environ={}, home=Home(None))


def test_every_setting_is_explained_with_its_source(world: World) -> None:
    rows = world.settings("mine", "batch_size=2", OPTION_OWN="x").explained
    found = {(row.scope, row.key): (row.value, row.origin) for row in rows}
    assert found["mine", "batch_size"] == ("2", "command line -o batch_size")
    assert found["mine", "option.own"] == ("x", "environment OPTION_OWN")
    assert found["mine", "option.entryPoint"] == ("model.py", f"model.py in {world.path / 'mine'}")
    assert found["server", "inference_address"] == ("http://127.0.0.1:8080", "default")


@pytest.mark.parametrize("load_it", [lambda: load("x", options=["a"]), lambda: load("x", options=["=1"])])
def test_an_option_without_key_or_value_is_refused(load_it: Callable[[], Settings]) -> None:
    with pytest.raises(ConfigurationError, match="key=value"):
        load_it()
