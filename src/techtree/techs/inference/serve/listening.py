"""Real sockets for `Server`: one thread, all connections in turns.

python -m techtree.techs.inference.serve.listening    a model that knows nothing, at http://127.0.0.1:8012
"""

import selectors
import socket

import numpy as np

from techtree.techs.inference.serve.serve import Engine, Server
from techtree.techs.transformer.llama_block import Llama, LlamaConfig


def listen(engine: Engine, server_socket: socket.socket) -> None:
    """Answer whoever connects to a socket that listens on this machine, until it is closed."""
    server = Server(engine, server_socket.getsockname()[1])
    with selectors.DefaultSelector() as selector:
        selector.register(server_socket, selectors.EVENT_READ)

        def end(client: socket.socket) -> None:
            selector.unregister(client)
            client.close()

        is_idle = True
        while server_socket.fileno() >= 0:
            for key, _ in selector.select(0.1 if is_idle else 0):
                if key.fileobj is server_socket:
                    client = server_socket.accept()[0]
                    client.settimeout(5)  # for one that does not read what it asked for
                    selector.register(client, selectors.EVENT_READ)
                elif isinstance(key.fileobj, socket.socket):
                    client = key.fileobj
                    data = _received(client)
                    server.feed(client, data)
                    if not data:
                        server.leave(client)
                        end(client)
            step = server.step()
            is_idle = step is None
            if step is not None:
                client, piece = step
                assert isinstance(client, socket.socket)
                try:
                    client.sendall(piece or b"")
                except OSError:
                    piece = None
                if piece is None:
                    server.leave(client)
                    end(client)
        for key in list(selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket) and key.fileobj is not server_socket:
                end(key.fileobj)


def _received(client: socket.socket) -> bytes:
    try:
        return client.recv(1 << 16)
    except OSError:
        return b""


if __name__ == "__main__":
    model = Llama(LlamaConfig(256, 32, 64, 2, 4, 2), np.random.default_rng(0))
    engine = Engine(model, lambda text: list(text.encode()), [bytes([n]) for n in range(256)], [0], 1024, 4)
    listen(engine, socket.create_server(("127.0.0.1", 8012)))
