-- Device lists in two places: the component decides them, mod_pep announces them.
--
-- mod_pep has the list in force under the same node, and does what it does for every node: +notify, the last item on
-- presence, subscriptions, here and over s2s. And what was in mod_pep before there was a component is taken over once.

local jid = require "util.jid";
local new_id = require "util.id".short;
local st = require "util.stanza";
local storagemanager = require "core.storagemanager";
local user_exists = require "core.usermanager".user_exists;

local mod_pep = module:depends "pep";

local ns_delegation, ns_forward = "urn:xmpp:delegation:2", "urn:xmpp:forward:0";
local ns_plugin, ns_pubsub = "urn:multiend:plugin:0", "http://jabber.org/protocol/pubsub";
local retry_seconds = 30;

local list_nodes = { ["eu.siacs.conversations.axolotl.devicelist"] = true, ["urn:xmpp:omemo:2:devices"] = true };

local function is_bundle_node(node)
	return node == "urn:xmpp:omemo:2:bundles" or node:match("^eu%.siacs%.conversations%.axolotl%.bundles:%d+$");
end

local function new(options)
	local components = options.components;
	local imported = module:open_store("multiend", "keyval");
	local known_imported = require "util.cache".new(10000);
	local importing = {}; -- user -> list of who waits
	local refreshing = {}; -- node and user -> the last attempt to get a list that there was no answer to yet
	local self = {};

	-- Makes mod_pep's node what <list/> says.
	function self.apply(user, list)
		local node = list.attr.node or "";
		if not list_nodes[node] or list.attr.owner ~= jid.join(user, module.host) then
			module:log("error", "The component sent a list that was not asked for: %s", list:top_tag());
			return;
		end
		local service = mod_pep.get_pep_service(user);
		local items = list:find("{" .. ns_pubsub .. "}pubsub/items");
		local item = items and items:get_child("item");
		if not item then
			local ok, problem = service:delete(node, true);
			if not ok and problem ~= "item-not-found" then module:log("error", "Cannot delete %s of %s: %s", node, user, problem); end
			return;
		end
		item = st.clone(item);
		item.attr.xmlns = ns_pubsub;
		local exists, config = service:get_node_config(node, true);
		if exists and config.access_model ~= "open" then
			config.access_model = "open";
			local ok, problem = service:set_node_config(node, true, config);
			if not ok then module:log("error", "Cannot open %s of %s: %s", node, user, problem); end
		end
		local defaults = { _defaults_only = true, access_model = "open", max_items = 1, persist_items = true };
		local ok, problem = service:publish(node, true, item.attr.id or "current", item, defaults);
		if not ok then
			module:log("error", "Cannot announce %s of %s: %s", node, user, problem);
			return;
		end
		-- Clients use other ids as well; one list is enough.
		local have, others = service:get_items(node, true);
		for _, id in ipairs(have and others or {}) do
			if id ~= item.attr.id then service:retract(node, true, id, false); end
		end
	end

	-- Somebody has just been given this list: if mod_pep has another, news of it was lost.
	function self.compare(user, node, given)
		local ok, _, announced = mod_pep.get_pep_service(user):get_last_item(node, true);
		local ours, theirs = ok and announced and announced.tags[1], given and given.tags[1];
		local function ids(list)
			local found = {};
			for device in list:childtags("device") do found[#found + 1] = device.attr.id or ""; end
			table.sort(found);
			return table.concat(found, " ");
		end
		if (ours and ids(ours)) ~= (theirs and ids(theirs)) then self.refresh(user, node); end
	end

	-- Asks for the list in force, until there is an answer. Of several that fail, the last one asks again.
	function self.refresh(user, node)
		local key, attempt = node .. " " .. user, {};
		local function is_last() return refreshing[key] == attempt; end
		local function again()
			module:add_timer(retry_seconds, function () if is_last() then self.refresh(user, node); end end);
		end
		refreshing[key] = user_exists(user, module.host) and attempt or nil;
		if not refreshing[key] then return; end
		local payload = ("<list xmlns='%s' owner='%s' node='%s'/>"):format(
			ns_plugin, st.xml_escape(jid.join(user, module.host)), st.xml_escape(node));
		local ok = components.request("get", payload, function (reply)
			local list = reply and reply.attr.type == "result" and reply:get_child("list", ns_plugin);
			if not list then return again(); end
			if is_last() then refreshing[key] = nil; end
			self.apply(user, list);
		end);
		if not ok then again(); end
	end

	-- A list has changed without anybody here asking for it: a device was quarantined or removed, or another door was used.
	module:hook("iq-set/host/" .. ns_plugin .. ":changed", function (event)
		local origin, stanza = event.origin, event.stanza;
		if origin.type ~= "component" or not components.is_component(stanza.attr.from) then return; end
		local user, host = jid.prepped_split(stanza.tags[1].attr.owner);
		local node = stanza.tags[1].attr.node or "";
		if host ~= module.host or not user or not list_nodes[node] then
			origin.send(st.error_reply(stanza, "modify", "bad-request"));
			return true;
		end
		origin.send(st.reply(stanza));
		self.refresh(user, node);
		return true;
	end);

	---- Taking over what mod_pep has ----

	-- Asks the component as the owner. `resource` is that of nobody: a session is taken for the device whose bundle it
	-- publishes, so each bundle needs one of its own.
	local function ask(owner, kind, payload, callback)
		local from = ("%s/multiend-import-%s"):format(owner, new_id());
		local wrapper = ("<delegation xmlns='%s' owner='%s' relation='self'><forwarded xmlns='%s'>" ..
			"<iq xmlns='jabber:client' type='%s' id='import' from='%s' to='%s'>%s</iq></forwarded></delegation>"):format(
			ns_delegation, st.xml_escape(owner), ns_forward, kind, st.xml_escape(from), st.xml_escape(owner), payload);
		local ok = components.request("set", wrapper, function (reply)
			local answer = reply and reply.attr.type == "result" and reply:get_child("delegation", ns_delegation);
			local forwarded = answer and answer:get_child("forwarded", ns_forward);
			callback(forwarded and forwarded.tags[1], answer);
		end);
		if not ok then callback(nil); end
	end

	-- What mod_pep has of a user: bundles first, so that no list names a device without one.
	local function find_items(user)
		local bundles, found_lists = {}, {};
		local service = mod_pep.get_pep_service(user);
		local ok, nodes = service:get_nodes(true);
		for node in pairs(ok and nodes or {}) do
			local into = list_nodes[node] and found_lists or is_bundle_node(node) and bundles;
			local have, items = false, nil;
			if into then have, items = service:get_items(node, true); end
			for _, id in ipairs(have and items or {}) do
				if #items[id].tags == 1 then table.insert(into, { node = node, id = id, item = items[id] }); end
			end
		end
		for _, list in ipairs(found_lists) do table.insert(bundles, list); end
		return bundles;
	end

	local function pubsub(verb, node, item)
		return ("<pubsub xmlns='%s'><%s node='%s'>%s</%s></pubsub>"):format(ns_pubsub, verb, st.xml_escape(node), item, verb);
	end

	-- Publishes one item, unless the component has it: what is there is newer. callback(false) if it must be tried again.
	local function import_item(owner, found, callback)
		local id = st.xml_escape(found.id);
		ask(owner, "get", pubsub("items", found.node, list_nodes[found.node] and "" or "<item id='" .. id .. "'/>"), function (have)
			if not have then return callback(false); end
			if have.attr.type == "result" and not list_nodes[found.node] then return callback(true); end
			local item = st.stanza("item", { id = found.id }):add_child(st.clone(found.item.tags[1]));
			ask(owner, "set", pubsub("publish", found.node, tostring(item)), function (published, answer)
				if not published then return callback(false); end
				if published.attr.type == "error" then
					local _, condition, text = published:get_error();
					module:log("warn", "%s of %s is not taken over: %s", found.node, owner, text or condition);
				end
				local list = answer:get_child("list", ns_plugin);
				if list then self.apply(jid.node(owner), list); end
				callback(true);
			end);
		end);
	end

	local function finish(user, ok)
		if ok then
			known_imported:set(user, true);
			imported:set(user, { imported = os.time() });
		end
		local waiting = importing[user];
		importing[user] = nil;
		for _, callback in ipairs(waiting) do callback(ok); end
	end

	-- Calls back when what mod_pep had of a user has been taken over, or cannot be now.
	function self.when_imported(user, callback)
		if known_imported:get(user) then return callback(true); end
		if importing[user] then table.insert(importing[user], callback); return; end
		if imported:get(user) then known_imported:set(user, true); return callback(true); end
		importing[user] = { callback };
		local owner, found = jid.join(user, module.host), find_items(user);
		local function go_on(at)
			if not found[at] then return finish(user, true); end
			import_item(owner, found[at], function (ok)
				if ok then return go_on(at + 1); end
				finish(user, false);
			end);
		end
		go_on(1);
	end

	-- Everybody, one after the other, once.
	local all_done, running = false, false;
	function self.import_all()
		if all_done or running then return; end
		local store = storagemanager.open(module.host, "pep", "keyval");
		local users = {};
		if store.users then
			for user in store:users() do users[#users + 1] = user; end
		end
		running = true;
		local at = 0;
		local function go_on()
			at = at + 1;
			if not users[at] then
				all_done, running = true, false;
				if #users > 0 then module:log("info", "The OMEMO devices of %d accounts are in the directory", #users); end
				return;
			end
			if not user_exists(users[at], module.host) then return module:add_timer(0, go_on); end
			self.when_imported(users[at], function (ok)
				if ok then
					module:add_timer(0, go_on);
				else
					running = false; -- again when the component comes back, and when the account is asked for
				end
			end);
		end
		go_on();
	end

	return self;
end

return { new = new };
