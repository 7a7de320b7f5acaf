-- From the journal to the component: one window of copies at a time, sent again until it is acknowledged, so that nothing is
-- lost and nothing is reordered. What comes twice the component recognises by owner and id.

local new_cache = require "util.cache".new;
local new_id = require "util.id".medium;
local time_now = require "util.time".now;
local is_before = module:require "journal".is_before;

local ns_plugin = "urn:multiend:plugin:0";
local window_bytes = 256 * 1024; -- With one copy of up to 256 KiB (more no client may send) below what a component takes.
local first_wait, longest_wait = 1, 30;
local gathering = 0.02; -- How long a copy waits for others to share its window, in seconds.

local function new(options)
	local journal, components = options.journal, options.components;
	local acknowledged = journal.start;
	local window;                 -- { id, text, next, count }, kept until it is acknowledged
	local in_flight, pump_soon = false, false;
	local at_once = options.max_copies; -- fewer while a copy is looked for that spoils the others
	local wait, not_before = first_wait, 0;
	local last_of = new_cache(10000); -- owner -> position behind its last copy
	local forgotten = is_before(journal.start, journal:tail()); -- whether there are copies of owners that last_of does not know
	local recovered_until = journal:tail();
	local watchers = {};          -- { position, callback }
	local self = {};
	local pump;

	local sent = module:metric("counter", "copies_sent", "", "Copies of messages that the component has acknowledged", {});
	local refused = module:metric("counter", "copies_refused", "", "Copies that the component will never take", {});
	local function count(metric, by) metric:with_labels():add(by); end

	local function settled(position) return not is_before(acknowledged, position); end

	local function acknowledge(position)
		acknowledged = position;
		journal:forget(acknowledged);
		if forgotten and settled(recovered_until) then forgotten = false; end
		for i = #watchers, 1, -1 do
			if settled(watchers[i].position) then table.remove(watchers, i).callback(true); end
		end
	end

	local function set_aside(text, reason)
		count(refused, 1);
		module:log("error", "A copy will never be archived: %s. It is kept in %s/refused.xml", reason, journal.directory);
		journal:set_aside(text);
	end

	local function try_again(reason)
		module:log("warn", "Copies of messages are not taken now (%s); trying again in %d s", reason, wait);
		not_before = time_now() + wait;
		module:add_timer(wait + 0.01, pump);
		wait = math.min(wait * 2, longest_wait);
	end

	local function next_window()
		local records, position = journal:read(acknowledged, at_once, window_bytes);
		if #records == 0 then
			if is_before(acknowledged, position) then acknowledge(position); end
			return nil;
		end
		return { id = "copies-" .. new_id(), records = records, next = position };
	end

	local function answered(reply, problem)
		if problem == "repeated" then return; end
		in_flight = false;
		if not reply then
			-- The same window under the same id: an answer that is only late still counts.
			if problem == "disconnected" then return pump(); end
			return try_again(problem);
		end
		if reply.attr.type == "result" then
			local result = reply:get_child("copies", ns_plugin);
			for copy in (result and result:childtags("refused", ns_plugin) or function () end) do
				local id = copy.attr.id or "";
				for _, record in ipairs(window.records) do
					if id ~= "" and record:find(" id='" .. id .. "' ", 1, true) then
						set_aside(record, copy:get_text() or "no reason given");
						break;
					end
				end
			end
			count(sent, #window.records);
			local position = window.next;
			window, wait = nil, first_wait;
			at_once = math.min(at_once * 2, options.max_copies);
			acknowledge(position);
			return pump();
		end
		local kind, condition, text = reply:get_error();
		if kind == "modify" then
			-- Something in this batch breaks a limit of the component. It is found by halves, so that the others get through.
			if #window.records > 1 then
				at_once = math.floor(#window.records / 2);
				window = nil;
			else
				set_aside(window.records[1], text or condition);
				local position = window.next;
				window = nil;
				acknowledge(position);
			end
			return pump();
		end
		return try_again(text or condition or "an error without a reason");
	end

	function pump()
		if in_flight or time_now() < not_before then return; end
		if not components.current() then return; end -- connected() follows when there is one
		window = window or next_window();
		if not window then return; end
		in_flight = true;
		local payload = "<copies xmlns='" .. ns_plugin .. "'>" .. table.concat(window.records) .. "</copies>";
		local ok, problem = components.request("set", payload, answered, window.id);
		if not ok then
			in_flight = false;
			if problem ~= "disconnected" then try_again(problem); end
		end
	end

	-- A copy of this owner has been put into the journal.
	function self.appended(owner, position)
		if last_of:get(owner) == nil and last_of:count() >= 10000 then forgotten, recovered_until = true, position; end
		last_of:set(owner, position);
		if in_flight or pump_soon then return; end
		pump_soon = true;
		module:add_timer(gathering, function ()
			pump_soon = false;
			pump();
		end);
	end

	-- Calls back when all copies of an owner are in the archive: with true, or after so many seconds with false.
	function self.when_settled(owner, seconds, callback)
		local position = last_of:get(owner) or (forgotten and recovered_until);
		if not position or settled(position) then return callback(true); end
		if not components.current() then return callback(false); end
		local watcher = { position = position };
		local timer = module:add_timer(seconds, function ()
			for i, other in ipairs(watchers) do
				if other == watcher then table.remove(watchers, i); break; end
			end
			callback(false);
		end);
		function watcher.callback(ok) timer:stop(); callback(ok); end
		table.insert(watchers, watcher);
	end

	function self.connected()
		not_before, wait = 0, first_wait;
		pump();
	end

	-- What waits is never a secret.
	local waiting_bytes = module:metric("gauge", "journal", "bytes", "Bytes of message copies in the journal", {});
	module:add_timer(30, function ()
		waiting_bytes:with_labels():set(journal.bytes);
		if is_before(acknowledged, journal:tail()) then
			module:set_status("warn", ("%d bytes of message copies wait for the component"):format(journal.bytes));
			pump();
		else
			module:set_status("info", "All copies of messages are in the archive");
		end
		return 30;
	end);

	return self;
end

return { new = new };
