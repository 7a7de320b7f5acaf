"""An unmodified slixmpp reads the archive of its account at its own address, page by page.

Usage: archive.py PORT ACCOUNT PASSWORD
Writes a line for each message: its stanza id and whom it was for.
"""

import asyncio
import sys

from session import Session


class Reader(Session):
    def __init__(self, account, password):
        super().__init__(account, password, ("xep_0030", "xep_0059", "xep_0313"))

    async def work(self):
        self.send_presence()
        own = self.boundjid.bare
        features = (await self["xep_0030"].get_info(jid=own))["disco_info"]["features"]
        assert "urn:xmpp:mam:2" in features, features
        lines = []
        async for message in self["xep_0313"].iterate():
            assert message["from"].full == own, message["from"]
            stanza = message["mam_result"]["forwarded"]["stanza"]
            lines.append(f"{stanza['id']} {stanza['to'].full}")
        return lines


async def main():
    port, account, password = sys.argv[1:]
    for line in await Reader(account, password).play(port):
        print(line)


asyncio.run(main())
