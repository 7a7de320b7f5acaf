%%% mod_multiend: makes the OMEMO directory and archive "multiend" serve the clients of this host at their own addresses.
%%% For ejabberd 23.01 and later. What is said to the component is in docs/plugin-protocol.md, how to install this in
%%% docs/ejabberd.md.
%%%
%%% Options, with their defaults:
%%%
%%%   components: [multiend.HOST]   The component JIDs of multiend. The first that is connected is used.
%%%   timeout: 30                   Seconds until a request of a client is answered with an error.
%%%   requests: 1000                Most requests that may wait for an answer at once.
%%%   batch: 100                    Most copies of messages that are sent to the component at once.
%%%   journal_size: 1073741824      Most bytes of copies that may wait on disk.
%%%   journal_sync: 100             Longest time, in milliseconds, for which a copy may not be safe from a power failure.
%%%                                 0: no message goes on before its copy is. false: leave it to the operating system.
%%%                                 (A crash of ejabberd alone never loses a copy.)
%%%   journal_full: deliver         When the journal is full or the disk fails: deliver messages without archiving them,
%%%                                 counted and logged; or refuse them.
%%%
%%% Modules beside this one: journal and writer (copies on disk), sender (from there to the component), component (which one, requests
%%% and answers), messages (what is copied), requests (what is handed over), lists (device lists kept in mod_pubsub as well,
%%% and what is taken over from there).
-module(mod_multiend).
-behaviour(gen_mod).
-behaviour(supervisor).

-export([start/2, stop/1, reload/3, depends/2, mod_options/1, mod_opt_type/1, mod_doc/0]).
-export([start_link/1, init/1]).
-export([table/1, not_archived/2, disco_sm_features/5, status_command/1]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("ejabberd_commands.hrl").

-define(TOLD_AGAIN, 60). % How often a journal that takes no more is told of, in seconds.

%%% ----------------------------------------------------------------------------------------------------------- start and stop

start(Host, _Opts) ->
    Sup = gen_mod:get_module_proc(Host, ?MODULE),
    Child = #{id => Sup, start => {?MODULE, start_link, [Host]}, type => supervisor, shutdown => infinity, restart => transient},
    case supervisor:start_child(ejabberd_gen_mod_sup, Child) of
	{ok, _} ->
	    take_over_from_mod_mam(Host),
	    [ejabberd_hooks:add(Hook, At, Module, Function, Priority) || {Hook, At, Module, Function, Priority} <- hooks(Host)],
	    ejabberd_commands:register_commands(commands()),
	    ok;
	Error -> Error
    end.

stop(Host) ->
    Elsewhere = gen_mod:is_loaded_elsewhere(Host, ?MODULE),
    [ejabberd_hooks:delete(Hook, At, Module, Function, Priority) ||
	{Hook, At, Module, Function, Priority} <- hooks(Host), At =:= Host orelse not Elsewhere],
    Elsewhere orelse ejabberd_commands:unregister_commands(commands()),
    Sup = gen_mod:get_module_proc(Host, ?MODULE),
    _ = supervisor:terminate_child(ejabberd_gen_mod_sup, Sup),
    _ = supervisor:delete_child(ejabberd_gen_mod_sup, Sup),
    ok.

reload(Host, New, Old) ->
    if New =:= Old -> ok;
       true -> ?WARNING_MSG("New options of ~ts for ~ts are taken when ejabberd starts next", [?MODULE, Host])
    end.

%% mod_pubsub announces the lists. Where mod_mam is loaded, for rooms, it comes first.
depends(_Host, _Opts) -> [{mod_pubsub, hard}, {mod_mam, soft}, {mod_offline, soft}].

%% Priorities are those of mod_mam, before carbons (89) and offline storage (50).
hooks(Host) ->
    Messages = mod_multiend_messages,
    [{user_send_packet, Host, Messages, user_send_packet, 88},
     {user_send_packet, Host, Messages, strip_own_id, 500},
     {c2s_authenticated_packet, Host, Messages, c2s_authenticated_packet, 40}, % before mod_stream_mgmt
     {sm_receive_packet, Host, mod_multiend_requests, sm_receive_packet, 10},
     {sm_receive_packet, Host, Messages, sm_receive_packet, 50},
     {user_receive_packet, Host, Messages, user_receive_packet, 88},
     {offline_message_hook, Host, Messages, offline_message, 49},
     {disco_sm_features, Host, ?MODULE, disco_sm_features, 60},
     {component_send_packet, global, mod_multiend_component, from_component, 40},
     {component_connected, global, mod_multiend_component, connected, 60},
     {component_disconnected, global, mod_multiend_component, disconnected, 60}].

%% mod_mam may be there for rooms. The archives of accounts are not its business any more.
take_over_from_mod_mam(Host) ->
    case gen_mod:is_loaded(Host, mod_mam) of
	true ->
	    ?INFO_MSG("mod_mam keeps the archives of rooms; those of the accounts of ~ts are kept by multiend", [Host]),
	    [ejabberd_hooks:delete(Hook, Host, mod_mam, Function, Priority) ||
		{Hook, Function, Priority} <- [{sm_receive_packet, sm_receive_packet, 50},
					       {user_receive_packet, user_receive_packet, 88},
					       {user_send_packet, user_send_packet, 88},
					       {user_send_packet, user_send_packet_strip_tag, 500},
					       {offline_message_hook, offline_message, 49},
					       {disco_sm_features, disco_sm_features, 50}]],
	    [gen_iq_handler:remove_iq_handler(Component, Host, NS) ||
		Component <- [ejabberd_sm, ejabberd_local], NS <- [?NS_MAM_TMP, ?NS_MAM_0, ?NS_MAM_1, ?NS_MAM_2]],
	    ok;
	false -> ok
    end.

start_link(Host) -> supervisor:start_link({local, gen_mod:get_module_proc(Host, ?MODULE)}, ?MODULE, Host).

init(Host) ->
    _ = ets:new(table(Host), [named_table, public, {read_concurrency, true}]),
    true = ets:insert(table(Host), [{features, []}, {failures, 0}, {not_archived, 0}, {told, 0}, {journal_fails, false}]),
    %% Each needs those before it, and would wait in vain for what those have forgotten.
    Children = [#{id => Module, start => {Module, start_link, [Host]}} ||
		   Module <- [mod_multiend_component, mod_multiend_journal, mod_multiend_sender, mod_multiend_lists]],
    {ok, {#{strategy => rest_for_one, intensity => 10, period => 10}, Children}}.

%% What the processes of a host share: whether a component is connected, what it can do, counters.
table(Host) -> gen_mod:get_module_proc(Host, mod_multiend_table).

%%% ----------------------------------------------------------------------------------------------------------------- the rest

%% The journal cannot take a message: counted, told, and decided what becomes of it.
not_archived(Host, Reason) ->
    Fate = case gen_mod:get_module_opt(Host, ?MODULE, journal_full) of
	       deliver -> not_archived;
	       refuse -> refused
	   end,
    Count = ets:update_counter(table(Host), not_archived, 1),
    Now = erlang:monotonic_time(second),
    [{told, Told}] = ets:lookup(table(Host), told),
    if Count =:= 1; Now > Told + ?TOLD_AGAIN ->
	    ets:insert(table(Host), {told, Now}),
	    ?ERROR_MSG("The journal of message copies takes no more (~p): ~B messages were ~ts since the start",
		       [Reason, Count, case Fate of
					   not_archived -> "delivered without being archived";
					   refused -> "refused"
				       end]);
       true -> ok
    end,
    Fate.

disco_sm_features(empty, From, To, Node, Lang) -> disco_sm_features({result, []}, From, To, Node, Lang);
disco_sm_features({result, Features}, _, #jid{lserver = Host}, <<>>, _) ->
    Ours = case mod_multiend_component:features(Host) of
	       [] -> [?NS_MAM_2, <<"urn:xmpp:mam:2#extended">>, ?NS_SID_0];
	       Told -> Told
	   end,
    {result, Features ++ (Ours -- Features)};
disco_sm_features(Acc, _, _, _, _) -> Acc.

commands() ->
    [#ejabberd_commands{name = multiend_status, tags = [statistics],
			desc = "What became of the copies of messages of a host since its start",
			module = ?MODULE, function = status_command,
			args = [{host, binary}], args_example = [<<"example.org">>], args_desc = ["Host"],
			result = {status, {list, {figure, {tuple, [{name, atom}, {value, integer}]}}}},
			result_example = [{copies_sent, 10}, {journal_bytes, 0}],
			result_desc = "Acknowledged, refused by the component, not archived; requests without an answer; "
			"bytes that wait; whether a component is connected"}].

status_command(Host) ->
    {Sent, Refused, Waits} = mod_multiend_sender:status(Host),
    [{copies_sent, Sent},
     {copies_refused, Refused},
     {messages_not_archived, ets:lookup_element(table(Host), not_archived, 2)},
     {requests_failed, mod_multiend_component:failures(Host)},
     {journal_bytes, case Waits of true -> mod_multiend_journal:bytes(Host); false -> 0 end},
     {connected, case mod_multiend_component:is_connected(Host) of true -> 1; false -> 0 end}].

mod_opt_type(components) -> econf:list(econf:domain(), [unique]);
mod_opt_type(timeout) -> econf:timeout(second);
mod_opt_type(requests) -> econf:pos_int();
mod_opt_type(batch) -> econf:int(1, 1000);
mod_opt_type(journal_size) -> econf:pos_int();
mod_opt_type(journal_sync) -> econf:either(false, econf:non_neg_int());
mod_opt_type(journal_full) -> econf:enum([deliver, refuse]).

mod_options(Host) ->
    [{components, [<<"multiend.", Host/binary>>]},
     {timeout, timer:seconds(30)},
     {requests, 1000},
     {batch, 100},
     {journal_size, 1073741824},
     {journal_sync, 100},
     {journal_full, deliver}].

mod_doc() ->
    #{desc => "Connects the accounts of a host to multiend, an OMEMO device directory and message archive."}.
