"""Crosses the example crypto_peer with implementations that nobody here wrote, header by header and element by element.

Usage: peers_check.py PATH_OF_crypto_peer [--libsignal DIRECTORY_OF_NODE_MODULES] [--rounds N] [--seed N]
       peers_check.py PATH_OF_crypto_peer --record FILE

Oldmemo and Twomemo are the two protocols of slixmpp-omemo; libsignal-client is Signal's library, which speaks what legacy
clients speak. In every round both sides have new identities and send each other bursts of messages, which come out of
order, up to two turns late, or not at all. What comes has to decrypt to what was sent; what comes again has to be refused.

With --record, a short conversation with Oldmemo is written down for the test `recorded`, which then needs no Oldmemo.
"""

import argparse
import asyncio
import base64
import json
import os
import random
import subprocess
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import oldmemo
import oldmemo.etree
import oldmemo.oldmemo
import omemo
import twomemo
import twomemo.etree
import twomemo.twomemo
import x3dh
from omemo.session import Initiation
from omemo.storage import Just, Nothing

OURS = ("ours@example.org", 11)
THEIRS = ("theirs@example.org", 22)
MINIMUM = 40


def b64(data):
    return base64.b64encode(data).decode()


def unb64(text):
    return base64.b64decode(text)


class Refused(Exception):
    pass


class Lines:
    """A program that answers lines of JSON."""

    def __init__(self, command, **environment):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )

    def call(self, op, **arguments):
        self.process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "err" in answer:
            raise Refused(answer["err"], answer["text"])
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Ours(Lines):
    """crypto_peer, talking to THEIRS in one protocol."""

    def __init__(self, path, protocol):
        super().__init__([path])
        self.other = {"protocol": protocol, "name": THEIRS[0], "dev": THEIRS[1]}
        self.protocol = protocol

    async def bundle(self):
        return self.call("bundle", protocol=self.protocol, n=3)

    async def start(self, bundle):
        process(self, bundle, self.other)

    async def enc(self, pt):
        answer = self.call("enc", pt=b64(pt), **self.other)
        return answer["kex"], unb64(answer["ct"])

    async def dec(self, kex, ct):
        return unb64(self.call("dec", kex=kex, ct=b64(ct), **self.other)["pt"])

    def seal(self, content):
        to = [list(THEIRS)]
        return self.call("seal", protocol=self.protocol, to=to, **{"from": OURS[0]}, content=content)["encrypted"]

    def open(self, encrypted):
        sender = {"from": THEIRS[0], "dev": THEIRS[1]}
        return self.call("open", protocol=self.protocol, encrypted=encrypted, **sender)["content"]


def process(peer, bundle, other):
    pkid, pk = bundle["pks"][0]
    keys = {name: bundle[name] for name in ("ik", "spkid", "spk", "sig")}
    peer.call("process", pkid=pkid, pk=pk, **keys, **other)


class Libsignal(Lines):
    protocol = "legacy"
    name = "libsignal-client"

    def __init__(self, modules):
        script = Path(__file__).with_name("libsignal_peer.js")
        super().__init__(["node", str(script)], NODE_PATH=str(modules))
        self.other = {"name": OURS[0], "dev": OURS[1]}

    async def bundle(self):
        return self.call("bundle", n=1)

    async def start(self, bundle):
        process(self, bundle, self.other)

    async def enc(self, pt):
        answer = self.call("enc", pt=b64(pt), **self.other)
        return answer["kex"], unb64(answer["ct"])

    async def dec(self, kex, ct):
        return unb64(self.call("dec", kex=kex, ct=b64(ct), **self.other)["pt"])


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


class Slixmpp:
    """What omemo.SessionManager does with a backend, without the network around it."""

    def __init__(self):
        self.backend = self.make()
        self.session = None
        self.pending = None

    async def bundle(self):
        await self.backend.generate_pre_keys(100 - await self.backend.get_num_visible_pre_keys())
        return self.bundle_keys(await self.backend.get_bundle(*THEIRS))

    async def enc(self, pt):
        material = self.module.PlainKeyMaterialImpl(pt[: self.split], pt[self.split :])
        return await self.encrypt(material)

    async def encrypt(self, material):
        if self.session is None:
            self.session, key = await self.backend.build_session_active(*OURS, self.pending, material)
        else:
            key = await self.backend.encrypt_key_material(self.session, material)
        if self.session.initiation is Initiation.ACTIVE and not self.session.confirmed:
            return True, self.write_exchange(self.session.key_exchange, key.serialize())
        return False, key.serialize()

    async def dec(self, kex, ct):
        material = await self.decrypt(kex, ct)
        return material.key + material.auth_tag

    async def decrypt(self, kex, ct):
        exchange = None
        if kex:
            exchange, ct = self.read_exchange(ct)
        key = self.module.EncryptedKeyMaterialImpl.parse(ct, *OURS)
        if exchange is not None and not (self.session and self.session.key_exchange.builds_same_session(exchange)):
            session, material = await self.backend.build_session_passive(*OURS, exchange, key)
            await self.backend.hide_pre_key(session)
            await self.backend.delete_hidden_pre_keys()
            self.session = session
        else:
            material = await self.backend.decrypt_key_material(self.session, key)
            self.session.confirm()
        return material

    async def start(self, bundle):
        self.pending = self.read_bundle(bundle)
        self.session = None

    def close(self):
        pass


class Oldmemo(Slixmpp):
    protocol = "legacy"
    name = "Oldmemo"
    module = oldmemo.oldmemo
    split = 16

    def make(self):
        return oldmemo.Oldmemo(Memory())

    def bundle_keys(self, bundle):
        element = oldmemo.etree.serialize_bundle(bundle)
        self.bundle_xml = ET.tostring(element, encoding="unicode")
        text = lambda name: element.find(f"{{{oldmemo.oldmemo.NAMESPACE}}}{name}").text
        prekeys = element.iter(f"{{{oldmemo.oldmemo.NAMESPACE}}}preKeyPublic")
        return {
            "ik": text("identityKey"),
            "spkid": bundle.signed_pre_key_id,
            "spk": text("signedPreKeyPublic"),
            "sig": text("signedPreKeySignature"),
            "pks": [(int(prekey.get("preKeyId")), prekey.text) for prekey in prekeys],
        }

    def meet(self, bundle):
        """A legacy identity lacks its sign, which Oldmemo takes from the bundle."""
        self.sign = bool(unb64(bundle["sig"])[63] >> 7)

    def read_bundle(self, bundle):
        xml = (
            "<bundle xmlns='eu.siacs.conversations.axolotl'>"
            f"<signedPreKeyPublic signedPreKeyId='{bundle['spkid']}'>{bundle['spk']}</signedPreKeyPublic>"
            f"<signedPreKeySignature>{bundle['sig']}</signedPreKeySignature>"
            f"<identityKey>{bundle['ik']}</identityKey><prekeys>"
            + "".join(f"<preKeyPublic preKeyId='{id}'>{key}</preKeyPublic>" for id, key in bundle["pks"])
            + "</prekeys></bundle>"
        )
        return oldmemo.etree.parse_bundle(ET.fromstring(xml), *OURS)

    def write_exchange(self, exchange, message):
        return exchange.serialize(message)[0]

    def read_exchange(self, ct):
        return self.module.KeyExchangeImpl.parse(ct, self.sign)

    async def seal(self, text):
        if text is None:
            content, material = await self.backend.encrypt_empty()
        else:
            content, material = await self.backend.encrypt_plaintext(text.encode())
        kex, ct = await self.encrypt(material)
        prekey = random.choice([" prekey='true'", " prekey='1'", ""]) if kex else ""
        payload = "" if content.empty else f"<payload>{b64(content.ciphertext)}</payload>"
        return (
            f"<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='{THEIRS[1]}'>"
            f"<key rid='{OURS[1]}'{prekey}>{b64(ct)}</key><iv>{b64(content.initialization_vector)}</iv></header>"
            f"{payload}</encrypted>"
        )

    async def open(self, xml):
        element = ET.fromstring(xml)
        oldmemo.etree.MESSAGE_SCHEMA.validate(element)
        ns = f"{{{oldmemo.oldmemo.NAMESPACE}}}"
        key = element.find(f"{ns}header/{ns}key")
        iv = unb64(element.find(f"{ns}header/{ns}iv").text)
        payload = element.find(f"{ns}payload")
        material = await self.decrypt(key.get("prekey", "false") in ("true", "1"), unb64(key.text))
        if payload is None:
            return None
        return (await self.backend.decrypt_plaintext(self.module.ContentImpl(unb64(payload.text), iv), material)).decode()


class Twomemo(Slixmpp):
    protocol = "omemo2"
    name = "Twomemo"
    module = twomemo.twomemo
    split = 32

    def make(self):
        return twomemo.Twomemo(Memory())

    def meet(self, bundle):
        pass

    def bundle_keys(self, bundle):
        keys = bundle.bundle
        return {
            "ik": b64(keys.identity_key),
            "spkid": bundle.signed_pre_key_id,
            "spk": b64(keys.signed_pre_key),
            "sig": b64(keys.signed_pre_key_sig),
            "pks": [(bundle.pre_key_ids[key], b64(key)) for key in keys.pre_keys],
        }

    def read_bundle(self, bundle):
        prekeys = {unb64(key): id for id, key in bundle["pks"]}
        keys = x3dh.Bundle(unb64(bundle["ik"]), unb64(bundle["spk"]), unb64(bundle["sig"]), frozenset(prekeys))
        return self.module.BundleImpl(*OURS, keys, bundle["spkid"], prekeys)

    def write_exchange(self, exchange, message):
        return exchange.serialize(message)

    def read_exchange(self, ct):
        return self.module.KeyExchangeImpl.parse(ct)


async def meet(ours, theirs, by_ours):
    bundle = await ours.bundle()
    if hasattr(theirs, "meet"):
        theirs.meet(bundle)
    if by_ours:
        await ours.start(await theirs.bundle())
    else:
        await theirs.start(bundle)


async def headers(ours, theirs, rng, counts, by_ours):
    """A conversation of bare headers with losses, reordering, repetition and restarts."""
    await meet(ours, theirs, by_ours)
    side = "ours" if by_ours else "theirs"
    peers = {"ours": (ours, theirs), "theirs": (theirs, ours)}
    late = {"ours": [], "theirs": []}
    done = []
    sent = Counter()

    async def deliver(side, message):
        kex, ct, pt = message
        assert await peers[side][1].dec(kex, ct) == pt, f"what {side} sent is not what came"
        counts[f"decrypted from {side}, {'with' if kex else 'without'} key exchange"] += 1
        if side == "theirs":
            done.append((kex, ct))

    turn = 0
    while turn < 12 or min(sent["ours"], sent["theirs"]) < MINIMUM:
        burst = []
        for _ in range(rng.randrange(1, 9)):
            sent[side] += 1
            pt = f"{side} {sent[side]} ".encode() + rng.randbytes(rng.randrange(16, 60))
            burst.append((*await peers[side][0].enc(pt), pt))
        rng.shuffle(burst)
        first = burst.pop()
        await deliver(side, first)
        held = []
        for message in burst:
            fate = rng.random()
            if fate < 0.1:
                counts["lost"] += 1
            elif fate < 0.3:
                held.append(message)
                counts["late"] += 1
            else:
                await deliver(side, message)
        for message in late[side]:
            await deliver(side, message)
        late[side] = held
        if done and rng.random() < 0.3:
            try:
                await ours.dec(*rng.choice(done))
                raise AssertionError("decrypted twice")
            except Refused as refused:
                assert refused.args[0] == "duplicate", refused
                counts["repetitions refused"] += 1
        if rng.random() < 0.2:
            ours.call("restart", protocol=ours.protocol)
            counts["restarts"] += 1
        if rng.random() < 0.7:
            side = "theirs" if side == "ours" else "ours"
        turn += 1


async def elements(ours, theirs, rng, counts, by_ours):
    """A conversation of whole elements, some of them empty, with those that have elements."""
    if not hasattr(theirs, "seal"):
        return
    await meet(ours, theirs, by_ours)
    sides = ["ours", "theirs"] if by_ours else ["theirs", "ours"]
    for number in range(8):
        for side in sides:
            text = f"{side} <{number}> & ü"
            if side == "ours":
                escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
                assert await theirs.open(ours.seal(f"<body xmlns='jabber:client'>{escaped}</body>")) == text
            else:
                content = ET.fromstring(ours.open(await theirs.seal(text)))
                assert (content.tag, content.text) == ("{jabber:client}body", text), content
                assert ours.open(await theirs.seal(None)) is None
                empty = ours.call("empty", **ours.other)["encrypted"]
                assert await theirs.open(empty) is None
            counts[f"elements from {side}"] += 1


async def crossing(ours, theirs, rng, counts, by_ours):
    """Both start a session at the same time, and both first messages cross: all that follows is readable."""
    await meet(ours, theirs, True)
    await theirs.start(await ours.bundle())
    from_ours, from_theirs = await ours.enc(b"a" * 32), await theirs.enc(b"b" * 32)
    assert await ours.dec(*from_theirs) == b"b" * 32
    assert await theirs.dec(*from_ours) == b"a" * 32
    for turn in range(4):
        text = f"turn {turn} of a healed session".encode()
        assert await theirs.dec(*await ours.enc(text)) == text
        assert await ours.dec(*await theirs.enc(text)) == text
    counts["crossing starts healed"] += 1


async def cross(path, make, rounds, rng):
    counts = Counter()
    for number in range(rounds):
        by_ours = number % 2 == 0
        for scene in (headers, elements, crossing):
            theirs = make()
            ours = Ours(path, theirs.protocol)
            await scene(ours, theirs, rng, counts, by_ours)
            ours.close()
            theirs.close()
    for side in ("ours", "theirs"):
        for kind in ("with", "without"):
            assert counts[f"decrypted from {side}, {kind} key exchange"] > 0, (side, kind, counts)
    print(f"{theirs.name} ({theirs.protocol})")
    for name, count in sorted(counts.items()):
        print(f"{count:8} {name}")


async def record(path, file):
    """The states of our device, and what Oldmemo sent to it in each."""
    ours, theirs = Ours(path, "legacy"), Oldmemo()
    await meet(ours, theirs, False)
    state = lambda: ours.call("state", protocol="legacy")["state"]
    steps = [{"state": state(), "messages": []}]
    rng = random.Random(1)
    for texts in (["first", "second", None, "fourth"], ["a new chain", "übersprungen"], [None]):
        messages = [{"xml": await theirs.seal(text), "text": text} for text in texts]
        number = json.loads(steps[-1]["state"])["id"]
        for message in messages:
            message["xml"] = message["xml"].replace(f"rid='{OURS[1]}'", f"rid='{number}'")
        rng.shuffle(messages)
        steps[-1]["messages"] = messages
        for message in messages:
            ours.open(message["xml"])
        await theirs.open(ours.seal("<body xmlns='jabber:client'>turn</body>"))
        steps.append({"state": state(), "messages": []})
    await theirs.bundle()
    recording = {"from": THEIRS[0], "bundle": theirs.bundle_xml, "steps": steps[:-1]}
    Path(file).write_text(json.dumps(recording, indent=1, ensure_ascii=False) + "\n")
    ours.close()


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--libsignal")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--record")
    arguments = parser.parse_args()
    if arguments.record:
        return await record(arguments.path, arguments.record)
    print(f"seed {arguments.seed}")
    rng = random.Random(arguments.seed)
    makers = [Oldmemo, Twomemo]
    if arguments.libsignal:
        makers.append(lambda: Libsignal(arguments.libsignal))
    for make in makers:
        # Each side starts the sessions of every other round.
        await cross(arguments.path, make, max(2, arguments.rounds), rng)


asyncio.run(main())
