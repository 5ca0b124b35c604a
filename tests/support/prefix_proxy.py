"""A reverse proxy that has an app below a path, as nginx with `proxy_pass` does: it cuts the path off."""

import contextlib
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def prefix_proxy(port: int, prefix: str) -> Iterator[str]:
    """Yield the address of the app on `port` below `prefix`; other paths are not found."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server, port, prefix.encode()), daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}{prefix}/"
        server.shutdown(socket.SHUT_RDWR)


def _serve(server: socket.socket, port: int, prefix: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            threading.Thread(target=_answer, args=(server.accept()[0], port, prefix), daemon=True).start()


def _answer(client: socket.socket, port: int, prefix: bytes) -> None:
    """Pass on one request, and close: the next one comes on a connection of its own."""
    with client, contextlib.suppress(OSError):
        head = b""
        while b"\r\n\r\n" not in head:
            if not (piece := client.recv(65536)):
                return
            head += piece
        method, path, rest = head.split(b" ", 2)
        if not path.startswith(prefix + b"/"):
            client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        line, fields = rest.split(b"\r\n", 1)
        request = b" ".join((method, path[len(prefix) :], line)) + b"\r\nConnection: close\r\n"
        with socket.create_connection(("127.0.0.1", port)) as app:
            app.sendall(request + fields.replace(b"Connection: keep-alive\r\n", b""))
            threading.Thread(target=_pipe, args=(client, app), daemon=True).start()
            _pipe(app, client)


def _pipe(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
