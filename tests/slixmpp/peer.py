"""One device of one account on slixmpp and slixmpp-omemo, driven by lines of JSON: an OMEMO client that nobody here wrote.

Usage: peer.py JID/RESOURCE PASSWORD PORT STORAGE_FILE

Commands, one object a line on standard input:
    {"send": TEXT, "to": JID, "protocol": "omemo2" or "legacy"}, with "timer": SECONDS for a message that expires
    {"siblings": true}                      asks how many other devices of its account it knows
    {"catch_up": true}                      reads the archive from where it was when it last listened
    {"close": true}
Events, one object a line on standard output:
    {"event": "online", "device": ID, "fingerprint": HEX}
                                            its bundles and device lists are published, and it receives
    {"event": "sent", "text": TEXT}
    {"event": "received", "from": JID, "conversation": JID, "protocol": ..., "text": TEXT,
     "via": "live", "carbon" or "archive", "place": ARCHIVE_ID or null}
    {"event": "expired", "place": ARCHIVE_ID}
                                            the archive has a place with nothing in it
    {"event": "siblings", "count": COUNT}
    {"event": "caught_up", "pages": COUNT}
    {"event": "failed", "text": WHY}        a message could not be read or sent, or the storage could not be kept

Legacy messages go through the plugin's public interface. That does not do OMEMO 2 yet: it has no XEP-0420. So these are
encrypted and decrypted by its session manager, and this script makes and reads the envelope.
"""

import asyncio
import json
import os
import secrets
import sys
import xml.etree.ElementTree as ET

import twomemo
import twomemo.etree
from omemo.session_manager import MessageNotForUs
from omemo.storage import Just, Nothing, Storage
from slixmpp import JID
from slixmpp.clientxmpp import ClientXMPP
from slixmpp.plugins import register_plugin
from slixmpp.xmlstream.handler import CoroutineCallback
from slixmpp.xmlstream.matcher import MatchXPath
from slixmpp_omemo import XEP_0384

OMEMO2 = twomemo.twomemo.NAMESPACE
LEGACY = "eu.siacs.conversations.axolotl"
SCE = "urn:xmpp:sce:1"
SID = "urn:xmpp:sid:0"
PAGE = 50


def tell(event, **details):
    print(json.dumps({"event": event, **details}), flush=True)


class File(Storage):
    """The whole storage in one file, which is replaced at each change."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.data = {}
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                self.data = json.load(file)

    async def _load(self, key):
        return Just(self.data[key]) if key in self.data else Nothing()

    async def _store(self, key, value):
        self.data[key] = value
        self.save()

    async def _delete(self, key):
        self.data.pop(key, None)
        self.save()

    def save(self):
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            json.dump(self.data, file)
        os.replace(self.path + ".new", self.path)


class Omemo(XEP_0384):
    default_config = {"fallback_message": "This message is encrypted.", "storage_file": None}

    def plugin_init(self):
        self.file = File(self.storage_file)
        super().plugin_init()

    @property
    def storage(self):
        return self.file

    @property
    def _btbv_enabled(self):
        return True

    async def _prompt_manual_trust(self, manually_trusted, identifier):
        raise RuntimeError("every device is trusted blindly")


register_plugin(Omemo)


class Peer(ClientXMPP):
    def __init__(self, jid, password, storage_file):
        super().__init__(jid, password)
        # One after the other: the session manager loads a session, works with it and stores it, and of two calls at the
        # same time one would work with keys that the other has used.
        self.turn = asyncio.Lock()
        self.enable_direct_tls = self.enable_starttls = False
        self.enable_plaintext = True
        self.plugin["feature_mechanisms"].unencrypted_plain = True
        self.plugin["feature_mechanisms"].unencrypted_scram = True
        # What it has read in this session, by archive id; and where in the archive the session before it ended.
        self.read = set()
        self.cursor = None
        self.is_behind = False
        self.register_plugin("xep_0280")
        self.register_plugin("xep_0313")
        self.register_plugin("xep_0380")
        self.register_plugin("xep_0384", {"storage_file": storage_file}, module=sys.modules[__name__])
        self.add_event_handler("session_start", self.start)
        self.register_handler(
            CoroutineCallback("Messages", MatchXPath("{jabber:client}message"), self.live)
        )
        self.add_event_handler("carbon_received", lambda message: self.carbon(message["carbon_received"]))
        self.add_event_handler("carbon_sent", lambda message: self.carbon(message["carbon_sent"]))

    @property
    def storage(self):
        return self.plugin["xep_0384"].file

    async def start(self, _event):
        try:
            manager = await self.plugin["xep_0384"].get_session_manager()
            own, _ = await manager.get_own_device_information()
            self.device = own.device_id
            self.cursor = self.storage.data.get("peer/cursor")
            self.is_behind = self.cursor is not None
            await self.plugin["xep_0280"].enable()
            self.send_presence()
            await self.get_roster()
            tell("online", device=own.device_id, fingerprint=own.identity_key.hex())
        except Exception as error:  # whatever it is, the test has to know
            tell("failed", text=f"start: {error!r}")

    async def live(self, stanza):
        await self.message(stanza, "live", self.place_of(stanza))

    def carbon(self, stanza):
        return asyncio.ensure_future(self.message(stanza, "carbon", self.place_of(stanza)))

    def place_of(self, stanza):
        """What the own archive calls a message."""
        for stanza_id in stanza.xml.findall(f"{{{SID}}}stanza-id"):
            if stanza_id.get("by") == self.boundjid.bare:
                return stanza_id.get("id")
        return None

    async def siblings(self):
        """How many other devices of the account it knows in both protocols."""
        manager = await self.plugin["xep_0384"].get_session_manager()
        _, others = await manager.get_own_device_information()
        return sum(1 for other in others if {OMEMO2, LEGACY} <= other.namespaces)

    async def keep_cursor(self, place):
        self.cursor = place
        await self.storage._store("peer/cursor", place)

    async def catch_up(self):
        """Reads the archive from where the session before this one ended."""
        manager = await self.plugin["xep_0384"].get_session_manager()
        manager.before_history_sync()
        pages, complete = 0, False
        while not complete:
            rsm = {"max": PAGE, **({"after": self.cursor} if self.cursor else {})}
            answer = await self.plugin["xep_0313"].retrieve(rsm=rsm)
            results = answer["mam"]["results"]
            pages += 1
            for result in results:
                await self.archived(result["mam_result"])
            complete = answer["mam_fin"]["complete"] in (True, "true") or not results
        self.is_behind = False
        await manager.after_history_sync()
        return pages

    async def archived(self, result):
        place, stanza = result["id"], result["forwarded"]["stanza"]
        if place not in self.read:
            if not stanza or stanza.xml.find("{urn:multiend:0}expired") is not None:
                tell("expired", place=place)
            else:
                await self.message(stanza, "archive", place)
        await self.keep_cursor(place)

    async def message(self, stanza, via, place):
        omemo = self.plugin["xep_0384"]
        protocols = omemo.is_encrypted(stanza)
        if stanza["type"] == "error":
            return
        if place is not None and via != "archive":
            self.read.add(place)
            if not self.is_behind:
                await self.keep_cursor(place)
        if not protocols:
            return
        sender = stanza["from"].bare
        namespace = OMEMO2 if OMEMO2 in protocols else LEGACY
        header = stanza.xml.find(f"{{{namespace}}}encrypted/{{{namespace}}}header")
        if sender == self.boundjid.bare and header is not None and header.get("sid") == str(self.device):
            return
        try:
            async with self.turn:
                if OMEMO2 in protocols:
                    protocol, text = "omemo2", await self.read_omemo2(stanza, sender)
                else:
                    decrypted, _ = await omemo.decrypt_message(stanza)
                    protocol, text = "legacy", decrypted["body"] or None
            if text is not None:
                other = stanza["to"].bare if sender == self.boundjid.bare else sender
                tell(
                    "received",
                    **{"from": sender},
                    conversation=other,
                    protocol=protocol,
                    text=text,
                    via=via,
                    place=place,
                )
        except MessageNotForUs:
            # What one device says to another to finish a handshake, all others of the account get as well. A text that
            # should have been for this one is missed by who waits for it.
            pass
        except Exception as error:
            tell("failed", text=f"reading from {sender}: {error!r}")

    async def read_omemo2(self, stanza, sender):
        manager = await self.plugin["xep_0384"].get_session_manager()
        message = twomemo.etree.parse_message(stanza.xml.find(f"{{{OMEMO2}}}encrypted"), sender)
        plaintext, _, _ = await manager.decrypt(message)
        if plaintext is None:
            return None
        envelope = ET.fromstring(plaintext)
        if envelope.tag != f"{{{SCE}}}envelope" or envelope.find(f"{{{SCE}}}rpad") is None:
            raise ValueError("not an envelope with padding")
        maker = envelope.find(f"{{{SCE}}}from").get("jid")
        if maker != sender:
            raise ValueError(f"made by {maker}")
        return envelope.findtext(f"{{{SCE}}}content/{{jabber:client}}body")

    async def send_text(self, text, to, protocol, timer=None):
        omemo = self.plugin["xep_0384"]
        stanza = self.make_message(mto=JID(to), mtype="chat")
        if protocol == "legacy":
            stanza["body"] = text
            stanza, problems = await omemo.encrypt_message(stanza, JID(to))
            if problems:
                raise RuntimeError(f"not for every device: {problems}")
        else:
            await omemo.refresh_device_lists({JID(to)})
            manager = await omemo.get_session_manager()
            envelope = ET.Element(f"{{{SCE}}}envelope")
            content = ET.SubElement(envelope, f"{{{SCE}}}content")
            ET.SubElement(content, "{jabber:client}body").text = text
            ET.SubElement(envelope, f"{{{SCE}}}rpad").text = secrets.token_hex(20)
            ET.SubElement(envelope, f"{{{SCE}}}from", jid=self.boundjid.bare)
            messages, problems = await manager.encrypt(
                frozenset({to}), {OMEMO2: ET.tostring(envelope)}, backend_priority_order=[OMEMO2]
            )
            if problems or len(messages) != 1:
                raise RuntimeError(f"not for every device: {problems}")
            stanza.append(twomemo.etree.serialize_message(next(iter(messages))))
            stanza.enable("store")
        if timer is not None:
            stanza.append(ET.Element("{urn:xmpp:ephemeral:0}ephemeral", timer=str(timer)))
        stanza.send()

    async def obey(self):
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            command = json.loads(line)
            if "close" in command:
                break
            try:
                if "siblings" in command:
                    tell("siblings", count=await self.siblings())
                    continue
                if "catch_up" in command:
                    tell("caught_up", pages=await self.catch_up())
                    continue
                async with self.turn:
                    await self.send_text(command["send"], command["to"], command["protocol"], command.get("timer"))
                tell("sent", text=command["send"])
            except Exception as error:
                tell("failed", text=f"{line.strip()}: {error!r}")
        await self.disconnect()


async def main():
    jid, password, port, storage_file = sys.argv[1:]
    peer = Peer(jid, password, storage_file)
    peer.connect("127.0.0.1", int(port))
    await peer.obey()


if __name__ == "__main__":
    asyncio.run(main())
