"""Two standard clients (slixmpp) that know nothing of IPOP log in, meet in a room and talk.

Arguments: port, root certificate, domain, password of alice, password of bob.
"""

import asyncio
import ssl
import sys
from xml.etree import ElementTree

import slixmpp

PORT, ROOT, DOMAIN, ALICE, BOB = sys.argv[1:]
ROOM = f"lounge@conference.{DOMAIN}"
PATIENCE = 10


class Client(slixmpp.ClientXMPP):
    def __init__(self, user, password, mechanism):
        super().__init__(f"{user}@{DOMAIN}", password, sasl_mech=mechanism)
        for plugin in ["xep_0030", "xep_0045", "xep_0092", "xep_0199"]:
            self.register_plugin(plugin)
        self.ca_certs = ROOT
        self.heard = asyncio.Queue()
        self.started = asyncio.Event()
        self.refused = asyncio.Event()
        self.gone = asyncio.Event()
        self.add_event_handler("session_start", lambda _: self.started.set())
        self.add_event_handler("failed_auth", lambda _: self.refused.set())
        self.add_event_handler("disconnected", lambda _: self.gone.set())
        self.add_event_handler("message", self.heard.put_nowait)

    async def log_in(self, direct_tls):
        self.connect(("127.0.0.1", int(PORT)), use_ssl=direct_tls, force_starttls=not direct_tls)
        await asyncio.wait_for(self.started.wait(), PATIENCE)
        assert self.transport.get_extra_info("cipher") is not None
        await self.get_roster()
        self.send_presence()

    async def hears(self, kind, body):
        while True:
            message = await asyncio.wait_for(self.heard.get(), PATIENCE)
            if message["type"] == kind and message["body"] == body:
                return message

    async def enter(self, nick):
        return await self["xep_0045"].join_muc_wait(ROOM, nick, maxstanzas=0, timeout=PATIENCE)


async def look_around(alice):
    info = await alice["xep_0030"].get_info(DOMAIN)
    assert "urn:xmpp:extdisco:2" in info["disco_info"]["features"], info
    items = await alice["xep_0030"].get_items(DOMAIN)
    rooms = {jid for jid, _node, _name in items["disco_items"]["items"]}
    assert rooms == {f"conference.{DOMAIN}"}, items
    info = await alice["xep_0030"].get_info(f"conference.{DOMAIN}")
    assert "http://jabber.org/protocol/muc" in info["disco_info"]["features"], info
    await alice["xep_0199"].ping(DOMAIN)
    question = alice.make_iq_get(ito=DOMAIN)
    question.append(ElementTree.Element("{urn:xmpp:extdisco:2}services"))
    answer = await question.send(timeout=PATIENCE)
    kinds = {service.get("type") for service in answer.xml[0]}
    assert kinds == {"stun", "turn"}, answer
    try:
        await alice["xep_0030"].get_info("elsewhere.test")
        raise AssertionError("there is no elsewhere")
    except slixmpp.exceptions.IqError as error:
        assert error.iq["error"]["condition"] == "remote-server-not-found"


async def meet(alice, bob):
    await alice.enter("ali")
    await bob.enter("bo")
    bob.send_message(ROOM, "hello all", mtype="groupchat")
    message = await alice.hears("groupchat", "hello all")
    assert message["from"] == f"{ROOM}/bo", message
    await bob.hears("groupchat", "hello all")
    alice.send_message(f"{ROOM}/bo", "hello bo", mtype="chat")
    message = await bob.hears("chat", "hello bo")
    assert message["from"] == f"{ROOM}/ali", message
    version = await bob["xep_0092"].get_version(f"{ROOM}/ali", timeout=PATIENCE)
    assert version["from"] == f"{ROOM}/ali", version
    await bob["xep_0199"].ping(f"{ROOM}/bo")
    try:
        await bob["xep_0199"].ping(f"{ROOM}/nobody")
        raise AssertionError("there is nobody")
    except slixmpp.exceptions.IqError as error:
        assert error.iq["error"]["condition"] == "item-not-found"
    left = asyncio.Event()
    alice.add_event_handler(f"muc::{ROOM}::got_offline", lambda _: left.set())
    bob["xep_0045"].leave_muc(ROOM, "bo")
    await asyncio.wait_for(left.wait(), PATIENCE)


async def talk(alice, bob):
    alice.send_message(f"bob@{DOMAIN}", "hello bob", mtype="chat")
    message = await bob.hears("chat", "hello bob")
    assert message["from"] == alice.boundjid, message
    bob.send_message(message["from"], "hello alice", mtype="chat")
    await alice.hears("chat", "hello alice")
    version = await alice["xep_0092"].get_version(bob.boundjid, timeout=PATIENCE)
    assert version["from"] == bob.boundjid, version


async def main():
    wrong = Client("alice", "guess", "SCRAM-SHA-256")
    wrong.connect(("127.0.0.1", int(PORT)))
    await asyncio.wait_for(wrong.refused.wait(), PATIENCE)
    # It has no other mechanism to try, so it goes by itself.
    await asyncio.wait_for(wrong.gone.wait(), PATIENCE)
    alice = Client("alice", ALICE, "SCRAM-SHA-256")
    bob = Client("bob", BOB, "SCRAM-SHA-1")
    await alice.log_in(direct_tls=False)
    await bob.log_in(direct_tls=True)
    await look_around(alice)
    await meet(alice, bob)
    await talk(alice, bob)
    await alice.disconnect()
    await bob.disconnect()


asyncio.get_event_loop().run_until_complete(asyncio.wait_for(main(), 60))
print("all well")
