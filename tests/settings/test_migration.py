"""What becomes of other systems' settings, and the page that tells it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.settings_world import World

from bloomery.errors import ConfigurationError
from bloomery.settings import image_variables, migration, server_table, table
from bloomery.settings.engine import ELSEWHERE
from bloomery.settings.migration import Finding
from bloomery.settings.migration_lmi import HANDLERS, MODEL, OTHER_ENGINES, WORKERS
from bloomery.settings.migration_row import Row
from bloomery.settings.migration_tgi import TGI

OF_KEYS = (*MODEL, *WORKERS, *OTHER_ENGINES, *HANDLERS)
PAGE = Path(__file__).parents[2] / "docs" / "from-lmi.md"


def variable(name: str, value: str) -> Finding:
    (finding,) = migration.of_variables({name: value}, "the test")
    return finding


def key(world: World, name: str, value: str) -> Finding:
    world.write("checked/serving.properties", f"# first\n{name}={value}\n")
    (finding,) = migration.of_directory(world.path / "checked")
    return finding


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == migration.page(), "bloomery check --table > docs/from-lmi.md"


@pytest.mark.parametrize(
    ("name", "value", "verdict", "words"),
    [
        ("engine", "MPI", "same", "in any case"),
        ("engine", "FasterTransformer", "refused", "use engine=DeepSpeed"),
        ("option.entryPoint", "djl_python.lmi_vllm.vllm_async_service", "refused", "another system's handler"),
        ("option.entryPoint", "https://host/model.py", "refused", "put the file into"),
        ("option.rolling_batch", "disable", "same", ""),
        ("option.rolling_batch", "auto", "different", "batch_size joins"),
        ("option.max_model_len", "4096", "refused", "option.max_tokens"),
        ("option.gpu_memory_utilization", "0.9", "different", "no effect"),
        ("option.quantize", "awq", "refused", "option.dtype=int8"),
        ("option.quantize", "disable", "same", ""),
        ("option.quantize", "bitsandbytes8", "different", "option.dtype=int8"),
        ("option.enable_lora", "true", "refused", "merge"),
        ("option.dtype", "fp8", "refused", "fp32, fp16"),
        ("option.mine", "1", "different", "reaches the handler as it is"),
        ("option.tensor_paralel_degree", "2", "different", "did you mean option.tensor_parallel_degree?"),
        ("job_queue_size", "0", "refused", "it must be a whole number of at least 1"),
        ("gpu.minWorkers", "none", "refused", "whole number"),
        ("max_dynamic_batch_size", "4", "different", "a lone request does not wait"),
        ("max_request_size", "5", "same", ""),
        ("dtype", "fp16", "refused", "did you mean option.dtype?"),
        ("load_on_devices", "gpu0", "same", ""),
        ("required_memory_mb", "10", "different", "not estimated"),
    ],
)
def test_a_key_of_serving_properties(world: World, name: str, value: str, verdict: str, words: str) -> None:
    finding = key(world, name, value)
    assert (finding.name, finding.value, finding.verdict) == (name, value, verdict)
    assert words in finding.how
    assert finding.origin == f"serving.properties line 2 of {world.path / 'checked'}"


@pytest.mark.parametrize(
    ("name", "value", "verdict", "words"),
    [
        ("OPTION_ROLLING_BATCH", "vllm", "refused", "option.rolling_batch: another system"),
        ("OPTION_ENTRYPOINT", "model.py", "same", "option.entryPoint"),
        ("HF_MODEL_ID", "a/b", "same", "option.model_id"),
        ("HF_MODEL_ID", "s3://bucket/x", "same", "which finds a directory"),
        ("TENSOR_PARALLEL_DEGREE", "max", "different", "cores"),
        ("TENSOR_PARALLEL_DEGREE", "two", "refused", "it must be a whole number"),
        ("SERVING_JOB_QUEUE_SIZE", "10", "different", "Retry-After"),
        ("SERVING_MAX_REQUEST_SIZE", "10", "same", "max_request_size"),
        ("SERVING_KEYSTORE", "x.p12", "refused", "SERVING_CERTIFICATE_FILE"),
        ("SERVING_NUMBER_OF_NETTY_THREADS", "4", "different", "no Netty"),
        ("SERVING_NONSENSE", "4", "refused", "no such setting"),
        ("SAGEMAKER_BIND_TO_PORT", "8080", "same", "port"),
        ("PIPELINE_PARALLEL_DEGREE", "2", "refused", "split layers"),
        ("JAVA_OPTS", "-Xmx2g", "different", "Java"),
        ("MODEL_ID", "a/b", "refused", "write HF_MODEL_ID"),
        ("NUM_SHARD", "4", "refused", "TENSOR_PARALLEL_DEGREE"),
        ("QUANTIZE", "bitsandbytes", "refused", "HF_MODEL_QUANTIZE=bitsandbytes"),
        ("HF_MODEL_QUANTIZE", "bitsandbytes", "different", "option.dtype=int8"),
        ("DJL_VENV_DIR", "/x", "same", "requirements"),
        ("MAX_INPUT_LENGTH", "4", "refused", "OPTION_MAX_TOKENS"),
        ("MAX_TOTAL_TOKENS", "4", "refused", "OPTION_MAX_TOKENS"),
        ("MAX_BATCH_TOTAL_TOKENS", "4", "different", "SERVING_BATCH_SIZE"),
        ("HOSTNAME", "0.0.0.0", "refused", "SERVING_INFERENCE_ADDRESS"),
        ("HOSTNAME", "4f1c2a", "different", "a container's own name"),
        ("NCCL_DEBUG", "INFO", "same", "reaches the worker processes"),
    ],
)
def test_a_variable(name: str, value: str, verdict: str, words: str) -> None:
    finding = variable(name, value)
    assert (finding.name, finding.verdict) == (name, verdict)
    assert words in finding.how


@pytest.mark.parametrize("other", ELSEWHERE)
def test_a_rolling_batch_that_the_server_refuses_is_refused_here_too(world: World, other: str) -> None:
    assert key(world, "option.rolling_batch", other).verdict == "refused"
    with pytest.raises(ConfigurationError):
        world.model("mine", f"option.rolling_batch={other}")


@pytest.mark.parametrize("row", OF_KEYS, ids=lambda row: f"{row.key}-{row.values}")
def test_a_bare_key_of_the_table_is_one_that_the_server_knows(row: Row) -> None:
    known = (*table.BARE_KEYS, *table.WITHOUT_EFFECT, *server_table.SERVER_KEYS)
    assert row.key.startswith("option.") or row.key in known


@pytest.mark.parametrize("rows", [OF_KEYS, TGI], ids=["keys", "TGI"])
def test_no_row_hides_behind_one_that_takes_every_value(rows: tuple[Row, ...]) -> None:
    closed: set[str] = set()
    for row in rows:
        assert row.key not in closed, row
        if not row.values:
            closed.add(row.key)


@pytest.mark.parametrize("name", [*table.OPTION_VARIABLES, *image_variables.WITHOUT_EFFECT, *image_variables.REMARKS])
def test_every_variable_of_the_images_has_a_verdict_of_its_own(name: str) -> None:
    assert "it reaches the worker processes as it is" not in variable(name, "x").how


def test_files_of_a_model_directory_count(world: World) -> None:
    world.write("checked/model.py", "")
    world.write("checked/requirements.txt", "")
    world.write("checked/MAR-INF/MANIFEST.json", "")
    verdicts = {each.name: each.verdict for each in migration.of_directory(world.path / "checked")}
    assert verdicts == {"model.py": "same", "requirements.txt": "different", "MAR-INF": "refused"}


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_directory_with_nothing_to_check_is_refused(world: World, name: str) -> None:
    (world.path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match=name):
        migration.of_directory(world.path / name)


def test_secrets_are_not_told() -> None:
    assert variable("HF_TOKEN", "hush").value == "***"
    assert "hush" not in variable("OPTION_MODEL_ID", "https://h/x?sig=hush").value


def test_of_the_present_environment_only_what_means_something_is_told() -> None:
    stated = {"PATH": "/bin", "HF_MODEL_ID": "a/b", "LANG": "C", "JAVA_OPTS": "x"}
    names = [finding.name for finding in migration.of_variables(stated, "environment", known_only=True)]
    assert names == ["HF_MODEL_ID", "JAVA_OPTS"]
