%%% The journal: copies of messages on disk until the component has them.
%%%
%%% A directory of segments, files that are only ever appended to: one record a line, a checksum before it, so that a line
%%% that a crash has torn is recognised. Records are read from disk when they are to be sent: what waits takes no memory. A
%%% position is {Segment, Offset}. Segments before the position that has been acknowledged are removed.
%%%
%%% Appends of many sessions share one write, and one sync where each waits for it (group commit). A process beside the
%%% journal's does the writing, mod_multiend_writer: what is asked meanwhile goes into the next write.
-module(mod_multiend_journal).
-behaviour(gen_server).

-export([start_link/1, append/4, append_soon/4, append_ahead/4, written/1, written/4, positions/1, forget/2, set_aside/2, bytes/1, directory/1]).
-export([read/5]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2, code_change/3]).

-include("logger.hrl").

-define(SEGMENT_BYTES, 1048576).   % What is sent again at most after a restart.
-define(ASIDE_BYTES, 16777216).    % What is set aside at most: nobody may fill the disk with it.
-define(IDLE_BYTES, 131072).       % An acknowledged segment of this size is done with, or of a fourth of the journal's.
-define(READ_BYTES, 262144).
-define(KNOWN_IDS, 10000).         % How many ids of copies are remembered, at most twice that.
-define(APPEND_TIMEOUT, 15000).

-type position() :: {Segment :: pos_integer(), Offset :: non_neg_integer()}.
-export_type([position/0]).

-record(append, {from :: gen_server:from() | {flag, atomics:atomics_ref()} | nobody,
		 key :: {Owner :: binary(), Id :: binary()},
		 text :: iodata(),
		 size :: pos_integer(),               % of its line
		 sum :: binary()}).
-record(state, {host :: binary(),
		directory :: file:filename_all(),
		max_bytes :: pos_integer(),
		sync :: false | non_neg_integer(),   % milliseconds
		writer :: pid(),
		writing = [] :: [#append{}],         % what the writer has, oldest first
		last = 0 :: non_neg_integer(),       % the segment that is appended to
		broken = false :: boolean(),         % a write to it has failed: nothing may follow there
		sizes = #{} :: #{pos_integer() => non_neg_integer()},
		bytes = 0 :: non_neg_integer(),
		start :: undefined | position(),
		batch = [] :: [#append{}],           % what is to be written next, newest first
		wait_for_batch = [] :: [{gen_server:from(), all | {binary(), binary()}}], % who asks whether it is written
		wait_for_write = [] :: [{gen_server:from(), all | {binary(), binary()}}], % the same of what the writer has
		fails = false :: boolean(),
		known = {#{}, #{}} :: {map(), map()},
		sync_timer :: undefined | reference(),
		unsynced = [] :: [pos_integer()],
		syncer :: undefined | pid()}).

%%% ------------------------------------------------------------------------------------------------------------ what others call

start_link(Host) -> gen_server:start_link({local, proc(Host)}, ?MODULE, Host, []).

proc(Host) -> gen_mod:get_module_proc(Host, ?MODULE).

%% Adds a record, the copy Id of Owner, as a text without line feeds. `new` when it is on disk (as safe as the option
%% journal_sync asks for), `known` if it was there before. What is added survives a crash of this server.
-spec append(binary(), binary(), binary(), iodata()) -> new | known | {error, full | term()}.
append(Host, Owner, Id, Text) ->
    call(Host, {append, to_append(Owner, Id, Text, nobody)}).

%% The same without waiting. What fails is counted, as by mod_multiend:not_archived/2. Whoever calls append/4 or written/1
%% later, because of it, returns after it is on disk: see mod_multiend_messages.
-spec append_soon(binary(), binary(), binary(), iodata()) -> ok.
append_soon(Host, Owner, Id, Text) -> gen_server:cast(proc(Host), {append, to_append(Owner, Id, Text, nobody)}).

%% The same, for somebody who will ask written/4.
-spec append_ahead(binary(), binary(), binary(), iodata()) -> atomics:atomics_ref().
append_ahead(Host, Owner, Id, Text) ->
    Written = atomics:new(1, []),
    gen_server:cast(proc(Host), {append, to_append(Owner, Id, Text, {flag, Written})}),
    Written.

%% The process that asks does this, so that the one of the journal need not.
to_append(Owner, Id, Text, From) ->
    #append{from = From, key = {Owner, Id}, text = Text, size = iolist_size(Text) + 10, sum = checksum(Text)}.

line(#append{sum = Sum, text = Text}) -> [Sum, $\s, Text, $\n].

%% Returns when everything that was appended so far is on disk, or has failed.
-spec written(binary()) -> ok | {error, term()}.
written(Host) -> call(Host, {written, all}).

%% Waits for one copy, and says whether it is on disk; `failed` is counted already.
-spec written(binary(), binary(), binary(), atomics:atomics_ref()) -> ok | {error, failed | term()}.
written(Host, Owner, Id, Written) ->
    case atomics:get(Written, 1) of
	1 -> ok;
	0 -> call(Host, {written, {Owner, Id}})
    end.

call(Host, Request) ->
    try gen_server:call(proc(Host), Request, ?APPEND_TIMEOUT)
    catch exit:{Reason, _} -> {error, Reason}
    end.

%% The oldest record that is kept, and where the next will be.
-spec positions(binary()) -> {position(), position()}.
positions(Host) -> gen_server:call(proc(Host), positions, infinity).

%% Everything before a position is done with.
forget(Host, Position) -> gen_server:cast(proc(Host), {forget, Position}).

%% Keeps a record that the component will never take where an operator finds it.
set_aside(Host, Text) ->
    Path = aside_path(Host),
    Size = filelib:file_size(Path),
    if Size + byte_size(Text) > ?ASIDE_BYTES -> ok;
       true -> _ = file:write_file(Path, [Text, $\n], [append]), ok
    end.

aside_path(Host) -> filename:join(directory(Host), "refused.xml").

%% Bytes on disk that are not acknowledged, up to a segment more.
bytes(Host) -> gen_server:call(proc(Host), bytes).

directory(Host) -> filename:join([mnesia:system_info(directory), "multiend", Host]).

%% The records from a position on up to Tail, at most so many and so many bytes (but one at least), and the position behind
%% them. Any process may read.
-spec read(binary(), position(), position(), pos_integer(), pos_integer()) -> {[binary()], position()}.
read(Host, From, Tail, MaxRecords, MaxBytes) ->
    read_segments(directory(Host), From, Tail, {[], MaxRecords, MaxBytes}).

read_segments(Dir, {Segment, Offset}, {Last, End} = Tail, Found) ->
    Path = segment_path(Dir, Segment),
    Limit = case Segment of Last -> End; _ -> filelib:file_size(Path) end,
    case read_segment(Path, Offset, Limit, Found) of
	{more, Found1, _} when Segment < Last -> read_segments(Dir, {Segment + 1, 0}, Tail, Found1);
	{_, {Texts, _, _}, Offset1} -> {lists:reverse(Texts), {Segment, Offset1}}
    end.

read_segment(Path, Offset, Limit, Found) when Offset < Limit ->
    case file:open(Path, [raw, read, binary]) of
	{ok, File} ->
	    try read_lines(File, Path, Offset, Limit, <<>>, Found)
	    after file:close(File)
	    end;
	{error, _} -> {more, Found, Offset}
    end;
read_segment(_, Offset, _, Found) -> {more, Found, Offset}.

%% Buffer holds what has been read behind Offset. `full` when no more may be added, `more` at the end of the file.
read_lines(_, _, Offset, _, _, {_, 0, _} = Found) -> {full, Found, Offset};
read_lines(File, Path, Offset, Limit, Buffer, {Texts, Records, Bytes} = Found) ->
    case binary:split(Buffer, <<"\n">>) of
	[Line, Rest] ->
	    Next = Offset + byte_size(Line) + 1,
	    case text(Line) of
		torn ->
		    torn(Path, Line),
		    read_lines(File, Path, Next, Limit, Rest, Found);
		Text when Texts =/= [], byte_size(Text) > Bytes ->
		    {full, Found, Offset};
		Text ->
		    read_lines(File, Path, Next, Limit, Rest, {[Text | Texts], Records - 1, Bytes - byte_size(Text)})
	    end;
	[_] ->
	    At = Offset + byte_size(Buffer),
	    case At < Limit andalso file:pread(File, At, min(?READ_BYTES, Limit - At)) of
		{ok, More} -> read_lines(File, Path, Offset, Limit, <<Buffer/binary, More/binary>>, Found);
		_ ->
		    byte_size(Buffer) > 0 andalso torn(Path, Buffer),
		    {more, Found, At}
	    end
    end.

text(<<Sum:8/binary, " ", Text/binary>>) ->
    case checksum(Text) of
	Sum -> Text;
	_ -> torn
    end;
text(_) -> torn.

torn(Path, Line) ->
    ?WARNING_MSG("A record of ~B bytes in ~ts is torn and is left out", [byte_size(Line), Path]).

checksum(Text) ->
    Sum = erlang:crc32(Text),
    << <<(hex(Digit))>> || <<Digit:4>> <= <<Sum:32>> >>.

hex(Digit) when Digit < 10 -> $0 + Digit;
hex(Digit) -> $a + Digit - 10.

segment_path(Dir, Number) -> filename:join(Dir, io_lib:format("~12..0B.journal", [Number])).

%%% ------------------------------------------------------------------------------------------------------------ the one writer

init(Host) ->
    process_flag(trap_exit, true),
    Dir = directory(Host),
    ok = filelib:ensure_dir(filename:join(Dir, "x")),
    Sizes = maps:from_list([{N, filelib:file_size(segment_path(Dir, N))} || N <- segments(Dir)]),
    Bytes = lists:sum(maps:values(Sizes)),
    Bytes > 0 andalso ?INFO_MSG("~B bytes of message copies wait in ~ts", [Bytes, Dir]),
    %% What is there already is never appended to: its last line may be torn.
    Numbers = lists:sort(maps:keys(Sizes)),
    Last = case Numbers of [] -> 0; _ -> lists:last(Numbers) end,
    Opt = fun(Name) -> gen_mod:get_module_opt(Host, mod_multiend, Name) end,
    Writer = mod_multiend_writer:start_link(self()),
    State = #state{host = Host, directory = Dir, max_bytes = Opt(journal_size), sync = Opt(journal_sync), writer = Writer,
		   last = Last + 1, sizes = Sizes#{Last + 1 => 0}, bytes = Bytes,
		   start = {case Numbers of [] -> Last + 1; [Oldest | _] -> Oldest end, 0}},
    %% Whoever cannot write here finds out now.
    mod_multiend_writer:write(Writer, segment_path(Dir, Last + 1), 0, [], Opt(journal_sync)),
    receive
	{written, Writer, ok} -> {ok, State};
	{written, Writer, {error, _, Reason}} -> {stop, {Dir, Reason}}
    end.

segments(Dir) ->
    {ok, Names} = file:list_dir(Dir),
    [list_to_integer(filename:rootname(Name)) || Name <- Names, re:run(Name, "^[0-9]{12}\\.journal$") =/= nomatch].

next_segment(#state{last = Last, sizes = Sizes} = State) ->
    State#state{last = Last + 1, sizes = Sizes#{Last + 1 => 0}, broken = false}.

tail(#state{last = Last, sizes = Sizes}) -> {Last, maps:get(Last, Sizes)}.

handle_call({append, Append}, From, State) -> {noreply, add(Append#append{from = From}, State)};
handle_call({written, Key}, From, #state{batch = Batch, writing = Writing} = State) ->
    #state{wait_for_batch = ForBatch, wait_for_write = ForWrite} = State,
    IsIn = fun(Appends) -> Appends =/= [] andalso (Key =:= all orelse lists:keymember(Key, #append.key, Appends)) end,
    case IsIn(Batch) of
	true -> {noreply, State#state{wait_for_batch = [{From, Key} | ForBatch]}};
	false ->
	    case IsIn(Writing) of
		true -> {noreply, State#state{wait_for_write = [{From, Key} | ForWrite]}};
		false -> {reply, outcome(Key, State), State}
	    end
    end;
handle_call(positions, _, State) -> {reply, {State#state.start, tail(State)}, State};
handle_call(bytes, _, #state{bytes = Bytes} = State) -> {reply, Bytes, State};
handle_call(_, _, State) -> {reply, {error, unknown}, State}.

handle_cast({append, Append}, State) -> {noreply, add(Append, State)};
handle_cast({forget, Position}, State) -> {noreply, forget_before(Position, State)};
handle_cast(_, State) -> {noreply, State}.

handle_info(flush, State) -> {noreply, flush(State)};
handle_info({written, Writer, Result}, #state{writer = Writer} = State) -> {noreply, flush(written(Result, State))};
handle_info(sync, State) -> {noreply, sync(State#state{sync_timer = undefined})};
handle_info({'EXIT', Pid, _}, #state{syncer = Pid} = State) -> {noreply, sync_soon(State#state{syncer = undefined})};
handle_info({'EXIT', _, Reason}, State) when Reason =/= normal -> {stop, Reason, State};
handle_info(_, State) -> {noreply, State}.

terminate(_, #state{writer = Writer} = State) ->
    drain(flush(State)),
    mod_multiend_writer:stop(Writer).

drain(#state{writing = [], batch = []}) -> ok;
drain(#state{writer = Writer} = State) ->
    receive {written, Writer, Result} -> drain(flush(written(Result, State)))
    after ?APPEND_TIMEOUT -> ok
    end.

code_change(_, State, _) -> {ok, State}.

%% The order to write comes behind all that have asked by now.
add(Append, #state{batch = Batch, writing = Writing} = State) ->
    Batch =:= [] andalso Writing =:= [] andalso (self() ! flush),
    State#state{batch = [Append | Batch]}.

%% Writes what has come together, unless a write is under way.
flush(#state{writing = [_ | _]} = State) -> State;
flush(#state{batch = []} = State) -> State;
flush(#state{batch = Batch} = State) ->
    {Newest, State1} = lists:foldr(fun admit/2, {[], with_room(State)}, Batch),
    New = lists:reverse(Newest),
    New =:= [] orelse order(New, State1),
    State2 = State1#state{batch = [], writing = New, wait_for_batch = [],
			  wait_for_write = State#state.wait_for_batch},
    case New of
	[] -> settle(State2);
	_ -> State2
    end.

order(New, #state{directory = Dir, last = Last, sizes = Sizes, sync = Sync, writer = Writer}) ->
    Lines = [line(Append) || Append <- New],
    mod_multiend_writer:write(Writer, segment_path(Dir, Last), maps:get(Last, Sizes), Lines, Sync).

%% What the writer had is on disk, and those go on who wait for it; or it failed.
written(ok, #state{writing = New, last = Last, sizes = Sizes, unsynced = Unsynced} = State) ->
    {Records, Size} = lists:mapfoldl(fun(#append{key = {Owner, _}, text = Text, size = Bytes}, At) ->
					     Next = At + Bytes,
					     {{Owner, {Last, At}, {Last, Next}, Text}, Next}
				     end, maps:get(Last, Sizes), New),
    mod_multiend_sender:appended(State#state.host, Records),
    [reply(Append, new, State) || Append <- New],
    State1 = State#state{writing = [], sizes = Sizes#{Last := Size}, unsynced = lists:usort([Last | Unsynced])},
    settle(sync_soon(fails(false, State1)));
written({error, What, Reason}, #state{writing = New} = State) ->
    [reply(Append, {error, Reason}, State) || Append <- New],
    State1 = recount(State#state{writing = [], broken = What =:= writing, known = {#{}, #{}}}),
    settle(fails(true, State1)).

settle(#state{wait_for_write = Waiting} = State) ->
    [gen_server:reply(From, outcome(Key, State)) || {From, Key} <- Waiting],
    State#state{wait_for_write = []}.

outcome(all, _) -> ok;
outcome(Key, #state{known = {Young, Old}}) when is_map_key(Key, Young); is_map_key(Key, Old) -> ok;
outcome(_, _) -> {error, failed}.

reply(#append{from = nobody}, {error, Reason}, #state{host = Host}) -> mod_multiend:not_archived(Host, Reason);
reply(#append{from = nobody}, _, _) -> ok;
reply(#append{from = {flag, _}} = Append, {error, _} = Error, State) -> reply(Append#append{from = nobody}, Error, State);
reply(#append{from = {flag, Written}}, _, _) -> atomics:put(Written, 1, 1);
reply(#append{from = From}, Answer, _) -> gen_server:reply(From, Answer).

%% Nobody may do without an answer as long as the answer is no.
fails(Fails, #state{fails = Fails} = State) -> State;
fails(Fails, #state{host = Host} = State) ->
    true = ets:insert(mod_multiend:table(Host), {journal_fails, Fails}),
    State#state{fails = Fails}.

%% Which of a batch is to be written; who is told at once otherwise.
admit(#append{key = Key, size = Size} = Append, {Newest, #state{bytes = Bytes, max_bytes = Max, known = {Young, Old}} = State}) ->
    if is_map_key(Key, Young); is_map_key(Key, Old) ->
	    reply(Append, known, State),
	    {Newest, State};
       Bytes + Size > Max ->
	    reply(Append, {error, full}, State),
	    {Newest, fails(true, State)};
       true ->
	    Known = if map_size(Young) >= ?KNOWN_IDS -> {#{Key => true}, Young};
		       true -> {Young#{Key => true}, Old}
		    end,
	    {[Append | Newest], State#state{bytes = Bytes + Size, known = Known}}
    end.

with_room(#state{last = Last, sizes = Sizes, broken = Broken} = State) ->
    case Broken orelse maps:get(Last, Sizes) >= ?SEGMENT_BYTES of
	true -> next_segment(State);
	false -> State
    end.

recount(#state{sizes = Sizes, writing = Writing} = State) ->
    State#state{bytes = lists:sum([Size || #append{size = Size} <- Writing] ++ maps:values(Sizes))}.

%% With a window of some milliseconds the disk is forced by a process of its own, so that nobody waits for it.
sync_soon(#state{sync = Sync, unsynced = Unsynced, sync_timer = undefined, syncer = undefined} = State)
  when is_integer(Sync), Sync > 0, Unsynced =/= [] ->
    State#state{sync_timer = erlang:send_after(Sync, self(), sync)};
sync_soon(State) -> State.

sync(#state{directory = Dir, unsynced = Unsynced} = State) ->
    Paths = [segment_path(Dir, N) || N <- Unsynced],
    Syncer = spawn_link(fun() -> lists:foreach(fun sync_file/1, Paths) end),
    State#state{unsynced = [], syncer = Syncer}.

sync_file(Path) ->
    case file:open(Path, [raw, read, write, binary]) of
	{ok, File} ->
	    case file:datasync(File) of
		ok -> ok;
		{error, Reason} -> ?ERROR_MSG("Cannot force ~ts to disk: ~p", [Path, Reason])
	    end,
	    file:close(File);
	{error, enoent} -> ok; % acknowledged and removed meanwhile
	{error, Reason} -> ?ERROR_MSG("Cannot force ~ts to disk: ~p", [Path, Reason])
    end.

forget_before({Segment, _} = Position, #state{last = Last, sizes = Sizes, writing = Writing, max_bytes = Max} = State) ->
    case Position >= tail(State) andalso Writing =:= [] andalso maps:get(Last, Sizes) >= min(?IDLE_BYTES, Max div 4) of
	true -> remove_before(Last + 1, next_segment(State));
	false -> remove_before(Segment, State)
    end.

remove_before(Segment, #state{directory = Dir, sizes = Sizes} = State) ->
    {Kept, Gone} = lists:partition(fun({N, _}) -> N >= Segment end, maps:to_list(Sizes)),
    [file:delete(segment_path(Dir, N)) || {N, _} <- Gone],
    recount(State#state{sizes = maps:from_list(Kept)}).
