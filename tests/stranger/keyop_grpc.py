"""A stranger's client of keyop-messenger over gRPC: written from a description of the wire alone, with
grpcio and messages that are encoded by hand.

Checks the recorded bytes and statuses, publishes to `orders`, gets the answers of another peer on
`replies` in order and once, and comes back for what it has not acknowledged. Says each step; exits 1
where the hub does something else.

    keyop_grpc.py HOST PORT NAME_OF_HUB CA CERTIFICATE KEY
"""

import itertools
import json
import queue
import sys
import threading

import grpc
from keyop import expect, record, say, without_route

SERVICE = "/federation.v1.FederationService/"
RECORDS = 20
SECONDS = 20


def varint(number):
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def field(number, value):
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(message):
    """Those of bytes, as pairs of number and value; nothing else is expected."""
    at = 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    found = []
    while at < len(message):
        tag = number()
        expect(tag & 7 == 2, f"a field of type {tag & 7}")
        length = number()
        found.append((tag >> 3, message[at : at + length]))
        at += length
    expect(at == len(message), "a field that ends behind its message")
    return found


def subscribe_request(channels):
    request = field(1, b"1") + b"".join(field(2, channel.encode()) for channel in channels)
    return field(1, request)


def check_vectors():
    """So that a refused message is not the fault of its bytes."""
    known = "0a130a013112066f72646572731206616c65727473"
    expect(subscribe_request(["orders", "alerts"]).hex() == known, "a request to subscribe")
    say("vectors hold")


class Call:
    """A stream of messages in both directions."""

    def __init__(self, channel, method):
        self.outgoing = queue.Queue()
        call = channel.stream_stream(SERVICE + method)
        self.incoming = call(iter(self.outgoing.get, None), timeout=SECONDS)
        self.first = None

    def send(self, message):
        self.outgoing.put(message)

    def receive(self):
        return next(self.incoming)

    def receives_within(self, seconds):
        """Whether the first message comes, which `receive` returns then."""
        if self.first is None:
            self.first = queue.Queue()
            threading.Thread(target=lambda: self.first.put(next(self.incoming)), daemon=True).start()
        try:
            message = self.first.get(timeout=seconds)
        except queue.Empty:
            return False
        self.incoming = itertools.chain([message], self.incoming)
        return True

    def end(self):
        self.outgoing.put(None)

    def status(self):
        """How the hub ends it."""
        try:
            for _ in self.incoming:
                expect(False, "a message where the call ends")
        except grpc.RpcError:
            pass
        return self.incoming.code(), self.incoming.details()


class Hub:
    def __init__(self, host, port, name, authority, certificate, key):
        self.address = f"{host}:{port}"
        files = [open(path, "rb").read() for path in (authority, key, certificate)]
        self.credentials = grpc.ssl_channel_credentials(*files)
        self.options = [("grpc.ssl_target_name_override", name)]

    def connect(self):
        options = self.options + [("grpc.use_local_subchannel_pool", 1)]
        return grpc.secure_channel(self.address, self.credentials, options)


def refused(hub):
    with hub.connect() as channel:
        call = Call(channel, "Nope")
        expected = "unknown method Nope for service federation.v1.FederationService"
        expect(call.status() == (grpc.StatusCode.UNIMPLEMENTED, expected), "an unknown method")
        call.end()
        call = Call(channel, "Subscribe")
        call.send(field(2, field(1, b"x")))
        expected = "first frame must be SubscribeRequest"
        expect(call.status() == (grpc.StatusCode.INVALID_ARGUMENT, expected), "an early ack")
        call.end()
        call = Call(channel, "Publish")
        call.send(b"\x0a\xff")
        expected = "grpc: failed to unmarshal the received message: proto: cannot parse invalid wire-format data"
        expect(call.status() == (grpc.StatusCode.INTERNAL, expected), "a malformed message")
        call.end()
    say("refused with the recorded statuses")


def published(call, records):
    """Publishes a batch; the id that acknowledges it."""
    call.send(b"".join(field(1, one) for one in records))
    ack = fields(call.receive())
    return ack[0][1].decode() if ack else ""


def batch(call):
    """The records of the next batch."""
    message = fields(call.receive())
    expect([number for number, _ in message] == [1], "a frame that is no batch")
    return [one for _, one in fields(message[0][1])]


def acknowledge(call, one):
    call.send(field(2, field(1, json.loads(one)["id"].encode())))


def subscribed(channel, publish):
    """Subscribes, and waits until that holds: records of our own come back, since their routes do not
    name us."""
    subscribe = Call(channel, "Subscribe")
    subscribe.send(subscribe_request(["replies"]))
    name = None
    while name is None or not subscribe.receives_within(0.1):
        name, probe = record("replies", "grpc", "probe")
        expect(published(publish, [probe]) == name, "an acknowledgement of the probe")
    got = None
    while got != without_route(probe):
        records = batch(subscribe)
        got = without_route(records[-1])
        expect(got["payload"] == "probe", f"another record than a probe: {got}")
        acknowledge(subscribe, records[-1])
    return subscribe


def main(host, port, name, *files):
    check_vectors()
    hub = Hub(host, port, name, *files)
    refused(hub)

    channel = hub.connect()
    publish = Call(channel, "Publish")
    subscribe = subscribed(channel, publish)
    say("subscribed")

    orders = [record("orders", "grpc", number, ["grpc"]) for number in range(RECORDS)]
    for half in (orders[: RECORDS // 2], orders[RECORDS // 2 :]):
        expect(published(publish, [one for _, one in half]) == half[-1][0], "the last record's id")
    again = [one for _, one in orders[-3:]]
    expect(published(publish, again) == "", "no id where all are known")
    say("published, and known when published again")

    got = []
    while len(got) < RECORDS - 1:
        records = batch(subscribe)
        got += records
        if len(got) < RECORDS:
            acknowledge(subscribe, records[-1])
    if len(got) < RECORDS:
        records = batch(subscribe)
        got += records
    numbers = [json.loads(one)["payload"] for one in got]
    expect(numbers == list(range(RECORDS)), f"answers {numbers}")
    for one in got:
        envelope = json.loads(one)
        expect(envelope["origin"] == "websocket" and envelope["route"][-1] == name, f"{envelope}")
    say("got the answers in order, once")

    # The last batch is not acknowledged.
    channel.close()
    channel = hub.connect()
    publish = Call(channel, "Publish")
    subscribe = Call(channel, "Subscribe")
    subscribe.send(subscribe_request(["replies"]))
    expect(batch(subscribe) == records, "another batch than the one without acknowledgement")
    acknowledge(subscribe, records[-1])
    say("came back for what it had not acknowledged")

    name, last = record("orders", "grpc", "leave", ["grpc"])
    expect(published(publish, [last]) == name, "an acknowledgement of the last")
    publish.end()
    expect(publish.status()[0] == grpc.StatusCode.OK, "the end of a call that was ended")
    channel.close()
    say("left")


if __name__ == "__main__":
    main(*sys.argv[1:])
