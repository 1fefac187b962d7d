"""An upstream without limits that costs little: it reads a request to its end and answers 200.

    python -m tests.bench.upstream PORT

A GET is answered with the number of posts that have come.
"""

import select
import socket
import sys

_READ_BYTES = 262_144


def serve(port: int) -> None:
    """Answer for ever."""
    listening = socket.create_server(("127.0.0.1", port), backlog=1024)
    epoll = select.epoll()
    epoll.register(listening, select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    begun: dict[int, bytes] = {}
    taken = _answer(b'{"success":true,"processed":1}')
    posts = 0
    while True:
        for number, _ in epoll.poll():
            if number == listening.fileno():
                connection, _ = listening.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[connection.fileno()] = connection
                epoll.register(connection, select.EPOLLIN)
                continue
            part = _received(connections[number])
            if not part:
                epoll.unregister(number)
                connections.pop(number).close()
                begun.pop(number, None)
                continue
            request = begun.pop(number, b"") + part
            if not _is_whole(request):
                begun[number] = request
            elif request.startswith(b"POST"):
                posts += 1
                connections[number].send(taken)
            else:
                connections[number].send(_answer(str(posts).encode()))


def _received(connection: socket.socket) -> bytes:
    """What came; nothing where the connection has ended."""
    try:
        return connection.recv(_READ_BYTES)
    except ConnectionError:
        return b""


def _is_whole(request: bytes) -> bool:
    end = request.find(b"\r\n\r\n")
    length = request[: max(0, end)].lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
    return end >= 0 and len(request) >= end + 4 + int(length or 0)


def _answer(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


if __name__ == "__main__":
    serve(int(sys.argv[1]))
