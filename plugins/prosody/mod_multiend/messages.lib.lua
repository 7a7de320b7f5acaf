-- Copies of messages: every one-to-one message that means something to a device that was away goes into the journal once for
-- its sender and once for its recipient, as far as they are accounts of this host, and gets the id of its copy stamped on.
--
-- The hooks are those of mod_mam: at priority 0 once each message, after what may stop it and before it is carried to several
-- resources, so neither carbons nor resources make copies.

local datetime = require "util.datetime";
local jid = require "util.jid";
local new_id = require "util.id".medium;
local st = require "util.stanza";
local time_now = require "util.time".now;
local user_exists = require "core.usermanager".user_exists;
local written = module:require "text".of;

local ns_hints, ns_sid = "urn:xmpp:hints", "urn:xmpp:sid:0";

-- The same decision as src/archive/classify.rs makes: what is stamped here is archived there.
local content = {
	["urn:xmpp:omemo:2"] = { encrypted = true };
	["eu.siacs.conversations.axolotl"] = { encrypted = true };
	["urn:xmpp:openpgp:0"] = { openpgp = true };
	["jabber:x:encrypted"] = { x = true };
	["urn:xmpp:reactions:0"] = { reactions = true };
	["urn:xmpp:message-retract:0"] = { retract = true };
	["urn:xmpp:message-retract:1"] = { retract = true };
	["urn:xmpp:fasten:0"] = { ["apply-to"] = true };
	["jabber:x:oob"] = { x = true };
	["jabber:x:conference"] = { x = true };
	["urn:xmpp:attention:0"] = { attention = true };
	["urn:xmpp:sfs:0"] = { ["file-sharing"] = true };
	["urn:xmpp:sims:1"] = { ["media-sharing"] = true };
	["http://jabber.org/protocol/xhtml-im"] = { html = true };
	["http://jabber.org/protocol/geoloc"] = { geoloc = true };
	["urn:xmpp:receipts"] = { received = true };
	["urn:xmpp:chat-markers:0"] = { received = true, displayed = true, acknowledged = true };
	["urn:xmpp:ephemeral:0"] = { ephemeral = true };
	[ns_hints] = { store = true };
};
local encryption = { "urn:xmpp:omemo:2", "eu.siacs.conversations.axolotl", "urn:xmpp:openpgp:0", "jabber:x:encrypted" };
local carriers = {
	["urn:xmpp:carbons:2"] = true;
	["urn:xmpp:mam:2"] = true;
	["http://jabber.org/protocol/pubsub#event"] = true;
	["urn:xmpp:delegation:2"] = true;
};

local function is_archived(stanza)
	local kind = stanza.attr.type;
	if kind == "error" or kind == "headline" or kind == "groupchat" then return false; end
	if stanza:get_child("no-store", ns_hints) or stanza:get_child("no-permanent-store", ns_hints) then return false; end
	for _, ns in ipairs(encryption) do
		for name in pairs(content[ns]) do
			if stanza:get_child(name, ns) then return true; end
		end
	end
	if stanza:get_child("body") then return true; end
	for _, tag in ipairs(stanza.tags) do
		if carriers[tag.attr.xmlns or ""] then return false; end
	end
	if stanza:get_child("subject") then return true; end
	if stanza:find("{http://jabber.org/protocol/muc#user}x/invite") or stanza:find("{http://jabber.org/protocol/muc#user}x/decline") then
		return true;
	end
	for _, tag in ipairs(stanza.tags) do
		local names = content[tag.attr.xmlns or ""];
		if (names and names[tag.name]) or tag.attr.xmlns == "urn:xmpp:jingle-message:0" then return true; end
	end
	return false;
end

-- Takes out the ids that claim to be given by an account of ours, in whatever spelling.
local function without_ids(stanza, bare)
	if not stanza:get_child("stanza-id", ns_sid) then return stanza; end
	stanza:maptags(function (tag)
		if tag.name == "stanza-id" and tag.attr.xmlns == ns_sid and jid.prep(tag.attr.by) == bare then return nil; end
		return tag;
	end);
	return stanza;
end

-- Never a time before that of the copy before it, whatever the clock does.
local last_time = 0;
local function stamp()
	last_time = math.max(last_time, time_now());
	local seconds = math.floor(last_time);
	-- Cut off, not rounded: a second that is nearly over would begin anew.
	return (datetime.datetime(seconds):gsub("Z$", (".%06dZ"):format(math.floor((last_time - seconds) * 1000000))));
end

-- A stanza as text, on one line. Writing it is most of what a copy costs, and a message between two accounts of this host is
-- copied twice in a row: the second time the text of the first is used, if the message is still the same table with the same
-- children.
local unpack = table.unpack or unpack; -- luacheck: ignore 113 143
local last = { tags = {} };

local function is_last(stanza)
	if last.stanza ~= stanza or last.from ~= stanza.attr.from or last.to ~= stanza.attr.to or #last.tags ~= #stanza.tags then
		return false;
	end
	for i, tag in ipairs(stanza.tags) do
		if last.tags[i] ~= tag then return false; end
	end
	return true;
end

local function text_of(stanza)
	if is_last(stanza) then return last.text; end
	stanza.attr.xmlns = "jabber:client";
	local text = written(stanza);
	stanza.attr.xmlns = nil;
	if text:find("\n", 1, true) or text:find("\r", 1, true) then
		text = text:gsub("[\r\n]", { ["\r"] = "&#13;", ["\n"] = "&#10;" });
	end
	last = { stanza = stanza, from = stanza.attr.from, to = stanza.attr.to, tags = { unpack(stanza.tags) }, text = text };
	return text;
end

-- A record of the journal: one line.
local function record(owner, direction, id, stanza)
	return ("<copy owner='%s' direction='%s' id='%s' stamp='%s'>%s</copy>"):format(
		st.xml_escape(owner), direction, id, stamp(), text_of(stanza));
end

local function hook(options)
	local journal, sender = options.journal, options.sender;
	local refuse_when_full = options.when_full == "refuse";
	local copied = module:metric("counter", "copies", "", "Messages copied into the journal", { "direction" });
	local lost = module:metric("counter", "messages_not_archived", "", "Messages that the journal could not take", { "what" });
	local not_archived, told = 0, 0;

	local function journal_failed(event, problem)
		local stanza = event.stanza;
		not_archived = not_archived + 1;
		lost:with_labels(refuse_when_full and "refused" or "delivered"):add(1);
		if time_now() > told + 60 then
			told = time_now();
			module:log("error", "The journal of message copies takes no more (%s): %d messages were %s since the start",
				problem, not_archived, refuse_when_full and "refused" or "delivered without being archived");
		end
		if not refuse_when_full then return; end
		local reply = st.error_reply(stanza, "wait", "resource-constraint", "Messages cannot be archived now");
		if event.origin.type == "c2s" then event.origin.send(reply); else module:send(reply); end
		return true;
	end

	local function on_message(event, direction)
		local origin, stanza = event.origin, event.stanza;
		local user = direction == "sent" and origin.username or jid.node(stanza.attr.to or stanza.attr.from);
		local owner = user and jid.join(user, module.host);
		-- A note to oneself comes by twice: it is copied when it arrives.
		if direction == "sent" and (not stanza.attr.to or jid.bare(stanza.attr.to) == owner) then
			without_ids(stanza, owner);
			return;
		end
		if not owner or not user_exists(user, module.host) then return; end
		-- What a client has just sent is nobody else's yet. Other stanzas their sender may want to use again.
		local copy = without_ids((direction == "sent" or last.stanza == stanza) and stanza or st.clone(stanza), owner);
		event.stanza = copy;
		if not is_archived(copy) then return; end
		local id = new_id();
		local ok, position = journal:append(record(owner, direction, id, copy));
		if not ok then return journal_failed(event, position); end
		copied:with_labels(direction):add(1);
		journal:settle(origin);
		sender.appended(owner, position);
		copy:tag("stanza-id", { xmlns = ns_sid, by = owner, id = id }):up();
		-- For mod_cloud_notify and the like, as mod_mam tells them.
		module:fire_event("archive-message-added", { origin = origin, stanza = copy, for_user = user, id = id });
	end

	for _, to in ipairs { "bare", "full" } do
		module:hook("pre-message/" .. to, function (event) return on_message(event, "sent"); end, 0);
		module:hook("message/" .. to, function (event) return on_message(event, "received"); end, 0);
		-- The sender's id has been shown to its own resources (carbons run at -0.5), and is nobody else's business.
		module:hook("pre-message/" .. to, function (event)
			local origin = event.origin;
			if origin.username then
				without_ids(event.stanza, jid.join(origin.username, module.host));
			end
		end, -1);
	end

	-- What is in the archive needs no offline storage: before mod_offline (priority -10 in 13.0, 0 in 0.12) would bounce it.
	module:hook("message/offline/handle", function (event)
		local owner = jid.join(event.username, module.host);
		if event.stanza:get_child_with_attr("stanza-id", ns_sid, "by", owner) then return true; end
	end, -2);
	module:hook("message/offline/broadcast", function (event)
		if event.origin.multiend_asked_archive then return true; end
	end);
end

return { hook = hook };
