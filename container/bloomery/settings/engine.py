"""Which engine runs a model, and which handler: the choices that depend on more than one setting."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from bloomery.errors import ConfigurationError
from bloomery.settings.layers import Found
from bloomery.settings.model import EngineName

ENGINES = {"deepspeed": "DeepSpeed", "mpi": "MPI", "python": "Python"}
BUILT_IN = ("djl_python.deepspeed", "djl_python.huggingface")
# Names of other systems, as they appear in engine, option.rolling_batch and entry points.
ELSEWHERE = {
    "vllm": "vLLM",
    "lmi-dist": "lmi-dist",
    "lmi_dist": "lmi-dist",
    "lmi_vllm": "vLLM",
    "lmi_trtllm": "TensorRT-LLM",
    "trtllm": "TensorRT-LLM",
    "tensorrt-llm": "TensorRT-LLM",
    "tensorrt_llm": "TensorRT-LLM",
    "tensorrtllm": "TensorRT-LLM",
    "tensorrt": "TensorRT",
    "fastertransformer": "FasterTransformer",
    "transformers_neuronx": "Neuron",
    "transformers-neuronx": "Neuron",
    "neuron": "Neuron",
    "onnxruntime": "ONNX Runtime",
    "pytorch": "DJL's PyTorch engine",
    "tensorflow": "DJL's TensorFlow engine",
    "mxnet": "DJL's MXNet engine",
    "xgboost": "DJL's XGBoost engine",
    "llama": "llama.cpp",
    "rust": "DJL's Rust engine",
    "stable-diffusion": "Stable Diffusion",
}
_INSTEAD = "engine=DeepSpeed (tensor parallel) or engine=Python (one process) serve the same Hugging Face checkpoint"


@dataclass(frozen=True)
class Choice:
    """What was chosen, why, and what the user should hear about it."""

    engine: EngineName
    entry_point: str
    engine_origin: str
    entry_point_origin: str
    notices: tuple[str, ...] = ()
    degree: int | None = None  # set when the choice itself forces one
    rolling_batch: bool = False  # the handler is the user's own, and asks for DJLServing's rolling-batch protocol


def choose(model_dir: Path, name: str, found: Mapping[str, Found], has_model: bool, own: Path) -> Choice:
    """Engine and handler of the model in ``model_dir``; ``has_model`` says whether a checkpoint is named or inside.

    ``own`` is the product's own model directory: its handler knows no rolling batch, a user's may.
    """
    engine, engine_origin = _engine(found)
    entry_point, entry_origin = _entry_point(model_dir, name, engine, found, has_model)
    users = entry_point not in BUILT_IN and model_dir != own
    rolling, notices = _rolling_batch(found.get("option.rolling_batch"), users)
    return Choice(engine, entry_point, engine_origin, entry_origin, notices, rolling_batch=rolling)


def _engine(found: Mapping[str, Found]) -> tuple[EngineName, str]:
    stated = found.get("engine")
    if stated is None:
        engine, origin = "Python", "default"
    else:
        word, origin = stated.text.strip(), stated.origin
        if word.lower() not in ENGINES:
            what = ELSEWHERE.get(word.lower())
            lead = f"{what} is not part of bloomery" if what else "there is no such engine"
            raise ConfigurationError(f"{origin}: engine={word}: {lead}; {_INSTEAD}")
        engine = ENGINES[word.lower()]
    mpi = found.get("option.mpi_mode")
    if engine == "Python" and mpi and mpi.text.strip().lower() == "true":
        engine, origin = "MPI", mpi.origin
    return cast(EngineName, engine), origin


def _rolling_batch(stated: Found | None, users: bool) -> tuple[bool, tuple[str, ...]]:
    """Whether requests are joined by the rolling-batch protocol, which a ``users`` handler may speak and ours do not.

    With our handlers, what only asks for speed is told that nothing comes of it; what names another system is refused.
    """
    kind = stated.text.strip().lower() if stated else "disable"
    if stated is None or kind in ("disable", "false", ""):
        return False, ()
    what = ELSEWHERE.get(kind)
    if what is None and users:
        return True, ()
    if kind in ("auto", "deepspeed", "scheduler"):
        notice = (
            f"{stated.origin}: option.rolling_batch={kind}: this handler answers requests in static batches, which "
            "batch_size joins, in the answer shape of rolling ones (option.answer_format=object)"
        )
        return False, (notice,)
    lead = f"{what} is not part of bloomery" if what else "there is no such kind of batching"
    raise ConfigurationError(
        f"{stated.origin}: option.rolling_batch={stated.text}: {lead}; remove the line or write disable, and join "
        "requests with batch_size"
    )


def _entry_point(
    model_dir: Path, name: str, engine: EngineName, found: Mapping[str, Found], has_model: bool
) -> tuple[str, str]:
    stated = found.get("option.entryPoint")
    if stated is not None:
        return _stated_entry_point(model_dir, stated), stated.origin
    for file in (f"{name}.py", f"{model_dir.name}.py", "model.py"):
        if (model_dir / file).is_file():
            return file, f"{file} in {model_dir}"
    if engine in ("DeepSpeed", "MPI"):
        return "djl_python.deepspeed", f"default of engine {engine}"
    if has_model:
        return "djl_python.huggingface", f"default of engine {engine}"
    raise ConfigurationError(
        f"{model_dir} has no model.py, no option.entryPoint and no option.model_id: nothing says what to serve; "
        "add a model.py with a handle(inputs) function, or name a checkpoint with option.model_id"
    )


def _stated_entry_point(model_dir: Path, stated: Found) -> str:
    entry = stated.text.strip()
    if "://" in entry:
        raise ConfigurationError(
            f"{stated.origin}: option.entryPoint={entry}: code is not downloaded; put the file into {model_dir}"
        )
    if entry.endswith(".py"):
        if not (model_dir / entry).is_file():  # an absolute path stands for itself
            raise ConfigurationError(f"{stated.origin}: option.entryPoint={entry}: there is no {model_dir / entry}")
        return entry
    if entry.startswith("djl_python.") and entry not in BUILT_IN:
        module = entry.removeprefix("djl_python.").split(".")[0].lower()
        what = ELSEWHERE.get(module)
        lead = f"{what} is not part of bloomery" if what else "there is no such built-in handler"
        raise ConfigurationError(
            f"{stated.origin}: option.entryPoint={entry}: {lead}; "
            f"use {' or '.join(BUILT_IN)}, or a model.py of your own"
        )
    return entry


def without_deepspeed(choice: Choice, model_dir: Path, own: Path, degree: int, degree_is_default: bool) -> Choice:
    """What serves when DeepSpeed cannot run here: plain transformers in one process, or a refusal in words.

    ``own`` is the product's own model directory: its handler, like the built-in one, has a stand-in; a user's
    model.py keeps its processes and may well not need DeepSpeed.
    """
    ours = choice.entry_point == "djl_python.deepspeed" or model_dir == own
    if choice.engine != "DeepSpeed" or deepspeed_importable():
        return choice
    reason = "DeepSpeed does not run on macOS" if platform.system() == "Darwin" else "deepspeed is not installed"
    if not ours:
        notice = f"{reason}; the processes of {model_dir} are started as asked, and fail if they import it"
        return Choice(**{**vars(choice), "notices": (*choice.notices, notice)})
    if degree > 1 and not degree_is_default:
        raise ConfigurationError(
            f"{reason}, and tensor_parallel_degree={degree} needs it; set the degree to 1 (plain transformers then "
            "serves in one process), or install the engines: pip install 'bloomery[engines]' on Linux"
        )
    notice = f"{reason}: engine Python with djl_python.huggingface serves in one process instead"
    return Choice("Python", "djl_python.huggingface", notice, notice, (*choice.notices, notice), degree=1)


def deepspeed_importable() -> bool:
    """Whether a worker process could import deepspeed; found without importing it."""
    return platform.system() != "Darwin" and importlib.util.find_spec("deepspeed") is not None
