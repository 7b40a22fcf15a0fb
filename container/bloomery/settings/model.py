"""The settings of one model, normalised once: nothing behind this module asks a properties file again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

EngineName = Literal["DeepSpeed", "MPI", "Python"]
DispatchKind = Literal["all_ranks", "leader", "rolling"]
DeviceSet = tuple[str, ...]  # as CUDA_VISIBLE_DEVICES names them; empty: the CPU


@dataclass(frozen=True)
class ModelSettings:
    """What a worker group and its queue need to know. Times are in seconds."""

    name: str
    model_dir: Path
    entry_point: str = "model.py"  # a file in model_dir, or a module such as djl_python.huggingface
    handler: str = "handle"
    engine: EngineName = "Python"
    version: str | None = None
    tensor_parallel_degree: int = 1
    min_workers: int = 1  # groups started; a group of DeepSpeed/MPI has tensor_parallel_degree processes, else one
    max_workers: int = 1
    load_on_devices: str = "*"
    placements: tuple[DeviceSet, ...] = ()  # of each group that is started; empty: as the machine shows them
    job_queue_size: int = 1000
    batch_size: int = 1
    max_batch_delay: float = 0.1
    predict_timeout: float = 120.0
    model_loading_timeout: float = 1800.0
    stream_idle_timeout: float = 120.0
    retry_threshold: int = 10  # restarts in a row without one answer before the model is FAILED
    crash_loop_limit: int = 5  # so many restarts within crash_loop_window, answers or not, make the model FAILED
    crash_loop_window: float = 600.0
    rolling_batch: bool = False  # the handler is the user's own and speaks DJLServing's rolling-batch protocol
    max_rolling_batch_size: int = 32
    required: bool = True  # the process exits non-zero when it cannot load
    async_mode: bool = False  # requests overlap on rank 0 (dispatch "leader")
    on_disconnect: Literal["finish", "restart"] = "finish"  # for handlers that know no cancel
    python_executable: str | None = None
    requirements_failure: Literal["fail", "continue"] = "fail"  # of the model directory's requirements.txt
    packages: Path | None = None  # the directory that these were installed into; the ranks search it first
    environment: dict[str, str] = field(default_factory=dict)  # option.env, for the ranks
    properties: dict[str, str] = field(default_factory=dict)  # what the initialise call receives, "option." stripped

    @property
    def ranks(self) -> int:
        """Processes per group: DeepSpeed and MPI take one per device, Python one that sees all devices."""
        return self.tensor_parallel_degree if self.distributed else 1

    @property
    def distributed(self) -> bool:
        """Whether the ranks form one job, as under mpirun; engine Python is one plain process, whatever its degree."""
        return self.engine in ("DeepSpeed", "MPI")

    @property
    def dispatch(self) -> DispatchKind:
        """How requests reach the ranks."""
        if self.rolling_batch:
            return "rolling"
        return "leader" if self.async_mode else "all_ranks"
