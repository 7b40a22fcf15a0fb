"""Parity, kill-a-rank and load on the devices of this machine; prints one row for docs/gpu.md.

Each part runs whatever happened to the others, so that one failure still leaves a useful row; the exit code is the
number of parts that failed.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import psutil
import torch

ROOT = Path(__file__).resolve().parent.parent
BODY = {"inputs": "KING.\nMy lords,", "parameters": {"max_new_tokens": 64}}


def device() -> tuple[str, str, int]:
    """(device, driver, ranks to use)."""
    if torch.cuda.is_available():
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True).stdout.split("\n")[0] or "unknown"
        count = torch.cuda.device_count()
        return f"{count} x {torch.cuda.get_device_name(0)}", driver, min(2, count)
    return f"CPU, {os.cpu_count()} cores ({platform.machine()})", "-", 2


def parity() -> str:
    """How many cases (family, way, ranks) agree with unsharded transformers."""
    command = [sys.executable, "-m", "tests.support.parity", "--device", "auto", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    try:
        right = json.loads(done.stdout[done.stdout.index("{") :])["right"]
    except (ValueError, KeyError):
        return f"FAILED: {done.stderr.strip()[-200:]}"
    wrong = sorted(case for case, is_right in right.items() if not is_right)
    return f"FAILED: {', '.join(wrong)}" if wrong else f"{len(right)} of {len(right)} cases"


class Server:
    """The real server with the demonstration model, one process per rank, on a free port."""

    def __init__(self, ranks: int) -> None:
        command = [sys.executable, "-m", "bloomery", "serve", "--port", "0"]
        self.log = (ROOT / "build" / "gpu-check.log").open("w+")
        options = ["-o", f"option.tensor_parallel_degree={ranks}"]
        self.process = subprocess.Popen([*command, *options], cwd=ROOT, stdout=self.log, stderr=self.log)
        self.base = ""

    def ranks(self) -> list[psutil.Process]:
        """Rank processes, by rank."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        workers = [p for p in found if any("djl_python_engine.py" in part for part in p.cmdline())]
        return sorted(workers, key=lambda p: int(p.environ().get("RANK") or 0))

    async def ready(self, session: aiohttp.ClientSession) -> float:
        """Seconds until /ping is 200."""
        started = time.monotonic()
        while time.monotonic() - started < 600:
            text = Path(self.log.name).read_text()
            if match := re.search(r"http://[\d.]+:\d+", text):
                self.base = match[0]
                async with session.get(f"{self.base}/ping") as answer:
                    if answer.status == 200:
                        return time.monotonic() - started
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}: {text[-1500:]}")
            await asyncio.sleep(0.2)
        raise RuntimeError("the server was not ready within 600 s")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
        self.log.close()


async def kill_a_rank(server: Server, session: aiohttp.ClientSession) -> str:
    """SIGKILL the last rank during a request: a precise 503, then the group answers again."""
    long_body = {**BODY, "parameters": {"max_new_tokens": 600}}
    request = asyncio.create_task(session.post(f"{server.base}/invocations", json=long_body))
    await asyncio.sleep(0.5)
    started = time.monotonic()
    server.ranks()[-1].kill()
    async with await request as answer:
        text, status = await answer.text(), answer.status
    if status != 503:
        return f"FAILED: {status} {text[:200]}"
    await server.ready(session)
    async with session.post(f"{server.base}/invocations", json=BODY) as answer:
        if answer.status != 200:
            return f"FAILED: {answer.status} after the restart"
    return f"503, back in {time.monotonic() - started:.1f} s"


async def load(server: Server, session: aiohttp.ClientSession, seconds: float) -> str:
    """Four clients for a while: requests per second, new tokens per second, failures."""
    latencies: list[float] = []
    failures = 0
    end = time.monotonic() + seconds

    async def client() -> None:
        nonlocal failures
        while time.monotonic() < end:
            started = time.monotonic()
            async with session.post(f"{server.base}/invocations", json=BODY) as answer:
                await answer.read()
                failures += answer.status != 200
            latencies.append(time.monotonic() - started)

    await asyncio.gather(*(client() for _ in range(4)))
    rate = len(latencies) / seconds
    middle = sorted(latencies)[len(latencies) // 2]
    row = f"{rate:.1f} req/s, {rate * 64:.0f} tokens/s, p50 {middle * 1000:.0f} ms"
    return f"FAILED: {failures} of {len(latencies)}; {row}" if failures else row


async def against_server(ranks: int, seconds: float) -> tuple[str, str]:
    server = Server(ranks)
    try:
        async with aiohttp.ClientSession() as session:
            await server.ready(session)
            return await kill_a_rank(server, session), await load(server, session, seconds)
    except (RuntimeError, aiohttp.ClientError, psutil.Error) as error:
        return f"FAILED: {error}", "FAILED: see the previous column"
    finally:
        server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the load part")
    arguments = parser.parse_args()
    (ROOT / "build").mkdir(exist_ok=True)
    name, driver, ranks = device()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    killed, loaded = asyncio.run(against_server(ranks, arguments.seconds))
    parts = [parity(), killed, loaded]
    columns = [datetime.date.today().isoformat(), commit, name, driver, str(ranks), *parts]
    print(
        "| date | commit | device | driver | ranks | parity | kill a rank | load |\n|---|---|---|---|---|---|---|---|"
    )
    print("| " + " | ".join(columns) + " |")
    return sum(part.startswith("FAILED") for part in parts)


if __name__ == "__main__":
    sys.exit(main())
