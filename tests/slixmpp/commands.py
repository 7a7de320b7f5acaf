"""An unmodified slixmpp on the ad-hoc commands of a component: what its plugin asks for and understands.

Usage: commands.py PORT ACCOUNT PASSWORD COMPONENT
Plays one session of ACCOUNT, an administrator, and does what is written on standard input, one line of JSON each:
{"node": …, "fields": {…}}. Says what came of each as one line of JSON: {"commands": [[node, name], …]} first, then
{"status": …, "fields": {…}, "items": […]} or {"error": condition}.
"""

import asyncio
import json
import sys

from session import Session
from slixmpp.exceptions import IqError

NODES = "urn:multiend:0:admin#"


class Administrator(Session):
    def __init__(self, account, password, component):
        super().__init__(account, password, ("xep_0004", "xep_0030", "xep_0050"))
        self.component = component

    async def work(self):
        await self.list()
        for line in sys.stdin:
            await self.run_command(json.loads(line))

    def say(self, event):
        print(json.dumps(event), flush=True)

    async def list(self):
        try:
            found = await self["xep_0050"].get_commands(self.component)
            info = await self["xep_0030"].get_info(self.component)
            offered = "http://jabber.org/protocol/commands" in info["disco_info"]["features"]
            items = [[node.removeprefix(NODES), name] for _, node, name in sorted(found["disco_items"]["items"])]
            self.say({"commands": items, "offered": offered})
        except IqError as error:
            self.say({"error": error.condition})

    async def run_command(self, command):
        node = NODES + command["node"]
        try:
            answer = await self["xep_0050"].send_command(self.component, node)
            if answer["command"]["status"] == "executing":
                form = self["xep_0004"].make_form(ftype="submit")
                asked = answer["command"]["form"].get_fields()
                for name, value in command.get("fields", {}).items():
                    assert name in asked, f"{name} is not asked for"
                    form.add_field(var=name, value=value)
                session = answer["command"]["sessionid"]
                assert session, "no session id"
                answer = await self["xep_0050"].send_command(
                    self.component, node, action="complete", payload=form, sessionid=session
                )
            form = answer["command"]["form"]
            values = {name: field["value"] for name, field in form.get_fields().items()}
            self.say({"status": answer["command"]["status"], "fields": values, "items": list(form.get_items())})
        except IqError as error:
            self.say({"error": error.condition, "text": error.text})


async def main():
    port, account, password, component = sys.argv[1:]
    await Administrator(account, password, component).play(port)


asyncio.run(main())
