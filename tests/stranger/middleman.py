"""A stranger's client of middleman: written from a description of the wire and RFC 6455 alone,
without a look at the relay, with nothing but Python's standard library (websocket.py).

Is refused and let in, is a service and a client, publishes, asks and answers as the Python and the
JavaScript clients do, and is told what it may not do. Says each step; exits 1 where the broker does
something else.

    middleman.py HOST PORT SERVICE_KEY CLIENT_KEY
"""

import struct
import sys

import websocket
from websocket import BINARY, CLOSE, PING, PONG, TEXT, expect, say

DIGITS = set("0123456789abcdefghijklmnopqrstuv")


def written(command, target, headers=(), lines=(), end="\r\n"):
    """A message; a line of the body that is a dot, or begins with two, gets one more."""
    head = [f"{command} {target}"] + [f"{name}: {value}" for name, value in headers] + [""]
    body = ["." + line if line == "." or line.startswith("..") else line for line in lines]
    return end.join(head + body + [".", ""])


class Message:
    def __init__(self, text):
        expect(text.endswith("\r\n.\r\n"), f"the end of a message, not {text!r}")
        head, rest = text.split("\r\n\r\n", 1)
        top, *lines = head.split("\r\n")
        self.command, self.target = top.split(" ", 1)
        self.headers = [tuple(line.split(": ", 1)) for line in lines]
        body = rest[: -len("\r\n.\r\n")]
        lines = body.split("\n") if body else []
        self.lines = [line[1:] if line.startswith("..") else line for line in lines]

    def __repr__(self):
        return f"{self.command} {self.target} {self.headers} {self.lines}"

    def value(self, name):
        """Of a header spelled like this, which is there once."""
        values = [value for of, value in self.headers if of == name]
        expect(len(values) == 1, f"one {name} in {self}")
        return values[0]


class Connection(websocket.Connection):
    def __init__(self, host, port):
        super().__init__(host, port, "/whatever?x=y", "Origin: https://elsewhere.test")
        self.waiting = []

    def text(self):
        return self.waiting.pop(0) if self.waiting else super().text()

    def message(self):
        return Message(self.text())

    def error(self):
        message = self.message()
        expect((message.command, message.target) == ("PUB", "ERROR"), f"an error, not {message}")
        return message.lines

    def ended(self):
        """Whether the connection ends, with a close or without one."""
        got = self.receive()
        if got is not None and got[0] == CLOSE:
            self.send(got[1], CLOSE)
            got = self.receive()
        return got is None

    def synchronize(self):
        """Waits until the broker has read all that was sent; what comes meanwhile is read later."""
        # A pong may overtake what was read together with its ping.
        for _ in range(2):
            self.send(b"here", PING)
            while (got := self.receive()) != (PONG, b"here"):
                expect(got is not None and got[0] == TEXT, f"a text or a pong, not {got}")
                self.waiting.append(got[1].decode())

    def quiet(self):
        return not self.waiting and super().quiet()


class Broker:
    def __init__(self, host, port, keys):
        self.host, self.port = host, port
        self.service_key, self.client_key = keys

    def dial(self):
        return Connection(self.host, self.port)

    def log_in(self, key):
        connection = self.dial()
        connection.send(key)
        expect(connection.text() == "MM OK", "MM OK")
        connection.guid = connection.text()
        expect(len(connection.guid) == 20 and set(connection.guid) <= DIGITS, connection.guid)
        return connection

    def service(self, *messages):
        return self.told(self.log_in(self.service_key), messages)

    def client(self, *messages):
        return self.told(self.log_in(self.client_key), messages)

    def told(self, connection, messages):
        for top in messages:
            connection.send(written(*top.split(" ", 1)))
        connection.synchronize()
        return connection


def check_login(broker):
    for key in ["", "nope", broker.client_key + "\n", broker.client_key[:-1]]:
        connection = broker.dial()
        connection.send(key)
        expect(connection.ended(), f"{key!r} is no key")
    connection = broker.dial()
    connection.send(broker.client_key.encode(), BINARY)
    expect(connection.ended(), "a key is text")
    say("refused without a key")
    guids = {broker.client().guid for _ in range(20)}
    expect(len(guids) == 20, "each connection has a name of its own")
    say("let in by either key")


def check_grants(broker):
    client = broker.client("PUB Room")
    expect(client.error() == ["Not trusted PUB Room"], "a denial")
    client.send(written("SUB", "Room"))
    expect(client.error() == ["Not trusted: SUB Room"], "a denial with a colon")
    for command in ["EPUB", "ESUB", "EREQ"]:
        client.send(written(command, "Room"))
        expect(client.error() == [f"Not trusted {command} Room"], f"{command} is a service's")
    service = broker.service("PUB Room")
    expect(client.quiet(), "what was denied was not done")
    service.send(written("EPUB", "Room"))
    service.send(written("ESUB", "Room"))
    service.synchronize()
    client.send(written("SUB", "Room"))
    client.send(written("SUB", "Room"))
    client.send(written("PUB", "Room", lines=["mine"]))
    expect(client.message().lines == ["mine"], "who subscribes has its own")
    expect(client.quiet(), "one copy")
    say("denied until a service allows it")
    return service, client


def check_publications(broker, service, client):
    headers = [("room", "a"), ("x-MY-header", "  v  "), ("k", "1"), ("K", "2"), ("Cid", "forged")]
    lines = ["", "h\u00e9\u20ac", ".", "..", ".x", "...y", "", "end", ""]
    for end in ["\n", "\r\n"]:
        service.send(written("PUB", "Room", headers, lines, end))
        message = client.message()
        expect((message.command, message.target) == ("PUB", "Room"), f"{message}")
        expect(message.value("Cid") == service.guid, f"who it is from: {message}")
        expect(message.value("Uid") == "", f"{message}")
        own = [header for header in message.headers if header[0] not in ["Cid", "Uid"]]
        expect(own == [("Room", "a"), ("X-My-Header", "v"), ("K", "1"), ("K", "2")], f"{own}")
        expect(message.lines == lines, f"the same lines: {message.lines}")
    service.send(written("INT", "UID", [("forcid", client.guid), ("setuid", "u-42")]))
    service.synchronize()
    client.send(written("PUB", "Room"))
    expect(client.message().value("Uid") == "u-42", "the user that a service has set")
    service.send(written("PUB", "MSG:" + client.guid, lines=["to you"]))
    message = client.message()
    expect(message.target == "MSG:" + client.guid and message.lines == ["to you"], f"{message}")
    other = broker.client("PUB MSG:" + client.guid)
    expect(other.error() == ["Not trusted PUB MSG:" + client.guid], "clients write to no channel")
    expect(client.quiet(), "nor is it delivered")
    say("published with who it is from")


def check_requests(broker, client):
    client.send(written("REQ", "Sum", [("rid", "c-1")]))
    got = [client.message(), client.message()]
    expect(any(message.target == "ERROR" for message in got), f"{got}")
    one = broker.service("EREQ Sum")
    client.send(written("REQ", "Sum", [("rid", "c-1"), ("ReqID", "js-1"), ("cmd", "Add")], ["1 2"]))
    asked = one.message()
    expect((asked.command, asked.lines, asked.value("Cmd")) == ("REQ", ["1 2"], "Add"), f"{asked}")
    rid = asked.value("Rid")
    # As the Python services do: all headers in lower case, and their own.
    headers = [(name.lower(), value) for name, value in asked.headers] + [("sum", "3")]
    thief = broker.service("EREQ Sum")
    thief.send(written("RES", "Sum", [("rid", rid)], ["stolen"]))
    expect(thief.error() == ["No client for request ID  RES Sum"], "another was asked")
    one.send(written("RES", "Sum", headers, ["three"]))
    answer = client.message()
    expect((answer.command, answer.lines) == ("RES", ["three"]), f"{answer}")
    # The Python client looks for `rid`, the JavaScript client for `ReqID`.
    expect((answer.value("rid"), answer.value("ReqID")) == ("c-1", "js-1"), f"{answer}")
    expect(answer.value("Cid") == one.guid and answer.value("Sum") == "3", f"{answer}")
    one.send(written("RES", "Sum", headers, ["again"]))
    expect(one.error() == ["No client for request ID  RES Sum"], "it was answered")
    say("asked, and answered by who was asked")


def check_balance(broker, client):
    responders = [broker.service("EREQ Share") for _ in range(2)]
    for number in range(8):
        client.send(written("REQ", "Share", [("rid", str(number))]))
    client.synchronize()
    for responder in responders:
        for _ in range(4):
            asked = responder.message()
            responder.send(written("RES", "Share", [("rid", asked.value("Rid"))]))
    rids = {client.message().value("rid") for _ in range(8)}
    expect(rids == {str(number) for number in range(8)}, f"{rids}")
    say("requests are shared alike")

    for number in range(8):
        client.send(written("REQ", "Share", [("rid", str(number))]))
    client.synchronize()
    responders[0].socket.close()
    responders[0].file.close()
    failed = [client.message() for _ in range(8)]
    errors = [message for message in failed if message.target == "ERROR"]
    answers = [message for message in failed if message.command == "RES"]
    expect((len(errors), len(answers)) == (4, 4), f"{failed}")
    expect(all(answer.value("Error") for answer in answers), f"{answers}")
    say("a request fails with its responder")


def check_malformed(broker, client):
    for text in ["PUB Room\r\n\r\nx", "PUB\r\n\r\n.\r\n", "", "PUB Room\r\nnocolon\r\n\r\n.\r\n"]:
        connection = broker.client()
        connection.send(text)
        expect(connection.ended(), f"{text!r} is no message")
    connection = broker.client()
    connection.send(b"PUB Room\r\n\r\n.\r\n", BINARY)
    expect(connection.ended(), "messages are text")
    client.send(written("UNS", "Room"))
    client.send(written("pub", "Room"))
    client.synchronize()
    client.send(struct.pack("!H", 1000), CLOSE)
    expect(client.receive() == (CLOSE, struct.pack("!H", 1000)), "our code comes back")
    say("left")


def main():
    host, port, *keys = sys.argv[1:]
    broker = Broker(host, int(port), keys)
    check_login(broker)
    service, client = check_grants(broker)
    check_publications(broker, service, client)
    check_requests(broker, client)
    check_balance(broker, client)
    check_malformed(broker, client)


main()
