"""A hub with one model on this machine, which can break a connection, forbid, and forget."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Serves ``files`` as the model ``name``; ``url`` is its endpoint, ``requests`` what it was asked for."""

    def __init__(self, name, files):
        self.name = name
        self.files = files
        self.requests = []
        self.error = None
        """An HTTP status and an error code for every request."""
        self.break_at = {}
        """File -> after how many bytes a connection is cut, once; then it answers 503."""
        self.stall_at = {}
        """File -> after how many bytes nothing more comes."""
        self.is_stalled, self.may_go_on = threading.Event(), threading.Event()
        self.ignores_ranges = False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                hub.answer(self, has_body=True)

            def do_HEAD(self):
                hub.answer(self, has_body=False)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *args: None  # a client that goes away is no error here
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.may_go_on.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request, has_body):
        path = urlsplit(request.path).path
        self.requests.append((request.command, path, request.headers.get("Range")))
        if self.error is not None:
            status, code = self.error
            return self.send(request, status, b"{}", {"X-Error-Code": code}, has_body)
        models = f"/api/models/{self.name}"
        if path == models or path == f"{models}/revision/main":
            siblings = [{"rfilename": name, "size": len(data)} for name, data in self.files.items()]
            info = {"id": self.name, "sha": COMMIT, "siblings": siblings}
            return self.send(request, 200, json.dumps(info).encode(), {}, has_body)
        if path.startswith(f"{models}/revision/"):
            return self.send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"}, has_body)
        prefix = f"/{self.name}/resolve/{COMMIT}/"
        name = path.removeprefix(prefix)
        if not path.startswith(prefix) or name not in self.files:
            return self.send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"}, has_body)
        return self.send_file(request, name, has_body)

    def send_file(self, request, name, has_body):
        data = self.files[name]
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag_of(name, data)}"', "Accept-Ranges": "bytes"}
        status = 200
        if (given := request.headers.get("Range")) and not self.ignores_ranges:
            start = int(given.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data, status = data[start:], 206
        if has_body and name in self.break_at:
            if self.break_at[name] is None:
                return self.send(request, 503, b"", {}, has_body)
            cut, self.break_at[name] = self.break_at[name], None
            self.send(request, status, data, headers, has_body, n_bytes=cut)
            request.close_connection = True
            return None
        if has_body and name in self.stall_at:
            self.send(request, status, data, headers, has_body, n_bytes=self.stall_at[name])
            self.is_stalled.set()
            self.may_go_on.wait()
            request.close_connection = True
            return None
        return self.send(request, status, data, headers, has_body)

    def send(self, request, status, data, headers, has_body, n_bytes=None):
        request.send_response(status)
        for key, value in ({"Content-Length": str(len(data))} | headers).items():
            request.send_header(key, value)
        request.end_headers()
        if has_body:
            request.wfile.write(data if n_bytes is None else data[:n_bytes])


def etag_of(name, data):
    """The hub names large files by their SHA-256 and small ones as Git does."""
    if name.endswith(".safetensors"):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
