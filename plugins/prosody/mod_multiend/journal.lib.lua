-- The journal: copies on disk until the component has them.
--
-- A directory of segments, files that are only ever appended to: one record a line, a checksum before it, so that a line that
-- a crash has torn is recognised. Records are read from disk when they are to be sent: what waits takes no memory, but for the
-- last of it, which is sent without being read again. A position is { segment, offset }. Segments before the position that has
-- been acknowledged are removed.

local lfs = require "lfs";
local hashes = require "util.hashes";
local async = require "util.async";

local segment_bytes = 1024 * 1024; -- What is sent again at most after a restart.
local aside_bytes = 16 * 1024 * 1024; -- What is set aside at most: nobody may fill the disk with it.
local idle_bytes = 128 * 1024;     -- An acknowledged segment of this size is done with, or of a fourth of the journal's.
local recent_bytes = 1024 * 1024;  -- How much is remembered of what was appended and is not acknowledged.

local methods = {};
local journal_mt = { __index = methods };

local function checksum(text) return hashes.sha1(text, true):sub(1, 8); end

local function shell_quoted(text) return "'" .. text:gsub("'", "'\\''") .. "'"; end

-- Lua has no fsync, coreutils has.
local function sync_to_disk(paths)
	local arguments = {};
	for _, path in ipairs(paths) do table.insert(arguments, shell_quoted(path)); end
	local ok = os.execute("exec sync -d " .. table.concat(arguments, " "));
	return ok == true or ok == 0;
end

local function make_directories(path)
	local so_far = "";
	for part in path:gmatch("/*[^/]+") do
		so_far = so_far .. part;
		lfs.mkdir(so_far);
	end
end

local function is_before(a, b)
	return a.segment < b.segment or (a.segment == b.segment and a.offset < b.offset);
end

local function open(options)
	local self = setmetatable({
		directory = options.directory;
		max_bytes = options.max_bytes;
		sync_after = tonumber(options.sync); -- nil: never
		sizes = {};     -- segment number -> bytes
		bytes = 0;
		broken = 0;     -- lines that a crash has torn
		unsynced = {};  -- paths
		waiting = {};   -- who waits for the next sync
		recent = {};    -- the last records, without a gap: { segment, from, to, text }, from recent_first to recent_last
		recent_first = 1, recent_last = 0, recent_bytes = 0;
	}, journal_mt);
	make_directories(self.directory);
	local first, last;
	for name in lfs.dir(self.directory) do
		local number = tonumber(name:match("^(%d+)%.journal$"));
		if number then
			local size = lfs.attributes(self:path(number), "size") or 0;
			self.sizes[number], self.bytes = size, self.bytes + size;
			first, last = math.min(first or number, number), math.max(last or number, number);
		end
	end
	-- What is there already is never appended to: its last line may be torn.
	self.last = last or 0;
	self.start = { segment = first or self.last + 1, offset = 0 };
	if self.bytes > 0 then
		module:log("info", "%d bytes of message copies wait in %s", self.bytes, self.directory);
	end
	assert(self:next_segment());
	if self.sync_after and not sync_to_disk { self:path(self.last) } then
		module:log("error", "\"sync\" of coreutils does not work here: after a power failure, copies of the last half minute may be missing");
		self.sync_after = nil;
	end
	return self;
end

function methods:path(number) return ("%s/%012d.journal"):format(self.directory, number); end

function methods:next_segment()
	if self.file then self.file:close(); self.file = nil; end
	local number = self.last + 1;
	local file, problem = io.open(self:path(number), "ab");
	if not file then return nil, problem; end
	self.file, self.last, self.sizes[number] = file, number, 0;
	return true;
end

-- Where the next record will be.
function methods:tail() return { segment = self.last, offset = self.sizes[self.last] or 0 }; end

-- Adds a record, a text without line feeds. true, and the position behind it; or nil and why: "full" or what the disk says.
-- What is added survives a crash of this process; see sync_after for one of the machine.
function methods:append(text)
	local line = checksum(text) .. " " .. text .. "\n";
	if self.bytes + #line > self.max_bytes then return nil, "full"; end
	if not self.file or (self.sizes[self.last] > 0 and self.sizes[self.last] + #line > segment_bytes) then
		local ok, problem = self:next_segment();
		if not ok then return nil, problem; end
	end
	local ok, problem = self.file:write(line);
	if ok then ok, problem = self.file:flush(); end
	if not ok then
		-- A part of the line may be there. Nothing may follow it.
		self.file:close();
		self.file = nil;
		local size = lfs.attributes(self:path(self.last), "size") or 0;
		self.bytes = self.bytes + size - self.sizes[self.last];
		self.sizes[self.last] = size;
		return nil, problem;
	end
	local from = self.sizes[self.last];
	self.sizes[self.last], self.bytes = from + #line, self.bytes + #line;
	self:remember(from, from + #line, text);
	self:sync_soon();
	return true, self:tail();
end

function methods:sync_soon()
	if not self.sync_after then return; end
	if not next(self.unsynced) then
		module:add_timer(self.sync_after, function () self:sync(); end);
	end
	self.unsynced[self:path(self.last)] = true;
	-- A segment that has just been made must be found again, too.
	if self.synced_segment ~= self.last then self.unsynced[self.directory] = true; end
end

-- Forces to disk what has been appended, for all who wait for it at once.
function methods:sync()
	local paths, waiting = self.unsynced, self.waiting;
	self.unsynced, self.waiting, self.synced_segment = {}, {}, self.last;
	local present = {};
	for path in pairs(paths) do
		if lfs.attributes(path, "mode") then table.insert(present, path); end
	end
	if #present > 0 and not sync_to_disk(present) then
		module:log("error", "Cannot force %s to disk", table.concat(present, ", "));
	end
	for _, done in ipairs(waiting) do done(); end
end

-- With sync_after = 0, returns when everything appended so far is safe. The session that waits is paused; others go on
-- meanwhile, and share the sync.
function methods:settle(session)
	if self.sync_after ~= 0 then return; end
	if not async.ready() then return self:sync(); end
	local wait, done = async.waiter();
	table.insert(self.waiting, done);
	wait();
	-- What the socket had read before the pause nobody looks at after it (net.server_epoll up to 13.0): remind it.
	module:add_timer(0, function ()
		local conn = session.conn;
		if conn and conn.pausefor and conn.conn and conn.conn:dirty() then conn:pausefor(0); end
	end);
end

function methods:remember(from, to, text)
	if self.recent_bytes + #text > recent_bytes then
		self.recent, self.recent_first, self.recent_last, self.recent_bytes = {}, 1, 0, 0;
	end
	self.recent_last, self.recent_bytes = self.recent_last + 1, self.recent_bytes + #text;
	self.recent[self.recent_last] = { segment = self.last, from = from, to = to, text = text };
end

function methods:forget_recent(position)
	while self.recent_first <= self.recent_last do
		local record = self.recent[self.recent_first];
		if record.segment > position.segment or (record.segment == position.segment and record.to > position.offset) then break; end
		self.recent[self.recent_first] = nil;
		self.recent_first, self.recent_bytes = self.recent_first + 1, self.recent_bytes - #record.text;
	end
end

-- What read() returns, if it is remembered; nil otherwise.
function methods:read_recent(position, max_records, max_bytes)
	local number, offset = position.segment, position.offset;
	while number < self.last and offset >= (self.sizes[number] or 0) do number, offset = number + 1, 0; end
	local first = self.recent_first;
	while first <= self.recent_last and self.recent[first].segment == number and self.recent[first].to <= offset do first = first + 1; end
	local record = self.recent[first];
	if not record or record.segment ~= number or record.from ~= offset then return nil; end
	local records, bytes, last = {}, 0, record;
	for at = first, math.min(self.recent_last, first + max_records - 1) do
		record = self.recent[at];
		bytes = bytes + #record.text;
		if at > first and bytes > max_bytes then break; end
		records[#records + 1], last = record.text, record;
	end
	return records, { segment = last.segment, offset = last.to };
end

-- The records from a position on, at most so many and so many bytes (but one at least), and the position behind them.
function methods:read(position, max_records, max_bytes)
	if not is_before(position, self:tail()) then return {}, position; end
	local records, next_position = self:read_recent(position, max_records, max_bytes);
	if records then return records, next_position; end
	return self:read_from_disk(position, max_records, max_bytes);
end

function methods:read_from_disk(position, max_records, max_bytes)
	local records, bytes = {}, 0;
	local number, offset = position.segment, position.offset;
	while #records < max_records do
		local file = self.sizes[number] and io.open(self:path(number), "rb");
		if file then
			file:seek("set", offset);
			for line in file:lines("L") do
				local sum, text = line:match("^(%x+) (.*)\n$");
				if sum and checksum(text) == sum then
					if #records > 0 and bytes + #text > max_bytes then
						file:close();
						return records, { segment = number, offset = offset };
					end
					records[#records + 1], bytes = text, bytes + #text;
				else
					self.broken = self.broken + 1;
					module:log("warn", "A record of %d bytes in %s is torn and is left out", #line, self:path(number));
				end
				offset = offset + #line;
				if #records >= max_records then break; end
			end
			file:close();
		end
		if number >= self.last or #records >= max_records then break; end
		number, offset = number + 1, 0;
	end
	return records, { segment = number, offset = offset };
end

-- Everything before a position is done with.
function methods:forget(position)
	self:forget_recent(position);
	local all = not is_before(position, self:tail());
	if all and (self.sizes[self.last] or 0) >= math.min(idle_bytes, self.max_bytes / 4) and self:next_segment() then
		position.segment, position.offset = self.last, 0;
	end
	for number, size in pairs(self.sizes) do
		if number < position.segment then
			os.remove(self:path(number));
			self.sizes[number], self.bytes = nil, self.bytes - size;
		end
	end
end

-- Keeps a record that the component will never take where an operator finds it.
function methods:set_aside(text)
	local path = self.directory .. "/refused.xml";
	if (lfs.attributes(path, "size") or 0) + #text > aside_bytes then return; end
	local file = io.open(path, "ab");
	if not file then return; end
	file:write(text, "\n");
	file:close();
end

function methods:close()
	if not self.file then return; end
	self:sync();
	self.file:close();
	self.file = nil;
end

return { open = open, is_before = is_before };
