%%% Copies of messages: every one-to-one message that means something to a device that was away goes into the journal once
%%% for its sender and once for its recipient, as far as they are accounts of this host, and gets the id of its copy stamped
%%% on.
%%%
%%% The hooks are those of mod_mam: once each message, after what may stop it. The id is chosen before a message is carried
%%% to several resources, so neither resources nor carbons make copies.
-module(mod_multiend_messages).

-export([user_send_packet/1, strip_own_id/1, c2s_authenticated_packet/2, sm_receive_packet/1, user_receive_packet/1,
	 offline_message/1]).
-export([on_one_line/1]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("mod_multiend.hrl").

-define(IDS_AT_ONCE, 16).
-define(AHEAD, 64). % How many copies a session appends without waiting for any of them.

%%% ---------------------------------------------------------------------------------------------------------------- the hooks

%% What a client of ours sends. A note to oneself comes by twice: it is copied when it arrives.
user_send_packet({#message{meta = #{carbon_copy := true}}, _} = Acc) -> Acc;
user_send_packet({#message{to = To} = Sent, #{jid := From} = Session}) ->
    #jid{luser = User, lserver = Host} = From,
    Message = without_ids(Sent, Host),
    case To of
	#jid{luser = User, lserver = Host} -> {Message, Session};
	_ ->
	    When = case waits_elsewhere(Host, To) of true -> soon; false -> now end,
	    case is_archived(Message) andalso copy(When, User, Host, send, new_id(), xmpp:set_from_to(Message, From, To)) of
		false -> {Message, Session};
		refused -> refuse(Message), {stop, {drop, Session}};
		not_archived -> {Message, Session};
		Id when When =:= soon -> {stamped(Message, User, Host, Id), Session#{multiend_unwritten => true}};
		Id -> {stamped(Message, User, Host, Id), Session}
	    end
    end;
user_send_packet({#iq{} = IQ, Session}) -> {IQ, settled(Session)};
user_send_packet(Acc) -> Acc.

%% Nothing of a message leaves this server before the sender's copy is on disk. What goes to an account of this node waits
%% there: the session of the recipient for a copy of its own, which the journal takes after this one, and everybody else who
%% may learn of it asks mod_multiend_journal:written/1. So the sender need not wait as well.
waits_elsewhere(Host, #jid{luser = User, lserver = Host}) when User =/= <<>> -> may_go_on(Host);
waits_elsewhere(_, _) -> false.

may_go_on(Host) ->
    nodes() =:= [] andalso gen_mod:get_module_opt(Host, mod_multiend, journal_full) =:= deliver
	andalso not ets:lookup_element(mod_multiend:table(Host), journal_fails, 2).

%% The copy of a recipient who is there, and whose lists let the message through, goes into the journal before the message goes
%% to the session, which has but to wait for it; so those of many messages share a write although a session takes one after
%% the other. (A list that is active for one session only, in XEP-0016, is not asked: what it alone stops is archived.)
ahead(#message{to = #jid{luser = User, lserver = Host} = To, meta = #{multiend_id := Id}} = Message) ->
    IsThere = may_go_on(Host) andalso ejabberd_sm:get_user_present_resources(User, Host) =/= [] andalso
	ejabberd_hooks:run_fold(privacy_check_packet, Host, allow, [To, Message, in]) =:= allow,
    case IsThere of
	true ->
	    Owner = jid:encode({User, Host, <<>>}),
	    Written = mod_multiend_journal:append_ahead(Host, Owner, Id, copy_of(Owner, recv, Id, text_of(soon, recv, Message))),
	    breathe(Host),
	    push(User, Host, recv, Message),
	    xmpp:put_meta(Message, multiend_ahead, Written);
	false -> Message
    end.

%% A client that asks which of its stanzas were taken, or asks for anything else, is answered when their copies are on disk.
c2s_authenticated_packet(Session, #sm_r{}) -> settled(Session);
c2s_authenticated_packet(Session, #sm_resume{}) -> settled(Session#{multiend_unwritten => true});
c2s_authenticated_packet(Session, _) -> Session.

settled(#{multiend_unwritten := true, lserver := Host} = Session) ->
    _ = mod_multiend_journal:written(Host),
    maps:remove(multiend_unwritten, Session);
settled(Session) -> Session.

%% The sender's id has been shown to its own resources by now, and is nobody else's business.
strip_own_id({#message{} = Message, #{jid := #jid{lserver = Host}} = Session}) ->
    {xmpp:del_meta(without_ids(Message, Host), mam_archived), Session};
strip_own_id(Acc) -> Acc.

%% What comes for an account of ours, before it is known to which sessions it goes.
sm_receive_packet(#iq{} = IQ) ->
    case mod_multiend_requests:hand_over(IQ) of
	taken -> {stop, drop};
	pass -> IQ
    end;
sm_receive_packet(#message{type = error} = Error) -> % with the marks of the message that it is about
    xmpp:del_meta(xmpp:del_meta(Error, multiend_id), mam_archived);
sm_receive_packet(#message{meta = #{multiend_id := _}} = Message) -> Message; % it comes again, from a session that was lost
sm_receive_packet(#message{meta = #{from_offline := true}} = Message) -> Message;
sm_receive_packet(#message{meta = #{carbon_copy := true}} = Message) -> Message;
sm_receive_packet(#message{to = #jid{lserver = Host}} = Received) ->
    Message = without_ids(Received, Host),
    case is_archived(Message) of
	true -> ahead(xmpp:put_meta(Message, multiend_id, new_id()));
	false -> Message
    end;
sm_receive_packet(Acc) -> Acc.

%% What a session of ours is about to be given.
user_receive_packet({#message{meta = #{mam_archived := true}}, _} = Acc) -> Acc;
user_receive_packet({#message{meta = #{multiend_id := Id, multiend_ahead := Written}} = Message,
		     #{jid := #jid{luser = User, lserver = Host}} = Session}) ->
    case is_written(User, Host, Id, Written) of
	true -> {stamped(Message, User, Host, Id), Session};
	false -> {Message, Session}
    end;
user_receive_packet({#message{meta = #{multiend_id := Id}} = Message, #{jid := #jid{luser = User, lserver = Host}} = Session}) ->
    case copy(now, User, Host, recv, Id, Message) of
	refused -> refuse(Message), {stop, {drop, Session}};
	not_archived -> {Message, Session};
	Id -> {stamped(Message, User, Host, Id), Session}
    end;
user_receive_packet({#message{meta = #{carbon_copy := true}, sub_els = [#carbons_sent{}]}, #{lserver := Host}} = Acc) ->
    _ = mod_multiend_journal:written(Host),
    Acc;
user_receive_packet(Acc) -> Acc.

%% What is for an account that is not there. In the archive it needs no offline storage, but where there is one it may be
%% kept for clients that do not look into archives.
offline_message({_, #message{meta = #{mam_archived := true}}} = Acc) -> Acc;
offline_message({_, #message{meta = #{multiend_id := Id, multiend_ahead := Written}, to = To} = Message} = Acc) ->
    #jid{luser = User, lserver = Host} = To,
    case is_written(User, Host, Id, Written) of
	true -> {archived, stamped(Message, User, Host, Id)};
	false -> Acc
    end;
offline_message({_, #message{meta = #{multiend_id := Id}, to = #jid{luser = User, lserver = Host}} = Message} = Acc) ->
    case copy(now, User, Host, recv, Id, Message) of
	refused -> refuse(Message), {stop, {refused, Message}};
	not_archived -> Acc;
	Id -> {archived, stamped(Message, User, Host, Id)}
    end;
offline_message(Acc) -> Acc.

%%% -------------------------------------------------------------------------------------------------------------------- copies

%% Puts a copy into the journal: its id, or what becomes of the message when that cannot take it.
copy(When, User, Host, Direction, Id, Message) ->
    Owner = jid:encode({User, Host, <<>>}),
    Text = copy_of(Owner, Direction, Id, text_of(When, Direction, Message)),
    case append(When, Host, Owner, Id, Text) of
	new -> push(User, Host, Direction, Message), Id;
	known -> Id;
	{error, Reason} -> mod_multiend:not_archived(Host, Reason)
    end.

append(now, Host, Owner, Id, Text) -> mod_multiend_journal:append(Host, Owner, Id, Text);
append(soon, Host, Owner, Id, Text) ->
    ok = mod_multiend_journal:append_soon(Host, Owner, Id, Text),
    breathe(Host),
    new.

%% Memory is bounded: who sends a lot waits from time to time.
breathe(Host) ->
    case get(multiend_appended) of
	Count when is_integer(Count), Count < ?AHEAD -> put(multiend_appended, Count + 1);
	undefined -> put(multiend_appended, 1);
	_ -> put(multiend_appended, 0), mod_multiend_journal:written(Host)
    end.

%% Whether the copy that was appended ahead is on disk.
is_written(User, Host, Id, Written) ->
    case mod_multiend_journal:written(Host, jid:encode({User, Host, <<>>}), Id, Written) of
	ok -> true;
	{error, failed} -> false;
	{error, Reason} -> _ = mod_multiend:not_archived(Host, Reason), false
    end.

%% The attributes in this order: mod_multiend_sender finds them in the text.
copy_of(Owner, Direction, Id, Text) ->
    [<<"<copy owner='", (fxml:crypt(Owner))/binary, "' direction='", (direction(Direction))/binary, "' id='", Id/binary,
       "' stamp='", (stamp())/binary, "'>">>, Text, <<"</copy>">>].

%% A message between two accounts of this host is copied twice in a row by the process of the session that sends it, and is
%% written once.
text_of(soon, send, Message) ->
    Text = text_of(Message),
    _ = put(?MODULE, {Message#message{meta = #{}}, Text}),
    Text;
text_of(soon, recv, Message) ->
    Bare = Message#message{meta = #{}},
    case erase(?MODULE) of
	{Bare, Text} -> Text;
	_ -> text_of(Message)
    end;
text_of(now, _, Message) -> text_of(Message).

text_of(Message) ->
    #xmlel{attrs = Attrs} = El = xmpp:encode(Message, ?NS_CLIENT),
    Copied = El#xmlel{attrs = [{<<"xmlns">>, ?NS_CLIENT} | lists:keydelete(<<"xmlns">>, 1, Attrs)]},
    on_one_line(fxml:element_to_binary(Copied)).

direction(send) -> <<"sent">>;
direction(recv) -> <<"received">>.

%% XML that stays the same but has no line breaks.
on_one_line(Text) ->
    %% One at a time: to look for either at once takes twenty times as long.
    case binary:match(Text, <<"\n">>) =:= nomatch andalso binary:match(Text, <<"\r">>) =:= nomatch of
	true -> Text;
	false -> binary:replace(binary:replace(Text, <<"\r">>, <<"&#13;">>, [global]), <<"\n">>, <<"&#10;">>, [global])
    end.

%% What calendar:system_time_to_rfc3339 says, without the time that it takes.
stamp() ->
    Now = erlang:system_time(microsecond),
    {{Year, Month, Day}, {Hour, Minute, Second}} = calendar:system_time_to_universal_time(Now div 1000000, second),
    <<(digits(10000 + Year))/binary, $-, (digits(100 + Month))/binary, $-, (digits(100 + Day))/binary, $T,
      (digits(100 + Hour))/binary, $:, (digits(100 + Minute))/binary, $:, (digits(100 + Second))/binary, $.,
      (digits(1000000 + Now rem 1000000))/binary, $Z>>.

%% What stands behind the leading one.
digits(Number) ->
    <<_, Digits/binary>> = integer_to_binary(Number),
    Digits.

%% 144 random bits: nobody guesses the id of a copy. Those of several are asked for at once, since each question costs more
%% than its bits.
new_id() ->
    case get(multiend_random) of
	<<Bits:144, Others/binary>> -> put(multiend_random, Others);
	_ -> <<Bits:144, Others/binary>> = crypto:strong_rand_bytes(?IDS_AT_ONCE * 18), put(multiend_random, Others)
    end,
    integer_to_binary(Bits, 36).

%% The mark is that of mod_mam: mod_stream_mgmt and mod_push know it.
stamped(Message, User, Host, Id) ->
    Owner = #jid{user = User, server = Host, luser = User, lserver = Host},
    Stamp = #stanza_id{by = Owner, id = Id},
    xmpp:put_meta(xmpp:set_els(Message, [Stamp | xmpp:get_els(Message)]), mam_archived, true).

%% Takes out the ids that claim to be given by accounts of ours, in whatever spelling.
without_ids(Message, Host) ->
    Els = xmpp:get_els(Message),
    case [El || El <- Els, is_id_of(El, Host)] of
	[] -> Message;
	_ -> xmpp:set_els(Message, [El || El <- Els, not is_id_of(El, Host)])
    end.

is_id_of(#stanza_id{by = #jid{lserver = Server}}, Host) -> Server =:= Host;
is_id_of(#xmlel{name = <<"stanza-id">>} = El, Host) ->
    fxml:get_tag_attr_s(<<"xmlns">>, El) =:= ?NS_SID_0 andalso
	try jid:decode(fxml:get_tag_attr_s(<<"by">>, El)) of
	    #jid{lserver = Server} -> Server =:= Host
	catch _:_ -> true
	end;
is_id_of(_, _) -> false.

refuse(Message) ->
    Error = xmpp:err_resource_constraint(<<"Messages cannot be archived now">>, xmpp:get_lang(Message)),
    ejabberd_router:route_error(Message, Error).

%% mod_push learns of messages from mod_mam; where that does not archive, from us.
push(User, Host, Direction, Message) ->
    case gen_mod:is_loaded(Host, mod_push) of
	true ->
	    Peer = case Direction of send -> xmpp:get_to(Message); recv -> xmpp:get_from(Message) end,
	    Arguments = [Message, User, Host, Peer, <<>>, chat, Direction],
	    _ = case erlang:function_exported(mod_push, mam_message, 7) of
		    true -> apply(mod_push, mam_message, Arguments);
		    false -> apply(mod_push, mam_message, Arguments ++ [false]) % from 25.03 on
		end,
	    ok;
	false -> ok
    end.

%%% ------------------------------------------------------------------------------------------------------------- what is copied

%% The same decision as src/archive/classify.rs makes: what is stamped here is archived there.
is_archived(#message{type = Type}) when Type =:= error; Type =:= headline; Type =:= groupchat -> false;
is_archived(#message{body = Body, subject = Subject, sub_els = Els}) ->
    Kinds = [kind(xmpp:get_ns(El), xmpp:get_name(El), El) || El <- Els],
    Has = fun(Kind) -> lists:member(Kind, Kinds) end,
    not Has(no_store)
	andalso (Has(encrypted) orelse Body =/= []
		 orelse (not Has(carrier) andalso (Subject =/= [] orelse Has(content)))).

kind(?NS_HINTS, <<"no-store">>, _) -> no_store;
kind(?NS_HINTS, <<"no-permanent-store">>, _) -> no_store;
kind(?NS_HINTS, <<"store">>, _) -> content;
kind(<<"urn:xmpp:omemo:2">>, <<"encrypted">>, _) -> encrypted;
kind(<<"eu.siacs.conversations.axolotl">>, <<"encrypted">>, _) -> encrypted;
kind(<<"urn:xmpp:openpgp:0">>, <<"openpgp">>, _) -> encrypted;
kind(<<"jabber:x:encrypted">>, <<"x">>, _) -> encrypted;
kind(<<"urn:xmpp:carbons:2">>, _, _) -> carrier;
kind(<<"urn:xmpp:mam:2">>, _, _) -> carrier;
kind(<<"http://jabber.org/protocol/pubsub#event">>, _, _) -> carrier;
kind(<<"urn:xmpp:delegation:2">>, _, _) -> carrier;
kind(<<"urn:xmpp:reactions:0">>, <<"reactions">>, _) -> content;
kind(<<"urn:xmpp:message-retract:0">>, <<"retract">>, _) -> content;
kind(<<"urn:xmpp:message-retract:1">>, <<"retract">>, _) -> content;
kind(<<"urn:xmpp:fasten:0">>, <<"apply-to">>, _) -> content;
kind(<<"jabber:x:oob">>, <<"x">>, _) -> content;
kind(<<"jabber:x:conference">>, <<"x">>, _) -> content;
kind(<<"urn:xmpp:attention:0">>, <<"attention">>, _) -> content;
kind(<<"urn:xmpp:sfs:0">>, <<"file-sharing">>, _) -> content;
kind(<<"urn:xmpp:sims:1">>, <<"media-sharing">>, _) -> content;
kind(<<"http://jabber.org/protocol/xhtml-im">>, <<"html">>, _) -> content;
kind(<<"http://jabber.org/protocol/geoloc">>, <<"geoloc">>, _) -> content;
kind(<<"urn:xmpp:receipts">>, <<"received">>, _) -> content;
kind(<<"urn:xmpp:chat-markers:0">>, Name, _) when Name =:= <<"received">>; Name =:= <<"displayed">>; Name =:= <<"acknowledged">> ->
    content;
kind(<<"urn:xmpp:ephemeral:0">>, <<"ephemeral">>, _) -> content;
kind(<<"urn:xmpp:jingle-message:0">>, _, _) -> content;
kind(<<"http://jabber.org/protocol/muc#user">>, <<"x">>, #xmlel{children = Children}) ->
    case [El || #xmlel{name = Name} = El <- Children, Name =:= <<"invite">> orelse Name =:= <<"decline">>] of
	[] -> none;
	_ -> content
    end;
kind(<<"http://jabber.org/protocol/muc#user">>, <<"x">>, #muc_user{invites = [], decline = undefined}) -> none;
kind(<<"http://jabber.org/protocol/muc#user">>, <<"x">>, _) -> content;
kind(_, _, _) -> none.
