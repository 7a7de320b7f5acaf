-- mod_multiend: makes the OMEMO directory and archive "multiend" serve the clients of this host at their own addresses.
-- For Prosody 0.12 and 13.0. What is said to the component is in docs/plugin-protocol.md, how to install this in docs/prosody.md.
--
-- Options, all of the virtual host (or global), with their defaults:
--
--   multiend_components = { "multiend." .. host }   The component JIDs of multiend. The first that is connected is used.
--   multiend_timeout = 30                           Seconds until a request of a client is answered with an error.
--   multiend_requests = 1000                        Most requests that may wait for an answer at once.
--   multiend_batch = 100                            Most copies of messages that are sent to the component at once.
--   multiend_journal_size = 1073741824              Most bytes of copies that may wait on disk.
--   multiend_journal_sync = 0.1                     Longest time, in seconds, for which a copy may not be safe from a power
--                                                   failure. 0: no message goes on before its copy is. false: leave it to
--                                                   the operating system. (A crash of Prosody alone never loses a copy.)
--   multiend_journal_full = "deliver"               When the journal is full or the disk fails: "deliver" messages without
--                                                   archiving them, counted and logged; or "refuse" them.
--
-- Files beside this one: journal (copies on disk), sender (from there to the component), component (which one, requests and
-- answers), messages (what is copied), text (a message as text), requests (what is handed over), lists (device lists kept in mod_pep as well, and what
-- is taken over from there). Prosody finds them through module:require.

local modulemanager = require "core.modulemanager";

if modulemanager.is_loaded(module.host, "mam") then
	module:log("error", "mod_mam is loaded for %s as well: messages would be archived twice. Remove \"mam\" from modules_enabled.", module.host);
end

local components = module:require "component".new {
	jids = module:get_option_array("multiend_components", { "multiend." .. module.host });
	timeout = module:get_option_number("multiend_timeout", 30);
	max_requests = module:get_option_number("multiend_requests", 1000);
};

local journal = module:require "journal".open {
	directory = prosody.paths.data .. "/multiend/" .. module.host:gsub("[^%w.-]", function (c) return ("%%%02x"):format(c:byte()); end);
	max_bytes = module:get_option_number("multiend_journal_size", 1024 * 1024 * 1024);
	sync = module:get_option("multiend_journal_sync", 0.1);
};

local sender = module:require "sender".new {
	journal = journal;
	components = components;
	max_copies = module:get_option_number("multiend_batch", 100);
};

local lists = module:require "lists".new { components = components };

module:require "messages".hook {
	journal = journal;
	sender = sender;
	when_full = module:get_option_string("multiend_journal_full", "deliver");
};

module:require "requests".hook { components = components; sender = sender; lists = lists };

-- Clients of libpurple look at the domain before they publish anything.
module:add_identity("pubsub", "pep", module:get_option_string("name", "Prosody"));

-- What an account can do besides, as the component says; PEP and what the server does itself the server says.
local features = { "urn:xmpp:mam:2", "urn:xmpp:mam:2#extended", "urn:xmpp:sid:0" };
local ns_disco = "http://jabber.org/protocol/disco#info";

local function ask_for_features()
	components.request("get", "<query xmlns='" .. ns_disco .. "'/>", function (reply)
		local query = reply and reply.attr.type == "result" and reply:get_child("query", ns_disco);
		if not query then return module:add_timer(30, ask_for_features); end
		features = {};
		for feature in query:childtags("feature") do
			local name = feature.attr.var or "";
			if name:match("^urn:xmpp:mam:") or name:match("^urn:multiend:") or name:match("^urn:xmpp:message%-retract:") or name == "urn:xmpp:sid:0" then
				table.insert(features, name);
			end
		end
	end);
end

module:hook("account-disco-info", function (event)
	local reply = event.reply or event.stanza;
	for _, feature in ipairs(features) do
		reply:tag("feature", { var = feature }):up();
	end
end);

components.on_connected(function ()
	sender.connected();
	ask_for_features();
	lists.import_all();
end);

function module.unload()
	journal:close();
end
