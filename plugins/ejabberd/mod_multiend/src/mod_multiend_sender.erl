%%% From the journal to the component: one window of copies at a time, sent again until it is acknowledged, so that nothing
%%% is lost and nothing is reordered (go-back-N). What comes twice the component recognises by owner and id.
-module(mod_multiend_sender).
-behaviour(gen_server).

-export([start_link/1, appended/2, when_settled/4, connected/1, status/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2, code_change/3]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("mod_multiend.hrl").

%% With one copy of up to 256 KiB (more no client may send) below what a component takes.
-define(WINDOW_BYTES, 262144).
-define(FIRST_WAIT, 1000).
-define(LONGEST_WAIT, 30000).
-define(GATHERING, 50).        % How long a copy waits for others to share its window, in milliseconds.
-define(RECENT_BYTES, 8388608). % How many bytes of copies are remembered.
-define(BEGINNING, 256).       % How many bytes of two messages are compared.
-define(KNOWN_OWNERS, 100000). % Of how many owners the last copy is remembered.

-record(window, {texts :: [binary()], payload :: xmlel(), next :: mod_multiend_journal:position()}).
-record(watcher, {position, timer :: reference(), callback :: fun((boolean()) -> any())}).
-record(state, {host :: binary(),
		batch :: pos_integer(),
		at_once :: pos_integer(),             % fewer while a copy is looked for that spoils the others
		acknowledged :: mod_multiend_journal:position(),
		tail :: mod_multiend_journal:position(),
		window :: undefined | #window{},      % kept until it is acknowledged
		in_flight :: undefined | reference(),
		timer :: undefined | reference(),     % when it is tried next
		wait = ?FIRST_WAIT :: pos_integer(),
		last_of = #{} :: map(),               % owner -> position behind its last copy
		%% What has just been appended need not be read again: {position, that behind it, text}, at the front the
		%% oldest. What would take too much memory is left out.
		recent = queue:new() :: queue:queue(),
		recent_count = 0 :: non_neg_integer(),
		recent_bytes = 0 :: non_neg_integer(),
		unknown_until :: undefined | mod_multiend_journal:position(), % copies of owners that are not in last_of
		watchers = [] :: [#watcher{}],
		sent = 0 :: non_neg_integer(),
		refused = 0 :: non_neg_integer()}).

start_link(Host) -> gen_server:start_link({local, proc(Host)}, ?MODULE, Host, []).

proc(Host) -> gen_mod:get_module_proc(Host, ?MODULE).

%% Copies have been put into the journal: {Owner, its position, that behind it, text} of each.
appended(Host, Records) -> gen_server:cast(proc(Host), {appended, Records}).

%% Calls back, in another process, when all copies of an owner are in the archive: with true, or with false
%% after so many milliseconds, or at once when no component is connected.
when_settled(Host, Owner, Milliseconds, Callback) ->
    gen_server:cast(proc(Host), {when_settled, Owner, Milliseconds, Callback}).

%% A component has come.
connected(Host) -> gen_server:cast(proc(Host), connected).

%% How many copies have been acknowledged and set aside since the start, and whether others wait.
status(Host) -> gen_server:call(proc(Host), status).

init(Host) ->
    {Start, Tail} = mod_multiend_journal:positions(Host),
    Batch = gen_mod:get_module_opt(Host, mod_multiend, batch),
    {ok, pump(#state{host = Host, batch = Batch, at_once = Batch, acknowledged = Start, tail = Tail,
		     unknown_until = case Start < Tail of true -> Tail; false -> undefined end})}.

handle_call(status, _, #state{sent = Sent, refused = Refused, acknowledged = A, tail = T} = State) ->
    {reply, {Sent, Refused, A < T}, State};
handle_call(_, _, State) -> {reply, {error, unknown}, State}.

handle_cast({appended, Records}, #state{last_of = Known, unknown_until = Unknown} = State) ->
    Tail = element(3, lists:last(Records)),
    State1 = case map_size(Known) > ?KNOWN_OWNERS of
		 true -> State#state{last_of = #{}, unknown_until = Tail};
		 false ->
		     Known1 = lists:foldl(fun({Owner, _, Next, _}, Map) -> Map#{Owner => Next} end, Known, Records),
		     State#state{last_of = Known1, unknown_until = Unknown}
	     end,
    {noreply, gather(lists:foldl(fun remember/2, State1#state{tail = Tail}, Records))};
handle_cast({when_settled, Owner, Milliseconds, Callback}, State) ->
    {noreply, watch(Owner, Milliseconds, Callback, State)};
handle_cast(connected, State) -> {noreply, pump(cancel_timer(State#state{wait = ?FIRST_WAIT}))};
handle_cast(_, State) -> {noreply, State}.

handle_info(pump, State) -> {noreply, pump(State#state{timer = undefined})};
handle_info({answer, Ref, Answer}, #state{in_flight = Ref} = State) ->
    {noreply, answered(Answer, State#state{in_flight = undefined})};
handle_info({timeout, Ref, settle}, #state{watchers = Watchers} = State) ->
    case lists:keytake(Ref, #watcher.timer, Watchers) of
	{value, #watcher{callback = Callback}, Others} ->
	    mod_multiend_component:call_back(Callback, false),
	    {noreply, State#state{watchers = Others}};
	false -> {noreply, State}
    end;
handle_info(_, State) -> {noreply, State}.

terminate(_, _) -> ok.

code_change(_, State, _) -> {ok, State}.

%%% ----------------------------------------------------------------------------------------------------------------- sending

gather(#state{in_flight = undefined, timer = undefined} = State) ->
    State#state{timer = erlang:send_after(?GATHERING, self(), pump)};
gather(State) -> State.

%% A window is acknowledged. The next goes at once when it would be full or somebody waits for it; otherwise it gathers: small
%% windows one after the other would cost everybody, the database most, far more for each copy.
go_on(#state{acknowledged = Position, tail = Tail} = State) when Position >= Tail -> State;
go_on(#state{watchers = [], acknowledged = Position, at_once = AtOnce, recent = Recent, recent_count = Count,
	     recent_bytes = Bytes} = State) when Count < AtOnce, Bytes < ?WINDOW_BYTES ->
    case queue:peek(Recent) of
	{value, {Position, _, _}} -> gather(State);
	_ -> pump(State) % some of it is to be read from disk
    end;
go_on(State) -> pump(State).

cancel_timer(#state{timer = undefined} = State) -> State;
cancel_timer(#state{timer = Timer} = State) ->
    _ = erlang:cancel_timer(Timer),
    State#state{timer = undefined}.

%% Sends the next window, unless one is under way, nothing is left, or it is not yet time to try again.
pump(#state{in_flight = undefined, timer = undefined, host = Host} = State) ->
    case mod_multiend_component:is_connected(Host) of
	true -> send(next_window(State));
	false -> State % connected/1 follows when there is one
    end;
pump(State) -> State.

next_window(#state{window = undefined, acknowledged = From, tail = Tail, host = Host, at_once = AtOnce} = State)
  when From < Tail ->
    case take_recent(From, AtOnce, State) of
	{[_ | _] = Texts, Position, State1} -> State1#state{window = window(Texts, Position)};
	{[], Limit, State1} ->
	    case mod_multiend_journal:read(Host, From, min(Limit, Tail), AtOnce, ?WINDOW_BYTES) of
		{[], _} -> next_window(acknowledge(min(Limit, Tail), State1));
		{Texts, Position} -> State1#state{window = window(Texts, Position)}
	    end
    end;
next_window(State) -> State.

window(Copies, Next) ->
    Texts = in_pairs(Copies),
    Payload = #xmlel{name = <<"copies">>, attrs = [{<<"xmlns">>, ?NS_MULTIEND_PLUGIN}], children = elements(Texts)},
    #window{texts = Texts, payload = Payload, next = Next}.

%% What stands in the journal is XML, written once. To be parsed and written again would cost more than everything else that
%% is done for a copy, so it goes to the component as it is.
elements(Texts) ->
    case fxml:element_to_binary(as_it_is([<<"<a b='&lt;'>&lt;</a>">>])) of
	<<"<a b='&lt;'>&lt;</a><end/>">> -> [as_it_is(Texts)];
	_ -> [fxml_stream:parse_element(Text) || Text <- Texts]
    end.

%% An element that is written as these elements and an empty one, which means nothing: names are not escaped.
as_it_is(Texts) ->
    <<"<", Rest/binary>> = iolist_to_binary([Texts, "<end"]),
    #xmlel{name = Rest}.

remember({_, {_, From} = At, {_, To} = Next, Text}, #state{recent = Recent, recent_count = Count, recent_bytes = Bytes} = State) ->
    case Bytes + To - From > ?RECENT_BYTES of
	true -> State;
	false ->
	    State#state{recent = queue:in({At, Next, Text}, Recent), recent_count = Count + 1, recent_bytes = Bytes + To - From}
    end.

%% What is remembered from a position on, as much as goes into a window, and the position behind it; or nothing, and how far
%% is to be read from disk before something is remembered.
take_recent(From, AtOnce, State) -> take_recent(From, AtOnce, ?WINDOW_BYTES, [], State).

take_recent(From, AtOnce, Room, Taken, #state{recent = Recent, tail = Tail} = State) ->
    case queue:peek(Recent) of
	{value, {At, _, _}} when At < From -> % has been read from disk meanwhile
	    take_recent(From, AtOnce, Room, Taken, drop_recent(State));
	{value, {From, {_, To} = Next, Text}} when AtOnce > 0, Taken =:= [] orelse To - element(2, From) =< Room ->
	    take_recent(Next, AtOnce - 1, Room - (To - element(2, From)), [iolist_to_binary(Text) | Taken], drop_recent(State));
	{value, {At, _, _}} when Taken =:= [] -> {[], At, State};
	empty when Taken =:= [] -> {[], Tail, State};
	_ -> {lists:reverse(Taken), From, State}
    end.

drop_recent(#state{recent = Recent, recent_count = Count, recent_bytes = Bytes} = State) ->
    {{value, {{_, From}, {_, To}, _}}, Others} = queue:out(Recent),
    State#state{recent = Others, recent_count = Count - 1, recent_bytes = Bytes - (To - From)}.

%% Both copies of a message between two accounts of this host have one body in the archive if that of the recipient comes
%% directly behind that of the sender. It is moved there where it overtakes no other copy of the same owner: only the order
%% of each owner's copies means anything.
in_pairs(Copies) -> pair([{described(Copy), Copy} || Copy <- Copies]).

pair([]) -> [];
pair([{{_, sent, Body}, Copy} | Rest]) ->
    case take_received(Body, Rest, [], []) of
	{Partner, Others} -> [Copy, Partner | pair(Others)];
	none -> [Copy | pair(Rest)]
    end;
pair([{_, Copy} | Rest]) -> [Copy | pair(Rest)].

%% The received copy with that body, and what is left without it.
take_received(_, [], _, _) -> none;
take_received(Body, [{{Owner, received, Body}, Copy} | Rest], Before, Owners) ->
    case lists:member(Owner, Owners) of
	true -> none;
	false -> {Copy, lists:reverse(Before, Rest)}
    end;
take_received(Body, [{{Owner, _, _}, _} = Other | Rest], Before, Owners) ->
    take_received(Body, Rest, [Other | Before], [Owner | Owners]).

%% Whose copy it is, in which direction, and how its message begins, with addresses and id: what looks like a pair and is none
%% has two bodies in the archive, which does no harm.
described(<<"<copy owner='", Rest/binary>>) ->
    [Owner, <<"direction='", Direction:1/binary, _/binary>> = Rest1] = binary:split(Rest, <<"' ">>),
    [_, Message] = binary:split(Rest1, <<"'>">>),
    {Owner, case Direction of <<"s">> -> sent; <<"r">> -> received end, {byte_size(Message), binary:part(Message, 0, min(?BEGINNING, byte_size(Message)))}}.

send(#state{window = undefined} = State) -> State;
send(#state{window = #window{payload = Payload}, host = Host} = State) ->
    Ref = make_ref(),
    Self = self(),
    mod_multiend_component:request(Host, set, Payload, fun(Answer) -> Self ! {answer, Ref, Answer} end),
    State#state{in_flight = Ref}.

answered({error, disconnected}, State) -> pump(State); % the same again, where another is connected
answered({error, Reason}, State) -> try_again(Reason, State);
answered({ok, #iq{type = result, sub_els = Els}}, #state{window = Window, sent = Sent, at_once = AtOnce} = State) ->
    #window{texts = Texts, next = Next} = Window,
    State1 = lists:foldl(fun(El, Acc) -> refused(El, Texts, Acc) end, State,
			 [El || #xmlel{name = <<"copies">>, children = Cs} <- Els, #xmlel{name = <<"refused">>} = El <- Cs]),
    State2 = State1#state{window = undefined, wait = ?FIRST_WAIT, sent = Sent + length(Texts),
			  at_once = min(AtOnce * 2, State#state.batch)},
    go_on(acknowledge(Next, State2));
answered({ok, #iq{type = error} = IQ}, #state{window = #window{texts = Texts, next = Next}} = State) ->
    case xmpp:get_error(IQ) of
	#stanza_error{type = modify} when length(Texts) > 1 ->
	    %% Something in this batch breaks a limit of the component. It is found by halves, so that the others get through.
	    pump(State#state{window = undefined, at_once = length(Texts) div 2});
	#stanza_error{type = modify} = Error ->
	    [Text] = Texts,
	    pump(acknowledge(Next, set_aside(Text, reason(Error), State#state{window = undefined})));
	Error -> try_again(reason(Error), State)
    end.

reason(#stanza_error{reason = Reason, text = Text}) ->
    case xmpp:get_text(Text) of
	<<>> when is_atom(Reason) -> atom_to_binary(Reason, latin1);
	<<>> -> <<"gone">>;
	Why -> Why
    end;
reason(_) -> <<"an error without a reason">>.

try_again(Reason, #state{wait = Wait} = State) ->
    ?WARNING_MSG("Copies of messages are not taken now (~ts); trying again in ~B s", [text(Reason), Wait div 1000]),
    State1 = cancel_timer(State),
    State1#state{timer = erlang:send_after(Wait, self(), pump), wait = min(Wait * 2, ?LONGEST_WAIT)}.

text(Reason) when is_atom(Reason) -> atom_to_binary(Reason, latin1);
text(Reason) -> Reason.

%% A copy that the component has named as one that it will never take.
refused(#xmlel{} = El, Texts, State) ->
    Id = fxml:get_tag_attr_s(<<"id">>, El),
    Mark = <<" id='", Id/binary, "' ">>,
    case [Text || Id =/= <<>>, Text <- Texts, binary:match(Text, Mark) =/= nomatch] of
	[Text | _] -> set_aside(Text, fxml:get_tag_cdata(El), State);
	[] -> State
    end.

set_aside(Text, Reason, #state{host = Host, refused = Refused} = State) ->
    ?ERROR_MSG("A copy will never be archived: ~ts. It is kept in ~ts/refused.xml",
	       [Reason, mod_multiend_journal:directory(Host)]),
    mod_multiend_journal:set_aside(Host, Text),
    State#state{refused = Refused + 1}.

%%% ---------------------------------------------------------------------------------------------------------------- settling

acknowledge(Position, #state{host = Host, watchers = Watchers, unknown_until = Unknown, tail = Tail} = State) ->
    mod_multiend_journal:forget(Host, Position),
    {Settled, Others} = lists:partition(fun(#watcher{position = At}) -> At =< Position end, Watchers),
    lists:foreach(fun(#watcher{timer = Timer, callback = Callback}) ->
			  _ = erlang:cancel_timer(Timer),
			  mod_multiend_component:call_back(Callback, true)
		  end, Settled),
    State#state{acknowledged = Position, watchers = Others,
		last_of = if Position >= Tail -> #{}; true -> State#state.last_of end,
		unknown_until = if Unknown =< Position -> undefined; true -> Unknown end}.

watch(Owner, Milliseconds, Callback, #state{last_of = Known, unknown_until = Unknown, acknowledged = Done} = State) ->
    case maps:get(Owner, Known, Unknown) of
	Position when Position =:= undefined; Position =< Done ->
	    mod_multiend_component:call_back(Callback, true),
	    State;
	Position ->
	    case mod_multiend_component:is_connected(State#state.host) of
		true ->
		    Ref = erlang:start_timer(Milliseconds, self(), settle),
		    Watcher = #watcher{position = Position, timer = Ref, callback = Callback},
		    hurry(State#state{watchers = [Watcher | State#state.watchers]});
		false ->
		    mod_multiend_component:call_back(Callback, false),
		    State
	    end
    end.

%% Nobody gathers while somebody waits; what is to be tried again later stays for later.
hurry(#state{window = undefined, in_flight = undefined} = State) -> pump(cancel_timer(State));
hurry(State) -> State.
