"""A session of an unmodified slixmpp with a server on loopback, without TLS: what archive.py, commands.py and pubsub.py have
in common."""

import asyncio

from slixmpp import ClientXMPP


class Session(ClientXMPP):
    """Logs in, does its `work`, and ends."""

    def __init__(self, account, password, plugins):
        super().__init__(f"{account}/slixmpp", password)
        self.enable_direct_tls = False
        self.enable_starttls = False
        self.enable_plaintext = True
        self["feature_mechanisms"].unencrypted_plain = True
        for plugin in plugins:
            self.register_plugin(plugin)
        self.outcome = asyncio.get_event_loop().create_future()
        self.add_event_handler("session_start", self.start)
        self.add_event_handler("failed_auth", lambda _: self.fail(RuntimeError("login refused")))

    async def work(self):
        raise NotImplementedError

    async def start(self, _):
        try:
            result = await self.work()
            if not self.outcome.done():
                self.outcome.set_result(result)
        except Exception as error:  # told to who runs this
            self.fail(error)

    def fail(self, error):
        if not self.outcome.done():
            self.outcome.set_exception(error)

    async def play(self, port):
        """What its work came to."""
        self.connect("127.0.0.1", int(port))
        try:
            return await asyncio.wait_for(self.outcome, 60)
        finally:
            await self.disconnect()
