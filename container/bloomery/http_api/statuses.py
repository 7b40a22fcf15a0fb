"""The statuses of errors, where the server's settings choose others (``throttle_error_http_code`` and its kin)."""

from __future__ import annotations

from bloomery.errors import BadRequestError, CapacityError, DeadlineError, RequestError, ServiceUnavailableError
from bloomery.settings.server import ServerSettings


class Statuses:
    """Of one server."""

    def __init__(self, settings: ServerSettings) -> None:
        # The most special class first. Only errors with their class's own status are changed.
        self._chosen: dict[type[RequestError], int] = {
            CapacityError: settings.throttle_error_http_code,
            DeadlineError: settings.timeout_http_code,
            ServiceUnavailableError: settings.wlm_error_http_code,
            BadRequestError: settings.bad_request_http_code,
            RequestError: settings.server_error_http_code,
        }

    def apply(self, error: RequestError) -> None:
        """Give ``error`` the status that the settings choose for its kind."""
        for kind, status in self._chosen.items():
            if isinstance(error, kind):
                if error.status == kind.status:
                    error.status = status
                return
