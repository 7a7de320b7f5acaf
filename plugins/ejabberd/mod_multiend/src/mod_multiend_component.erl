%%% The component: which connection of which component is used, and requests to it with their answers.
%%%
%%% Whatever happens, a request ends: with an answer, with an error after a time, or at once when its connection goes away.
%%% One connection is used for everything until it ends, although ejabberd takes several of one JID and would choose one of
%%% them for each stanza: what is said in order must be answered in order, and what was under way when a connection ended
%%% must be known.
-module(mod_multiend_component).
-behaviour(gen_server).

-export([start_link/1, request/4, is_connected/1, features/1, failures/1, call_back/2]).
-export([connected/1, disconnected/2, from_component/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2, code_change/3]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("ejabberd_router.hrl").
-include("mod_multiend.hrl").

-define(PREFIX, "multiend-").
-define(LOOK_AGAIN, 2000). % How often it is looked for a component that no hook has told of, in milliseconds.

-type answer() :: {ok, iq()} | {error, disconnected | timeout | busy}.
-type callback() :: fun((answer()) -> any()).
-export_type([answer/0, callback/0]).

-record(state, {host :: binary(),
		components :: [binary()],
		current :: undefined | {binary(), pid(), reference()},
		waiting = #{} :: #{binary() => {callback(), reference()}},
		prefix :: binary(),
		last_id = 0 :: non_neg_integer()}).

start_link(Host) -> gen_server:start_link({local, proc(Host)}, ?MODULE, Host, []).

proc(Host) -> gen_mod:get_module_proc(Host, ?MODULE).

table(Host) -> mod_multiend:table(Host).

%%% ------------------------------------------------------------------------------------------------------------ what others call

%% Sends an IQ of a type (get or set) with this payload from the host to the component. Calls back once, in a process that
%% others wait for: what takes long belongs elsewhere.
-spec request(binary(), get | set, xmlel(), callback()) -> ok.
request(Host, Type, Payload, Callback) -> gen_server:cast(proc(Host), {request, Type, Payload, Callback}).

%% Whether there is a connection.
is_connected(Host) -> ets:member(table(Host), component).

%% What the component says that it can do for an account.
features(Host) -> ets:lookup_element(table(Host), features, 2).

%% How many requests ended without an answer, since the start.
failures(Host) -> ets:lookup_element(table(Host), failures, 2).

%% A callback that fails must not take others with it.
call_back(Callback, Argument) ->
    try Callback(Argument)
    catch Class:Reason:Stack -> ?ERROR_MSG("~p: ~p~n~p", [Class, Reason, Stack])
    end.

%%% ---------------------------------------------------------------------------------------------------------------- the hooks

connected(Component) -> each_host(Component).
disconnected(Component, _Reason) -> each_host(Component).

each_host(Component) ->
    [gen_server:cast(proc(Host), look) || Host <- hosts(), lists:member(Component, components(Host))],
    ok.

hosts() -> [Host || Host <- ejabberd_option:hosts(), gen_mod:is_loaded(Host, mod_multiend)].

components(Host) -> gen_mod:get_module_opt(Host, mod_multiend, components).

%% Everything that a component sends comes by here first: answers, and news of lists. Runs in the process of the connection,
%% which alone can say who has authenticated on it.
from_component({#iq{from = #jid{luser = <<>>, lserver = From}, to = #jid{luser = <<>>, lserver = Host, lresource = <<>>},
		    type = Type, id = Id, sub_els = Els} = IQ, #{remote_server := From} = State} = Acc) ->
    case {Type, Id, Els} of
	{_, <<?PREFIX, Rest/binary>>, _} when Type =:= result; Type =:= error ->
	    %% No name of a process is made of whatever a component writes to.
	    case gen_mod:is_loaded(Host, mod_multiend) andalso node_of(Rest) of
		{ok, Node} ->
		    {proc(Host), Node} ! {answer, self(), IQ},
		    {stop, {drop, State}};
		_ -> Acc
	    end;
	{set, _, [#xmlel{name = <<"changed">>} = El]} ->
	    case fxml:get_tag_attr_s(<<"xmlns">>, El) =:= ?NS_MULTIEND_PLUGIN andalso lists:member(Host, hosts())
		andalso lists:member(From, components(Host)) of
		true ->
		    ejabberd_router:route(changed(Host, El, IQ)),
		    {stop, {drop, State}};
		false -> Acc
	    end;
	_ -> Acc
    end;
from_component(Acc) -> Acc.

changed(Host, El, IQ) ->
    Owner = try jid:decode(fxml:get_tag_attr_s(<<"owner">>, El)) catch _:_ -> error end,
    case {Owner, fxml:get_tag_attr_s(<<"node">>, El)} of
	{#jid{luser = User, lserver = Host}, Node} when User =/= <<>> ->
	    case mod_multiend_lists:is_device_list(Node) of
		true ->
		    mod_multiend_lists:refresh(Host, User, Node),
		    xmpp:make_iq_result(IQ);
		false -> xmpp:make_error(IQ, xmpp:err_bad_request())
	    end;
	_ -> xmpp:make_error(IQ, xmpp:err_bad_request())
    end.

%% In a cluster the connection may be to another node than that of the plugin that asks.
node_of(Rest) ->
    case binary:split(Rest, <<"-">>) of
	[Id, _] ->
	    case ejabberd_cluster:get_node_by_id(Id) of
		Node when is_atom(Node), Node =/= undefined -> {ok, Node};
		_ -> error
	    end;
	_ -> error
    end.

%%% -------------------------------------------------------------------------------------------------------------- the process

init(Host) ->
    Prefix = <<?PREFIX, (ejabberd_cluster:node_id())/binary, $-, (p1_rand:get_string())/binary, $->>,
    true = ets:delete(table(Host), component),
    self() ! look_again,
    {ok, #state{host = Host, components = components(Host), prefix = Prefix}}.

handle_call(_, _, State) -> {reply, {error, unknown}, State}.

handle_cast({request, Type, Payload, Callback}, State) -> {noreply, send(Type, Payload, Callback, State)};
handle_cast(look, State) -> {noreply, look(State)};
handle_cast(_, State) -> {noreply, State}.

handle_info({answer, Pid, #iq{id = Id} = IQ}, #state{current = {_, Pid, _}} = State) ->
    {noreply, finish(Id, {ok, IQ}, State)};
handle_info({timeout, Timer, Id}, #state{waiting = Waiting} = State) ->
    case Waiting of
	#{Id := {_, Timer}} -> {noreply, finish(Id, {error, timeout}, State)};
	_ -> {noreply, State}
    end;
handle_info({'DOWN', Monitor, process, _, _}, #state{current = {_, _, Monitor}} = State) ->
    {noreply, look(lost(State))};
handle_info(look_again, State) ->
    erlang:send_after(?LOOK_AGAIN, self(), look_again),
    {noreply, look(State)};
handle_info(_, State) -> {noreply, State}.

terminate(_, #state{} = State) ->
    lost(State),
    ok.

code_change(_, State, _) -> {ok, State}.

send(_, _, Callback, #state{current = undefined} = State) -> fail(Callback, disconnected, State);
send(Type, Payload, Callback, #state{host = Host, current = {Component, Pid, _}, waiting = Waiting} = State) ->
    case map_size(Waiting) >= gen_mod:get_module_opt(Host, mod_multiend, requests) of
	true -> fail(Callback, busy, State);
	false ->
	    #state{prefix = Prefix, last_id = Last} = State,
	    Id = <<Prefix/binary, (integer_to_binary(Last + 1))/binary>>,
	    IQ = #iq{type = Type, id = Id, from = jid:make(Host), to = jid:make(Component), sub_els = [Payload]},
	    ejabberd_cluster:send(Pid, {route, IQ}),
	    Timer = erlang:start_timer(gen_mod:get_module_opt(Host, mod_multiend, timeout), self(), Id),
	    State#state{waiting = Waiting#{Id => {Callback, Timer}}, last_id = Last + 1}
    end.

finish(Id, Answer, #state{waiting = Waiting} = State) ->
    case maps:take(Id, Waiting) of
	{{Callback, Timer}, Others} ->
	    _ = erlang:cancel_timer(Timer),
	    case Answer of
		{error, Reason} -> fail(Callback, Reason, State#state{waiting = Others});
		_ -> call_back(Callback, Answer), State#state{waiting = Others}
	    end;
	error -> State
    end.

fail(Callback, Reason, #state{host = Host} = State) ->
    _ = ets:update_counter(table(Host), failures, 1),
    call_back(Callback, {error, Reason}),
    State.

%% The connection has ended, and with it everything that was asked on it.
lost(#state{current = undefined} = State) -> State;
lost(#state{host = Host, current = {_, _, Monitor}, waiting = Waiting} = State) ->
    erlang:demonitor(Monitor, [flush]),
    true = ets:delete(table(Host), component),
    lists:foldl(fun(Id, Acc) -> finish(Id, {error, disconnected}, Acc) end,
		State#state{current = undefined}, lists:sort(maps:keys(Waiting))).

%% Which connection to use: the same as long as it is there, then the first component that has one.
look(#state{host = Host, current = Current, components = Components} = State) ->
    Routes = [{Component, Pid} || Component <- Components, Pid <- connections(Component)],
    case Current of
	{Component, Pid, _} ->
	    case lists:member({Component, Pid}, Routes) of
		true -> State;
		false -> look(lost(State))
	    end;
	undefined when Routes =:= [] -> State;
	undefined ->
	    [{Component, Pid} | _] = Routes,
	    true = ets:insert(table(Host), {component, Component}),
	    ask_for_features(Host),
	    mod_multiend_sender:connected(Host),
	    mod_multiend_lists:connected(Host),
	    State#state{current = {Component, Pid, erlang:monitor(process, Pid)}}
    end.

%% ejabberd_router keeps to itself whom it would give a stanza; what it asks itself can be asked.
connections(Component) ->
    Backend = list_to_existing_atom("ejabberd_router_" ++ atom_to_list(ejabberd_option:router_db_type())),
    case Backend:find_routes(Component) of
	{ok, Routes} ->
	    [Pid || #route{pid = Pid} <- lists:keysort(#route.pid, Routes), is_pid(Pid),
		    node(Pid) =/= node() orelse is_process_alive(Pid)];
	{error, _} -> []
    end.

%% What an account can do besides; PEP and what the server does itself the server says.
ask_for_features(Host) ->
    Query = #xmlel{name = <<"query">>, attrs = [{<<"xmlns">>, ?NS_DISCO_INFO}]},
    request(Host, get, Query, fun({ok, #iq{type = result, sub_els = Els}}) ->
				      Vars = [fxml:get_tag_attr_s(<<"var">>, F) ||
						 #xmlel{children = Cs} <- Els, #xmlel{name = <<"feature">>} = F <- Cs],
				      ets:insert(table(Host), {features, [Var || Var <- Vars, is_of_account(Var)]});
				 (_) -> ok
			      end).

is_of_account(<<"urn:xmpp:mam:", _/binary>>) -> true;
is_of_account(<<"urn:multiend:", _/binary>>) -> true;
is_of_account(<<"urn:xmpp:message-retract:", _/binary>>) -> true;
is_of_account(?NS_SID_0) -> true;
is_of_account(_) -> false.
