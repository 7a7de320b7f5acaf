"""An unmodified slixmpp on the pubsub of an alias: what its plugins ask for and understand.

Usage: pubsub.py PORT ACCOUNT PASSWORD ALIAS BUNDLE
Plays one session of ACCOUNT, the owner of ALIAS. BUNDLE is a file with a <bundle/> for device 1001. Says "ok" at the end.
"""

import asyncio
import sys
from xml.etree import ElementTree

from session import Session
from slixmpp.exceptions import IqError

OMEMO = "urn:xmpp:omemo:2"
DEVICES = f"{OMEMO}:devices"
BUNDLES = f"{OMEMO}:bundles"


def element(text):
    return ElementTree.fromstring(text)


class Publisher(Session):
    def __init__(self, account, password, alias, bundle):
        super().__init__(account, password, ("xep_0004", "xep_0030", "xep_0059", "xep_0060"))
        self.alias, self.bundle = alias, bundle
        self.events = asyncio.Queue()
        self.add_event_handler("pubsub_publish", self.events.put_nowait)
        self.add_event_handler("pubsub_delete", self.events.put_nowait)
        self.add_event_handler("pubsub_retract", self.events.put_nowait)

    async def refused(self, condition, request):
        try:
            await request
        except IqError as error:
            assert error.condition == condition, f"{error.condition} instead of {condition}"
            return error
        raise AssertionError(f"not refused with {condition}")

    async def work(self):
        self.send_presence()
        pubsub, disco, alias = self["xep_0060"], self["xep_0030"], self.alias

        info = await disco.get_info(jid=alias)
        identities = {(identity[0], identity[1]) for identity in info["disco_info"]["identities"]}
        assert ("pubsub", "pep") in identities, identities
        for feature in ("publish-options", "config-node", "retrieve-items", "subscribe"):
            assert f"http://jabber.org/protocol/pubsub#{feature}" in info["disco_info"]["features"], feature

        await self.refused("item-not-found", pubsub.get_items(alias, DEVICES))
        await self.refused("item-not-found", pubsub.get_node_config(alias, DEVICES))

        # As slixmpp-omemo publishes: with publish-options, under the item id "current".
        options = self["xep_0004"].make_form(ftype="submit")
        options.add_field(
            var="FORM_TYPE", ftype="hidden", value="http://jabber.org/protocol/pubsub#publish-options"
        )
        options.add_field(var="pubsub#access_model", value="open")
        devices = element(f"<devices xmlns='{OMEMO}'><device id='1001' label='my phone'/></devices>")
        await pubsub.publish(alias, DEVICES, id="current", payload=devices, options=options)
        options.add_field(var="pubsub#max_items", value="max")
        await pubsub.publish(alias, BUNDLES, id="1001", payload=element(self.bundle), options=options)

        await pubsub.subscribe(alias, DEVICES)
        subscriptions = await pubsub.get_subscriptions(alias)
        assert [s["node"] for s in subscriptions["pubsub"]["subscriptions"]] == [DEVICES]

        items = (await pubsub.get_items(alias, DEVICES))["pubsub"]["items"]["substanzas"]
        assert [item["id"] for item in items] == ["current"]
        listed = items[0]["payload"].findall(f"{{{OMEMO}}}device")
        assert [(d.get("id"), d.get("label")) for d in listed] == [("1001", "my phone")]
        item = await pubsub.get_item(alias, BUNDLES, "1001")
        published = item["pubsub"]["items"]["item"]["payload"]
        prekeys = published.findall(f"{{{OMEMO}}}prekeys/{{{OMEMO}}}pk")
        assert len(prekeys) == len(element(self.bundle).findall(f"{{{OMEMO}}}prekeys/{{{OMEMO}}}pk")), "all of its own"
        newest = (await pubsub.get_items(alias, BUNDLES, max_items=1))["pubsub"]["items"]["substanzas"]
        assert len(newest) == 1

        # The retry after precondition-not-met: look at the configuration, and send it back.
        closed = self["xep_0004"].make_form(ftype="submit")
        closed.add_field(
            var="FORM_TYPE", ftype="hidden", value="http://jabber.org/protocol/pubsub#publish-options"
        )
        closed.add_field(var="pubsub#access_model", value="whitelist")
        error = await self.refused("conflict", pubsub.publish(alias, DEVICES, payload=devices, options=closed))
        assert error.iq["error"]["pubsub"]["condition"] == "precondition-not-met" or "precondition" in str(error.iq)
        configuration = (await pubsub.get_node_config(alias, DEVICES))["pubsub_owner"]["configure"]["form"]
        values = configuration.get_values()
        assert values["pubsub#access_model"] == "open", values
        configuration["type"] = "submit"
        await pubsub.set_node_config(alias, DEVICES, configuration)
        closed = self["xep_0004"].make_form(ftype="submit")
        closed.add_field(var="FORM_TYPE", ftype="hidden", value="http://jabber.org/protocol/pubsub#node_config")
        closed.add_field(var="pubsub#access_model", value="whitelist")
        await self.refused("not-acceptable", pubsub.set_node_config(alias, DEVICES, closed))
        await pubsub.get_node_config(alias)

        nodes = {item[1] for item in (await pubsub.get_nodes(alias))["disco_items"]["items"]}
        assert nodes == {DEVICES, BUNDLES}, nodes
        names = [item[2] for item in (await pubsub.get_item_ids(alias, BUNDLES))["disco_items"]["items"]]
        assert names == ["1001"], names
        node = await disco.get_info(jid=alias, node=DEVICES)
        assert ("pubsub", "leaf") in {(i[0], i[1]) for i in node["disco_info"]["identities"]}
        await pubsub.get_affiliations(alias)

        # Without an item id, and without options; then the events of a change, a retraction and a deletion.
        more = element(f"<devices xmlns='{OMEMO}'><device id='1001'/><device id='1002'/></devices>")
        await pubsub.publish(alias, DEVICES, payload=more)
        event = await asyncio.wait_for(self.events.get(), 20)
        assert event["pubsub_event"]["items"]["node"] == DEVICES
        assert len(event["pubsub_event"]["items"]["item"]["payload"]) == 2
        await pubsub.retract(alias, DEVICES, "current", notify=True)
        event = await asyncio.wait_for(self.events.get(), 20)
        assert event["pubsub_event"]["items"]["retract"]["id"] == "current"
        await pubsub.publish(alias, DEVICES, payload=devices)
        await asyncio.wait_for(self.events.get(), 20)
        await pubsub.delete_node(alias, DEVICES)
        event = await asyncio.wait_for(self.events.get(), 20)
        assert event["pubsub_event"]["delete"]["node"] == DEVICES
        await pubsub.unsubscribe(alias, DEVICES)
        await pubsub.retract(alias, BUNDLES, "1001")
        await self.refused("item-not-found", pubsub.get_items(alias, BUNDLES))
        await self.refused("feature-not-implemented", pubsub.purge(alias, BUNDLES))
        await self.refused("feature-not-implemented", pubsub.create_node(alias, BUNDLES))


async def main():
    port, account, password, alias, bundle = sys.argv[1:]
    with open(bundle) as file:
        session = Publisher(account, password, alias, file.read())
    await session.play(port)
    print("ok")


asyncio.run(main())
