"""What strangers' clients of text protocols have in common: the client's side of RFC 6455, and how
they say what they find. Each message is one unfragmented text frame."""

import base64
import hashlib
import os
import socket
import struct
import sys

PATIENCE_S = 10
# What comes within this time would have come.
QUIET_S = 0.3
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def expect(right, what):
    if not right:
        sys.exit(f"not as described: {what}")


def say(what):
    print(what, flush=True)


class Connection:
    """A WebSocket at some path, with these further headers: none of what they offer is taken up."""

    def __init__(self, host, port, path, *headers):
        self.socket = socket.create_connection((host, port), PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {host}:{port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Extensions: permessage-deflate",
            *headers,
        ]
        self.socket.sendall("\r\n".join(lines + ["", ""]).encode())
        status = self.file.readline().decode()
        expect(status.split()[1:2] == ["101"], f"status {status!r}")
        headers = {}
        while (line := self.file.readline().decode().strip()):
            name, value = line.split(":", 1)
            headers[name.lower()] = value.strip()
        accept = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        expect(headers["sec-websocket-accept"] == base64.b64encode(accept).decode(), "accept")
        for negotiated in ["sec-websocket-protocol", "sec-websocket-extensions"]:
            expect(negotiated not in headers, f"{negotiated} is never negotiated")

    def send(self, payload, opcode=TEXT):
        payload = payload.encode() if isinstance(payload, str) else payload
        length = len(payload)
        if length < 126:
            header = struct.pack("!BB", 0x80 | opcode, 0x80 | length)
        elif length < 65_536:
            header = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, length)
        else:
            header = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, length)
        mask = os.urandom(4)
        repeated = mask * (length // 4 + 1)
        number = int.from_bytes(payload, "big") ^ int.from_bytes(repeated[:length], "big")
        self.socket.sendall(header + mask + number.to_bytes(length, "big"))

    def receive(self):
        """The opcode and the payload of the next frame; None at the end of the connection."""
        try:
            head = self.file.read(2)
            if len(head) < 2:
                return None
            first, length = head
            expect(first & 0x70 == 0 and first & 0x80, f"an unfragmented frame, not {first:#x}")
            expect(length & 0x80 == 0, "a server masks none")
            if length == 126:
                (length,) = struct.unpack("!H", self.file.read(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", self.file.read(8))
            return first & 0xF, self.file.read(length)
        except ConnectionError:
            return None

    def text(self):
        """The next text; a server may ask in between whether we are there."""
        while True:
            got = self.receive()
            expect(got is not None, "the connection ended")
            opcode, payload = got
            if opcode == PING:
                self.send(payload, PONG)
            elif opcode == TEXT:
                return payload.decode()
            else:
                expect(opcode == PONG, f"a text, not {opcode} {payload!r}")

    def quiet(self):
        """Whether nothing more comes."""
        self.socket.settimeout(QUIET_S)
        try:
            return self.file.read(1) == b""
        except TimeoutError:
            # The file takes nothing more after a timeout.
            self.file = self.socket.makefile("rb")
            return True
        finally:
            self.socket.settimeout(PATIENCE_S)
