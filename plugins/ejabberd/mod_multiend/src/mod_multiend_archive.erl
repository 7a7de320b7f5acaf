%%% mod_multiend_archive: takes the archives of accounts out of mod_mam's storage and puts them in again, as files in the form
%%% of XEP-0227. To be loaded while archives are moved, beside mod_mam, with mod_multiend or without; docs/ejabberd.md says
%%% when.
%%%
%%%   ejabberdctl multiend_archive_export HOST FILE   what mod_mam has, for "multiend admin import FILE"
%%%   ejabberdctl multiend_archive_import FILE        what "multiend admin export OWNER" has written, for mod_mam
%%%
%%% Times stay as they are, and so does an archive id that mod_mam gave, which is the time of its message in microseconds. A
%%% message whose id is another's gets the one that mod_mam would have given it. Both commands may be run again: a message
%%% that is there already is not doubled. Rooms are left alone. What users want archived goes along, as <prefs/> (XEP-0441)
%%% beside their archives.
%%%
%%% Modules beside this one: mod_multiend_archive_file (reading and writing files), mod_multiend_archive_storage (mod_mam's
%%% tables).
-module(mod_multiend_archive).
-behaviour(gen_mod).

-export([start/2, stop/1, reload/3, depends/2, mod_options/1, mod_doc/0]).
-export([export_command/2, import_command/1]).

-include("xmpp.hrl").
-include("ejabberd_commands.hrl").
-include("mod_multiend.hrl").

-record(import, {account :: undefined | {Host :: binary(), User :: binary()},
		 archive :: undefined | mod_multiend_archive_storage:archive(),
		 stored = 0 :: non_neg_integer(),
		 known = 0 :: non_neg_integer(),
		 without_message = 0 :: non_neg_integer(),
		 unusable = 0 :: non_neg_integer()}).

start(_Host, _Opts) -> ejabberd_commands:register_commands(commands()).

stop(Host) -> gen_mod:is_loaded_elsewhere(Host, ?MODULE) orelse ejabberd_commands:unregister_commands(commands()).

reload(_, _, _) -> ok.

depends(_, _) -> [{mod_mam, soft}].

mod_options(_) -> [].

mod_doc() -> #{desc => "Moves the archives of accounts between mod_mam and multiend."}.

commands() ->
    [#ejabberd_commands{name = multiend_archive_export, tags = [mam],
			desc = "Write the archives that mod_mam keeps of a host's accounts to a file, for multiend",
			module = ?MODULE, function = export_command,
			args = [{host, binary}, {file, binary}],
			args_example = [<<"example.org">>, <<"/var/lib/ejabberd/archive.xml">>],
			args_desc = ["Host", "File that ejabberd may write"],
			result = {res, restuple}, result_example = {ok, <<"60 messages of 2 accounts">>},
			result_desc = "What is in the file"},
     #ejabberd_commands{name = multiend_archive_import, tags = [mam],
			desc = "Put the archive of an account, as multiend has exported it, into mod_mam's",
			module = ?MODULE, function = import_command,
			args = [{file, binary}], args_example = [<<"/var/lib/ejabberd/alice.xml">>],
			args_desc = ["File that ejabberd may read"],
			result = {res, restuple}, result_example = {ok, <<"30 messages stored, 0 there already">>},
			result_desc = "What is in mod_mam's archive"}].

export_command(Host, Path) ->
    told(fun() ->
		 case jid:nameprep(Host) of
		     error -> throw({failed, [Host, " is no host"]});
		     Prepared -> export(Prepared, Path)
		 end
	 end).

import_command(Path) -> told(fun() -> import(Path) end).

told(Command) ->
    try {ok, unicode:characters_to_binary(Command())}
    catch throw:{failed, Why} -> {error, unicode:characters_to_binary(Why)}
    end.

%%% ------------------------------------------------------------------------------------------------------------------------ out

export(Host, Path) ->
    Owners = mod_multiend_archive_storage:owners(Host),
    File = mod_multiend_archive_file:create(Path),
    try
	mod_multiend_archive_file:write(File, mod_multiend_archive_file:head(Host)),
	{Messages, Accounts, Unreadable} = lists:foldl(fun(User, Acc) -> export_account(File, Host, User, Acc) end,
						       {0, 0, 0}, Owners),
	mod_multiend_archive_file:write(File, mod_multiend_archive_file:tail()),
	mod_multiend_archive_file:close(File),
	[io_lib:format("~B messages of ~B accounts", [Messages, Accounts]),
	 [io_lib:format(", ~B cannot be read and are left out", [Unreadable]) || Unreadable > 0]]
    after file:close(File)
    end.

export_account(File, Host, User, {Messages, Accounts, Unreadable}) ->
    Page = fun(Page, {Last, Written, Left}) ->
		   {Results, {NewLast, NewLeft}} = lists:mapfoldl(fun result/2, {Last, Left}, Page),
		   mod_multiend_archive_file:write(File, Results),
		   {NewLast, Written + length(Page), NewLeft}
	   end,
    mod_multiend_archive_file:write(File, mod_multiend_archive_file:account(User)),
    {_, Written, Left} = mod_multiend_archive_storage:fold(Page, {{0, 0}, 0, 0}, Host, User),
    Preferences = mod_multiend_archive_storage:preferences(Host, User),
    mod_multiend_archive_file:write(File, mod_multiend_archive_file:account_end(Preferences)),
    {Messages + Written - Left, Accounts + min(Written, 1), Unreadable + Left}.

%% An id is given twice if two messages come for an account in one microsecond. In an export each has its own.
result({_, unreadable}, {Last, Left}) -> {[], {Last, Left + 1}};
result({Time, Message}, {{Time, Count}, Left}) ->
    Id = [integer_to_binary(Time), $-, integer_to_binary(Count + 1)],
    {mod_multiend_archive_file:result(iolist_to_binary(Id), Time, Message), {{Time, Count + 1}, Left}};
result({Time, Message}, {_, Left}) ->
    {mod_multiend_archive_file:result(integer_to_binary(Time), Time, Message), {{Time, 1}, Left}}.

%%% ------------------------------------------------------------------------------------------------------------------------- in

import(Path) ->
    #import{stored = Stored, known = Known, without_message = Places, unusable = Unusable} =
	mod_multiend_archive_file:fold(fun import_element/3, #import{}, Path),
    [io_lib:format("~B messages stored, ~B there already", [Stored, Known]),
     [io_lib:format(", ~B places without a message left out", [Places]) || Places > 0],
     [io_lib:format(", ~B cannot be used", [Unusable]) || Unusable > 0]].

import_element({Host, User}, #xmlel{name = <<"prefs">>} = Preferences, Import) ->
    mod_multiend_archive_storage:put_preferences(Host, User, Preferences),
    Import;
import_element(Account, Result, #import{account = Account, archive = Archive} = Import) ->
    case message_of(Result) of
	{Time, Message} ->
	    case mod_multiend_archive_storage:put(Archive, Time, Message) of
		{stored, NewArchive} -> Import#import{archive = NewArchive, stored = Import#import.stored + 1};
		{known, NewArchive} -> Import#import{archive = NewArchive, known = Import#import.known + 1};
		unusable -> Import#import{unusable = Import#import.unusable + 1}
	    end;
	without_message -> Import#import{without_message = Import#import.without_message + 1};
	unusable -> Import#import{unusable = Import#import.unusable + 1}
    end;
import_element({Host, User} = Account, Result, Import) ->
    Archive = mod_multiend_archive_storage:open(Host, User),
    import_element(Account, Result, Import#import{account = Account, archive = Archive}).

%% What has expired in multiend keeps its place there. Here there is nothing to show for it.
message_of(Result) ->
    try
	#xmlel{} = Forwarded = fxml:get_subtag_with_xmlns(Result, <<"forwarded">>, ?NS_FORWARD),
	#xmlel{} = Delay = fxml:get_subtag_with_xmlns(Forwarded, <<"delay">>, ?NS_DELAY),
	#xmlel{} = Message = fxml:get_subtag_with_xmlns(Forwarded, <<"message">>, ?NS_CLIENT),
	case fxml:get_subtag_with_xmlns(Message, <<"expired">>, ?NS_MULTIEND) of
	    #xmlel{} -> without_message;
	    false ->
		Stamp = binary_to_list(fxml:get_tag_attr_s(<<"stamp">>, Delay)),
		Time = calendar:rfc3339_to_system_time(Stamp, [{unit, microsecond}]),
		true = Time > 0,
		{Time, Message}
	end
    catch error:_ -> unusable
    end.
