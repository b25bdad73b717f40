"""Clients that time one exchange: HTTP/1.1, on a new connection or a kept one."""

import socket
import time

EVENT = b'{"n":1,"text":"hello"}'


class Client:
    """One connection at a time to one path."""

    def __init__(self, port, path, keep=False, timeout=20):
        self.address = ("127.0.0.1", port)
        self.path, self.keep, self.timeout = path, keep, timeout
        self.socket = None

    def close(self):
        if self.socket:
            self.socket.close()
        self.socket = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def ask(self, event=EVENT):
        """The status and the body of the reply."""
        if self.socket is None:
            self.socket = socket.create_connection(self.address, self.timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(event)}\r\n"
        head += "\r\n" if self.keep else "Connection: close\r\n\r\n"
        try:
            self.socket.sendall(head.encode() + event)
            return self._reply()
        except BaseException:
            self.close()
            raise

    def _reply(self):
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        fields = dict(
            (name.strip().lower(), value.strip().lower())
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        )
        if b"content-length" in fields:
            while len(body) < int(fields[b"content-length"]):
                body += self._more()
        elif fields.get(b"transfer-encoding") == b"chunked":
            while not body.endswith(b"0\r\n\r\n"):
                body += self._more()
        else:
            while more := self.socket.recv(65536):
                body += more
            self.close()
        if not self.keep or fields.get(b"connection") == b"close":
            self.close()
        return int(head.split(b" ")[1]), body

    def _more(self):
        more = self.socket.recv(65536)
        if not more:
            raise ConnectionError("the connection ended in the middle of a reply")
        return more

    def timed(self, event=EVENT):
        """Microseconds of one good exchange."""
        begin = time.perf_counter_ns()
        status, body = self.ask(event)
        took = (time.perf_counter_ns() - begin) / 1000
        if status != 200 or b'"added"' not in body:
            raise RuntimeError(f"{self.path}: {status} {body[:80]!r}")
        return took
