"""What both strangers of keyop-messenger know: records, and how to make and look at them. Written from
a description of the wire alone, without a look at the relay."""

import json
import sys
import time
import uuid


def say(step):
    print(step, flush=True)


def expect(is_so, complaint):
    if not is_so:
        sys.exit(f"expected otherwise: {complaint}")


def record(channel, origin, payload, route=None):
    """A record as the original writes it, and its id."""
    name = str(uuid.uuid4())
    members = {
        "v": 1,
        "id": name,
        "ts": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "channel": channel,
        "origin": origin,
        "payload_type": "stranger",
    }
    if route is not None:
        members["route"] = route
    members["payload"] = payload
    return name, json.dumps(members, separators=(",", ":")).encode()


def without_route(envelope):
    return {name: value for name, value in json.loads(envelope).items() if name != "route"}
