-- The component: which of several is used, and requests to it with their answers.
--
-- Whatever happens, a request ends: with an answer, with an error after a time, or at once when its component goes away.

local new_id = require "util.id".medium;
local set = require "util.set";
local st = require "util.stanza";

local function new(options)
	local jids, known = options.jids, set.new(options.jids);
	local waiting, waiting_count = {}, 0; -- id -> { callback, jid, session, timer }
	local self = {};

	local function session_of(jid)
		local host = prosody.hosts[jid];
		local component = host and host.modules and host.modules.component;
		return component and component.connected and component.session or nil;
	end

	-- The component to use now, and its session; nil if none is connected.
	function self.current()
		for _, jid in ipairs(jids) do
			local session = session_of(jid);
			if session then return jid, session; end
		end
	end

	function self.is_component(jid) return known:contains(jid); end

	local function finish(id, reply, problem)
		local request = waiting[id];
		if not request then return; end
		waiting[id], waiting_count = nil, waiting_count - 1;
		if request.timer then request.timer:stop(); end
		request.callback(reply, problem);
	end

	-- Sends <iq type='TYPE'>PAYLOAD</iq> (text). callback(reply) when there is one, be it result or error; callback(nil,
	-- "timeout" | "disconnected") when there is none. Without a component, or when too many wait, nothing is sent:
	-- nil and "disconnected" or "busy" come back at once. `fixed_id` makes sending again recognisable as the same.
	function self.request(type, payload, callback, fixed_id, timeout)
		local jid, session = self.current();
		if not jid then return nil, "disconnected"; end
		local id = fixed_id or new_id();
		if waiting[id] then
			finish(id, nil, "repeated");
		elseif waiting_count >= options.max_requests then
			return nil, "busy";
		end
		waiting_count = waiting_count + 1;
		local request = { callback = callback, jid = jid, session = session };
		waiting[id] = request;
		request.timer = module:add_timer(timeout or options.timeout, function ()
			request.timer = nil;
			finish(id, nil, "timeout");
		end);
		session.send(("<iq type='%s' id='%s' from='%s' to='%s'>%s</iq>"):format(
			type, st.xml_escape(id), st.xml_escape(module.host), st.xml_escape(jid), payload));
		return id;
	end

	-- Answers, before anything else looks at them.
	module:hook("iq/host", function (event)
		local stanza = event.stanza;
		local kind = stanza.attr.type;
		if kind ~= "result" and kind ~= "error" then return; end
		local request = waiting[stanza.attr.id or ""];
		if not request or stanza.attr.from ~= request.jid then return; end
		finish(stanza.attr.id, stanza);
		return true;
	end, 1000);

	-- No event tells that a component has gone: what waits for it is looked after every second.
	module:add_timer(1, function ()
		for id, request in pairs(waiting) do
			if session_of(request.jid) ~= request.session then
				-- Later, for a callback may ask again and change what is walked over.
				module:add_timer(0, function () finish(id, nil, "disconnected"); end);
			end
		end
		return 1;
	end);

	-- Calls back whenever a component has come.
	function self.on_connected(callback)
		local function watch()
			for _, jid in ipairs(jids) do
				local host = prosody.hosts[jid];
				if host and host.events then
					module:hook_object_event(host.events, "component-authenticated", function ()
						module:add_timer(0, callback);
					end);
				else
					module:log("error", "There is no Component \"%s\" in the configuration", jid);
				end
			end
			if self.current() then callback(); end
		end
		if prosody.start_time then watch(); else module:hook_global("server-started", watch); end
	end

	return self;
end

return { new = new };
