-- For tests of federation on one machine: finds other servers in a table of the configuration instead of in the DNS.
--   fixed_addresses = { ["example.net"] = 12345 }   the port of its s2s on loopback
module:set_global();
local service = require "net.resolvers.service";
local manual = require "net.resolvers.manual";
local addresses = module:get_option("fixed_addresses", {});
local new = service.new;
function service.new(hostname, name, connection, extra)
	local port = addresses[hostname];
	if not port then return new(hostname, name, connection, extra); end
	return manual.new({ { "tcp4", "127.0.0.1", port, extra } }, connection, extra);
end
