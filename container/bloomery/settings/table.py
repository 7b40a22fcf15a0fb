"""Every setting of a model that the server reads: its key, its variables, its type, its meaning. One row each.

Defaults are those of the dataclass fields (settings.model). Keys are serving.properties' own;
``option.*`` keys that are not here belong to the handler and reach it untouched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bloomery.errors import ConfigurationError
from bloomery.settings import kinds
from bloomery.settings.kinds import Parser
from bloomery.settings.layers import Found
from bloomery.settings.secret import guard


@dataclass(frozen=True)
class Setting:
    """One row. ``variables`` are environment variables, strongest first; OPTION_<NAME> of an option.* key comes
    before them all."""

    key: str
    field: str
    parse: Parser
    meaning: str
    variables: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


WORKERS = ("minWorkers", "maxWorkers")

# "engine" and "option.entryPoint" have parsers of their own in settings.engine: they depend on other settings.
MODEL = (
    Setting("engine", "engine", kinds.word, "DeepSpeed, MPI (a process per device) or Python (one process)", ()),
    Setting("option.entryPoint", "entry_point", kinds.word, "the handler: a file or a module", ("DJL_ENTRY_POINT",)),
    Setting("option.handler", "handler", kinds.word, "the function of the handler that answers requests"),
    Setting(
        "option.tensor_parallel_degree",
        "tensor_parallel_degree",
        kinds.degree,
        "devices a model is split over; max: all of them (GPUs, else cores)",
        ("TENSOR_PARALLEL_DEGREE", "SM_NUM_GPUS"),
    ),
    Setting(
        "minWorkers",
        "min_workers",
        kinds.whole(),
        "worker groups that are started",
        ("SERVING_MIN_WORKERS", "SAGEMAKER_NUM_MODEL_WORKERS"),
    ),
    Setting(
        "maxWorkers",
        "max_workers",
        kinds.whole(),
        "worker groups at most",
        ("SERVING_MAX_WORKERS", "SAGEMAKER_NUM_MODEL_WORKERS"),
    ),
    Setting(
        "load_on_devices",
        "load_on_devices",
        kinds.word,
        "devices of the model: *, cpu, or GPUs such as gpu0;gpu1",
        ("SERVING_LOAD_ON_DEVICES",),
    ),
    Setting(
        "job_queue_size",
        "job_queue_size",
        kinds.whole(),
        "requests that may wait; more are answered 503",
        ("SERVING_JOB_QUEUE_SIZE", "MAX_CONCURRENT_REQUESTS"),
    ),
    Setting(
        "batch_size",
        "batch_size",
        kinds.whole(),
        "requests joined into one call of the handler",
        ("SERVING_BATCH_SIZE",),
        ("max_dynamic_batch_size",),
    ),
    Setting(
        "max_batch_delay",
        "max_batch_delay",
        kinds.milliseconds,
        "milliseconds a batch waits for company",
        ("SERVING_MAX_BATCH_DELAY",),
    ),
    Setting(
        "option.predict_timeout",
        "predict_timeout",
        kinds.seconds,
        "seconds a handler may take for one request",
        ("PREDICT_TIMEOUT", "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", "SAGEMAKER_MODEL_SERVER_TIMEOUT"),
    ),
    Setting(
        "option.model_loading_timeout",
        "model_loading_timeout",
        kinds.seconds,
        "seconds a model may take to load",
        ("MODEL_LOADING_TIMEOUT", "SAGEMAKER_STARTUP_TIMEOUT"),
    ),
    Setting(
        "chunked_read_timeout",
        "stream_idle_timeout",
        kinds.seconds,
        "seconds between two pieces of a streamed answer",
        ("SERVING_CHUNKED_READ_TIMEOUT",),
    ),
    Setting(
        "retry_threshold",
        "retry_threshold",
        kinds.whole(0),
        "restarts in a row without one answer before the model counts as failed",
        ("SERVING_RETRY_THRESHOLD",),
    ),
    Setting("option.async_mode", "async_mode", kinds.boolean, "the handler answers many requests at once"),
    Setting(
        "option.on_disconnect",
        "on_disconnect",
        kinds.choice("finish", "restart"),
        "what happens to a handler that cannot be cancelled when its client goes away",
    ),
    Setting(
        "option.pythonExecutable",
        "python_executable",
        kinds.executable,
        "the interpreter of the worker processes",
        ("PYTHON_EXECUTABLE",),
    ),
    Setting(
        "option.requirements_failure",
        "requirements_failure",
        kinds.choice("fail", "continue"),
        "what happens when the model directory's requirements.txt cannot be installed",
    ),
    Setting(
        "crash_loop_limit",
        "crash_loop_limit",
        kinds.whole(),
        "restarts within crash_loop_window before the model counts as failed",
        ("SERVING_CRASH_LOOP_LIMIT",),
    ),
    Setting(
        "crash_loop_window",
        "crash_loop_window",
        kinds.seconds,
        "seconds in which crash_loop_limit restarts are a crash loop",
        ("SERVING_CRASH_LOOP_WINDOW",),
    ),
    Setting(
        "option.max_rolling_batch_size",
        "max_rolling_batch_size",
        kinds.whole(),
        "requests that a handler with rolling batch holds at once",
        ("MAX_BATCH_SIZE",),
    ),
    Setting("option.env", "environment", kinds.variables, "variables for the worker processes: NAME=value,…"),
)

# Variables that stand for an option of the handler.
OPTION_VARIABLES = {
    "HF_MODEL_ID": "option.model_id",
    "HF_REVISION": "option.revision",
    "HF_TASK": "option.task",
    "HF_MODEL_TRUST_REMOTE_CODE": "option.trust_remote_code",
    "HF_MODEL_QUANTIZE": "option.quantize",
    "MAX_BATCH_PREFILL_TOKENS": "option.max_rolling_batch_prefill_tokens",
}

# Where a model comes from: with any of these given, the repository's own serving.properties stays unread.
MODEL_SOURCES = ("option.model_id", "option.s3url")

# DJLServing's own per-model keys that change nothing here; they are accepted with a word about it.
WITHOUT_EFFECT = (
    "max_idle_time",
    "log_request_metric",
    "metrics_aggregation",
    "required_memory_mb",
    "reserved_memory_mb",
    "gpu.required_memory_mb",
    "gpu.reserved_memory_mb",
    "option.parallel_loading",
    "option.enable_venv",
    "option.use_passive_workers",
)

# Options of the built-in handlers, so that a misspelt one can be told from a stranger's own.
HANDLER_OPTIONS = (
    "model_id",
    "s3url",
    "revision",
    "load_format",
    "allow_pickle",
    "task",
    "dtype",
    "data_type",
    "max_tokens",
    "kernel_inject",
    "injection_policy",
    "device_map",
    "low_cpu_mem_usage",
    "enable_streaming",
    "trust_remote_code",
    "checkpoint",
    "quantize",
    "output_formatter",
    "stop_sequence",
    "enable_cuda_graph",
    "triangular_masking",
    "return_tuple",
    "training_mp_size",
    "deepspeed_config_path",
    "save_mp_checkpoint_path",
    "rolling_batch",
    "max_rolling_batch_prefill_tokens",
    "mpi_mode",
    "chat_template",
    "allreduce",
    "answer_format",
    "compat",
    "tgi_compat",
    "load_in_8bit",
    "load_in_4bit",
    "enable_lora",
    "waiting_steps",
)

OPTIONS = tuple(setting.key for setting in MODEL if setting.key.startswith("option.")) + tuple(
    f"option.{name}" for name in HANDLER_OPTIONS
)
# What option.load_format calls weights that are read straight into memory; the second name is vLLM's and LMI's.
STREAMED = ("stream", "runai_streamer")
BARE_KEYS = tuple(setting.key for setting in MODEL if not setting.key.startswith("option."))


def of(key: str) -> Setting:
    """The row of ``key``."""
    return next(setting for setting in MODEL if setting.key == key)


def parse(setting: Setting, found: Found) -> Any:
    """The value, or a refusal that names source, key, value and what would have been right."""
    try:
        return setting.parse(found.text)
    except ValueError as error:
        shown = guard(setting.key, found.text)
        raise ConfigurationError(f"{found.origin}: {setting.key}={shown!s}: it must be {error}") from None
