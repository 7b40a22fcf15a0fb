from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from bloomery.processes.ports import ReservedPort

# What torch's TCPStore does on rank 0, in another process: listen on all addresses, with SO_REUSEADDR.
LISTEN = """
import socket, sys
with socket.socket() as listener:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("", int(sys.argv[1])))
    listener.listen()
    print("listening", flush=True)
    print(listener.accept()[0].recv(5).decode())
"""


@pytest.fixture
def port():
    reserved = ReservedPort()
    yield reserved
    reserved.close()


def test_nobody_else_can_bind_a_reserved_port(port):
    for host in ("127.0.0.1", ""):
        with socket.socket() as thief, pytest.raises(OSError, match="in use"):
            thief.bind((host, port.number))


def test_nobody_is_given_a_reserved_port_who_asks_for_a_free_one(port):
    given = set()
    for _ in range(2000):
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", 0))
            given.add(other.getsockname()[1])

    assert port.number not in given


def test_a_rank_can_listen_on_the_reserved_port(port):
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN, str(port.number)], stdout=subprocess.PIPE, text=True
    ) as listener:
        assert listener.stdout.readline() == "listening\n"
        with socket.create_connection((port.host, port.number)) as client:
            client.sendall(b"hello")
        assert listener.stdout.readline() == "hello\n"


def test_a_port_that_was_given_back_is_free():
    port = ReservedPort()
    port.close()

    with socket.socket() as successor:
        successor.bind(("127.0.0.1", port.number))
