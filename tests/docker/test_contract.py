"""The image as SageMaker and as a careful operator run it."""

from __future__ import annotations

import time

from tests.support.containers import Container, answer_of, docker, running, until

QUESTION = {"inputs": "To be", "parameters": {"max_new_tokens": 8}}


def ranks(container: Container) -> list[int]:
    """Their process ids inside."""
    return sorted(pid for pid, command in container.processes().items() if "djl_python_engine.py" in command)


def test_without_anything_named_it_serves_the_demonstration_model_with_two_ranks(hardened: Container) -> None:
    assert answer_of(hardened.ask_inside(QUESTION)).startswith("To be")
    assert len(ranks(hardened)) == 2


def test_it_runs_without_any_privilege(hardened: Container) -> None:
    status = hardened.run("cat", "/proc/1/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["10001"] * 4
    assert fields["CapEff"] == fields["CapPrm"] == "0" * 16
    assert fields["NoNewPrivs"] == "1"
    assert "Read-only file system" in hardened.run("sh", "-c", "touch /opt/bloomery/x 2>&1 || true")
    assert hardened.run("ls", "/sys/class/net").split() == ["lo"]


def test_the_health_check_says_healthy(hardened: Container, hosted: Container) -> None:
    for container in (hardened, hosted):
        container.wait_healthy()


def test_little_shared_memory_is_no_obstacle_and_the_log_says_how_to_have_more(hardened: Container) -> None:
    assert "all-reduce between ranks: gloo (/dev/shm has 64 MiB free" in hardened.log()
    assert "start the container with --shm-size=" in hardened.log()


def test_the_shared_memory_operator_is_there_without_a_compiler(hosted: Container) -> None:
    assert "all-reduce between ranks: " in hosted.log()
    (line,) = (line for line in hosted.log().splitlines() if "all-reduce between ranks: " in line)
    assert "shared memory" in line  # measured against gloo: either may win
    assert " us, gloo " in line
    assert not hosted.run("sh", "-c", "command -v c++ g++ cc gcc || true")


def test_it_writes_nothing_but_temporary_files(hosted: Container) -> None:
    changed = [line.split()[1] for line in docker("diff", hosted.name).splitlines()]
    assert [path for path in changed if not path.startswith("/tmp")] == []


def test_it_calls_nobody(image: str) -> None:
    """Asked only from inside: whatever its interface sends is of its own accord."""
    with running(image) as container:
        container.wait_ready()
        assert answer_of(container.ask_inside(QUESTION)).startswith("To be")
        (line,) = (line for line in container.run("cat", "/proc/net/dev").splitlines() if "eth0" in line)
        assert int(line.split()[10]) == 0, line


def test_two_containers_serve_at_the_same_time(hardened: Container, hosted: Container) -> None:
    first = answer_of(hardened.ask_inside(QUESTION))
    second = answer_of(hosted.request("POST", "/invocations", QUESTION, port=9090))
    assert first == second


def test_the_artefact_is_served_as_root_at_the_port_that_sagemaker_names(hosted: Container) -> None:
    assert hosted.request("GET", "/ping", port=9090).status == 200
    assert answer_of(hosted.request("POST", "/invocations", QUESTION, port=9090)).startswith("To be")
    assert "Uid:\t0\t" in hosted.run("cat", "/proc/1/status")
    commands = hosted.processes().values()
    assert sum("--model-dir /opt/ml/model " in command for command in commands) == 2
    assert "Read-only file system" in hosted.run("sh", "-c", "touch /opt/ml/model/x 2>&1 || true")


def test_a_killed_rank_is_replaced(hardened: Container) -> None:
    before = ranks(hardened)
    hardened.run("sh", "-c", f"kill -9 {before[1]}")
    hardened.wait_for("was killed by signal 9 (SIGKILL)", 30)
    assert "out-of-memory" not in hardened.log()
    until(lambda: hardened.log().count("ready after ") == 2, hardened.log)
    assert answer_of(hardened.ask_inside(QUESTION)).startswith("To be")
    assert not set(before) & set(ranks(hardened))
    # No zombie is left. A health check may be one for a moment.
    until(lambda: "" not in hardened.processes().values(), lambda: str(hardened.processes()), 30)


def test_sigterm_ends_both_with_0_within_5_seconds(hardened: Container, hosted: Container) -> None:
    for container in (hardened, hosted):
        code, seconds = container.stop()
        assert (code, seconds < 5) == (0, True), f"{code} after {seconds} s:\n{container.log()}"


def test_sigterm_during_the_load_ends_it_with_0_within_5_seconds(image: str) -> None:
    with running(image) as container:
        container.wait_for("Python engine started.")  # ranks are there, and import
        time.sleep(1)
        assert "\nready: " not in container.log()
        code, seconds = container.stop()
        assert (code, seconds < 5) == (0, True), f"{code} after {seconds} s:\n{container.log()}"
