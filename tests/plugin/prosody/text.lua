-- Random stanzas, written by the plugin and by Prosody itself.
local st = require "util.stanza";
local text = dofile(arg[1]);

local pieces = { "", "a", "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB", "<", "&", ">", "'", '"', "äöü", "\n", "a & b", "]]>", "&amp;", "x'y\"z" };
local function random_text()
	local parts = {};
	for i = 1, math.random(0, 6) do parts[i] = pieces[math.random(#pieces)]; end
	return table.concat(parts);
end

local function random_element(depth)
	local attributes = {};
	for _ = 1, math.random(0, 3) do
		local names = { "id", "to", "xmlns", "xml:lang", "urn:example:one\1key", "urn:example:two\1key" };
		attributes[names[math.random(#names)]] = random_text();
	end
	local element = st.stanza(({ "message", "body", "x" })[math.random(3)], attributes);
	for _ = 1, depth > 0 and math.random(0, 4) or 0 do
		if math.random(2) == 1 then element:text(random_text()); else element:add_direct_child(random_element(depth - 1)); end
	end
	return element;
end

math.randomseed(1);
for _ = 1, 5000 do
	local element = random_element(4);
	local theirs, ours = tostring(element), text.of(element);
	assert(ours == theirs, ours .. "\n" .. theirs);
end
