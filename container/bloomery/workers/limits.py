"""The times and sizes of supervision that are no setting of a model. Tests shorten them."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Times are in seconds."""

    state_interval: float = 0.5  # how often the kernel is asked whether a rank is stopped or a zombie
    ping_interval: float = 1.0
    silence: float = 15.0  # without an answer on the control socket; a C call that holds the GIL also silences it
    idle_silence: float = 8.0  # the same of a rank that neither loads nor holds a request
    peer_grace: float = 10.0  # a rank that failed leaves its peers in a collective: how long they may stand still
    cancel_grace: float = 2.0  # with on_disconnect=restart, how long a handler may take to notice a cancellation
    terminate_grace: float = 2.0  # between SIGTERM and SIGKILL
    stream_buffer: int = 4 * MIB  # of rank 0's stream, between the rank and the reader
    reader_grace: float = 5.0  # how long a reader may take nothing while that buffer is full
    leader_capacity: int = 64  # requests in flight on the leader of an asynchronous group
    back_off: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # before the n-th restart in a row
    progress_log_interval: float = 10.0

    def restart_delay(self, failures: int) -> float:
        """The pause before the next start, after so many failures in a row."""
        return self.back_off[min(max(failures, 1), len(self.back_off)) - 1]
