"""A node of the Pilot overlay at a relay: logs in over WebSocket, sends and receives.

Needs Python 3.11 or later and the package websockets (`pip install websockets`). A library of one
file with ed25519.py next to it, and a program that says hello to another node once a second until
that says hello as well:

    python3 examples/python/pilot.py ws://127.0.0.1:8443 4242 alice.key 4243
    python3 examples/python/pilot.py ws://127.0.0.1:8443 4243 bob.key 4242

`beacon-relay keygen --out alice.key` makes such a key. Sections are those of
docs/SPEC-compat-mode.md; vectors.json has what must come out, which test_pilot.py checks.
"""

import asyncio
import base64
import contextlib
import json
import re
import struct
import sys
from urllib.parse import urlsplit

import ed25519
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

PATH = "/v1/compat"
RELAY, DELIVER, DELIVER_DEST = 5, 6, 9  # 2
MAX_MESSAGE = 65_536  # 4.2
MAX_PAYLOAD = MAX_MESSAGE - 9  # 2.5: type, sender, destination
LOGIN_S = 25  # a relay holds back logins of a node whose sessions replace each other


class Refused(Exception):
    """The relay did not let the node in, or must not be answered."""


def log_in(node, seed, challenge, host, relay_name=None, require_relay_name=False):
    """The reply to a challenge, as a text (4.2).

    `seed` is the 32 bytes of the node's key, `host` what was dialled. Raises Refused where the
    challenge could be that of another relay: a signature opens a session at whichever made it.
    """
    try:
        challenge = json.loads(challenge)
        if challenge["type"] != "auth_challenge":
            raise KeyError("type")
        nonce, ts, relay = challenge["nonce"], challenge.get("ts"), challenge.get("relay")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused("the server is no relay: it sent no challenge") from error
    if not isinstance(nonce, str) or not re.fullmatch("[0-9a-fA-F]{64}", nonce):
        raise Refused("the challenge holds no nonce of 64 hex digits: not signed")
    if ts is not None and (type(ts) is not int or ts < 0):
        raise Refused("the challenge holds a time that is no whole number: not signed")
    if relay is not None and (ts is None or not isinstance(relay, str)):
        raise Refused("the challenge is none of any generation: not signed")
    parts = ["compat_auth", str(node)] + ([str(ts)] if ts is not None else [])
    if relay is not None:
        names = [name.lower() for name in (host, relay_name) if name]
        if relay.lower() not in names:
            raise Refused(f"the challenge is that of the relay {relay!r}, but {host!r} was dialled: not signed")
        parts.append(relay)
    elif require_relay_name:
        raise Refused("the challenge does not name its relay: not signed")
    signature = ed25519.sign(seed, ":".join([*parts, nonce]).encode())
    reply = {
        "type": "auth_reply",
        "node_id": node,
        "public_key": base64.b64encode(ed25519.public_key(seed)).decode(),
        "sig": base64.b64encode(signature).decode(),
    }
    if relay is not None:
        reply["gen"] = 3
    reply["max_message"] = MAX_MESSAGE
    return json.dumps(reply, separators=(",", ":"))


def encode_relay(sender, dest, payload):
    """A payload for another node (2.5)."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"{len(payload)} bytes are more than {MAX_PAYLOAD}")
    return struct.pack("!BII", RELAY, sender, dest) + payload


def decode_deliver(packet):
    """The sender and the payload of a delivery; None for any other packet (2.5)."""
    heads = {DELIVER: 5, DELIVER_DEST: 9}
    head = heads.get(packet[0] if packet else None)
    if head is None or len(packet) < head:
        return None
    (sender,) = struct.unpack_from("!I", packet, 1)
    return (sender, packet[head:]) if sender else None


class Client:
    """One session with a relay. Packets may be lost on the way, as datagrams may."""

    def __init__(self, websocket, node):
        self.websocket, self.node = websocket, node

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, url, node, seed, relay_name=None, require_relay_name=False, **more):
        """Dials and logs in; leaves with a bye. `more` goes to websockets' connect, such as `ssl`."""
        parts = urlsplit(url if "://" in url else f"wss://{url}")
        if parts.path in ("", "/"):
            parts = parts._replace(path=PATH)
        settings = {"subprotocols": ["pilot.v1"], "compression": None, "max_size": MAX_MESSAGE}
        async with connect(parts.geturl(), **settings, **more) as websocket:
            try:
                async with asyncio.timeout(LOGIN_S):
                    challenge = await websocket.recv()
                    host = parts.hostname
                    reply = log_in(node, seed, challenge, host, relay_name, require_relay_name)
                    await websocket.send(reply)
                    verdict = json.loads(await websocket.recv())
            except ConnectionClosed as error:
                raise Refused(f"the relay refused the login: {error}") from error
            if verdict.get("type") != "auth_ok":
                raise Refused("the server is no relay: it sent something else than an acceptance")
            yield cls(websocket, node)
            await websocket.send(json.dumps({"type": "bye"}))  # 4.5
            with contextlib.suppress(ConnectionClosed, TimeoutError):
                async with asyncio.timeout(1):
                    await websocket.wait_closed()

    async def send(self, dest, payload):
        """Sends a payload of at most MAX_PAYLOAD bytes to a node; waits while the socket is full."""
        await self.websocket.send(encode_relay(self.node, dest, payload))

    async def recv(self):
        """Waits for the next delivery: the sender's id, and the payload. Raises ConnectionClosed
        when the session is over."""
        while True:
            message = await self.websocket.recv()
            # Text after the login is of later versions (4.5).
            delivery = decode_deliver(message) if isinstance(message, bytes) else None
            if delivery:
                return delivery


def read_key(path):
    """The seed in a key file, as `beacon-relay keygen --out` writes it."""
    with open(path, encoding="utf-8-sig") as file:
        seed = file.read(256).strip().removeprefix("private-key:")
    seed = base64.b64decode(seed.strip(), validate=True)
    if len(seed) != 32:
        raise ValueError(f"{path} is no key file: it must hold 32 bytes in base64")
    return seed


async def greet(url, node, key, friend):
    """Greets the friend until it greets as well: what the friend said."""
    async with Client.connect(url, node, read_key(key)) as client:
        print(f"connected as node {node}", file=sys.stderr)

        async def repeat():
            while True:
                await client.send(friend, b"hello")  # nobody hears it who is not there yet
                await asyncio.sleep(1)

        repeating = asyncio.create_task(repeat())
        sender = None
        while sender != friend:
            sender, said = await client.recv()
        repeating.cancel()
        await client.send(friend, b"hello")
    return said.decode(errors="replace")


def main():
    if len(sys.argv) != 5:
        sys.exit("usage: pilot.py URL NODE_ID KEY_FILE FRIENDS_NODE_ID")
    url, node, key, friend = sys.argv[1:]
    said = asyncio.run(greet(url, int(node), key, int(friend)))
    print(f"node {friend} said {said!r}", file=sys.stderr)


if __name__ == "__main__":
    main()
