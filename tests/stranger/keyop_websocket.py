"""A stranger's client of keyop-messenger over WebSocket, of the generation up to v1.4.1: written from a
description of the wire alone, with the library websockets.

Says hello, answers each record of `orders` with one on `replies`, and leaves when it is told to. Says
each step; exits 1 where the hub does something else.

    keyop_websocket.py HOST PORT NAME_OF_HUB CA CERTIFICATE KEY
"""

import json
import ssl
import struct
import sys

from keyop import expect, record, say
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

SECONDS = 20


def message(records):
    return b"".join(struct.pack(">I", len(one)) + one for one in records)


def split(batch):
    records = []
    while batch:
        (length,) = struct.unpack(">I", batch[:4])
        expect(len(batch) >= 4 + length, "a batch that ends within a record")
        records.append(batch[4 : 4 + length])
        batch = batch[4 + length :]
    return records


def ack(name):
    return json.dumps({"last_id": name}, separators=(",", ":"))


class Hub:
    def __init__(self, host, port, name, authority, certificate, key):
        self.uri = f"wss://{host}:{port}/"
        self.name = name
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.context.load_verify_locations(authority)
        self.context.load_cert_chain(certificate, key)

    def connect(self):
        return connect(
            self.uri,
            ssl=self.context,
            server_hostname=self.name,
            compression=None,
            open_timeout=SECONDS,
            ping_interval=None,
            max_size=None,
        )


def refused(hub):
    for hello in (b"{}", "nope", "[]"):
        with hub.connect() as socket:
            socket.send(hello)
            try:
                socket.recv(timeout=SECONDS)
                expect(False, f"an answer to {hello}")
            except ConnectionClosed:
                pass
    say("refused without a word")


class Session:
    """Batches and acknowledgements of both directions come in any order."""

    def __init__(self, socket):
        self.socket = socket
        self.batches = []
        self.acks = []

    def take(self):
        text = self.socket.recv(timeout=SECONDS)
        if isinstance(text, bytes):
            self.batches.append(split(text))
        else:
            self.acks.append(json.loads(text)["last_id"])

    def batch(self):
        while not self.batches:
            self.take()
        return self.batches.pop(0)

    def published(self, records):
        self.socket.send(message(records))
        while not self.acks:
            self.take()
        return self.acks.pop(0)


def main(host, port, name, *files):
    hub = Hub(host, port, name, *files)
    refused(hub)
    with hub.connect() as socket:
        hello = {"instance_name": "websocket", "role": "client", "version": "1", "subscribe": ["orders"]}
        socket.send(json.dumps(hello, separators=(",", ":")))
        answer = socket.recv(timeout=SECONDS)
        known = json.dumps({"instance_name": name, "role": "hub", "version": "1"}, separators=(",", ":"))
        expect(answer == known, f"the hub's first message: {answer}")
        session = Session(socket)
        # One of our own comes back, since it has no route: we are subscribed.
        first, probe = record("orders", "websocket", "probe")
        expect(session.published([probe]) == first, "an acknowledgement of the probe")
        records = session.batch()
        expect(json.loads(records[0])["id"] == first, "another record than the probe")
        socket.send(ack(first))
        expect(session.published([probe]) == "", "an acknowledgement without an id of what is known")
        expect(session.published([]) == "", "an acknowledgement of nothing")
        say("subscribed")

        count = 0
        is_over = False
        while not is_over:
            records = session.batch()
            answers = []
            for one in records:
                envelope = json.loads(one)
                expect(envelope["route"] == ["grpc", name], f"the way of {envelope}")
                is_over = envelope["payload"] == "leave"
                if not is_over:
                    answers.append(record("replies", "websocket", envelope["payload"]))
            if answers:
                last = session.published([one for _, one in answers])
                expect(last == answers[-1][0], "an acknowledgement of the answers")
            socket.send(ack(json.loads(records[-1])["id"]))
            count += len(records)
        expect(count == 21, f"{count} records")
        say("answered all that came, once")
    say("left")


if __name__ == "__main__":
    main(*sys.argv[1:])
