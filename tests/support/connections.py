"""Which connections a process makes and where it listens: an audit hook in every Python it starts, and /proc/net."""

from __future__ import annotations

import json
from pathlib import Path

# Put as sitecustomize.py on PYTHONPATH. One file per process: lines would mix.
_HOOK = """
import json, os, sys

def record(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request"):
        if event in ("socket.connect", "socket.sendto"):
            arguments = arguments[1:]
        with open({directory!r} + f"/{{os.getpid()}}", "a") as file:
            file.write(json.dumps([event, repr(sys.argv[:2]), repr(arguments)]) + "\\n")

with open({directory!r} + f"/{{os.getpid()}}", "a"):
    pass
sys.addaudithook(record)
"""
_LOCAL = ("'127.0.0.1'", "'localhost'", "'::1'", "b'127.0.0.1'", "b'localhost'")
_LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp


class Recorder:
    """``path`` goes to the front of PYTHONPATH of the server."""

    def __init__(self, directory: Path) -> None:
        self.path, self._records = directory / "hook", directory / "records"
        self.path.mkdir()
        self._records.mkdir()
        (self.path / "sitecustomize.py").write_text(_HOOK.format(directory=str(self._records)))

    def processes(self) -> int:
        """How many processes had the hook."""
        return len(list(self._records.iterdir()))

    def strangers(self) -> list[str]:
        """What went elsewhere than to this machine or a unix socket."""
        found = []
        for file in self._records.iterdir():
            for line in file.read_text().splitlines():
                event, argv, arguments = json.loads(line)
                local = any(host in arguments for host in _LOCAL)
                unix = event in ("socket.connect", "socket.sendto") and arguments.startswith(("('/", "('\\x00", "(b'/"))
                if not local and not unix:
                    found.append(f"{event} {arguments} by {argv}")
        return found


def listening(pid: int) -> set[str]:
    """Addresses on which the process listens for TCP, as /proc writes them (00000000: all interfaces)."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(str(descriptor.readlink()))
        except OSError:
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == _LISTENING and f"socket:[{words[9]}]" in inodes:
                found.add(words[1].partition(":")[0])
    return found
