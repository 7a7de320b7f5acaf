-- mod_multiend_archive: takes message archives out of Prosody's own storage and puts them in again, whatever the storage is,
-- as a file in the form of XEP-0227. Not to be enabled: it is a command, for when Prosody does not run.
--
--   prosodyctl mod_multiend_archive export HOST FILE       what mod_mam has, for "multiend admin import FILE"
--   prosodyctl mod_multiend_archive import FILE            what "multiend admin export OWNER" has written, for mod_mam
--
-- Archive ids and times stay as they are. Both may be run again: a message that is there already is not doubled. What users
-- want archived goes along, as <prefs/> (XEP-0441) beside their archives.

local configmanager = require "core.configmanager";
local datetime = require "util.datetime";
local jid = require "util.jid";
local lxp = require "lxp";
local pposix = require "util.pposix";
local st = require "util.stanza";
local storagemanager = require "core.storagemanager";
local usermanager = require "core.usermanager";

local ns_pie, ns_pie_mam, ns_mam = "urn:xmpp:pie:0", "urn:xmpp:pie:0#mam", "urn:xmpp:mam:2";
local ns_forward, ns_delay = "urn:xmpp:forward:0", "urn:xmpp:delay";
local ns_xml = "http://www%.w3%.org/XML/1998/namespace"; -- as a pattern
local longest_result = 4 * 1024 * 1024; -- Most bytes of text in a result.

-- What mod_mam has of a host's users: the archive, and their preferences.
local function open_archive(host)
	if not prosody.hosts[host] then prosody.hosts[host] = require "util.startup".make_host(host); end
	storagemanager.initialize_host(host);
	usermanager.initialize_host(host);
	local store = configmanager.get(host, "archive_store") or "archive";
	return assert(storagemanager.open(host, store, "archive")), assert(storagemanager.open(host, store .. "_prefs", "keyval"));
end

-- Preferences are stored as mod_mam does: JIDs, and false for everybody else, with true for always and false for never.
local default_names = { [true] = "always", [false] = "never", roster = "roster" };
local defaults = { always = true, never = false, roster = "roster" };

local function written_preferences(host, stored)
	local default = stored[false];
	if default == nil then default = configmanager.get(host, "default_archive_policy"); end
	local prefs = st.stanza("prefs", { xmlns = ns_mam, default = default_names[default] or "always" });
	for _, keep in ipairs { true, false } do
		prefs:tag(default_names[keep]);
		for who, kept in pairs(stored) do
			if who and kept == keep then prefs:text_tag("jid", who); end
		end
		prefs:up();
	end
	return prefs;
end

local function read_preferences(prefs)
	local stored = { [false] = defaults[prefs.attr.default] };
	for _, keep in ipairs { true, false } do
		for who in (prefs:get_child(default_names[keep]) or prefs):childtags("jid") do
			who = jid.prep(who:get_text());
			if who then stored[who] = keep; end
		end
	end
	return stored;
end

-- With what is below a second, where the storage has it.
local function written_time(when)
	local seconds = math.floor(when);
	-- To the nearest microsecond, but never that of the next second, which would be the first of this one.
	local micros = math.min(math.floor((when - seconds) * 1000000 + 0.5), 999999);
	return (datetime.datetime(seconds):gsub("Z$", (".%06dZ"):format(micros)));
end

-- In whole seconds, the only times that every storage takes.
local function read_time(stamp) return datetime.parse((stamp:gsub("%.%d+", ""))); end

-- Into a file, since prosodyctl may say other things on its standard output. Nobody else may read it.
local function export(host, path)
	local archive, preferences = open_archive(host);
	pposix.umask("077");
	local out = assert(io.open(path, "w"));
	local count = 0;
	out:write("<?xml version='1.0' encoding='UTF-8'?>\n<server-data xmlns='", ns_pie, "'>\n<host jid='", st.xml_escape(host), "'>\n");
	for user in usermanager.users(host) do
		out:write("<user name='", st.xml_escape(user), "'>\n<archive xmlns='", ns_pie_mam, "'>\n");
		for id, item, when in assert(archive:find(user)) do
			local message = st.clone(item);
			message.attr.xmlns = "jabber:client";
			local result = st.stanza("result", { xmlns = ns_mam, id = id })
				:tag("forwarded", { xmlns = ns_forward })
					:tag("delay", { xmlns = ns_delay, stamp = written_time(when) }):up()
					:add_child(message);
			assert(out:write(tostring(result:reset()), "\n"));
			count = count + 1;
		end
		out:write("</archive>\n");
		local stored = preferences:get(user);
		if stored then out:write(tostring(written_preferences(host, stored)), "\n"); end
		out:write("</user>\n");
	end
	assert(out:write("</host>\n</server-data>\n"));
	assert(out:close());
	io.stderr:write(("%d messages of %s\n"):format(count, host));
end

-- One result; false if it is of no use here.
local function append(archive, user, host, result)
	local forwarded = result:get_child("forwarded", ns_forward);
	local delay = forwarded and forwarded:get_child("delay", ns_delay);
	local message = forwarded and forwarded:get_child("message", "jabber:client");
	local when = delay and read_time(delay.attr.stamp or "");
	if not message or not when or message:get_child("expired", "urn:multiend:0") then return false; end
	message = st.clone(message);
	message.attr.xmlns = nil;
	local owner = jid.join(user, host);
	local from, to = jid.bare(message.attr.from) or owner, jid.bare(message.attr.to) or owner;
	assert(archive:append(user, result.attr.id, message, when, from == owner and to or from));
	return true;
end

-- An element as it is in a stanza: its name, and attributes that have its namespace among them.
local function named(tag, attr)
	local xmlns, name = tag:match("^(.-)\1?([^\1]*)$");
	local named_attr = { xmlns = xmlns ~= "" and xmlns or nil };
	for _, key in ipairs(attr) do named_attr[(key:gsub("^" .. ns_xml .. "\1", "xml:"))] = attr[key]; end
	return name, named_attr;
end

-- Calls back with each result of each archive, and with preferences, and whose that is. Only what XEP-0227 puts around a result
-- counts, each in its place: what users have published stands in the same file, and may look like anything.
local function each_element(file, callback)
	local depth, size, is_export, host, user, in_archive = 0, 0, false, nil, nil, false;
	local element, around; -- the one that is being read, and how deep it stands
	local handlers = {
		StartDoctypeDecl = function () error("it has a document type declaration", 0); end;
		StartElement = function (_, tag, attr)
			if element then
				element:tag(named(tag, attr));
			elseif depth == 0 then
				is_export = tag == ns_pie .. "\1server-data";
			elseif depth == 1 then
				host = tag == ns_pie .. "\1host" and attr.jid;
			elseif depth == 2 then
				user = tag == ns_pie .. "\1user" and attr.name;
			elseif depth == 3 then
				local is_users = is_export and host and user;
				in_archive = is_users and tag == ns_pie_mam .. "\1archive";
				if is_users and tag == ns_mam .. "\1prefs" then element, around, size = st.stanza(named(tag, attr)), depth, 0; end
			elseif depth == 4 and in_archive and tag == ns_mam .. "\1result" then
				element, around, size = st.stanza(named(tag, attr)), depth, 0;
			end
			depth = depth + 1;
		end;
		CharacterData = function (_, text)
			if not element then return; end
			element:text(text);
			size = size + #text;
			assert(size < longest_result, "a message is too long");
		end;
		EndElement = function ()
			depth = depth - 1;
			if element and depth > around then
				element:up();
			elseif element then
				callback(host, user, element);
				element = nil;
			end
		end;
	};
	local parser = lxp.new(handlers, "\1");
	for chunk in function () return file:read(65536); end do
		local ok, why, line = parser:parse(chunk);
		if not ok then error(("it is not well-formed: %s in line %d"):format(why, line), 0); end
	end
	local ok = parser:parse();
	assert(ok and is_export, ok and "it is no export in the form of XEP-0227" or "the file is cut short");
end

local function import(path)
	local file = path == "-" and io.stdin or assert(io.open(path, "r"));
	local opened, archive, preferences;
	local count, left_out = 0, 0;
	each_element(file, function (host, user, element)
		if host ~= opened then
			opened = host;
			archive, preferences = open_archive(host);
		end
		if element.name == "prefs" then
			assert(preferences:set(user, read_preferences(element)));
		elseif append(archive, user, host, element) then
			count = count + 1;
		else
			left_out = left_out + 1;
		end
	end);
	io.stderr:write(("%d messages put into the archive, %d places without a message left out\n"):format(count, left_out));
end

function module.command(arg)
	if arg[1] == "export" and arg[3] and not arg[4] then
		export(jid.prep(arg[2]) or arg[2], arg[3]);
		return 0;
	elseif arg[1] == "import" and arg[2] and not arg[3] then
		import(arg[2]);
		return 0;
	end
	io.stderr:write("usage: prosodyctl mod_multiend_archive export HOST FILE\n       prosodyctl mod_multiend_archive import FILE\n");
	return 1;
end
