"""A server that is no proxy, or stands in for one: it answers every GET and POST alike."""

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def serving(answer: Callable[[http.server.BaseHTTPRequestHandler, bytes], None]) -> Iterator[str]:
    """Gives its URL. `answer`: writes the answer to one request, of which it gets the body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, self.rfile.read(int(self.headers.get("Content-Length", "0"))))

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def answering(
    status: int, headers: dict[str, str], body: bytes | Callable[[], bytes]
) -> Iterator[tuple[str, list[str]]]:
    """Gives its URL, and what it was asked with: the `Authorization` of each request."""
    seen: list[str] = []

    def answer(to: http.server.BaseHTTPRequestHandler, _: bytes) -> None:
        seen.append(to.headers.get("Authorization", ""))
        to.send_response(status)
        for name, value in headers.items():
            to.send_header(name, value)
        to.end_headers()
        to.wfile.write(body() if callable(body) else body)

    with serving(answer) as url:
        yield url, seen
