"""A language server for one thing: what to insert at the cursor (`textDocument/inlineCompletion`, LSP 3.18).

The editor starts it and talks to it over standard input and output. The model loads meanwhile: a question
that comes before it is there gets no suggestion. A newer question makes an older one void, and
`$/cancelRequest` ends the decoding.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from lsprotocol import types as lsp
from pygls.lsp.server import LanguageServer
from pygls.workspace import TextDocument

from techtree import __version__
from techtree.engines.engine import Engine, EngineBusyError, InfillRequest, InfillResult

MAX_WAITING = 16
"""Questions under way: more are those of somebody who types, and all but the newest are void."""

MAX_TOKENS = {lsp.InlineCompletionTriggerKind.Automatic: 128, lsp.InlineCompletionTriggerKind.Invoked: 256}
MAX_LINE_MS = {
    lsp.InlineCompletionTriggerKind.Automatic: 1000.0,
    lsp.InlineCompletionTriggerKind.Invoked: None,
}
"""While somebody types, a whole line in time is worth more than several late."""

_logger = logging.getLogger(__name__)


def create_server(engine: "Future[Engine]", stopping: threading.Event) -> LanguageServer:
    """Return the server, which has still to be started.

    Parameters
    ----------
    engine
        Who answers, when it is there.
    stopping
        Set when the server ends: what is decoded then ends with it.
    """
    server = LanguageServer("techtree", __version__)
    threads = ThreadPoolExecutor(MAX_WAITING, "answer")

    @server.feature(lsp.TEXT_DOCUMENT_INLINE_COMPLETION, lsp.InlineCompletionOptions())
    async def inline_completion(params: lsp.InlineCompletionParams) -> lsp.InlineCompletionList:
        nothing = lsp.InlineCompletionList(items=[])
        if not engine.done() or engine.exception() is not None:
            return nothing
        document = server.workspace.get_text_document(params.text_document.uri)
        request, already, where = question(document, params)
        gone = threading.Event()

        def cancelled() -> bool:
            return gone.is_set() or stopping.is_set()

        try:
            result = await asyncio.get_running_loop().run_in_executor(
                threads, _answer, engine.result(), request, cancelled
            )
        finally:
            gone.set()  # also when this task itself was cancelled
        if result is None or not result.text or result.stop == "cancelled":
            return nothing
        return lsp.InlineCompletionList([lsp.InlineCompletionItem(already + result.text, range=where)])

    return server


def _answer(engine: Engine, request: InfillRequest, cancelled: Callable[[], bool]) -> InfillResult | None:
    try:
        result = engine.infill(request, cancelled)
    except EngineBusyError as error:
        _logger.warning("%s", error)
        return None
    _logger.info(
        "prompt of %d tokens, %d of them cached, %.0f ms; %d tokens, %.0f ms; %s",
        *(result.n_prompt, result.n_reused, result.prompt_ms, result.n_predicted, result.predicted_ms),
        result.stop,
    )
    return result


def question(
    document: TextDocument, params: lsp.InlineCompletionParams
) -> tuple[InfillRequest, str, lsp.Range]:
    """Return what to ask, what the inserted text begins with, and what it takes the place of.

    That is nothing, and the cursor. Where the editor's own list of completions shows one that is selected, it
    is that one and its range: a suggestion must go on from there.
    """
    selected = params.context.selected_completion_info
    already = "" if selected is None else selected.text
    where = lsp.Range(params.position, params.position) if selected is None else selected.range
    source = document.source
    start, end = document.offset_at_position(where.start), document.offset_at_position(where.end)
    prefix = source[:start] + already
    line = prefix.rpartition("\n")[2]
    kind = params.context.trigger_kind
    request = InfillRequest(
        prefix,
        source[end:],
        max_tokens=MAX_TOKENS[kind],
        n_indent=len(line) - len(line.lstrip(" \t")),
        max_line_ms=MAX_LINE_MS[kind],
        slot=0,
    )
    return request, already, where
