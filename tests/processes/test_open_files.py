from __future__ import annotations

import subprocess
import sys

from tests.support.server import REPOSITORY

PROGRAM = """
import resource
from bloomery.processes import open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
open_files.allow_many()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_hard_limit_is_what_a_process_gets() -> None:
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PYTHONPATH": str(REPOSITORY / "container")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == ["200", "200"]
