"""Checks the crate against Twomemo, the OMEMO 2 implementation of slixmpp, message by message.

Usage: twomemo_check.py PATH_OF_THE_EXAMPLE_omemo2_lines [ROUNDS [SEED]]
       twomemo_check.py PATH_OF_THE_EXAMPLE_omemo2_lines --record FILE

In every round one device of the crate and one of Twomemo talk over a network that reorders, repeats and loses
messages. Everything that is delivered for the first time has to decrypt on the other side to what was sent, everything
that is delivered again has to be refused.

With --record, a short conversation is written down for the test `recorded`, which then needs no Twomemo.
"""

import asyncio
import json
import random
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter

import omemo
import twomemo
import twomemo.etree
from omemo.session import Initiation
from omemo.storage import Just, Nothing

OURS = ("ours@example.org", 11)
THEIRS = ("theirs@example.org", 22)


class Memory(omemo.Storage):
    def __init__(self):
        super().__init__()
        self.data = {}

    async def _load(self, key):
        return Just(self.data[key]) if key in self.data else Nothing()

    async def _store(self, key, value):
        self.data[key] = value

    async def _delete(self, key):
        self.data.pop(key, None)


class Ours:
    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.call("new", jid=OURS[0], id=OURS[1])

    def call(self, do, **arguments):
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["ok"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Theirs:
    """What omemo.SessionManager does with a backend, without the network around it."""

    def __init__(self):
        self.backend = twomemo.Twomemo(Memory())
        self.session = None

    async def bundle(self):
        await self.fill()
        bundle = await self.backend.get_bundle(*THEIRS)
        return ET.tostring(twomemo.etree.serialize_bundle(bundle), encoding="unicode")

    async def fill(self):
        await self.backend.generate_pre_keys(100 - await self.backend.get_num_visible_pre_keys())

    async def start(self, bundle_xml):
        self.pending = twomemo.etree.parse_bundle(ET.fromstring(bundle_xml), *OURS)
        self.session = None

    async def encrypt(self, text):
        if text is None:
            content, material = await self.backend.encrypt_empty()
        else:
            content, material = await self.backend.encrypt_plaintext(text.encode())
        if self.session is None:
            self.session, key = await self.backend.build_session_active(*OURS, self.pending, material)
        else:
            key = await self.backend.encrypt_key_material(self.session, material)
        initiating = self.session.initiation is Initiation.ACTIVE and not self.session.confirmed
        keys = frozenset({(key, self.session.key_exchange if initiating else None)})
        message = omemo.Message(twomemo.twomemo.NAMESPACE, *THEIRS, content, keys)
        return ET.tostring(twomemo.etree.serialize_message(message), encoding="unicode")

    async def decrypt(self, xml):
        message = twomemo.etree.parse_message(ET.fromstring(xml), OURS[0])
        ((key, exchange),) = message.keys
        if exchange is not None and not (self.session and self.session.key_exchange.builds_same_session(exchange)):
            session, material = await self.backend.build_session_passive(*OURS, exchange, key)
            await self.backend.hide_pre_key(session)
            await self.backend.delete_hidden_pre_keys()
            self.session = session
        else:
            material = await self.backend.decrypt_key_material(self.session, key)
            self.session.confirm()
        if message.content.empty:
            return None
        return (await self.backend.decrypt_plaintext(message.content, material)).decode()


async def one_round(path, rng, counts):
    ours, theirs = Ours(path), Theirs()
    if rng.random() < 0.5:
        ours.call("start", jid=THEIRS[0], id=THEIRS[1], bundle=await theirs.bundle())
        counts["sessions started by ours"] += 1
        first = "ours"
    else:
        await theirs.start(ours.call("bundle"))
        counts["sessions started by theirs"] += 1
        first = "theirs"

    flying = {"ours": [], "theirs": []}
    done = {"ours": [], "theirs": []}
    can_send = {first}
    sent = 0

    async def send(side):
        nonlocal sent
        sent += 1
        text = None if rng.random() < 0.15 else f"{side} {sent} " + "ä" * rng.randrange(40)
        if side == "ours":
            where = dict(jid=THEIRS[0], id=THEIRS[1])
            xml = ours.call("empty", **where) if text is None else ours.call("encrypt", text=text, **where)
        else:
            xml = await theirs.encrypt(text)
        flying[side].append((xml, text))
        counts[f"sent by {side}"] += 1

    async def read(side, xml):
        return await theirs.decrypt(xml) if side == "ours" else ours.call("decrypt", **{"from": THEIRS[0]}, message=xml)["text"]

    async def deliver(side):
        index = rng.randrange(len(flying[side])) if rng.random() < 0.4 else 0
        xml, text = flying[side].pop(index)
        if rng.random() < 0.05:
            counts["lost"] += 1
            return
        got = await read(side, xml)
        assert got == text, (side, got, text)
        counts[f"decrypted from {side}"] += 1
        can_send.add("theirs" if side == "ours" else "ours")
        done[side].append(xml)

    for _ in range(rng.randrange(10, 120)):
        side = rng.choice(["ours", "theirs"])
        action = rng.random()
        if action < 0.45 and side in can_send:
            for _ in range(rng.choice([1, 1, 1, 5, 60])):
                await send(side)
        elif action < 0.85 and flying[side]:
            for _ in range(rng.randrange(1, 8)):
                if flying[side]:
                    await deliver(side)
        elif action < 0.93 and done["theirs"]:
            try:
                ours.call("decrypt", **{"from": THEIRS[0]}, message=rng.choice(done["theirs"]))
                raise AssertionError("decrypted twice")
            except RuntimeError as error:
                assert str(error) == "duplicate", error
                counts["repetitions refused"] += 1
        else:
            ours.call("restart")
            counts["restarts"] += 1
    for side in flying:
        while flying[side]:
            await deliver(side)
    ours.close()


async def crossing(path, counts):
    """Both start a session at the same time, and both lists of messages cross: content is readable afterwards."""
    ours, theirs = Ours(path), Theirs()
    where = dict(jid=THEIRS[0], id=THEIRS[1])
    ours.call("start", bundle=await theirs.bundle(), **where)
    await theirs.start(ours.call("bundle"))
    from_ours, from_theirs = ours.call("encrypt", text="a", **where), await theirs.encrypt("b")
    assert ours.call("decrypt", **{"from": THEIRS[0]}, message=from_theirs)["text"] == "b"
    assert await theirs.decrypt(from_ours) == "a"
    for turn in range(4):
        assert await theirs.decrypt(ours.call("encrypt", text=f"c{turn}", **where)) == f"c{turn}"
        answer = ours.call("decrypt", **{"from": THEIRS[0]}, message=await theirs.encrypt(f"d{turn}"))
        assert answer["text"] == f"d{turn}"
    counts["crossing starts healed"] += 1
    ours.close()


async def record(path, file):
    """The states of our device, and what Twomemo sent to it in each."""
    ours, theirs = Ours(path), Theirs()
    where = dict(jid=THEIRS[0], id=THEIRS[1])
    await theirs.start(ours.call("bundle"))
    steps = [{"state": ours.call("state"), "messages": []}]
    for texts in (["first", "second", None, "fourth"], ["a new chain", "übersprungen"], [None]):
        messages = [{"xml": await theirs.encrypt(text), "text": text} for text in texts]
        rng = random.Random(1)
        rng.shuffle(messages)
        steps[-1]["messages"] = messages
        for message in messages:
            ours.call("decrypt", **{"from": THEIRS[0]}, message=message["xml"])
        await theirs.decrypt(ours.call("encrypt", text="turn", **where))
        steps.append({"state": ours.call("state"), "messages": []})
    bundle = await theirs.bundle()
    with open(file, "w") as out:
        json.dump({"from": THEIRS[0], "bundle": bundle, "steps": steps[:-1]}, out, indent=1, ensure_ascii=False)
        out.write("\n")
    ours.close()


async def main():
    path = sys.argv[1]
    if sys.argv[2:3] == ["--record"]:
        return await record(path, sys.argv[3])
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    counts = Counter()
    for _ in range(rounds):
        await one_round(path, rng, counts)
    for _ in range(max(1, rounds // 10)):
        await crossing(path, counts)
    for name, count in sorted(counts.items()):
        print(f"{count:8} {name}")


asyncio.run(main())
