"""A language server, as a process, whose engine tells of what it was asked; run by `test_lsp`."""

import json
import sys
import threading
from concurrent.futures import Future

from serve.loopback import FakeEngine
from techtree.engines.engine import Engine, InfillRequest, InfillResult
from techtree.serve.lsp import create_server


class Telling(FakeEngine):
    """Answers with the request; one that ends in "wait" waits until it is cancelled."""

    def infill(self, request: InfillRequest, cancelled=lambda: False, on_text=None, on_token=None):
        """Answer."""
        if request.prefix.endswith("wait"):
            self.go.clear()
            result = super().infill(request, cancelled)
            self.go.set()
            return result
        told = {
            name: getattr(request, name) for name in ("prefix", "suffix", "n_indent", "max_tokens", "slot")
        }
        told["was_cancelled"] = self.cancelled.is_set()
        return InfillResult(json.dumps(told), "end_of_text")


if __name__ == "__main__":
    engine: Future[Engine] = Future()
    if "unloaded" not in sys.argv:
        engine.set_result(Telling())
    create_server(engine, threading.Event()).start_io()
