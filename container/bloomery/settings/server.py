"""The settings of the server itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bloomery.settings.address import DEFAULT, Address
from bloomery.settings.archive import Limits


@dataclass(frozen=True)
class ServerSettings:
    """Where the server listens and what it accepts. Times are in seconds, sizes in bytes."""

    config_file: str | None = None  # --config-file; models that are added later have its defaults too
    inference_address: Address = DEFAULT
    management_address: Address | None = None  # None: management is on the inference address
    certificate_file: Path | None = None  # PEM; both files are given when an address is https
    private_key_file: Path | None = None
    max_request_size: int = 64 * 2**20
    shutdown_grace: float = 25.0  # SageMaker sends SIGKILL 30 s after SIGTERM
    allow_model_urls: bool = False  # whether POST /models may load from beyond this machine's own directories
    model_store: Path | None = None
    load_models: str | None = None  # ALL, NONE, or [name:version:engine:devices]=url with commas between them
    wait_model_loading: bool = True  # a model that cannot be loaded at start ends the process
    max_archive_size: int = Limits.size  # of all files in it
    max_archive_entries: int = Limits.entries
    multi_model: bool = False  # SageMaker's multi-model mode: it adds and removes models over the inference address
    allow_multi_status: bool = False  # /ping answers 207 where some models are ready and some are not
    bad_request_http_code: int = 400
    wlm_error_http_code: int = 503  # a worker is lost, or the model is not ready
    throttle_error_http_code: int = 503  # the queue is full
    timeout_http_code: int = 503
    server_error_http_code: int = 500
    request_id_header_key: str = "x-request-id"
    cors_allowed_origin: str | None = None  # None: no CORS headers
    cors_allowed_methods: str | None = None
    cors_allowed_headers: str | None = None
    async_max_results: int = 256  # answers to x-synchronous: false that wait to be collected
    async_max_bytes: int = 64 * 2**20  # of all of them together
    async_expiry: float = 600.0  # seconds since somebody asked for one
    default_accept: str | None = None  # of requests to /invocations that come without an Accept header

    @property
    def host(self) -> str:
        """Of the inference address; empty for a unix socket."""
        return self.inference_address.host

    @property
    def port(self) -> int:
        """Of the inference address; 0 lets the system choose."""
        return self.inference_address.port
