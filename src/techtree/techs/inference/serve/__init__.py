"""HTTP for completions on bytes, an engine that follows the typing, answers in turns that can be dropped."""

from techtree.techs.inference.serve.serve import (
    Completion,
    Engine,
    Request,
    RequestError,
    Server,
    check_source,
    parse_completion,
    parse_request,
    respond,
)

__all__ = [
    "Completion",
    "Engine",
    "Request",
    "RequestError",
    "Server",
    "check_source",
    "parse_completion",
    "parse_request",
    "respond",
]
