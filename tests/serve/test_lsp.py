"""The language server, asked by a real client over standard input and output."""

import asyncio
import json
import sys

import pytest

pytest.importorskip("pygls", reason="needs pygls: pip install 'techtree[lsp]'")

from lsprotocol import types as lsp
from pygls.exceptions import JsonRpcRequestCancelled
from pygls.lsp.client import LanguageClient

URI = "file:///add.py"
SOURCE = "def add(a, b):\n    s = 'é😀'; return \n\nprint(add(1, 2))\n"
CURSOR = "    s = 'é😀'; return "
FAKE = ("-m", "serve.lsp_with_fake")
TIMEOUT_S = 60


def with_server(words, conversation, encodings=("utf-16",)):
    """Start a server, open the document, and have a conversation."""

    async def main():
        client = LanguageClient("test", "1")
        await client.start_io(sys.executable, *words)
        general = lsp.GeneralClientCapabilities(position_encodings=list(encodings))
        begun = await client.initialize_async(
            lsp.InitializeParams(capabilities=lsp.ClientCapabilities(general=general))
        )
        client.initialized(lsp.InitializedParams())
        document = lsp.TextDocumentItem(URI, lsp.LanguageKind.Python, 1, SOURCE)
        client.text_document_did_open(lsp.DidOpenTextDocumentParams(document))
        try:
            return begun, await conversation(client)
        finally:
            await client.shutdown_async(None)
            client.exit(None)
            await client._server.wait()
            assert client._server.returncode == 0
            await client.stop()

    return asyncio.run(asyncio.wait_for(main(), TIMEOUT_S))


def params(line, character, kind=lsp.InlineCompletionTriggerKind.Automatic, selected=None):
    return lsp.InlineCompletionParams(
        lsp.InlineCompletionContext(kind, selected),
        lsp.TextDocumentIdentifier(URI),
        lsp.Position(line, character),
    )


async def ask(client, *args, **options):
    """Return what was suggested, where, and what the engine was asked."""
    said = await client.text_document_inline_completion_async(params(*args, **options))
    if not said.items:
        return None
    [item] = said.items
    return item.insert_text, item.range, json.loads(item.insert_text[item.insert_text.index("{") :])


def utf16_length(text):
    return len(text.encode("utf-16-le")) // 2


@pytest.mark.parametrize(
    ("encoding", "length"), [("utf-16", utf16_length), ("utf-8", lambda text: len(text.encode()))]
)
def test_the_whole_text_around_the_cursor_is_asked_about(encoding, length):
    begun, (_, where, asked) = with_server(FAKE, lambda client: ask(client, 1, length(CURSOR)), [encoding])
    assert begun.capabilities.inline_completion_provider is not None
    at = SOURCE.index(CURSOR) + len(CURSOR)
    assert (asked["prefix"], asked["suffix"]) == (SOURCE[:at], SOURCE[at:])
    assert (asked["n_indent"], asked["max_tokens"], asked["slot"]) == (4, 128, 0)
    assert where.start == where.end == lsp.Position(1, length(CURSOR))


def test_a_change_counts_and_what_is_asked_for_may_be_longer():
    async def conversation(client):
        change = lsp.TextDocumentContentChangePartial(lsp.Range(lsp.Position(0, 0), lsp.Position(0, 3)), "XY")
        identifier = lsp.VersionedTextDocumentIdentifier(2, URI)
        client.text_document_did_change(lsp.DidChangeTextDocumentParams(identifier, [change]))
        return await ask(client, 0, 2, kind=lsp.InlineCompletionTriggerKind.Invoked)

    _, (_, _, asked) = with_server(FAKE, conversation)
    assert (asked["prefix"], asked["suffix"]) == ("XY", SOURCE[3:])
    assert asked["max_tokens"] == 256


def test_a_suggestion_goes_on_from_what_the_editors_list_shows():
    where = lsp.Range(lsp.Position(3, 0), lsp.Position(3, 2))
    selected = lsp.SelectedCompletionInfo(where, "printer")
    _, (text, replaced, asked) = with_server(FAKE, lambda client: ask(client, 3, 2, selected=selected))
    assert text.startswith("printer{")
    assert replaced == where
    assert asked["prefix"].endswith("\nprinter")
    assert asked["suffix"].startswith("int(add")


def test_a_cancelled_question_stops_the_engine():
    async def conversation(client):
        change = lsp.TextDocumentContentChangeWholeDocument("wait\nnext\n")
        identifier = lsp.VersionedTextDocumentIdentifier(2, URI)
        client.text_document_did_change(lsp.DidChangeTextDocumentParams(identifier, [change]))
        waiting = client.protocol.send_request(
            lsp.TEXT_DOCUMENT_INLINE_COMPLETION, params(0, 4), msg_id="first"
        )
        await asyncio.sleep(0)
        client.cancel_request(lsp.CancelParams("first"))
        with pytest.raises(JsonRpcRequestCancelled):
            await asyncio.wrap_future(waiting)
        while not (await ask(client, 1, 4))[2]["was_cancelled"]:  # its thread looks now and then
            await asyncio.sleep(0.01)

    with_server(FAKE, conversation)


def test_nothing_is_suggested_until_the_model_is_there():
    _, asked = with_server((*FAKE, "unloaded"), lambda client: ask(client, 0, 0))
    assert asked is None


def test_the_command_with_a_model(tiny_model_folder):
    pytest.importorskip("torch")

    async def conversation(client):
        while True:  # until the model is there
            said = await client.text_document_inline_completion_async(params(1, 4))
            if said.items:
                return said.items[0].insert_text
            await asyncio.sleep(0.1)

    words = ("-m", "techtree", "lsp", "--model", str(tiny_model_folder), "--no-memory")
    assert with_server(words, conversation)[1].strip()
