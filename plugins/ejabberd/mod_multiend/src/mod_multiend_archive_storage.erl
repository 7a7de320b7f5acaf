%%% The archives of accounts where mod_mam keeps them, and what they want archived: in Mnesia or in an SQL database. Archives
%%% are read in pages, oldest first; in Mnesia, which has an archive only as a whole, one archive at a time is held, as for any
%%% query of mod_mam.
%%%
%%% The tables are read themselves, since what mod_mam would answer is not what it has: it decodes, stamps and leaves out. They
%%% are written by mod_mam's own storage module. What cannot be done is thrown as {failed, Text}.
-module(mod_multiend_archive_storage).

-export([owners/1, fold/4, preferences/2, open/2, put/3, put_preferences/3]).
-export_type([archive/0]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("mod_mam.hrl").
-include("ejabberd_sql_pt.hrl").

-define(PAGE, 500).

-record(archive, {host :: binary(),
		  user :: binary(),
		  backend :: module(),
		  last = 0 :: integer(), % where the last message was put
		  there :: {Looked :: integer(), [binary()]} | #{integer() => [binary()]}}). % what is at one time, or at any
-type archive() :: #archive{}.

backend(Host) ->
    case gen_mod:is_loaded(Host, mod_mam) of
	true ->
	    Backend = gen_mod:db_mod(Host, mod_mam),
	    Backend =:= mod_mam_mnesia orelse Backend =:= mod_mam_sql
		orelse throw({failed, io_lib:format("the storage of ~ts is not known here", [Backend])}),
	    {module, Backend} = code:ensure_loaded(Backend),
	    Backend;
	false -> throw({failed, ["mod_mam is not loaded for ", Host]})
    end.

query(Host, Query) ->
    case ejabberd_sql:sql_query(Host, Query) of
	{selected, Rows} -> Rows;
	{error, Reason} -> throw({failed, io_lib:format("the database of ~ts: ~p", [Host, Reason])})
    end.

%%% -------------------------------------------------------------------------------------------------------------------- reading

%% Who may have an archive, or preferences, in order.
-spec owners(binary()) -> [binary()].
owners(Host) ->
    case backend(Host) of
	mod_mam_mnesia ->
	    Accounts = [User || {User, _} <- ejabberd_auth:get_users(Host)],
	    lists:usort(owners_in_mnesia(mnesia:dirty_first(archive_msg), Host, Accounts));
	mod_mam_sql ->
	    Rows = query(Host, ?SQL("select distinct @(username)s from archive where %(Host)H"))
		++ query(Host, ?SQL("select @(username)s from archive_prefs where %(Host)H")),
	    lists:usort([User || {User} <- Rows, binary:match(User, <<"@">>) =:= nomatch]) % the others are rooms
    end.

owners_in_mnesia('$end_of_table', _, Acc) -> Acc;
owners_in_mnesia({User, Host} = Key, Host, Acc) -> owners_in_mnesia(mnesia:dirty_next(archive_msg, Key), Host, [User | Acc]);
owners_in_mnesia(Key, Host, Acc) -> owners_in_mnesia(mnesia:dirty_next(archive_msg, Key), Host, Acc).

%% Calls Fun([{Time, Message}], Acc) for each page of an archive. The time is in microseconds.
-spec fold(fun(([{integer(), xmlel() | unreadable}], Acc) -> Acc), Acc, binary(), binary()) -> Acc.
fold(Fun, Acc, Host, User) ->
    case backend(Host) of
	mod_mam_mnesia ->
	    All = [{misc:now_to_usec(Time), Packet} || #archive_msg{timestamp = Time, packet = Packet} <- read(Host, User)],
	    in_pages(Fun, Acc, lists:keysort(1, All));
	mod_mam_sql -> sql_pages(Fun, Acc, Host, User, 0, ?PAGE)
    end.

read(Host, User) -> mnesia:dirty_read(archive_msg, {User, Host}).

in_pages(_, Acc, []) -> Acc;
in_pages(Fun, Acc, All) ->
    {Page, Rest} = lists:split(min(?PAGE, length(All)), All),
    in_pages(Fun, Fun(Page, Acc), Rest).

%% The messages of one microsecond are not parted by the end of a page.
sql_pages(Fun, Acc, Host, User, From, Max) ->
    Rows = query(Host, ?SQL("select @(timestamp)d, @(id)d, @(xml)s, @(peer)s from archive"
			    " where username=%(User)s and timestamp >= %(From)d and %(Host)H"
			    " order by timestamp limit %(Max)d")),
    Page = lists:sort(Rows),
    case length(Page) < Max of
	true -> Fun([message(Host, User, Row) || Row <- Page], Acc);
	false ->
	    Last = element(1, lists:last(Page)),
	    case lists:takewhile(fun(Row) -> element(1, Row) < Last end, Page) of
		[] -> sql_pages(Fun, Acc, Host, User, From, 2 * Max);
		Whole -> sql_pages(Fun, Fun([message(Host, User, Row) || Row <- Whole], Acc), Host, User, Last, ?PAGE)
	    end
    end.

message(Host, User, {Time, _, XML, Peer}) -> {Time, decode(Host, User, XML, Peer)}.

%% With compress_xml, mod_mam writes it shorter.
decode(Host, User, XML, Peer) ->
    try #xmlel{} = xml_compress:decode(XML, jid:encode({User, Host, <<>>}), Peer)
    catch _:_ ->
	    ?ERROR_MSG("A message in the archive of ~ts cannot be read", [jid:encode({User, Host, <<>>})]),
	    unreadable
    end.

%% What an account wants archived, as <prefs/>, if it has said so.
-spec preferences(binary(), binary()) -> xmlel() | none.
preferences(Host, User) ->
    Backend = backend(Host),
    case Backend:get_prefs(User, Host) of
	{ok, #archive_prefs{default = Default, always = Always, never = Never}} ->
	    List = fun(Name, Addresses) ->
			   Items = [#xmlel{name = <<"jid">>, children = [{xmlcdata, jid:encode(jid:make(Address))}]}
				    || Address <- Addresses],
			   #xmlel{name = Name, children = Items}
		   end,
	    #xmlel{name = <<"prefs">>, attrs = [{<<"xmlns">>, ?NS_MAM_2}, {<<"default">>, atom_to_binary(Default, utf8)}],
		   children = [List(<<"always">>, Always), List(<<"never">>, Never)]};
	error -> none;
	Error -> throw({failed, io_lib:format("the preferences of ~ts@~ts: ~p", [User, Host, Error])})
    end.

%%% -------------------------------------------------------------------------------------------------------------------- writing

%% The archive of an account, to put messages into, oldest first.
-spec open(binary(), binary()) -> archive().
open(GivenHost, GivenUser) ->
    {Host, User} = account(GivenHost, GivenUser),
    Backend = backend(Host),
    There = case Backend of
		mod_mam_sql -> {-1, []};
		mod_mam_mnesia ->
		    lists:foldl(fun(#archive_msg{timestamp = Time, packet = Packet}, Acc) ->
					maps:update_with(misc:now_to_usec(Time), fun(Keys) -> [key(Packet) | Keys] end,
							 [key(Packet)], Acc)
				end, #{}, read(Host, User))
	    end,
    #archive{host = Host, user = User, backend = Backend, there = There}.

account(GivenHost, GivenUser) ->
    {Host, User} = {jid:nameprep(GivenHost), jid:nodeprep(GivenUser)},
    Host =/= error andalso User =/= error andalso ejabberd_auth:user_exists(User, Host)
	orelse throw({failed, ["there is no account ", GivenUser, $@, GivenHost, " here"]}),
    {Host, User}.

%% Sets what an account wants archived, in place of what it has said here.
-spec put_preferences(binary(), binary(), xmlel()) -> ok.
put_preferences(GivenHost, GivenUser, El) ->
    {Host, User} = account(GivenHost, GivenUser),
    Default = case fxml:get_tag_attr_s(<<"default">>, El) of
		  <<"never">> -> never;
		  <<"roster">> -> roster;
		  _ -> always
	      end,
    Preferences = #archive_prefs{us = {User, Host}, default = Default,
				 always = addresses(<<"always">>, El), never = addresses(<<"never">>, El)},
    Backend = backend(Host),
    case Backend:write_prefs(User, Host, Preferences, Host) of
	ok -> ok;
	Error -> throw({failed, io_lib:format("mod_mam does not take the preferences of ~ts@~ts: ~p", [User, Host, Error])})
    end,
    % mod_mam may remember what they were.
    try ets_cache:delete(archive_prefs_cache, {User, Host}, ejabberd_cluster:get_nodes())
    catch error:badarg -> ok
    end,
    ok.

%% Without resources, of which mod_mam's preferences know nothing.
addresses(Name, El) ->
    Items = case fxml:get_subtag(El, Name) of
		#xmlel{children = Children} -> Children;
		false -> []
	    end,
    lists:usort(lists:flatmap(fun bare_address/1, [Item || #xmlel{name = <<"jid">>} = Item <- Items])).

bare_address(Item) ->
    try [jid:tolower(jid:remove_resource(jid:decode(fxml:get_tag_cdata(Item))))]
    catch error:{bad_jid, _} -> []
    end.

%% Puts a message where its time is, or if another is there, at the next free microsecond: times are ids, and two messages
%% with one id could not be paged through.
-spec put(archive(), integer(), xmlel()) -> {stored | known, archive()} | unusable.
put(#archive{last = Last} = Archive, Time, Message) ->
    case ends(Archive, Message) of
	{From, To} -> put(Archive, Time, max(Time, Last) + 1, From, To, Message);
	unusable -> unusable
    end.

put(#archive{last = Last} = Asked, Time, Next, From, To, Message) ->
    case there(Asked, Time) of
	{[], Archive} ->
	    store(Archive, Time, From, To, Message),
	    {stored, noted(Archive#archive{last = max(Time, Last)}, Time, [key(Message)])};
	{Keys, Archive} ->
	    case lists:member(key(Message), Keys) of
		true -> {known, Archive#archive{last = max(Time, Last)}};
		false -> put(Archive, Next, Next + 1, From, To, Message)
	    end
    end.

%% From whom to whom. A server may leave out the address that is the owner's own.
ends(#archive{host = Host, user = User}, Message) ->
    Owner = jid:make(User, Host),
    try {address(<<"from">>, Message, Owner), address(<<"to">>, Message, Owner)} of
	{#jid{luser = User, lserver = Host}, _} = Ends -> Ends;
	{_, #jid{luser = User, lserver = Host}} = Ends -> Ends;
	_ -> unusable
    catch error:{bad_jid, _} -> unusable
    end.

address(Attr, Message, Default) ->
    case fxml:get_tag_attr_s(Attr, Message) of
	<<>> -> Default;
	Text -> jid:decode(Text)
    end.

%% What is at a time.
there(#archive{there = {Time, Keys}} = Archive, Time) -> {Keys, Archive};
there(#archive{there = {_, _}, host = Host, user = User} = Archive, Time) ->
    Rows = query(Host, ?SQL("select @(xml)s, @(peer)s from archive"
			    " where username=%(User)s and timestamp=%(Time)d and %(Host)H")),
    Keys = [case decode(Host, User, XML, Peer) of unreadable -> <<>>; Message -> key(Message) end || {XML, Peer} <- Rows],
    {Keys, noted(Archive, Time, Keys)};
there(#archive{there = There} = Archive, Time) -> {maps:get(Time, There, []), Archive}.

noted(#archive{there = {_, _}} = Archive, Time, Keys) -> Archive#archive{there = {Time, Keys}};
noted(#archive{there = There} = Archive, Time, Keys) -> Archive#archive{there = There#{Time => Keys}}.

%% By what a message is recognised among those of the same microsecond. Its content may have been taken back meanwhile.
key(#xmlel{children = Children} = Message) ->
    Ends = [normal(fxml:get_tag_attr_s(Attr, Message)) || Attr <- [<<"from">>, <<"to">>]],
    Content = case fxml:get_tag_attr_s(<<"id">>, Message) of
		  <<>> -> [binary:replace(fxml:element_to_binary(Child), <<"\r">>, <<"\n">>, [global]) ||
			      #xmlel{} = Child <- Children];
		  Id -> Id
	      end,
    erlang:md5(term_to_binary({Ends, Content})).

normal(Text) ->
    try jid:tolower(jid:decode(Text))
    catch error:{bad_jid, _} -> Text
    end.

%% As mod_mam:store_mam_message does it.
store(#archive{host = Host, user = User, backend = Backend}, Time, From, To, Message) ->
    {Direction, Peer} = case To of
			    #jid{luser = User, lserver = Host} -> {recv, From};
			    _ -> {send, To}
			end,
    Arguments = [Message, Host, {User, Host}, chat, Peer, <<>>, Direction, Time],
    Later = case erlang:function_exported(Backend, store, 10) of
		true -> [origin_id(Message), false]; % since 24.02
		false -> []
	    end,
    case apply(Backend, store, Arguments ++ Later) of
	ok -> ok;
	Error -> throw({failed, io_lib:format("mod_mam does not store a message of ~ts@~ts: ~p", [User, Host, Error])})
    end.

origin_id(Message) ->
    case fxml:get_subtag_with_xmlns(Message, <<"origin-id">>, ?NS_SID_0) of
	#xmlel{} = El -> fxml:get_tag_attr_s(<<"id">>, El);
	false -> <<>>
    end.
