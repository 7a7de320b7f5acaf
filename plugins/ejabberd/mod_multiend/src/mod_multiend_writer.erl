%%% Writes the segments of the journal. A process of its own, to which nobody but the journal speaks: while a process waits for
%%% the disk, each call to it would cost the machine an errand more.
-module(mod_multiend_writer).

-export([start_link/1, write/5, stop/1]).

%% The journal gets {written, Writer, Result} for each write, in order.
-type result() :: ok | {error, opening | writing, term()}.
-export_type([result/0]).

-spec start_link(pid()) -> pid().
start_link(Journal) -> spawn_link(fun() -> loop(Journal, none) end).

%% Adds lines to a segment, which has a size and is made if that is 0. With Sync = 0 they are forced to disk, with a number
%% the segment itself is when it is made, so that it is found again.
-spec write(pid(), file:filename_all(), non_neg_integer(), [iodata()], false | non_neg_integer()) -> ok.
write(Writer, Path, Size, Lines, Sync) ->
    Writer ! {write, Path, Size, Lines, Sync},
    ok.

%% Forces everything to disk and ends.
-spec stop(pid()) -> ok.
stop(Writer) ->
    Monitor = monitor(process, Writer),
    Writer ! stop,
    receive {'DOWN', Monitor, process, _, _} -> ok end.

loop(Journal, Open) ->
    receive
	{write, Path, Size, Lines, Sync} ->
	    {Result, Open1} = written(Path, Size, Lines, Sync, Open),
	    Journal ! {written, self(), Result},
	    loop(Journal, Open1);
	stop ->
	    case Open of
		{_, File} -> _ = file:datasync(File), file:close(File);
		none -> ok
	    end
    end.

written(Path, Size, Lines, Sync, {Path, File} = Open) ->
    Written = case file:write(File, Lines) of
		  ok when Sync =:= 0 -> file:datasync(File);
		  Other -> Other
	      end,
    case Written of
	ok -> {ok, Open};
	{error, Reason} ->
	    %% A part of it may be there. Nothing may follow that.
	    _ = file:position(File, Size),
	    _ = file:truncate(File),
	    _ = file:close(File),
	    {{error, writing, Reason}, none}
    end;
written(Path, Size, Lines, Sync, {_, File}) ->
    _ = file:close(File),
    written(Path, Size, Lines, Sync, none);
written(Path, Size, Lines, Sync, none) ->
    case file:open(Path, [raw, write, exclusive, binary]) of
	{ok, File} ->
	    Sync =/= false andalso sync_directory(filename:dirname(Path)),
	    written(Path, Size, Lines, Sync, {Path, File});
	{error, Reason} -> {{error, opening, Reason}, none}
    end.

sync_directory(Dir) ->
    case file:open(Dir, [raw, read, directory]) of
	{ok, File} -> _ = file:sync(File), file:close(File);
	{error, _} -> ok
    end.
