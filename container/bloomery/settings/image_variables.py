"""Variables of DJLServing's and SageMaker's images that change nothing here, with what is so instead.

The ranks inherit the whole environment, so that whatever a library reads for itself (HF_TOKEN, HF_HOME, NCCL_DEBUG,
AWS_REGION, …) works without being named anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_JAVA = "there is no Java virtual machine"
_ONE_MACHINE = "a model is not spread over several machines"
WITHOUT_EFFECT = {
    "JAVA_OPTS": _JAVA,
    "SAGEMAKER_MODEL_SERVER_VMARGS": _JAVA,
    "DJL_CACHE_DIR": "checkpoints are fetched below the directory for temporary files; set TMPDIR to move it",
    "ENGINE_CACHE_DIR": "nothing is extracted before a model starts",
    "OPT_OUT_TRACKING": "nothing is tracked",
    "DJL_CLUSTER_SIZE": _ONE_MACHINE,
    "DJL_LEADER_ADDR": _ONE_MACHINE,
    "DJL_WORKER_ADDR_FORMAT": _ONE_MACHINE,
    "PIPELINE_PARALLEL_DEGREE": "layers are not piped from one device to the next; split them: TENSOR_PARALLEL_DEGREE",
    "ALLOW_REQUEST_HANDLER_OVERRIDE": "a request never chooses the function that answers it",
    "SAGEMAKER_HEALTH_CHECK_OVERRIDE": "/ping is 200 only while every required model can answer",
    "SM_TELEMETRY_LOG_REV_2022_12": "nothing is reported",
    "SAGEMAKER_TFS_DEFAULT_MODEL_NAME": "that is TensorFlow Serving's",
    "SAGEMAKER_PROGRAM": "that is of SageMaker's inference toolkit; name the handler in option.entryPoint",
    "SAGEMAKER_SUBMIT_DIRECTORY": "that is of SageMaker's inference toolkit; put the handler into the model directory",
}
# Said by explain only: they are in many environments, and not for us.
REMARKS = {
    "OMP_NUM_THREADS": "each rank gets its share of the cores; option.env=OMP_NUM_THREADS=n sets another number",
}


def notices(environ: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each of them that is set."""
    yield from _told(environ, WITHOUT_EFFECT)


def remarks(environ: Mapping[str, str]) -> Iterator[str]:
    """The same for those that few people set for this server's sake."""
    yield from _told(environ, REMARKS)


def _told(environ: Mapping[str, str], table: Mapping[str, str]) -> Iterator[str]:
    for name, reason in table.items():
        if environ.get(name, "").strip():
            yield f"environment {name} has no effect in this server: {reason}"
