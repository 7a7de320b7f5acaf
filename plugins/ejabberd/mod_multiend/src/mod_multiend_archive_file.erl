%%% Archives of accounts as a file in the form of XEP-0227 (section "Archives", urn:xmpp:pie:0#mam), as "multiend admin export"
%%% writes it and "multiend admin import" reads it; and what accounts want archived, of which XEP-0227 says nothing: <prefs/>
%%% beside an archive. A file may be larger than memory: one result is held at a time.
%%%
%%% What cannot be done is thrown as {failed, Text}.
-module(mod_multiend_archive_file).

-export([create/1, write/2, close/1, head/1, account/1, result/3, account_end/1, tail/0]).
-export([fold/3]).

-include("xmpp.hrl").

-define(NS_PIE, <<"urn:xmpp:pie:0">>).
-define(NS_PIE_MAM, <<"urn:xmpp:pie:0#mam">>).

-define(CHUNK, 65536).
-define(LONGEST, 4194304). % Most bytes of a result, and of what stands between two tags.

%%% -------------------------------------------------------------------------------------------------------------------- writing

%% Messages are nobody else's business: only ejabberd's own user may read the file.
create(Path) ->
    case file:open(Path, [write, raw, binary]) of
	{ok, File} ->
	    check(Path, file:change_mode(Path, 8#600)),
	    File;
	Error -> check(Path, Error)
    end.

write(File, Text) -> check("the file", file:write(File, Text)).

close(File) -> check("the file", file:sync(File)).

check(_, ok) -> ok;
check(What, {error, Reason}) -> throw({failed, [What, ": ", file:format_error(Reason)]}).

head(Host) ->
    ["<?xml version='1.0' encoding='UTF-8'?>\n<server-data xmlns='", ?NS_PIE, "'>\n<host jid='", fxml:crypt(Host), "'>\n"].

account(User) -> ["<user name='", fxml:crypt(User), "'>\n<archive xmlns='", ?NS_PIE_MAM, "'>\n"].

%% A message of an archive, with its id and its time in microseconds, on one line.
result(Id, Time, #xmlel{attrs = Attrs} = Message) ->
    Stamp = list_to_binary(calendar:system_time_to_rfc3339(Time, [{unit, microsecond}, {offset, "Z"}])),
    Forwarded = [#xmlel{name = <<"delay">>, attrs = [{<<"xmlns">>, ?NS_DELAY}, {<<"stamp">>, Stamp}]},
		 Message#xmlel{attrs = [{<<"xmlns">>, ?NS_CLIENT} | lists:keydelete(<<"xmlns">>, 1, Attrs)]}],
    Result = #xmlel{name = <<"result">>, attrs = [{<<"xmlns">>, ?NS_MAM_2}, {<<"id">>, Id}],
		    children = [#xmlel{name = <<"forwarded">>, attrs = [{<<"xmlns">>, ?NS_FORWARD}],
				       children = Forwarded}]},
    [mod_multiend_messages:on_one_line(fxml:element_to_binary(Result)), $\n].

%% With what the account wants archived, if it has said so.
account_end(none) -> "</archive>\n</user>\n";
account_end(#xmlel{} = Preferences) -> ["</archive>\n", fxml:element_to_binary(Preferences), "\n</user>\n"].

tail() -> "</host>\n</server-data>\n".

%%% -------------------------------------------------------------------------------------------------------------------- reading

%% Where in the file one is. Of the elements around a result only those count that XEP-0227 puts there, each in its place:
%% what users have published stands in the same file.
-record(reader, {file :: file:fd(),
		 read = <<>> :: binary(), % and not looked at yet
		 is_export = false :: boolean(),
		 depth = 0 :: non_neg_integer(),
		 host :: undefined | binary(),
		 user :: undefined | binary(),
		 in_archive = false :: boolean()}).

%% Calls Fun({Host, User}, Element, Acc) for each result of each archive in the file, and for preferences. The file is whole if
%% this returns.
-spec fold(fun(({binary(), binary()}, xmlel(), Acc) -> Acc), Acc, file:name_all()) -> Acc.
fold(Fun, Acc, Path) ->
    case file:open(Path, [read, raw, binary]) of
	{ok, File} ->
	    try elements(Fun, Acc, #reader{file = File})
	    after file:close(File)
	    end;
	Error -> check(Path, Error)
    end.

elements(Fun, Acc, #reader{depth = Depth} = Reader) ->
    case next(Reader) of
	{Kind, _, <<"<prefs", _/binary>> = Tag, Next} when Depth =:= 3, Kind =:= open orelse Kind =:= empty ->
	    {Text, Behind} = case Kind of
				 open -> rest_of_element(Next, 1, [Tag], byte_size(Tag));
				 empty -> {Tag, Next}
			     end,
	    elements(Fun, found(<<"prefs">>, Fun, Acc, parse(Text), Behind), Behind);
	{open, _, Tag, Next} when Depth < 4 -> elements(Fun, Acc, entered(Depth, parse([Tag, "</", name(Tag), ">"]), Next));
	{empty, _, Tag, Next} when Depth < 4 ->
	    #reader{} = entered(Depth, parse(Tag), Next),
	    elements(Fun, Acc, Next);
	{open, _, Tag, Next} when Depth =:= 4, Next#reader.in_archive ->
	    {Text, Behind} = rest_of_element(Next, 1, [Tag], byte_size(Tag)),
	    elements(Fun, found(<<"result">>, Fun, Acc, parse(Text), Behind), Behind);
	{open, _, _, Next} -> elements(Fun, Acc, Next#reader{depth = Depth + 1});
	{close, _, _, _} when Depth =:= 0 -> throw({failed, "it is not well-formed"});
	{close, _, _, Next} -> elements(Fun, Acc, Next#reader{depth = Depth - 1});
	{_, _, _, Next} -> elements(Fun, Acc, Next);
	the_end when Depth =:= 0, Reader#reader.is_export -> Acc;
	the_end -> throw({failed, "the file is cut short"})
    end.

entered(0, El, Reader) ->
    is_element(El, <<"server-data">>, ?NS_PIE)
	orelse throw({failed, "it is no export in the form of XEP-0227: its root is not <server-data/>"}),
    Reader#reader{depth = 1, is_export = true, host = undefined};
entered(1, El, Reader) -> Reader#reader{depth = 2, host = value(El, <<"host">>, <<"jid">>), user = undefined};
entered(2, El, Reader) -> Reader#reader{depth = 3, user = value(El, <<"user">>, <<"name">>), in_archive = false};
entered(3, El, #reader{host = Host, user = User} = Reader) ->
    IsArchive = Host =/= undefined andalso User =/= undefined andalso is_element(El, <<"archive">>, ?NS_PIE_MAM),
    Reader#reader{depth = 4, in_archive = IsArchive}.

found(Name, Fun, Acc, El, #reader{host = Host, user = User}) ->
    case Host =/= undefined andalso User =/= undefined andalso is_element(El, Name, ?NS_MAM_2) of
	true -> Fun({Host, User}, El, Acc);
	false -> Acc
    end.

is_element(#xmlel{name = Name} = El, Name, NS) -> fxml:get_tag_attr_s(<<"xmlns">>, El) =:= NS;
is_element(_, _, _) -> false.

value(#xmlel{name = Name} = El, Name, Attr) ->
    case {fxml:get_tag_attr(<<"xmlns">>, El), fxml:get_tag_attr(Attr, El)} of
	{false, {value, Value}} -> Value;
	{{value, ?NS_PIE}, {value, Value}} -> Value;
	_ -> undefined
    end;
value(_, _, _) -> undefined.

parse(Text) ->
    case fxml_stream:parse_element(iolist_to_binary(Text)) of
	#xmlel{} = El -> El;
	{error, _} -> throw({failed, "it is not well-formed"})
    end.

name(<<"<", Rest/binary>>) -> hd(binary:split(Rest, [<<" ">>, <<"\t">>, <<"\n">>, <<"\r">>, <<">">>])).

%% An element to its end, from behind its first tag, with Open elements open.
rest_of_element(Reader, 0, Text, _) -> {lists:reverse(Text), Reader};
rest_of_element(_, _, _, Size) when Size > ?LONGEST -> throw({failed, "a message in it is too long"});
rest_of_element(Reader, Open, Text, Size) ->
    case next(Reader) of
	the_end -> throw({failed, "the file is cut short"});
	{Kind, Before, Tag, Next} ->
	    NowOpen = case Kind of
			  open -> Open + 1;
			  close -> Open - 1;
			  _ -> Open
		      end,
	    rest_of_element(Next, NowOpen, [Tag, Before | Text], Size + byte_size(Before) + byte_size(Tag))
    end.

%% The next tag or the like, and the text before it.
next(#reader{read = Read} = Reader) ->
    case markup_in(Read) of
	{Kind, From, To} ->
	    <<Before:From/binary, Rest/binary>> = Read,
	    <<Tag:(To - From)/binary, Behind/binary>> = Rest,
	    {Kind, Before, Tag, Reader#reader{read = Behind}};
	more when byte_size(Read) > ?LONGEST -> throw({failed, "a tag or text in it is too long"});
	more ->
	    case file:read(Reader#reader.file, ?CHUNK) of
		{ok, Chunk} -> next(Reader#reader{read = <<Read/binary, Chunk/binary>>});
		eof -> binary:match(Read, <<"<">>) =:= nomatch orelse throw({failed, "the file is cut short"}), the_end;
		Error -> check("the file", Error)
	    end
    end.

markup_in(Text) ->
    case binary:match(Text, <<"<">>) of
	{From, 1} ->
	    <<_:From/binary, Markup/binary>> = Text,
	    case markup(Markup) of
		{Kind, Length} -> {Kind, From, From + Length};
		more -> more
	    end;
	nomatch -> more
    end.

markup(<<"<!--", _/binary>> = Text) -> up_to(other, <<"-->">>, 4, Text);
markup(<<"<![CDATA[", _/binary>> = Text) -> up_to(other, <<"]]>">>, 9, Text);
markup(<<"<?", _/binary>> = Text) -> up_to(other, <<"?>">>, 2, Text);
markup(<<"</", _/binary>> = Text) -> up_to(close, <<">">>, 2, Text);
markup(Text) when byte_size(Text) < 9 -> more; % than the longest of these beginnings
markup(<<"<!", _/binary>>) -> throw({failed, "it has a document type declaration"});
markup(Text) ->
    case tag_end(Text, 1) of
	more -> more;
	End ->
	    case binary:at(Text, End - 2) of
		$/ -> {empty, End};
		_ -> {open, End}
	    end
    end.

up_to(Kind, End, From, Text) ->
    case find(Text, End, From) of
	{At, Length} -> {Kind, At + Length};
	nomatch -> more
    end.

%% Where a tag ends. A quoted value may have a > in it.
tag_end(Text, From) ->
    case find(Text, [<<">">>, <<"\"">>, <<"'">>], From) of
	nomatch -> more;
	{At, 1} ->
	    case binary:at(Text, At) of
		$> -> At + 1;
		Quote ->
		    case find(Text, <<Quote>>, At + 1) of
			nomatch -> more;
			{Closing, 1} -> tag_end(Text, Closing + 1)
		    end
	    end
    end.

find(Text, Pattern, From) -> binary:match(Text, Pattern, [{scope, {From, byte_size(Text) - From}}]).
