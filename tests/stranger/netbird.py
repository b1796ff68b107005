"""A stranger's client of NetBird's relay protocol: written from a description of the wire and the
RFCs alone, without a look at the relay; WebSocket with nothing but Python's standard library,
QUIC with aioquic.

Checks the recorded bytes, is refused and let in, exchanges packets with the peer `echo`, which
somebody else plays, comes and goes under other names, takes a session over, and answers the
relay's health check. Says each step; exits 1 where the relay does something else.

    netbird.py ws HOST PORT SECRET INSTANCE
    netbird.py quic HOST PORT SECRET INSTANCE CA_FILE
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import os
import ssl
import struct
import sys
import time

VERSION = 1
TRANSPORT, CLOSE, HEALTH_CHECK, AUTH, AUTH_RESPONSE = 3, 4, 5, 6, 7
SUBSCRIBE, UNSUBSCRIBE, PEERS_ONLINE, PEERS_WENT_OFFLINE = 8, 9, 10, 11
MAGIC = bytes.fromhex("2112a442")
MAX_MESSAGE = 8820
PATIENCE_S = 10
# What comes within this time would have come.
QUIET_S = 0.3


def expect(right, what):
    if not right:
        sys.exit(f"not as described: {what}")


def say(what):
    print(what, flush=True)


def peer_id(name):
    return b"sha-" + hashlib.sha256(name.encode()).digest()


def token(secret, expiry):
    text = str(expiry).encode()
    key = hashlib.sha256(secret.encode()).digest()
    return b"\x01" + hmac.new(key, text, hashlib.sha256).digest() + text


def message(kind, *ids, payload=b""):
    return bytes([VERSION, kind]) + b"".join(ids) + payload


def auth(name, token):
    return bytes([VERSION, AUTH]) + MAGIC + peer_id(name) + token


def check_vectors():
    """So that a refused login is not the fault of the token."""
    bob = bytes.fromhex("7368612d81b637d8fcd2c6da6359e6963113a1170de795e4b725b84d1e0b4cfd9ec58ce9")
    code = "2367bb929e4c1b2eb62de2005110fdd01da3c831974adb39e98b36464249ee39"
    expect(peer_id("bob") == bob, "the id of bob")
    login = bytes.fromhex(f"01062112a442{bob.hex()}01{code}31373935383834343231")
    expect(auth("bob", token("s3cret", 1795884421)) == login, "the login of bob")
    expect(len(login) == 85, "85 bytes")
    expect(message(TRANSPORT, bob, payload=b"xxxxx").hex() == f"0103{bob.hex()}7878787878", "packet")
    say("vectors hold")


class WebSocket:
    """The client's side of RFC 6455: each message is one unfragmented binary frame."""

    max_payload = MAX_MESSAGE - 38

    @classmethod
    async def connect(cls, server):
        self = cls()
        self.reader, self.writer = await asyncio.open_connection(server.host, server.port)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            "GET /relay HTTP/1.1",
            f"Host: {server.host}:{server.port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
        ]
        self.writer.write("\r\n".join(lines + ["", ""]).encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        expect(head[0].split()[1] == "101", f"status {head[0]}")
        headers = {line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in head[1:] if line}
        accept = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        expect(headers["sec-websocket-accept"] == base64.b64encode(accept).decode(), "accept")
        for negotiated in ["sec-websocket-protocol", "sec-websocket-extensions"]:
            expect(negotiated not in headers, f"{negotiated} is never negotiated")
        return self

    async def send(self, payload, opcode=2):
        length = len(payload)
        if length < 126:
            header = struct.pack("!BB", 0x80 | opcode, 0x80 | length)
        else:
            header = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, length)
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self.writer.write(header + mask + masked)
        await self.writer.drain()

    async def receive(self):
        """The next message; None at the end of the connection."""
        try:
            first, length = struct.unpack("!BB", await self.reader.readexactly(2))
            expect(first == 0x82, f"an unfragmented binary frame, not {first:#x}")
            expect(length & 0x80 == 0, "a relay masks none")
            if length == 126:
                (length,) = struct.unpack("!H", await self.reader.readexactly(2))
            expect(length <= MAX_MESSAGE, "no message is longer")
            return await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return None

    async def drop(self):
        """Ends the connection without a word."""
        self.writer.transport.abort()


class Quic:
    """One message is one datagram (RFC 9221); no streams."""

    # A packet of WireGuard at MTU 1,280; more is the path's to say.
    max_payload = 1312

    @classmethod
    async def connect(cls, server):
        from aioquic.asyncio.client import connect
        from aioquic.asyncio.protocol import QuicConnectionProtocol
        from aioquic.quic.configuration import QuicConfiguration
        from aioquic.quic.events import ConnectionTerminated, DatagramFrameReceived, StreamDataReceived

        class Protocol(QuicConnectionProtocol):
            def __init__(self, *arguments, **named):
                super().__init__(*arguments, **named)
                self.received = asyncio.Queue()

            def quic_event_received(self, event):
                if isinstance(event, DatagramFrameReceived):
                    self.received.put_nowait(event.data)
                elif isinstance(event, StreamDataReceived):
                    self.received.put_nowait(b"a stream")
                elif isinstance(event, ConnectionTerminated):
                    self.received.put_nowait(event)

        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=["nb-quic"],
            max_datagram_frame_size=65536,
            max_datagram_size=1452,
            verify_mode=ssl.CERT_REQUIRED,
        )
        configuration.load_verify_locations(cafile=server.ca)
        self = cls()
        self.open = contextlib.AsyncExitStack()
        connecting = connect(
            server.host, server.port, configuration=configuration, create_protocol=Protocol
        )
        self.protocol = await self.open.enter_async_context(connecting)
        return self

    async def send(self, payload):
        self.protocol._quic.send_datagram_frame(payload)
        self.protocol.transmit()

    async def receive(self):
        received = await self.protocol.received.get()
        if isinstance(received, bytes):
            return received
        ended = (received.error_code, received.frame_type)
        expect(ended == (0, None), f"every end is an application close with code 0, not {received}")
        return None

    async def drop(self):
        self.protocol.close()
        await self.open.aclose()


class Server:
    def __init__(self, kind, host, port, secret, instance, ca=None):
        self.carrier = {"ws": WebSocket, "quic": Quic}[kind]
        self.host, self.port, self.ca = host, int(port), ca
        self.secret, self.instance = secret, instance

    async def log_in(self, name):
        connection = await self.carrier.connect(self)
        await connection.send(auth(name, token(self.secret, int(time.time()) + 3600)))
        answer = await next_message(connection)
        expected = message(AUTH_RESPONSE, payload=self.instance.encode())
        expect(answer == expected, f"{name}: an AuthResponse, not {answer!r}")
        return connection


async def next_message(connection, seconds=PATIENCE_S):
    """The next message, whatever it is; None at the end."""
    try:
        return await asyncio.wait_for(connection.receive(), seconds)
    except asyncio.TimeoutError:
        sys.exit(f"not as described: nothing within {seconds} s")


async def is_quiet(connection):
    """Whether nothing comes. The connection is of no use for reading afterwards where it is a
    WebSocket that was in the middle of a frame, which would be something."""
    try:
        got = await asyncio.wait_for(connection.receive(), QUIET_S)
    except asyncio.TimeoutError:
        return True
    say(f"came: {got!r}")
    return False


async def refused(server):
    now = int(time.time())
    good = token(server.secret, now + 60)
    flawed = bytes([good[0], good[1] ^ 1]) + good[2:]
    wrong = {
        "another secret": auth("eve", token("guessed", now + 60)),
        "an expired token": auth("eve", token(server.secret, now - 2)),
        "a broken signature": auth("eve", flawed),
        "another algorithm": auth("eve", b"\x02" + good[1:]),
        "no token": auth("eve", b""),
        "no magic": auth("eve", good).replace(MAGIC, b"\0\0\0\0"),
        "another version": b"\x02" + auth("eve", good)[1:],
        "a packet first": message(TRANSPORT, peer_id("echo"), payload=b"x"),
    }
    for what, login in wrong.items():
        connection = await server.carrier.connect(server)
        await connection.send(login)
        expect(await next_message(connection) is None, f"{what}: the end without a word")
        await connection.drop()
    say("refused, without a word")


async def exchange(server, alice):
    echo = peer_id("echo")
    await alice.send(message(SUBSCRIBE, echo))
    expect(await next_message(alice) == message(PEERS_ONLINE, echo), "echo is online")
    for size in [0, 1, 125, 126, 1200, 1312, server.carrier.max_payload]:
        packet = message(TRANSPORT, echo, payload=os.urandom(size))
        await alice.send(packet)
        # The relay writes the source over the destination, and echo sends the payload back.
        expect(await next_message(alice) == packet, f"{size} bytes come back")
    packet = message(TRANSPORT, peer_id("alice"), payload=b"to oneself")
    await alice.send(packet)
    expect(await next_message(alice) == packet, "a packet to oneself")
    # Dropped, and the session goes on.
    await alice.send(message(TRANSPORT, peer_id("absent"), payload=b"to nobody"))
    await alice.send(message(TRANSPORT, b"too short"))
    await alice.send(auth("alice", token(server.secret, int(time.time()) + 60)))
    await alice.send(message(SUBSCRIBE, b"no id"))
    expect(await is_quiet(alice), "an absent peer, and what is malformed, has no answer")
    await alice.send(packet)
    expect(await next_message(alice) == packet, "and the session goes on")
    say("exchanged packets")


async def presence(server, alice):
    carol = peer_id("carol")
    await alice.send(message(SUBSCRIBE, carol, peer_id("absent")))
    expect(await is_quiet(alice), "nothing of who is not there")
    for turn in range(3):
        connection = await server.log_in("carol")
        if turn == 1:
            expect(await is_quiet(alice), "online comes once for each subscription")
        else:
            expect(await next_message(alice) == message(PEERS_ONLINE, carol), "carol has come")
        await connection.send(message(CLOSE))
        expect(await next_message(connection) is None, "a close is answered by the end")
        await connection.drop()
        expect(await next_message(alice) == message(PEERS_WENT_OFFLINE, carol), "carol has gone")
        if turn == 1:
            # As the real client does.
            await alice.send(message(UNSUBSCRIBE, carol))
            await alice.send(message(SUBSCRIBE, carol))
    await alice.send(message(UNSUBSCRIBE, carol))
    connection = await server.log_in("carol")
    expect(await is_quiet(alice), "nothing after the subscription")
    await connection.drop()
    say("told of coming and going")


async def takeover(server, alice):
    newer = await server.log_in("alice")
    expect(await next_message(alice) is None, "the older session ends without a word")
    await alice.drop()
    packet = message(TRANSPORT, peer_id("echo"), payload=b"newer")
    await newer.send(packet)
    expect(await next_message(newer) == packet, "packets come to the newer session")
    say("took over")
    return newer


async def health(connection, since):
    got = await next_message(connection, 30)
    passed = time.monotonic() - since
    expect(got == message(HEALTH_CHECK), f"a health check, not {got!r}")
    expect(24 < passed < 30, f"after 25 s, not {passed:.1f}")
    await connection.send(message(HEALTH_CHECK))
    say("answered a health check")


async def main(arguments):
    check_vectors()
    server = Server(*arguments)
    idle = await server.log_in("idle")
    since = time.monotonic()
    await refused(server)
    alice = await server.log_in("alice")
    say("logged in")
    await exchange(server, alice)
    await presence(server, alice)
    alice = await takeover(server, alice)
    await health(idle, since)
    await alice.send(message(CLOSE))
    expect(await next_message(alice) is None, "the end")
    say("left")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
