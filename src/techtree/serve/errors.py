"""Errors as editors' plugins expect them: ``{"error":{"code":400,"message":"...","type":"..."}}``."""

from collections.abc import Mapping

from starlette.responses import JSONResponse

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    503: "unavailable_error",
}
"""The name of each status; any other is a `server_error`."""


class ApiError(Exception):
    """A request that cannot be answered.

    Parameters
    ----------
    status
        The HTTP status.
    message
        What must hold, what was given, what to do.
    """

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status
        self.message = message


def error_object(status: int, message: str) -> dict:
    """Return the object that describes an error.

    >>> error_object(404, "there is no /x")
    {'error': {'code': 404, 'message': 'there is no /x', 'type': 'not_found_error'}}
    """
    return {"error": {"code": status, "message": message, "type": TYPES.get(status, "server_error")}}


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return an error as a response."""
    return JSONResponse(error_object(status, message), status, headers)
