from __future__ import annotations

import os
import socket
import threading

from bloomery.bench.endpoint.surroundings import Watch, listeners


def test_who_listens_is_found_by_the_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert os.getpid() in listeners(port)
    assert os.getpid() not in listeners(port)


def test_a_server_on_this_machine_is_not_among_the_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert Watch.of("127.0.0.1", server.getsockname()[1]).share().server_here
    assert not Watch.of("example.com", 80).share().server_here


def test_a_busy_client_notices_itself() -> None:
    watch = Watch(None)
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    while not stop.is_set():
        sum(range(1000))
    assert watch.share().client > 0.05
