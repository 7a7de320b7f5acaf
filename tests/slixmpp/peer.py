"""One device of one account on slixmpp and slixmpp-omemo, driven by lines of JSON: an OMEMO client that nobody here wrote.

Usage: peer.py JID PASSWORD PORT STORAGE_FILE

Commands, one object a line on standard input:
    {"send": TEXT, "to": JID, "protocol": "omemo2" or "legacy"}
    {"close": true}
Events, one object a line on standard output:
    {"event": "online", "device": ID}       its bundles and device lists are published, and it receives
    {"event": "sent", "text": TEXT}
    {"event": "received", "from": JID, "protocol": ..., "text": TEXT}
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
        self.register_plugin("xep_0380")
        self.register_plugin("xep_0384", {"storage_file": storage_file}, module=sys.modules[__name__])
        self.add_event_handler("session_start", self.start)
        self.register_handler(
            CoroutineCallback("Messages", MatchXPath("{jabber:client}message"), self.message)
        )

    async def start(self, _event):
        try:
            manager = await self.plugin["xep_0384"].get_session_manager()
            own, _ = await manager.get_own_device_information()
            self.send_presence()
            await self.get_roster()
            tell("online", device=own.device_id)
        except Exception as error:  # whatever it is, the test has to know
            tell("failed", text=f"start: {error!r}")

    async def message(self, stanza):
        omemo = self.plugin["xep_0384"]
        protocols = omemo.is_encrypted(stanza)
        if not protocols or stanza["type"] == "error":
            return
        sender = stanza["from"].bare
        try:
            async with self.turn:
                if OMEMO2 in protocols:
                    protocol, text = "omemo2", await self.read_omemo2(stanza, sender)
                else:
                    decrypted, _ = await omemo.decrypt_message(stanza)
                    protocol, text = "legacy", decrypted["body"] or None
            if text is not None:
                tell("received", **{"from": sender}, protocol=protocol, text=text)
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

    async def send_text(self, text, to, protocol):
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
        stanza.send()

    async def obey(self):
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            command = json.loads(line)
            if "close" in command:
                break
            try:
                async with self.turn:
                    await self.send_text(command["send"], command["to"], command["protocol"])
                tell("sent", text=command["send"])
            except Exception as error:
                tell("failed", text=f"sending: {error!r}")
        await self.disconnect()


async def main():
    jid, password, port, storage_file = sys.argv[1:]
    peer = Peer(jid, password, storage_file)
    peer.connect("127.0.0.1", int(port))
    await peer.obey()


if __name__ == "__main__":
    asyncio.run(main())
