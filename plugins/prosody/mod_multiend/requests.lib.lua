-- Requests that are handed over to the component: about OMEMO's nodes, about the asking account's archive, and in multiend's
-- own namespace. Everything else stays where it is.
--
-- What the component answers goes to the session that asked and nowhere else. A request always ends: with the answer, or with
-- an error of type wait when there is no component or it does not answer in time.

local jid = require "util.jid";
local st = require "util.stanza";
local is_subscribed = require "core.rostermanager".is_contact_subscribed;
local user_exists = require "core.usermanager".user_exists;

local ns_delegation, ns_forward = "urn:xmpp:delegation:2", "urn:xmpp:forward:0";
local ns_mam, ns_multiend, ns_plugin = "urn:xmpp:mam:2", "urn:multiend:0", "urn:multiend:plugin:0";
local ns_pubsub = "http://jabber.org/protocol/pubsub";
local settle_seconds = 3; -- How long a query waits for copies that are on their way.

local list_nodes = { ["eu.siacs.conversations.axolotl.devicelist"] = true, ["urn:xmpp:omemo:2:devices"] = true };

-- The list that a request in multiend's own namespace is about, by its `protocol`.
local list_node_of = {
	["eu.siacs.conversations.axolotl"] = "eu.siacs.conversations.axolotl.devicelist";
	["urn:xmpp:omemo:2"] = "urn:xmpp:omemo:2:devices";
};

local function is_omemo_node(node)
	return list_nodes[node] or node == "urn:xmpp:omemo:2:bundles" or node:match("^eu%.siacs%.conversations%.axolotl%.bundles:%d+$");
end

-- mod_pep has every device list as well and notifies of changes: subscriptions are its own.
local subscription_verbs = { subscribe = true, unsubscribe = true, subscriptions = true, options = true };

-- The verb and the node of a request about OMEMO.
local function omemo_request(pubsub)
	for _, verb in ipairs(pubsub.tags) do
		local node = verb.attr.node;
		if node then
			if not is_omemo_node(node) or (list_nodes[node] and subscription_verbs[verb.name]) then return nil; end
			return verb.name, node;
		end
	end
end

-- Inside Prosody no stanza has the namespace of the stream it came by.
local function without_stream_namespace(element)
	if element.attr.xmlns ~= "jabber:client" then return element; end
	element.attr.xmlns = nil;
	for _, child in ipairs(element.tags) do without_stream_namespace(child); end
	return element;
end

local function hook(options)
	local components, sender, lists = options.components, options.sender, options.lists;
	local failures = module:metric("counter", "requests_failed", "", "Requests that were answered with an error for want of an answer", { "why" });

	-- How whoever asked is answered: the session itself; by routing where that is not one of ours. A session that has ended
	-- has lost its type, so that has to be known before; and what was for it is for nobody else.
	local function to_asker(origin)
		local is_session = origin.type == "c2s";
		return function (stanza)
			if not is_session then
				module:send(stanza);
			elseif not origin.destroyed then
				origin.send(stanza);
			end
		end;
	end

	local function fail(send, stanza, why)
		failures:with_labels(why):add(1);
		local condition = why == "timeout" and "remote-server-timeout" or why == "busy" and "resource-constraint" or "service-unavailable";
		send(st.error_reply(stanza, "wait", condition, "The OMEMO directory and archive cannot be reached now; try again later"));
	end

	local function hand_over(send, stanza, user, unsettled, changed_list, read_list)
		local owner, from = jid.join(user, module.host), stanza.attr.from;
		local bare = jid.bare(from);
		local relation = bare == owner and "self" or is_subscribed(user, module.host, bare) and "contact" or "other";
		local inner = st.clone(stanza);
		inner.attr.xmlns, inner.attr.to = "jabber:client", owner;
		local wrapper = ("<delegation xmlns='%s' owner='%s' relation='%s'%s><forwarded xmlns='%s'>%s</forwarded></delegation>"):format(
			ns_delegation, st.xml_escape(owner), relation, unsettled and " unsettled='true'" or "", ns_forward, tostring(inner));
		local ok, problem = components.request("set", wrapper, function (reply, why)
			local answer = reply and reply.attr.type == "result" and reply:get_child("delegation", ns_delegation);
			if not answer then
				if reply then module:log("error", "The component refused a request: %s", reply); end
				return fail(send, stanza, why or "refused");
			end
			local answered = false;
			for forwarded in answer:childtags("forwarded", ns_forward) do
				local told = forwarded.tags[1];
				if told and not answered then
					without_stream_namespace(told);
					told.attr.to = from;
					if told.name == "iq" then
						answered = true;
						told.attr.id, told.attr.from = stanza.attr.id, stanza.attr.to;
						-- PEP has a new list before whoever changed it is told so: a subscription that follows finds the node.
						local list = told.attr.type == "result" and answer:get_child("list", ns_plugin);
						if list then
							lists.apply(user, list);
						elseif read_list and told.attr.type == "result" then
							local items = told:find("{" .. ns_pubsub .. "}pubsub/items");
							lists.compare(user, read_list, items and items:get_child("item"));
						elseif changed_list and told.attr.type == "result" then
							lists.refresh(user, changed_list);
						end
					end
					send(told);
				end
			end
			if not answered then fail(send, stanza, "malformed"); end
		end);
		if not ok then fail(send, stanza, problem); end
	end

	module:hook("iq/bare", function (event)
		local origin, stanza = event.origin, event.stanza;
		local kind, payload = stanza.attr.type, stanza.tags[1];
		if (kind ~= "get" and kind ~= "set") or not payload then return; end
		local xmlns, is_self = payload.attr.xmlns, not stanza.attr.to;
		local user = is_self and origin.username or jid.node(stanza.attr.to);
		if not user or not user_exists(user, module.host) then return; end
		local send = to_asker(origin);
		if payload.name == "pubsub" and (xmlns == ns_pubsub or xmlns == ns_pubsub .. "#owner") then
			local verb, node = omemo_request(payload);
			if not verb then return; end
			local is_list = list_nodes[node] and node;
			local changes = is_list and (verb == "publish" or verb == "retract" or verb == "delete") and node;
			local reads = is_list and verb == "items" and node;
			lists.when_imported(user, function () hand_over(send, stanza, user, false, changes, reads); end);
			return true;
		elseif xmlns == ns_mam and is_self then
			if payload.name == "query" and kind == "set" then origin.multiend_asked_archive = true; end
			sender.when_settled(jid.join(user, module.host), settle_seconds, function (settled)
				hand_over(send, stanza, user, not settled);
			end);
			return true;
		elseif xmlns == ns_multiend then
			local changes = (payload.name == "add-device" or payload.name == "remove-device") and list_node_of[payload.attr.protocol or ""];
			lists.when_imported(user, function () hand_over(send, stanza, user, false, changes); end);
			return true;
		end
	end, 10);
end

return { hook = hook, is_omemo_node = is_omemo_node, list_nodes = list_nodes };
