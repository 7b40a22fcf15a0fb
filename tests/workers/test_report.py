from __future__ import annotations

import pytest
from tests.support.worker_models import settings

from bloomery.errors import ConfigurationError, WorkerError
from bloomery.workers.report import load_report


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("rank 1 (pid 4) was killed by signal 9 (SIGKILL)", "out-of-memory killer"),
        ("rank 1 was killed by signal 9 (SIGKILL), the kernel's out-of-memory killer: …", "--memory"),
        ("ImportError: /tmp/x.so: failed to map segment from shared object", "--tmpfs /tmp:exec"),
        ("ModuleNotFoundError: No module named 'peft'", "a requirements.txt in the model directory, or"),
        ("ModuleNotFoundError: No module named 'djl_python.tensorrt_llm'", "no such part of DJLServing's library"),
        ("ModuleNotFoundError: No module named 'torch'", "pip install 'bloomery[engines]'"),
        ("torch.OutOfMemoryError: CUDA out of memory", "does not fit"),
        ("loading took longer than model_loading_timeout=5 s", "raise option.model_loading_timeout"),
        ("ModuleNotFoundError: No module named 'awscrt'", "pip install 'bloomery[engines]'"),
        ("bloomery.errors.CheckpointError: x is damaged", "correct what the message names"),
        ("ValueError: bad weights", "correct the handler or the setting"),
    ],
)
def test_the_report_says_what_went_wrong_and_what_to_do(tmp_path, reason, advice):
    report = load_report(settings(tmp_path, ranks=2), 0, WorkerError(reason))

    assert f"what: {reason}" in report
    (line,) = [line for line in report.splitlines() if "to do:" in line]
    assert advice in line


def test_the_report_names_the_model_and_its_settings(tmp_path):
    report = load_report(settings(tmp_path, ranks=2, name="opt"), 1, ConfigurationError("no"))

    assert "model 'opt' could not be loaded" in report
    assert f"opt in {tmp_path}" in report
    assert "MPI, tensor_parallel_degree=2, entry point model.py, handler handle" in report
    assert "where: group 1" in report


def test_a_model_that_has_served_and_crashes_for_good_is_reported_as_such(tmp_path):
    error = WorkerError("crash loop: workers were lost 5 times within 600 s; the last: rank 0 was killed by SIGKILL")

    report = load_report(settings(tmp_path, name="opt"), 0, error, was_loaded=True)

    assert "model 'opt' could not be kept alive" in report
    assert "a request that ends its worker will do so again" in report
