%%% Copies of messages: every one-to-one message that means something to a device that was away goes into the journal once
%%% for its sender and once for its recipient, as far as they are accounts of this host, and gets the id of its copy stamped
%%% on.
%%%
%%% The hooks are those of mod_mam: once each message, after what may stop it. The id is chosen before a message is carried
%%% to several resources, so neither resources nor carbons make copies.
-module(mod_multiend_messages).

-export([user_send_packet/1, strip_own_id/1, sm_receive_packet/1, user_receive_packet/1, offline_message/1]).
-export([on_one_line/1]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("mod_multiend.hrl").

%%% ---------------------------------------------------------------------------------------------------------------- the hooks

%% What a client of ours sends. A note to oneself comes by twice: it is copied when it arrives.
user_send_packet({#message{meta = #{carbon_copy := true}}, _} = Acc) -> Acc;
user_send_packet({#message{to = To} = Sent, #{jid := From} = Session}) ->
    #jid{luser = User, lserver = Host} = From,
    Message = without_ids(Sent, Host),
    case To of
	#jid{luser = User, lserver = Host} -> {Message, Session};
	_ ->
	    case is_archived(Message) andalso copy(User, Host, send, new_id(), xmpp:set_from_to(Message, From, To)) of
		false -> {Message, Session};
		refused -> refuse(Message), {stop, {drop, Session}};
		not_archived -> {Message, Session};
		Id -> {stamped(Message, User, Host, Id), Session}
	    end
    end;
user_send_packet(Acc) -> Acc.

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
	true -> xmpp:put_meta(Message, multiend_id, new_id());
	false -> Message
    end;
sm_receive_packet(Acc) -> Acc.

%% What a session of ours is about to be given.
user_receive_packet({#message{meta = #{mam_archived := true}}, _} = Acc) -> Acc;
user_receive_packet({#message{meta = #{multiend_id := Id}} = Message, #{jid := #jid{luser = User, lserver = Host}} = Session}) ->
    case copy(User, Host, recv, Id, Message) of
	refused -> refuse(Message), {stop, {drop, Session}};
	not_archived -> {Message, Session};
	Id -> {stamped(Message, User, Host, Id), Session}
    end;
user_receive_packet(Acc) -> Acc.

%% What is for an account that is not there. In the archive it needs no offline storage, but where there is one it may be
%% kept for clients that do not look into archives.
offline_message({_, #message{meta = #{mam_archived := true}}} = Acc) -> Acc;
offline_message({_, #message{meta = #{multiend_id := Id}, to = #jid{luser = User, lserver = Host}} = Message} = Acc) ->
    case copy(User, Host, recv, Id, Message) of
	refused -> refuse(Message), {stop, {refused, Message}};
	not_archived -> Acc;
	Id -> {archived, stamped(Message, User, Host, Id)}
    end;
offline_message(Acc) -> Acc.

%%% -------------------------------------------------------------------------------------------------------------------- copies

%% Puts a copy into the journal: its id, or what becomes of the message when that cannot take it.
copy(User, Host, Direction, Id, Message) ->
    Owner = jid:encode(jid:make(User, Host)),
    Copy = element_of(Owner, Direction, Id, Message),
    case mod_multiend_journal:append(Host, Owner, Id, on_one_line(fxml:element_to_binary(Copy)), Copy) of
	new -> push(User, Host, Direction, Message), Id;
	known -> Id;
	{error, Reason} -> mod_multiend:not_archived(Host, Reason)
    end.

%% The attributes in this order: mod_multiend_sender finds them in the text.
element_of(Owner, Direction, Id, Message) ->
    #xmlel{attrs = Attrs} = El = xmpp:encode(Message, ?NS_CLIENT),
    Copied = El#xmlel{attrs = [{<<"xmlns">>, ?NS_CLIENT} | lists:keydelete(<<"xmlns">>, 1, Attrs)]},
    Stamp = calendar:system_time_to_rfc3339(erlang:system_time(microsecond), [{unit, microsecond}, {offset, "Z"}]),
    #xmlel{name = <<"copy">>,
	   attrs = [{<<"owner">>, Owner}, {<<"direction">>, direction(Direction)}, {<<"id">>, Id},
		    {<<"stamp">>, list_to_binary(Stamp)}],
	   children = [Copied]}.

direction(send) -> <<"sent">>;
direction(recv) -> <<"received">>.

%% XML that stays the same but has no line breaks.
on_one_line(Text) ->
    case binary:match(Text, [<<"\n">>, <<"\r">>]) of
	nomatch -> Text;
	_ -> binary:replace(binary:replace(Text, <<"\r">>, <<"&#13;">>, [global]), <<"\n">>, <<"&#10;">>, [global])
    end.

%% 144 random bits: nobody guesses the id of a copy.
new_id() -> << <<(url_safe(C))>> || <<C>> <= base64:encode(crypto:strong_rand_bytes(18)) >>.

url_safe($+) -> $-;
url_safe($/) -> $_;
url_safe(C) -> C.

%% The mark is that of mod_mam: mod_stream_mgmt and mod_push know it.
stamped(Message, User, Host, Id) ->
    Stamp = #stanza_id{by = jid:make(User, Host), id = Id},
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
