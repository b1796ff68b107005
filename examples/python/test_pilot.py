"""Holds pilot.py against vectors.json: `python3 examples/python/test_pilot.py`."""

import base64
import json
import pathlib
import tempfile
import unittest

import ed25519
import pilot

VECTORS = json.loads(pathlib.Path(__file__).with_name("vectors.json").read_text())
SEED = bytes.fromhex(VECTORS["seed"])


class Vectors(unittest.TestCase):
    def test_public_key(self):
        self.assertEqual(base64.b64encode(ed25519.public_key(SEED)).decode(), VECTORS["public_key"])

    def test_key_file_is_read_with_its_mark_and_without(self):
        for mark in ("", "private-key:"):
            with tempfile.NamedTemporaryFile("w") as file:
                file.write(f"{mark}{base64.b64encode(SEED).decode()}\n")
                file.flush()
                self.assertEqual(pilot.read_key(file.name), SEED)

    def test_logins(self):
        for login in VECTORS["logins"]:
            options = {key: login[key] for key in ("relay_name", "require_relay_name") if key in login}
            arguments = (VECTORS["node"], SEED, login["challenge"], login["host"])
            with self.subTest(login["name"]):
                if "reply" in login:
                    reply = json.loads(pilot.log_in(*arguments, **options))
                    self.assertEqual(reply, login["reply"])
                else:
                    with self.assertRaises(pilot.Refused):
                        pilot.log_in(*arguments, **options)

    def test_relays(self):
        for relay in VECTORS["relays"]:
            with self.subTest(relay["name"]):
                payload = bytes.fromhex(relay["payload"])
                packet = pilot.encode_relay(relay["sender"], relay["dest"], payload)
                self.assertEqual(packet.hex(), relay["packet"])
        with self.assertRaises(ValueError):
            pilot.encode_relay(1, 2, bytes(pilot.MAX_PAYLOAD + 1))

    def test_deliveries(self):
        for delivery in VECTORS["deliveries"]:
            expected = None
            if "sender" in delivery:
                expected = (delivery["sender"], bytes.fromhex(delivery["payload"]))
            with self.subTest(delivery["name"]):
                found = pilot.decode_deliver(bytes.fromhex(delivery["packet"]))
                self.assertEqual(found, expected)


if __name__ == "__main__":
    unittest.main()
