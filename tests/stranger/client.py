"""A stranger's client: written from docs/SPEC-compat-mode.md and RFC 6455 alone, without a
look at the relay, with nothing but Python's standard library. Sections in comments are those
of the specification.

Logs in over WebSocket as the node of the vectors, asks for its address, and exchanges packets
with a node over UDP, which it plays as well. Says each step; exits 1 where the relay does
something else than the specification.

    client.py RELAY_HOST WSS_PORT UDP_PORT
"""

import base64
import hashlib
import json
import os
import re
import socket
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../examples/python"))
import ed25519

NODE, UDP_NODE = 4242, 9202
SEED = bytes(range(32))  # 4.6
DISCOVER, DISCOVER_REPLY, RELAY, DELIVER, DISCOVER_EX, DELIVER_DEST = 1, 2, 5, 6, 8, 9  # 2
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
TIMEOUT_S = 10


def expect(right, what):
    if not right:
        sys.exit(f"not as specified: {what}")


def say(what):
    print(what, flush=True)


class WebSocket:
    """The client's side of RFC 6455 as far as section 3 needs it."""

    def __init__(self, host, port, max_message=32768):
        self.max_message = max_message  # 3.6
        self.socket = socket.create_connection((host, port), TIMEOUT_S)
        self.file = self.socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [  # 3.1
            "GET /v1/compat HTTP/1.1",
            f"Host: {host}:{port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Protocol: pilot.v1",
        ]
        self.socket.sendall("\r\n".join(lines + ["", ""]).encode())
        status = self.file.readline().decode().split()
        expect(status[1] == "101", f"status {status}")
        headers = {}
        while line := self.file.readline().decode().strip():
            name, value = line.split(":", 1)
            headers[name.lower()] = value.strip()
        accept = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        expect(headers["sec-websocket-accept"] == base64.b64encode(accept).decode(), "accept")
        expect(headers["sec-websocket-protocol"] == "pilot.v1", "subprotocol")
        expect("sec-websocket-extensions" not in headers, "extensions are never negotiated")

    def send(self, opcode, payload):
        length = len(payload)
        if length < 126:
            header = struct.pack("!BB", 0x80 | opcode, 0x80 | length)
        elif length < 65536:
            header = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, length)
        else:
            header = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, length)
        mask = os.urandom(4)  # 3.5
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self.socket.sendall(header + mask + masked)

    def frame(self):
        first, length = struct.unpack("!BB", self.file.read(2))
        expect(first & 0x70 == 0, "no extension uses the reserved bits")
        expect(length & 0x80 == 0, "a relay masks none")
        if length == 126:
            (length,) = struct.unpack("!H", self.file.read(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self.file.read(8))
        expect(length <= self.max_message, "no message is longer (3.6)")
        return first & 0x80 != 0, first & 0x0F, self.file.read(length)

    def receive(self):
        """The next message that is none of the connection's own, whole."""
        kind, message = None, b""
        while True:
            final, opcode, payload = self.frame()
            if opcode == PING:
                self.send(PONG, payload)  # 3.7
            elif opcode == CLOSE:
                self.send(CLOSE, payload[:2])
                return CLOSE, payload
            elif opcode != PONG:
                kind = kind if opcode == CONTINUATION else opcode
                message += payload
                if final:
                    return kind, message

    def expect(self, kind, what):
        got, message = self.receive()
        expect(got == kind, f"{what}: instead of it {got}, {message!r}")
        return message


def signed_text(challenge, generation):
    """4.3; `challenge` has been checked."""
    parts = ["compat_auth", str(NODE)]
    if generation >= 2:
        parts.append(str(challenge["ts"]))
    if generation == 3:
        parts.append(challenge["relay"])
    return ":".join(parts + [challenge["nonce"]]).encode()


def check_vectors():
    """4.6 and 2.4, so that a refused login is not the fault of the signatures."""
    nonce = "00112233445566778899aabbccddeeff" * 2
    challenge = {"nonce": nonce, "ts": 1767225600, "relay": "relay.example.net"}
    vectors = [
        (signed_text(challenge, 1), "OjPKFOTxoI+dYULF9nkRqxxo4IlY+vqPKPc1A73ZkMvYnoYN7ctwH+hx5qbjuP9xzwODcPyJRi2bOt/EbE72BA=="),
        (signed_text(challenge, 2), "qbBOeyyjprV2RtaKwyhpaTFucKz1nL/dm61kFPaC2tTmHtI6KfysHi0dzI29TKyRLQN+L3leZPJDfMiAYFSuCQ=="),
        (signed_text(challenge, 3), "lZ1vy4j1ehkvP8o7AH+Xh1u7GWfRdKO05e6/S+epTXuwib3c6D+sTEkrOzgxLFKOIIQVgtJcC6CvluyLsg+FCw=="),
        (b"punch-grant:9201:9202:1767225660", "6qMCV/tYDbxHTUOqH5GEjwF8STsPRff8fE9mvTUJSjBdYhC3tLM0ELh80JzOth3zCnFDr5+AC/ESnse4COtuCQ=="),
    ]
    for text, signature in vectors:
        expect(base64.b64encode(ed25519.sign(SEED, text)).decode() == signature, text)
    key = base64.b64encode(ed25519.public_key(SEED)).decode()
    expect(key == "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=", "public key")
    say("vectors hold")


def log_in(connection, host, max_message=None):
    challenge = json.loads(connection.expect(TEXT, "a challenge"))  # 4.1
    expect(challenge["type"] == "auth_challenge", "the first frame is the challenge")
    expect(re.fullmatch("[0-9a-f]{64}", challenge["nonce"]), "nonce")
    expect("ts" not in challenge or type(challenge["ts"]) is int, "ts")
    generation = 3 if "relay" in challenge else 2 if "ts" in challenge else 1
    if generation == 3 and challenge["relay"].lower() != host.lower():
        sys.exit(f"the relay is {challenge['relay']}, and {host} was dialled: not signed")
    reply = {  # 4.2
        "type": "auth_reply",
        "node_id": NODE,
        "public_key": base64.b64encode(ed25519.public_key(SEED)).decode(),
        "sig": base64.b64encode(ed25519.sign(SEED, signed_text(challenge, generation))).decode(),
    }
    if generation == 3:
        reply["gen"] = 3
    if max_message is not None:
        reply["max_message"] = max_message
    connection.send(TEXT, json.dumps(reply).encode())
    verdict = json.loads(connection.expect(TEXT, "auth_ok"))
    expect(verdict["type"] == "auth_ok", f"verdict {verdict}")
    return generation


def address(packet):
    """2.2"""
    expect(packet[0] == DISCOVER_REPLY, f"a DiscoverReply, not {packet!r}")
    length = packet[1]
    expect(length in (4, 16) and len(packet) == 4 + length, f"address in {packet!r}")
    family = socket.AF_INET if length == 4 else socket.AF_INET6
    (port,) = struct.unpack("!H", packet[2 + length :])
    return socket.inet_ntop(family, packet[2 : 2 + length]), port


def packet(kind, *ids, payload=b""):
    """2: the type, then node ids, then the rest."""
    return struct.pack(f"!B{len(ids)}I", kind, *ids) + payload


def deliver(wss, payload):
    """2.5"""
    delivered = wss.expect(BINARY, "a delivery")
    expect(delivered == packet(DELIVER, UDP_NODE, payload=payload), f"{len(payload)} bytes")


def main():
    host, wss_port, udp_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    check_vectors()
    wss = WebSocket(host, wss_port)
    generation = log_in(wss, host)
    say(f"logged in, generation {generation}")

    wss.send(BINARY, packet(DISCOVER, NODE))  # 5.2
    observed = address(wss.expect(BINARY, "a DiscoverReply"))
    expect(observed == wss.socket.getsockname()[:2], f"observed at {observed}")
    say("discovered over WebSocket")

    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.settimeout(TIMEOUT_S)
    udp.connect((host, udp_port))
    udp.send(packet(DISCOVER, UDP_NODE))  # 2.1, 6
    observed = address(udp.recv(65536))
    expect(observed == udp.getsockname(), f"observed at {observed}")
    say("discovered over UDP")

    for size in [0, 1, 125, 1250, 4200, 32764, 65498, 32763]:  # 2.5
        payload = os.urandom(size)
        wss.send(BINARY, packet(RELAY, NODE, UDP_NODE, payload=payload))
        delivered = udp.recv(65536)
        expect(delivered == packet(DELIVER, NODE, payload=payload), f"{size} bytes to UDP")
        udp.send(packet(RELAY, UDP_NODE, NODE, payload=payload))
        if size <= 32763:  # 3.6: longer ones do not come, and the next one does
            deliver(wss, payload)
    say("relayed to UDP and back")

    wss = WebSocket(host, wss_port, max_message=65536)
    log_in(wss, host, max_message=65536)  # 4.2
    for size in [32763, 32764, 65498]:
        payload = os.urandom(size)
        udp.send(packet(RELAY, UDP_NODE, NODE, payload=payload))
        deliver(wss, payload)
    say("takes the largest messages")

    wss.send(BINARY, packet(DISCOVER_EX, NODE))
    address(wss.expect(BINARY, "a DiscoverReply"))
    udp.send(packet(RELAY, UDP_NODE, NODE, payload=b"hi"))
    delivered = wss.expect(BINARY, "a delivery")
    expect(delivered == packet(DELIVER_DEST, UDP_NODE, NODE, payload=b"hi"), "0x09")
    say("deliveries name their destination")

    wss.send(PING, b"are you there?")
    final, opcode, payload = wss.frame()
    expect((final, opcode, payload) == (True, PONG, b"are you there?"), "a pong")
    wss.send(TEXT, b'{"type":"bye"}')  # 4.5
    close = wss.expect(CLOSE, "a close")
    expect(struct.unpack("!H", close[:2]) == (1000,), f"close {close!r}")
    expect(wss.file.read() == b"", "the end")
    say("said bye")


if __name__ == "__main__":
    main()
