-- A stanza as text, as tostring() gives it, in less than half of the time: most texts in a message are long and in base64, and
-- have nothing to escape. To see that takes five plain searches, and not a pattern that is tried at each character.

local xml_escape = require "util.stanza".xml_escape;
local find, concat = string.find, table.concat;

local short = 24; -- Up to here the pattern is as fast.

local function escaped(text)
	if #text > short and not (find(text, "<", 1, true) or find(text, "&", 1, true) or find(text, ">", 1, true)
		or find(text, "'", 1, true) or find(text, '"', 1, true)) then
		return text;
	end
	return xml_escape(text);
end

-- Puts the pieces of an element behind the first n of a buffer; how many there are then.
local function write(element, buffer, n, outer_namespace)
	local name, attributes, prefixes = element.name, element.attr, 0;
	n = n + 1;
	buffer[n] = "<" .. name;
	for key, value in pairs(attributes) do
		if find(key, "\1", 1, true) then
			local namespace, rest = key:match("^([^\1]*)\1?(.*)$");
			prefixes = prefixes + 1;
			n = n + 1;
			buffer[n] = (" xmlns:ns%d='%s' ns%d:%s='%s'"):format(prefixes, xml_escape(namespace), prefixes, rest, xml_escape(value));
		elseif key ~= "xmlns" or value ~= outer_namespace then
			n = n + 1;
			buffer[n] = " " .. key .. "='" .. escaped(value) .. "'";
		end
	end
	local children = #element;
	n = n + 1;
	if children == 0 then
		buffer[n] = "/>";
		return n;
	end
	buffer[n] = ">";
	for i = 1, children do
		local child = element[i];
		if child.name then
			n = write(child, buffer, n, attributes.xmlns);
		else
			n = n + 1;
			buffer[n] = escaped(child);
		end
	end
	n = n + 1;
	buffer[n] = "</" .. name .. ">";
	return n;
end

local function of(stanza)
	local buffer = {};
	write(stanza, buffer, 0, nil);
	return concat(buffer);
end

return { of = of };
