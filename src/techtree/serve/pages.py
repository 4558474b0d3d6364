"""The tree as pages, at the server's address, with the states of the learner in whose folder it started."""

import mimetypes
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from techtree.learn.workspace import Workspace
from techtree.site.pages import Site
from techtree.tree.graph import Tree

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a page may load and do: from this server only, and nothing that stands within the page."""

_FIGURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""Of a figure on its own: its styles stand within it, and it has no scripts."""

_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".woff": "font/woff"}


class Pages:
    """The pages of a tree, each made when it is first asked for.

    Parameters
    ----------
    tree
        The technologies.
    find_mine
        Returns the learner's workspace as it is on disk now, or None.
    """

    def __init__(self, tree: Tree, find_mine: Callable[[], Workspace | None]):
        self._tree = tree
        self._find_mine = find_mine
        self._site = Site(tree, find_mine())
        self._made: dict[str, bytes] = {}
        self._names = frozenset(self._site.paths())

    def has(self, path: str) -> bool:
        """Tell whether there is a page, or a part of one, at a path such as ``/tech/rope.html``."""
        return _name(path) in self._names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for which there is no other route."""
        if scope["type"] != "http":
            return
        if scope["method"] not in ("GET", "HEAD") or not self.has(scope["path"]):
            raise HTTPException(404)
        response = await run_in_threadpool(self._response, _name(scope["path"]))
        await response(Request(scope).scope, receive, send)

    def _response(self, name: str) -> Response:
        suffix = name[name.rindex(".") :]
        kind = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        headers = {
            "Cache-Control": "no-cache",
            "Content-Security-Policy": _FIGURE_POLICY if suffix == ".svg" else POLICY,
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        return Response(self._content(name), media_type=kind, headers=headers)

    def _content(self, name: str) -> bytes:
        if name.endswith(".html"):
            self._refresh()
        made, site = self._made, self._site
        if name not in made:
            made[name] = site.render(name)
        return made[name]

    def _refresh(self) -> None:
        """Begin anew where the learner's states have changed."""
        mine = self._find_mine()
        if mine is None and self._site.mine is None:
            return
        site = Site(self._tree, mine)
        if site.states != self._site.states:
            self._site, self._made = site, {}


def _name(path: str) -> str:
    return path.removeprefix("/") or "index.html"
