"""A stranger's client of peerbus: written from a description of the wire and RFC 6455 alone, without
a look at the relay, with nothing but Python's standard library.

Checks the recorded bytes and codes, is refused and let in, sends and receives, signs and verifies,
comes back for what it missed, broadcasts, and takes its own name over. Says each step; exits 1
where the broker does something else.

    peerbus.py HOST PORT TOKEN OTHER_TOKEN SECRET
"""

import hashlib
import hmac
import json
import os
import struct
import sys

import websocket
from websocket import CLOSE, PING, PONG, expect, say

MAX_MESSAGE = 1_048_576


def escaped(text):
    """JSON text with what HTML would take for its own as escapes."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def compact(value):
    return escaped(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


MEMBERS = ["protocol_version", "id", "from", "to", "ts", "source", "kind"]


def canonical(envelope, body):
    """What is signed: seven strings and the body, which is JSON text already."""
    texts = [f'"{name}":{compact(envelope[name])}' for name in MEMBERS]
    return "{" + ",".join(texts) + f',"body":{body}' + "}"


def sign(secret, text):
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def written(secret, envelope, body):
    text = canonical(envelope, body)
    return text[:-1] + f',"hmac":"{sign(secret, text)}"' + "}"


def check_vectors():
    """So that a refused message is not the fault of its code."""
    secret = "peerbus-test-peerbus-test-peerbu"
    envelope = dict(zip(MEMBERS, ["v1", "m1", "bob", "alice", "t", "peer-bus", "msg"]))
    text = canonical(envelope, compact({"hi": 1}))
    known = '{"protocol_version":"v1","id":"m1","from":"bob","to":"alice","ts":"t","source":"peer-bus","kind":"msg","body":{"hi":1}}'
    expect(text == known, f"m1: {text}")
    code = "a0625dd3949ec949ab29f1e7a771308b7c8ed0d60c1e01f08af287e0323a8e32"
    expect(sign(secret, text) == code, "the code of m1")
    envelope = dict(zip(MEMBERS, ["v1", "m4", "bob", "*", "t", "<&>", "broadcast"]))
    text = canonical(envelope, escaped('{"b":"<x&y>\u2028\u2029","a":[1.0,1e3]}'))
    code = "46df7541077c02e879fa6967d40fc088c2f598afbc0dc4ee299d484628a623c0"
    expect(sign(secret, text) == code, f"the code of m4: {text}")
    say("vectors hold")


class Broker:
    def __init__(self, host, port, secret):
        self.host, self.port, self.secret = host, port, secret

    def dial(self):
        return Connection(self)

    def register(self, token, name):
        """A peer that is let in, and whom it was told is connected."""
        peer = self.dial()
        peer.name = name
        peer.frame(protocol_version="v1", type="register", token=token, name=name)
        names = peer.peers()
        expect(name in names, f"{name} is not among {names}")
        return peer

    def refused(self, *frame):
        """The code and the reason of the close that answers this frame."""
        peer = self.dial()
        peer.send(frame[0].encode())
        return peer.closed()


class Connection(websocket.Connection):
    def __init__(self, broker):
        super().__init__(broker.host, broker.port, "/any/path", "Sec-WebSocket-Protocol: mcp")
        self.secret = broker.secret

    def frame(self, **members):
        self.send(json.dumps(members).encode())

    def receive(self):
        got = super().receive()
        expect(got is None or len(got[1]) <= MAX_MESSAGE, "no message is longer")
        return got

    def closed(self):
        got = self.receive()
        expect(got is not None and got[0] == CLOSE, f"a close, not {got}")
        payload = got[1]
        code = struct.unpack("!H", payload[:2])[0] if payload else None
        self.send(payload, CLOSE)
        return code, payload[2:].decode()

    def peers(self):
        text = self.text()
        frame = json.loads(text)
        expect(list(frame) == ["protocol_version", "type", "names"], f"peers, not {text}")
        expect((frame["protocol_version"], frame["type"]) == ("v1", "peers"), text)
        names = frame["names"]
        expect(names == sorted(names, key=str.encode), f"sorted names, not {names}")
        return names

    def tell(self, to, body, id=None):
        id = id or os.urandom(16).hex()
        kind = "broadcast" if to == "*" else "msg"
        ts = "2026-05-18T12:00:00Z"
        values = ["v1", id, self.name, to, ts, "stranger", kind]
        envelope = dict(zip(MEMBERS, values))
        self.send(written(self.secret, envelope, compact(body)).encode())
        return id

    def delivery(self, sender):
        """The next message, verified: its key, its id and its body."""
        text = self.text()
        head = '{"protocol_version":"v1","type":"deliver","delivery_key":'
        expect(text.startswith(head), f"a delivery, not {text}")
        key, end = json.JSONDecoder().raw_decode(text[len(head):])
        rest = text[len(head) + end:]
        expect(rest.startswith(',"envelope":{') and rest.endswith("}}"), text)
        encoded = rest[len(',"envelope":'):-1]
        signed, code = encoded.rsplit(',"hmac":"', 1)
        expect(code == sign(self.secret, signed + "}") + '"}', f"the code of {encoded}")
        envelope = json.loads(encoded)
        expect(list(envelope) == MEMBERS + ["body", "hmac"], f"nine members, not {encoded}")
        expect(envelope["from"] == sender, f"a message of {sender}, not {encoded}")
        return key, envelope["id"], envelope["body"]

    def ack(self, key):
        self.frame(protocol_version="v1", type="ack", id=key)

    def synchronize(self):
        """Waits until the broker has read all that was sent: it answers in order."""
        self.frame(type="peers")
        return self.peers()

    def leave(self):
        self.send(struct.pack("!H", 1000), CLOSE)
        code, _reason = self.closed()
        expect(code == 1000, f"our code comes back, not {code}")
        self.file.close()
        self.socket.close()


def check_refusals(broker, token):
    register = {"protocol_version": "v1", "type": "register", "token": token, "name": "nobody"}
    for change, code, reason in [
        ({"token": "not " + token}, 1008, "invalid bearer token"),
        ({"name": ""}, 1008, "empty peer name"),
        ({"name": 5}, 1007, "malformed handshake"),
        ({"protocol_version": "v2"}, 1008, "unsupported protocol version"),
        ({"type": "peers"}, 1008, "first frame must be register"),
    ]:
        refused = broker.refused(json.dumps(register | change))
        expect(refused == (code, reason), f"{change} is {refused}")
    say("refused with the reason")


def check_messages(broker, token):
    alice = broker.register(token, "alice")
    bob = broker.register(token, "bob")
    alice.frame(protocol_version="v1", type="peers", names=None)
    names = alice.peers()
    expect({"alice", "bob"} <= set(names), f"who is connected: {names}")
    say("registered")

    body = {"text": "<b>&\u2028 é \U0001f600", "n": [1, -2, {"x": None}], "t": True}
    id = bob.tell("alice", body)
    key, got, read = alice.delivery("bob")
    expect((key, got, read) == (id, id, body), f"{key} {got} {read}")
    alice.ack(key)
    id = alice.tell("alice", "to myself")
    key, got, read = alice.delivery("alice")
    expect((got, read) == (id, "to myself"), f"{got} {read}")
    alice.ack(key)
    say("delivered and verified")

    for frame in ["not json", "[1]", "{}", '{"type":"bogus"}', '{"id":"k1","to":"*","kind":"msg"}']:
        bob.send(frame.encode())
    bob.tell("nobody-ever", 1)
    bob.synchronize()
    expect(alice.quiet(), "what is wrong goes nowhere")
    say("bad frames are survived")
    return alice, bob


def check_offline(broker, token, alice, bob):
    unanswered = bob.tell("alice", "unanswered")
    expect(alice.delivery("bob")[1] == unanswered, "a delivery")
    alice.leave()
    missed = [bob.tell("alice", number) for number in range(5)]
    bob.synchronize()
    alice = broker.register(token, "alice")
    wanted = [unanswered] + missed
    got = [alice.delivery("bob") for _ in wanted]
    expect([id for _key, id, _body in got] == wanted, f"{wanted}, not {got}")
    for key, _id, _body in got:
        alice.ack(key)
    alice.synchronize()
    alice.leave()
    alice = broker.register(token, "alice")
    expect(alice.quiet(), "what was acknowledged does not come again")
    say("queued while away, in order, once")
    return alice


def check_broadcast(broker, token, alice, bob):
    carol = broker.register(token, "carol")
    id = alice.tell("*", {"all": True})
    for peer in [bob, carol]:
        key, got, body = peer.delivery("alice")
        expect((key, got) == (f"{id}|{peer.name}", id), f"the copy of {peer.name} is {key}")
        expect(body == {"all": True}, f"{body}")
        peer.ack(key)
        peer.synchronize()
    expect(alice.quiet(), "who broadcasts gets no copy")
    dave = broker.register(token, "dave")
    expect(dave.quiet(), "who comes later gets no copy")
    for peer in [carol, dave]:
        peer.leave()
    say("broadcast to who is connected")


def check_takeover(broker, token, other, alice, bob):
    newer = broker.register(token, "alice")
    expect(alice.receive() is None, "the older connection is cut without a close")
    id = bob.tell("alice", "to the newer")
    key, got, _body = newer.delivery("bob")
    expect(got == id, f"{got}")
    newer.ack(key)
    stolen = {"protocol_version": "v1", "type": "register", "token": other, "name": "alice"}
    refused = broker.refused(json.dumps(stolen))
    expect(refused == (1008, "name claimed under a different token"), f"{refused}")
    say("taken over by its owner alone")
    for peer in [newer, bob]:
        peer.send(b"hello", PING)
        expect(peer.receive() == (PONG, b"hello"), "a pong with the same payload")
        peer.leave()
    say("left")


def main():
    host, port, token, other, secret = sys.argv[1:]
    check_vectors()
    broker = Broker(host, int(port), secret)
    check_refusals(broker, token)
    alice, bob = check_messages(broker, token)
    alice = check_offline(broker, token, alice, bob)
    check_broadcast(broker, token, alice, bob)
    check_takeover(broker, token, other, alice, bob)


main()
