"""A client: HTTP/1.1, each exchange on a connection of its own."""

import socket

EVENT = b'{"n":1,"text":"hello"}'


class Client:
    """One connection at a time to one path."""

    def __init__(self, port, path, timeout=20):
        self.address = ("127.0.0.1", port)
        self.path, self.timeout = path, timeout
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
        self.socket = socket.create_connection(self.address, self.timeout)
        head = f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(event)}\r\nConnection: close\r\n\r\n"
        try:
            self.socket.sendall(head.encode() + event)
            return self._reply()
        finally:
            self.close()

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
        return int(head.split(b" ")[1]), body

    def _more(self):
        more = self.socket.recv(65536)
        if not more:
            raise ConnectionError("the connection ended in the middle of a reply")
        return more

    def check(self):
        """One good exchange."""
        status, body = self.ask()
        if status != 200 or b'"added"' not in body:
            raise RuntimeError(f"{self.path}: {status} {body[:80]!r}")
