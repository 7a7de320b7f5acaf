%%% Device lists in two places: the component decides them, mod_pubsub announces them.
%%%
%%% mod_pubsub has the list in force under the same node, and does what it does for every node: +notify, the last item on
%%% presence, subscriptions, here and over s2s. And what was in mod_pubsub before there was a component is taken over once.
-module(mod_multiend_lists).
-behaviour(gen_server).

-export([start_link/1, is_device_list/1, is_bundle/1]).
-export([changed/4, compare/4, refresh/3, when_imported/3, connected/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2, code_change/3]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("pubsub.hrl").
-include("mod_multiend.hrl").

-define(RETRY, 30000).      % When a list is asked for again that could not be had, in milliseconds.
-define(COMPARE_AT_MOST, 200). % Comparisons are left out while more than so much waits here.

%% What is taken over: an account, or {all, Host} when all have been.
-record(multiend_imported, {who :: {binary(), binary()} | {all, binary()}, at :: integer()}).

-record(state, {host :: binary(),
		refreshing = #{} :: #{{binary(), binary()} => true},
		importing = #{} :: #{binary() => {pid(), [fun(() -> any())]}},
		everybody :: undefined | pid()}).

start_link(Host) -> gen_server:start_link({local, proc(Host)}, ?MODULE, Host, []).

proc(Host) -> gen_mod:get_module_proc(Host, ?MODULE).

is_device_list(?NS_OMEMO_2_DEVICES) -> true;
is_device_list(?NS_AXOLOTL_LIST) -> true;
is_device_list(_) -> false.

is_bundle(?NS_OMEMO_2_BUNDLES) -> true;
is_bundle(<<"eu.siacs.conversations.axolotl.bundles:", Id/binary>>) ->
    Id =/= <<>> andalso lists:all(fun(C) -> C >= $0 andalso C =< $9 end, binary_to_list(Id));
is_bundle(_) -> false.

%% A request has changed a list: the node is made what the <list/> of the answer says, then Tell is called. So a subscription
%% of who is told finds the node.
changed(Host, User, List, Tell) -> gen_server:cast(proc(Host), {changed, User, List, Tell}).

%% Somebody has just been given this list: if mod_pubsub has another, news of it was lost.
compare(Host, User, Node, Answer) ->
    Given = [ids(L) || #xmlel{name = <<"pubsub">>, children = Ps} <- Answer, #xmlel{children = Is} <- Ps,
		       #xmlel{name = <<"item">>, children = Ls} <- Is, #xmlel{} = L <- Ls],
    gen_server:cast(proc(Host), {compare, User, Node, Given}).

%% Asks for the list in force, until there is an answer.
refresh(Host, User, Node) -> gen_server:cast(proc(Host), {refresh, User, Node}).

%% Calls back when what mod_pubsub had of an account has been taken over, or cannot be now. At once and here if it has been.
when_imported(Host, User, Callback) ->
    case is_imported(Host, User) of
	true -> Callback();
	false -> gen_server:cast(proc(Host), {import, User, Callback})
    end.

%% A component has come.
connected(Host) -> gen_server:cast(proc(Host), connected).

%%% -------------------------------------------------------------------------------------------------------------- the process

init(Host) ->
    process_flag(trap_exit, true),
    ejabberd_mnesia:create(?MODULE, multiend_imported,
			   [{disc_copies, [node()]}, {attributes, record_info(fields, multiend_imported)}]),
    is_recorded({all, Host}) andalso ets:insert(mod_multiend:table(Host), {all_imported}),
    mod_multiend_component:is_connected(Host) andalso connected(Host),
    {ok, #state{host = Host}}.

handle_call(_, _, State) -> {reply, {error, unknown}, State}.

handle_cast({changed, User, List, Tell}, #state{host = Host} = State) ->
    apply_list(Host, User, List, always),
    mod_multiend_component:call_back(fun(_) -> Tell() end, ok),
    {noreply, State};
handle_cast({apply, User, List}, #state{host = Host} = State) ->
    apply_list(Host, User, List, if_different),
    {noreply, State};
handle_cast({compare, User, Node, Given}, #state{host = Host} = State) ->
    {message_queue_len, Waiting} = process_info(self(), message_queue_len),
    Waiting < ?COMPARE_AT_MOST andalso announced(Host, User, Node) =/= Given andalso refresh(Host, User, Node),
    {noreply, State};
handle_cast({refresh, User, Node}, #state{refreshing = Refreshing} = State) when is_map_key({User, Node}, Refreshing) ->
    {noreply, State#state{refreshing = Refreshing#{{User, Node} := again}}};
handle_cast({refresh, User, Node}, #state{host = Host, refreshing = Refreshing} = State) ->
    ask_for_list(Host, User, Node),
    {noreply, State#state{refreshing = Refreshing#{{User, Node} => asked}}};
handle_cast({refreshed, User, Node, Answer}, State) -> {noreply, refreshed(User, Node, Answer, State)};
handle_cast({import, User, Callback}, State) -> {noreply, import(User, Callback, State)};
handle_cast(connected, #state{host = Host, everybody = undefined} = State) ->
    case ets:member(mod_multiend:table(Host), all_imported) of
	true -> {noreply, State};
	false -> {noreply, State#state{everybody = spawn_link(fun() -> import_everybody(Host) end)}}
    end;
handle_cast(_, State) -> {noreply, State}.

handle_info({again, User, Node}, #state{host = Host, refreshing = Refreshing} = State) ->
    refresh(Host, User, Node),
    {noreply, State#state{refreshing = maps:remove({User, Node}, Refreshing)}};
handle_info({'EXIT', Pid, Reason}, #state{everybody = Pid, host = Host} = State) ->
    Reason =:= normal andalso ets:insert(mod_multiend:table(Host), {all_imported}),
    {noreply, State#state{everybody = undefined}}; % again when the component comes back
handle_info({'EXIT', Pid, _}, #state{importing = Importing} = State) ->
    case [{User, Callbacks} || {User, {Worker, Callbacks}} <- maps:to_list(Importing), Worker =:= Pid] of
	[{User, Callbacks}] ->
	    [mod_multiend_component:call_back(fun(_) -> Callback() end, ok) || Callback <- lists:reverse(Callbacks)],
	    {noreply, State#state{importing = maps:remove(User, Importing)}};
	[] -> {noreply, State}
    end;
handle_info(_, State) -> {noreply, State}.

terminate(_, _) -> ok.

code_change(_, State, _) -> {ok, State}.

%%% --------------------------------------------------------------------------------------------------- the list in mod_pubsub

ask_for_list(Host, User, Node) ->
    List = #xmlel{name = <<"list">>, attrs = [{<<"xmlns">>, ?NS_MULTIEND_PLUGIN},
					      {<<"owner">>, owner(Host, User)}, {<<"node">>, Node}]},
    Proc = proc(Host),
    mod_multiend_component:request(Host, get, List, fun(Answer) ->
							    gen_server:cast(Proc, {refreshed, User, Node, Answer})
						    end).

refreshed(User, Node, Answer, #state{host = Host, refreshing = Refreshing} = State) ->
    case Answer of
	{ok, #iq{type = result, sub_els = [#xmlel{name = <<"list">>} = List]}} ->
	    apply_list(Host, User, List, if_different),
	    maps:get({User, Node}, Refreshing, asked) =:= again andalso refresh(Host, User, Node),
	    State#state{refreshing = maps:remove({User, Node}, Refreshing)};
	_ ->
	    case ejabberd_auth:user_exists(User, Host) of
		true -> erlang:send_after(?RETRY, self(), {again, User, Node}), State;
		false -> State#state{refreshing = maps:remove({User, Node}, Refreshing)}
	    end
    end.

%% Makes the node what <list/> says: always if a request was about to change it, as PEP tells of every publication.
apply_list(Host, User, List, When) ->
    Node = fxml:get_tag_attr_s(<<"node">>, List),
    case is_device_list(Node) andalso fxml:get_tag_attr_s(<<"owner">>, List) =:= owner(Host, User) of
	true ->
	    Items = [Item || #xmlel{name = <<"pubsub">>, children = Ps} <- List#xmlel.children,
			     #xmlel{name = <<"items">>, children = Is} <- Ps, #xmlel{name = <<"item">>} = Item <- Is],
	    try set_node(Host, User, Node, Items, When)
	    catch Class:Reason:Stack ->
		    ?ERROR_MSG("Cannot announce ~ts of ~ts: ~p: ~p~n~p", [Node, owner(Host, User), Class, Reason, Stack])
	    end;
	false -> ?ERROR_MSG("The component sent a list that was not asked for: ~ts ~ts", [owner(Host, User), Node])
    end.

set_node(Host, User, Node, [], _) ->
    case mod_pubsub:delete_node({User, Host, <<>>}, Node, jid:make(User, Host)) of
	{result, _} -> announce_end(Host, User, Node);
	{error, #stanza_error{reason = 'item-not-found'}} -> ok;
	{error, Error} -> complain(Host, User, Node, Error)
    end;
set_node(Host, User, Node, [Item | _], When) ->
    Payload = [El || #xmlel{} = El <- Item#xmlel.children],
    case When =:= if_different andalso announced(Host, User, Node) =:= [ids(El) || El <- Payload] of
	true -> ok;
	false ->
	    Id = case fxml:get_tag_attr_s(<<"id">>, Item) of <<>> -> <<"current">>; Given -> Given end,
	    publish(Host, User, Node, Id, Payload)
    end.

%% Open for everybody to read, one item only, and those who have subscribed are told of its end.
publish(Host, User, Node, Id, Payload) ->
    Config = [{access_model, open}, {max_items, 1}, {notify_delete, true}, {persist_items, true}],
    Publish = fun(Options) ->
		      mod_pubsub:publish_item({User, Host, <<>>}, Host, Node, jid:make(User, Host), Id, Payload, Options, all)
	      end,
    case Publish(Config) of
	{result, _} -> ok;
	{error, #stanza_error{reason = conflict}} -> % it is there, and configured otherwise
	    mod_pubsub:set_configure({User, Host, <<>>}, Node, jid:make(User, Host), Config, <<"en">>),
	    case Publish([]) of
		{result, _} -> ok;
		{error, Error} -> complain(Host, User, Node, Error)
	    end;
	{error, Error} -> complain(Host, User, Node, Error)
    end.

complain(Host, User, Node, Error) ->
    ?ERROR_MSG("Cannot announce ~ts of ~ts: ~p", [Node, owner(Host, User), Error]).

%% mod_pubsub tells of deleted nodes only those who have subscribed explicitly. The others, who have +notify, are told here,
%% on the way that mod_pubsub takes with items.
announce_end(Host, User, Node) ->
    Owner = jid:make(User, Host),
    Message = #message{type = headline, from = Owner, sub_els = [#ps_event{delete = {Node, <<>>}}]},
    case ejabberd_sm:get_user_resources(User, Host) of
	[Resource | _] ->
	    ejabberd_sm:route(jid:replace_resource(Owner, Resource),
			      {pep_message, <<Node/binary, "+notify">>, Message, fun(_) -> true end}),
	    ejabberd_router:route(Message#message{to = Owner});
	[] -> ok
    end.

%% What mod_pubsub announces now: the ids in each item.
announced(Host, User, Node) -> [ids(El) || {_, [#xmlel{} = El | _]} <- items(Host, User, Node)].

items(Host, User, Node) ->
    case mod_pubsub:get_items({User, Host, <<>>}, Node) of
	Items when is_list(Items) -> [{Id, Payload} || #pubsub_item{itemid = {Id, _}, payload = Payload} <- Items];
	{error, _} -> []
    end.

ids(#xmlel{children = Children}) ->
    lists:sort([fxml:get_tag_attr_s(<<"id">>, Device) || #xmlel{name = <<"device">>} = Device <- Children]).

owner(Host, User) -> jid:encode(jid:make(User, Host)).

%%% -------------------------------------------------------------------------------------------- taking over what mod_pubsub has

is_imported(Host, User) -> ets:member(mod_multiend:table(Host), all_imported) orelse is_recorded({User, Host}).

is_recorded(Who) -> mnesia:dirty_read(multiend_imported, Who) =/= [].

record(Who) ->
    {atomic, ok} = mnesia:transaction(fun() -> mnesia:write(#multiend_imported{who = Who, at = erlang:system_time(second)}) end),
    mnesia:sync_log().

import(User, Callback, #state{host = Host, importing = Importing} = State) ->
    case {is_imported(Host, User), Importing} of
	{true, _} ->
	    mod_multiend_component:call_back(fun(_) -> Callback() end, ok),
	    State;
	{false, #{User := {Worker, Callbacks}}} ->
	    State#state{importing = Importing#{User := {Worker, [Callback | Callbacks]}}};
	{false, _} ->
	    Worker = spawn_link(fun() -> import_account(Host, User) end),
	    State#state{importing = Importing#{User => {Worker, [Callback]}}}
    end.

%% Everybody, one after the other, once. Ends normally if all have been taken over.
import_everybody(Host) ->
    Users = ejabberd_auth:get_users(Host),
    lists:foreach(fun({User, _}) ->
			  is_recorded({User, Host}) orelse find_items(Host, User) =:= [] orelse begin
			      Self = self(),
			      gen_server:cast(proc(Host), {import, User, fun() -> Self ! {done, User} end}),
			      receive {done, User} -> ok end,
			      is_recorded({User, Host}) orelse exit({shutdown, later})
			  end
		  end, Users),
    record({all, Host}),
    ?INFO_MSG("The OMEMO devices of ~B accounts of ~ts are in the directory", [length(Users), Host]).

%% Bundles first, so that no list names a device without one.
import_account(Host, User) ->
    {Lists, Bundles} = lists:partition(fun({Node, _, _}) -> is_device_list(Node) end, find_items(Host, User)),
    case lists:all(fun(Found) -> import_item(Host, User, Found) end, Bundles ++ Lists) of
	true -> record({User, Host});
	false -> ok
    end.

find_items(Host, User) ->
    case mod_pubsub:tree_action({User, Host, <<>>}, get_nodes, [{User, Host, <<>>}]) of
	Nodes when is_list(Nodes) ->
	    [{Node, Id, El} || #pubsub_node{nodeid = {_, Node}} <- Nodes, is_device_list(Node) orelse is_bundle(Node),
			       {Id, Payload} <- items(Host, User, Node), #xmlel{} = El <- Payload];
	_ -> []
    end.

%% Publishes one item, unless the component has it: what is there is newer. False if it must be tried again.
import_item(Host, User, {Node, Id, Payload}) ->
    Item = #xmlel{name = <<"item">>, attrs = [{<<"id">>, Id}]},
    case not is_device_list(Node) andalso ask(Host, User, <<"get">>, pubsub(<<"items">>, Node, [Item])) of
	{ok, <<"result">>, _} -> true;
	none -> false;
	_ ->
	    case ask(Host, User, <<"set">>, pubsub(<<"publish">>, Node, [Item#xmlel{children = [Payload]}])) of
		none -> false;
		{ok, Type, Lists} ->
		    Type =:= <<"error">> andalso
			?WARNING_MSG("~ts of ~ts is not taken over: the component refuses it", [Node, owner(Host, User)]),
		    [gen_server:cast(proc(Host), {apply, User, List}) || List <- Lists],
		    true
	    end
    end.

pubsub(Verb, Node, Items) ->
    #xmlel{name = <<"pubsub">>, attrs = [{<<"xmlns">>, ?NS_PUBSUB}],
	   children = [#xmlel{name = Verb, attrs = [{<<"node">>, Node}], children = Items}]}.

%% Asks the component as the owner. The resource is that of nobody: a session is taken for the device whose bundle it
%% publishes, so each bundle needs one of its own.
ask(Host, User, Type, Payload) ->
    Owner = owner(Host, User),
    From = <<Owner/binary, "/multiend-import-", (p1_rand:get_string())/binary>>,
    IQ = #xmlel{name = <<"iq">>, children = [Payload],
		attrs = [{<<"xmlns">>, ?NS_CLIENT}, {<<"type">>, Type}, {<<"id">>, <<"import">>},
			 {<<"from">>, From}, {<<"to">>, Owner}]},
    Wrapper = #xmlel{name = <<"delegation">>,
		     attrs = [{<<"xmlns">>, ?NS_WRAPPER}, {<<"owner">>, Owner}, {<<"relation">>, <<"self">>}],
		     children = [#xmlel{name = <<"forwarded">>, attrs = [{<<"xmlns">>, ?NS_FORWARD}], children = [IQ]}]},
    {Self, Ref} = {self(), make_ref()},
    mod_multiend_component:request(Host, set, Wrapper, fun(Answer) -> Self ! {Ref, Answer} end),
    receive
	{Ref, {ok, #iq{type = result, sub_els = [#xmlel{name = <<"delegation">>, children = Children}]}}} ->
	    case [fxml:get_tag_attr_s(<<"type">>, Told) || #xmlel{name = <<"forwarded">>, children = Cs} <- Children,
							   #xmlel{name = <<"iq">>} = Told <- Cs] of
		[Answered | _] -> {ok, Answered, [List || #xmlel{name = <<"list">>} = List <- Children]};
		[] -> none
	    end;
	{Ref, _} -> none
    end.
