"""What the server has done since it started, as Prometheus reads it: counts and times, nobody's code.

# TYPE techtree_requests_total counter
techtree_requests_total{path="/infill",status="200"} 12
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from techtree.engines.engine import InfillResult

MEDIA_TYPE = "text/plain; version=0.0.4"
OTHER = "other"
"""Stands for all paths that are none of the server's: clients must not be able to add lines without end."""


class Metrics:
    """Counts of what was asked and answered."""

    def __init__(self):
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._totals = {"prompt_tokens": 0, "prompt_tokens_reused": 0, "predicted_tokens": 0}
        self._seconds = {"prompt_seconds": 0.0, "predicted_seconds": 0.0}
        self.n_processing = 0
        """Questions that the engine has now, those that wait for their turn with them."""

    @contextlib.contextmanager
    def processing(self) -> Iterator[None]:
        """Count a question while it is with the engine."""
        with self._lock:
            self.n_processing += 1
        try:
            yield
        finally:
            with self._lock:
                self.n_processing -= 1

    def answered(self, result: InfillResult) -> None:
        """Count what an answer took."""
        with self._lock:
            self._totals["prompt_tokens"] += result.n_prompt
            self._totals["prompt_tokens_reused"] += result.n_reused
            self._totals["predicted_tokens"] += result.n_predicted
            self._seconds["prompt_seconds"] += result.prompt_ms / 1000
            self._seconds["predicted_seconds"] += result.predicted_ms / 1000

    def requested(self, path: str, status: int) -> None:
        """Count a request."""
        with self._lock:
            self._requests[path, status] += 1

    def text(self) -> str:
        """Return all counts as Prometheus reads them."""
        with self._lock:
            lines = ["# TYPE techtree_requests_total counter"]
            lines += [
                f'techtree_requests_total{{path="{path}",status="{status}"}} {n}'
                for (path, status), n in sorted(self._requests.items())
            ]
            for name, value in (*self._totals.items(), *self._seconds.items()):
                lines += [f"# TYPE techtree_{name}_total counter", f"techtree_{name}_total {value:.12g}"]
            lines += [
                "# TYPE techtree_requests_processing gauge",
                f"techtree_requests_processing {self.n_processing}",
            ]
        return "\n".join(lines) + "\n"


class Counted:
    """Counts the requests to an application by path and status, those that are refused with them.

    Parameters
    ----------
    app
        Who answers.
    metrics
        Where they are counted.
    paths
        Those that are counted apart.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]):
        self._app = app
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in self._paths else OTHER
                self._metrics.requested(path, message["status"])
            await send(message)

        await self._app(scope, receive, counted)
