"""The body of a request: a JSON object of bounded size, or an error that says what is wrong."""

import asyncio
import json

from starlette.requests import ClientDisconnect, Request

from techtree.serve.errors import ApiError

MAX_BODY_BYTES = 2 * 1024 * 1024
TIMEOUT_S = 10.0
"""For the whole body to arrive: local programs send it at once."""


async def read_object(request: Request) -> dict:
    """Return the JSON object in a request's body.

    Raises
    ------
    ApiError
        400 when it is none, 408 when it does not arrive, 413 when it is too long.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        # A web page can send any other type without asking first.
        raise ApiError(400, f"Content-Type must be application/json; got {media_type or 'none'}")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(400, "Content-Encoding must be identity: send the JSON uncompressed")
    try:
        async with asyncio.timeout(TIMEOUT_S):
            data = await _read(request)
    except TimeoutError:
        raise ApiError(408, f"the body must arrive within {TIMEOUT_S:.0f} s") from None
    except ClientDisconnect:
        raise ApiError(400, "the body must arrive whole") from None
    try:
        # RecursionError: brackets nested too deeply. ValueError: also bytes that are no UTF-8.
        # Half of a character beyond U+FFFF may stand in it as three bytes; what becomes of it, see `fields`.
        value = json.loads(data.decode("utf-8", "surrogatepass"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body must be JSON; {error}") from error
    if not isinstance(value, dict):
        raise ApiError(400, f"the body must be a JSON object; got {type(value).__name__}")
    return value


async def _read(request: Request) -> bytes:
    announced = request.headers.get("content-length", "")
    too_long = ApiError(413, f"the body must have {MAX_BODY_BYTES} bytes or fewer: send less text")
    if announced.isdecimal() and int(announced) > MAX_BODY_BYTES:
        raise too_long
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MAX_BODY_BYTES:
            raise too_long
    return bytes(data)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
