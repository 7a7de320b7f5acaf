"""An unmodified slixmpp reads the archive of its account at its own address, page by page.

Usage: archive.py PORT ACCOUNT PASSWORD
Writes a line for each message: its stanza id and whom it was for.
"""

import asyncio
import sys

from slixmpp import ClientXMPP


class Session(ClientXMPP):
    def __init__(self, account, password):
        super().__init__(f"{account}/slixmpp", password)
        self.enable_direct_tls = False
        self.enable_starttls = False
        self.enable_plaintext = True
        self["feature_mechanisms"].unencrypted_plain = True
        for plugin in ("xep_0030", "xep_0059", "xep_0313"):
            self.register_plugin(plugin)
        self.outcome = asyncio.get_event_loop().create_future()
        self.add_event_handler("session_start", self.start)
        self.add_event_handler("failed_auth", lambda _: self.outcome.set_exception(RuntimeError("login refused")))

    async def start(self, _):
        try:
            self.send_presence()
            own = self.boundjid.bare
            features = (await self["xep_0030"].get_info(jid=own))["disco_info"]["features"]
            assert "urn:xmpp:mam:2" in features, features
            lines = []
            async for message in self["xep_0313"].iterate():
                assert message["from"].full == own, message["from"]
                stanza = message["mam_result"]["forwarded"]["stanza"]
                lines.append(f"{stanza['id']} {stanza['to'].full}")
            self.outcome.set_result(lines)
        except Exception as error:  # told to who runs this
            self.outcome.set_exception(error)


async def main():
    port, account, password = sys.argv[1:]
    session = Session(account, password)
    session.connect("127.0.0.1", int(port))
    try:
        for line in await asyncio.wait_for(session.outcome, 60):
            print(line)
    finally:
        await session.disconnect()


asyncio.run(main())
