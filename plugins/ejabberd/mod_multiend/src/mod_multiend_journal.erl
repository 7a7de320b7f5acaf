%%% The journal: copies of messages on disk until the component has them.
%%%
%%% A directory of segments, files that are only ever appended to: one record a line, a checksum before it, so that a line
%%% that a crash has torn is recognised. Records are read from disk when they are to be sent: what waits takes no memory. A
%%% position is {Segment, Offset}. Segments before the position that has been acknowledged are removed.
%%%
%%% Appends of many sessions share one write, and one sync where each waits for it (group commit).
-module(mod_multiend_journal).
-behaviour(gen_server).

-export([start_link/1, append/4, positions/1, forget/2, set_aside/2, bytes/1, directory/1]).
-export([read/5]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2, code_change/3]).

-include("logger.hrl").

-define(SEGMENT_BYTES, 1048576).   % What is sent again at most after a restart.
-define(ASIDE_BYTES, 16777216).    % What is set aside at most: nobody may fill the disk with it.
-define(IDLE_BYTES, 131072).       % An acknowledged segment of this size is done with.
-define(READ_BYTES, 262144).
-define(KNOWN_IDS, 10000).         % How many ids of copies are remembered, at most twice that.
-define(APPEND_TIMEOUT, 15000).

-type position() :: {Segment :: pos_integer(), Offset :: non_neg_integer()}.
-export_type([position/0]).

-record(state, {host :: binary(),
		directory :: file:filename_all(),
		max_bytes :: pos_integer(),
		sync :: false | non_neg_integer(),   % milliseconds
		file :: undefined | file:fd(),
		last = 0 :: non_neg_integer(),       % the segment that is appended to
		sizes = #{} :: #{pos_integer() => non_neg_integer()},
		bytes = 0 :: non_neg_integer(),
		start :: undefined | position(),
		batch = [] :: [{gen_server:from(), binary(), binary(), binary()}], % newest first
		batch_bytes = 0 :: non_neg_integer(),
		known = {#{}, #{}} :: {map(), map()},
		sync_timer :: undefined | reference(),
		unsynced = [] :: [pos_integer()],
		syncer :: undefined | pid()}).

%%% ------------------------------------------------------------------------------------------------------------ what others call

start_link(Host) -> gen_server:start_link({local, proc(Host)}, ?MODULE, Host, []).

proc(Host) -> gen_mod:get_module_proc(Host, ?MODULE).

%% Adds a record: a text without line feeds, the copy Id of Owner. `new` when it is on disk (as safe as the option
%% journal_sync asks for), `known` if it was there before. What is added survives a crash of this server.
-spec append(binary(), binary(), binary(), binary()) -> new | known | {error, full | term()}.
append(Host, Owner, Id, Text) ->
    Line = iolist_to_binary([checksum(Text), $\s, Text, $\n]),
    try gen_server:call(proc(Host), {append, Owner, Id, Line}, ?APPEND_TIMEOUT)
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
    State = #state{host = Host, directory = Dir, max_bytes = Opt(journal_size), sync = Opt(journal_sync),
		   last = Last, sizes = Sizes, bytes = Bytes},
    case next_segment(State) of
	{ok, #state{last = First} = State1} ->
	    Start = case Numbers of [] -> {First, 0}; [Oldest | _] -> {Oldest, 0} end,
	    {ok, State1#state{start = Start}};
	{error, Reason, _} -> {stop, {Dir, Reason}}
    end.

segments(Dir) ->
    {ok, Names} = file:list_dir(Dir),
    [list_to_integer(filename:rootname(Name)) || Name <- Names, re:run(Name, "^[0-9]{12}\\.journal$") =/= nomatch].

next_segment(#state{file = File, last = Last, directory = Dir, sizes = Sizes} = State) ->
    File =/= undefined andalso file:close(File),
    case file:open(segment_path(Dir, Last + 1), [raw, write, exclusive, binary]) of
	{ok, New} -> {ok, State#state{file = New, last = Last + 1, sizes = Sizes#{Last + 1 => 0}}};
	{error, Reason} -> {error, Reason, State#state{file = undefined}}
    end.

tail(#state{last = Last, sizes = Sizes}) -> {Last, maps:get(Last, Sizes, 0)}.

handle_call({append, Owner, Id, Line}, From, #state{batch = Batch, batch_bytes = Bytes} = State) ->
    State1 = State#state{batch = [{From, Owner, Id, Line} | Batch], batch_bytes = Bytes + byte_size(Line)},
    %% As long as others wait to append, they share the write.
    if Bytes >= ?SEGMENT_BYTES -> {noreply, flush(State1)};
       true -> {noreply, State1, 0}
    end;
handle_call(positions, _, State) ->
    State1 = flush(State),
    {reply, {State1#state.start, tail(State1)}, State1};
handle_call(bytes, _, #state{bytes = Bytes} = State) -> reply(Bytes, State);
handle_call(_, _, State) -> reply({error, unknown}, State).

handle_cast({forget, Position}, State) -> noreply(forget_before(Position, flush(State)));
handle_cast(_, State) -> noreply(State).

handle_info(timeout, State) -> {noreply, flush(State)};
handle_info(sync, State) -> noreply(sync(State#state{sync_timer = undefined}));
handle_info({'EXIT', Pid, _}, #state{syncer = Pid} = State) -> noreply(sync_soon(State#state{syncer = undefined}));
handle_info({'EXIT', _, Reason}, State) when Reason =/= normal -> {stop, Reason, State};
handle_info(_, State) -> noreply(State).

terminate(_, State) ->
    #state{file = File} = flush(State),
    File =/= undefined andalso file:datasync(File).

code_change(_, State, _) -> {ok, State}.

%% A batch that has begun goes on as soon as nothing else waits.
noreply(#state{batch = []} = State) -> {noreply, State};
noreply(State) -> {noreply, State, 0}.

reply(Answer, #state{batch = []} = State) -> {reply, Answer, State};
reply(Answer, State) -> {reply, Answer, State, 0}.

%% Writes what has come together, and lets those go on who wait for it.
flush(#state{batch = []} = State) -> State;
flush(#state{batch = Batch} = State) ->
    {Lines, State1} = lists:foldr(fun admit/2, {[], with_room(State)}, Batch),
    New = lists:reverse(Lines),
    State2 = State1#state{batch = [], batch_bytes = 0},
    case New =:= [] orelse write([Line || {_, _, _, Line} <- New], State2) of
	true -> State2;
	{ok, State3} ->
	    {Last, End} = tail(State3),
	    Size = lists:sum([byte_size(Line) || {_, _, _, Line} <- New]),
	    {Positions, _} =
		lists:mapfoldl(fun({_, Owner, _, Line}, At) ->
				       {{Owner, {Last, At + byte_size(Line)}}, At + byte_size(Line)}
			       end, End - Size, New),
	    mod_multiend_sender:appended(State3#state.host, Positions),
	    [gen_server:reply(From, new) || {From, _, _, _} <- New],
	    State3;
	{error, Reason, State3} ->
	    [gen_server:reply(From, {error, Reason}) || {From, _, _, _} <- New],
	    State3#state{known = {#{}, #{}}}
    end.

%% Which of a batch is to be written; who is told at once otherwise.
admit({From, Owner, Id, Line} = Record, {Lines, #state{bytes = Bytes, max_bytes = Max, known = {Young, Old}} = State}) ->
    Key = {Owner, Id},
    if is_map_key(Key, Young); is_map_key(Key, Old) ->
	    gen_server:reply(From, known),
	    {Lines, State};
       Bytes + byte_size(Line) > Max ->
	    gen_server:reply(From, {error, full}),
	    {Lines, State};
       true ->
	    Known = if map_size(Young) >= ?KNOWN_IDS -> {#{Key => true}, Young};
		       true -> {Young#{Key => true}, Old}
		    end,
	    {[Record | Lines], State#state{bytes = Bytes + byte_size(Line), known = Known}}
    end.

with_room(#state{file = File, last = Last, sizes = Sizes} = State) ->
    case File =:= undefined orelse maps:get(Last, Sizes, 0) >= ?SEGMENT_BYTES of
	true -> case next_segment(State) of {ok, State1} -> State1; {error, _, State1} -> State1 end;
	false -> State
    end.

write(_, #state{file = undefined} = State) -> {error, no_file, recount(State)};
write(Lines, #state{file = File, last = Last, sizes = Sizes, sync = Sync} = State) ->
    Written = case file:write(File, Lines) of
		  ok when Sync =:= 0 -> file:datasync(File);
		  Other -> Other
	      end,
    case Written of
	ok ->
	    Size = maps:get(Last, Sizes),
	    State1 = State#state{sizes = Sizes#{Last => Size + iolist_size(Lines)}},
	    Size =:= 0 andalso Sync =/= false andalso sync_directory(State),
	    {ok, sync_soon(State1#state{unsynced = lists:usort([Last | State1#state.unsynced])})};
	{error, Reason} ->
	    %% A part of it may be there. Nothing may follow that.
	    _ = file:position(File, maps:get(Last, Sizes)),
	    _ = file:truncate(File),
	    _ = file:close(File),
	    {error, Reason, recount(State#state{file = undefined})}
    end.

recount(#state{sizes = Sizes} = State) -> State#state{bytes = lists:sum(maps:values(Sizes))}.

%% A segment that has just been made must be found again, too.
sync_directory(#state{directory = Dir}) ->
    case file:open(Dir, [raw, read, directory]) of
	{ok, File} -> _ = file:sync(File), file:close(File);
	{error, _} -> ok
    end.

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

forget_before({Segment, _} = Position, #state{last = Last, sizes = Sizes} = State) ->
    case Position >= tail(State) andalso maps:get(Last, Sizes, 0) >= ?IDLE_BYTES andalso next_segment(State) of
	{ok, State1} -> remove_before(State1#state.last, State1);
	{error, _, State1} -> remove_before(Segment, State1);
	false -> remove_before(Segment, State)
    end.

remove_before(Segment, #state{directory = Dir, sizes = Sizes} = State) ->
    {Kept, Gone} = lists:partition(fun({N, _}) -> N >= Segment end, maps:to_list(Sizes)),
    [file:delete(segment_path(Dir, N)) || {N, _} <- Gone],
    recount(State#state{sizes = maps:from_list(Kept)}).
