"""Every setting of the server itself, as ``config.properties`` has it. One row each.

Each key is also the variable ``SERVING_<KEY>``, as in DJLServing. Defaults are those of settings.server.
"""

from __future__ import annotations

from bloomery.settings import kinds
from bloomery.settings.table import Setting


def _row(key: str, parse: kinds.Parser, meaning: str, *variables: str) -> Setting:
    return Setting(key, key, parse, meaning, (f"SERVING_{key.upper()}", *variables))


SERVER = (
    _row("inference_address", kinds.address, "where the server listens: http://HOST:PORT, https://…, unix:/path"),
    _row("management_address", kinds.address, "where models are managed, when that is another address"),
    _row("certificate_file", kinds.file, "PEM certificate chain of https addresses"),
    _row("private_key_file", kinds.file, "PEM key of https addresses, without a passphrase"),
    _row(
        "max_request_size",
        kinds.whole(),
        "bytes a request's body may have; more is answered 413",
        "SAGEMAKER_MAX_REQUEST_SIZE",
    ),
    _row(
        "shutdown_grace", kinds.seconds, "seconds that requests in flight get after SIGTERM (SageMaker kills after 30)"
    ),
    _row("allow_model_urls", kinds.boolean, "whether POST /models may load a model from a URL"),
    _row("model_store", kinds.directory, "the directory of the models that are served when none is named"),
    _row("load_models", kinds.word, "ALL of the model store, NONE, or [name:version:engine:devices]=url,…"),
    _row("wait_model_loading", kinds.boolean, "whether a model that cannot be loaded at start ends the process"),
    _row("max_archive_size", kinds.whole(), "bytes that an archive of a model may unpack to"),
    _row("max_archive_entries", kinds.whole(), "files, directories and links that an archive of a model may have"),
    Setting(
        "multi_model",
        "multi_model",
        kinds.boolean,
        "SageMaker's multi-model mode: models come and go over the inference address",
        ("SAGEMAKER_MULTI_MODEL", "SERVING_MULTI_MODEL"),
    ),
    _row("allow_multi_status", kinds.boolean, "whether /ping answers 207 when only some models are ready"),
    _row("bad_request_http_code", kinds.status, "status of a request that is wrong"),
    _row("wlm_error_http_code", kinds.status, "status when no worker can answer"),
    _row("throttle_error_http_code", kinds.status, "status when the queue is full"),
    _row("timeout_http_code", kinds.status, "status when predict_timeout has passed"),
    _row("server_error_http_code", kinds.status, "status of errors of the server itself"),
    _row("request_id_header_key", kinds.header, "the header that carries a request's id"),
    _row("cors_allowed_origin", kinds.word, "Access-Control-Allow-Origin"),
    _row("cors_allowed_methods", kinds.word, "Access-Control-Allow-Methods"),
    _row("cors_allowed_headers", kinds.word, "Access-Control-Allow-Headers"),
    _row("async_max_results", kinds.whole(), "answers to x-synchronous: false that may wait to be collected"),
    _row("async_max_bytes", kinds.whole(), "bytes that such answers may have, all together"),
    _row("async_expiry", kinds.seconds, "seconds without a poll after which such an answer is dropped"),
    Setting(
        "default_accept",
        "default_accept",
        kinds.word,
        "Accept of requests to /invocations that have none",
        ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "SERVING_DEFAULT_ACCEPT"),
    ),
)

SERVER_KEYS = tuple(setting.key for setting in SERVER)

# Refused by settings.of_server in words.
KEYSTORES = ("keystore", "keystore_pass", "keystore_type")

# DJLServing's own keys that change nothing here, with what is so instead.
KEYS_WITHOUT_EFFECT = {
    "number_of_netty_threads": "there is no Netty; one event loop serves all connections",
    "netty_client_threads": "there is no Netty; one event loop serves all connections",
    "use_native_io": "there is no Netty",
    "io_ratio": "there is no Netty",
    "prefer_direct_buffer": "there is no Netty",
    "model_url_pattern": "an inference request never loads a model; POST /models does",
    "plugin_folder": "there are no plugins; what DJLServing's plugins do is built in where it is there at all",
    "cluster_address": "models are not spread over several machines",
    "reserved_memory_mb": "memory is not estimated before a model is loaded",
    "prometheus": "/metrics is always there",
    "features": "what is installed is found by itself",
    "fail_fast": "a required model that fails ends the process",
    "health_check_override": "/ping is 200 only while every required model can answer",
    "download_dir": "checkpoints are fetched below the directory for temporary files; set TMPDIR to move it",
    "log_level": "levels are set with POST /server/logging",
}
_WITHOUT_EFFECT_PREFIXES = {
    "error_rate_": "/ping tells whether models can answer; watch the rate of errors in /metrics",
    "cache_": "answers of x-synchronous: false are kept in memory",
    "memory_cache_": "answers of x-synchronous: false are kept in memory",
    "ddb_cache": "answers of x-synchronous: false are kept in memory",
    "s3_cache": "answers of x-synchronous: false are kept in memory",
}


def without_effect(key: str) -> str:
    """Why a key of config.properties changes nothing here; "" when there is no such key."""
    by_prefix = (reason for prefix, reason in _WITHOUT_EFFECT_PREFIXES.items() if key.startswith(prefix))
    return KEYS_WITHOUT_EFFECT.get(key) or next(by_prefix, "")
