%%% Requests that are handed over to the component: about OMEMO's nodes, about the asking account's archive, and in
%%% multiend's own namespace. Everything else stays where it is.
%%%
%%% What the component answers goes to the session that asked and nowhere else. A request always ends: with the answer, or
%%% with an error of type wait when there is no component or it does not answer in time.
-module(mod_multiend_requests).

-export([hand_over/1, sm_receive_packet/1]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("mod_multiend.hrl").

-define(SETTLE, 3000). % How long a query waits for copies that are on their way, in milliseconds.

-record(asked, {host :: binary(),
		user :: binary(),
		iq :: iq(),
		session :: remote | none | pid(),
		relation :: binary(),
		about = other :: other | {list, changes | reads, Node :: binary()}}).

%% Takes over an IQ to an account, or says that it is not ours.
-spec hand_over(iq()) -> taken | pass.
hand_over(#iq{type = Type, to = #jid{luser = User, lserver = Host, lresource = <<>>}, sub_els = [#xmlel{name = Name} = El]} = IQ)
  when User =/= <<>>, Type =:= get orelse Type =:= set ->
    case {Name, fxml:get_tag_attr_s(<<"xmlns">>, El)} of
	{<<"pubsub">>, NS} when NS =:= ?NS_PUBSUB; NS =:= ?NS_PUBSUB_OWNER ->
	    case omemo_request(El) of
		{Verb, Node} -> if_exists(IQ, fun() -> about_node(asked(IQ, about(Verb, Node))) end);
		none -> pass
	    end;
	{_, ?NS_MAM_2} ->
	    #iq{from = #jid{luser = FromUser, lserver = FromHost}} = IQ,
	    case {FromUser, FromHost} of
		{User, Host} -> about_archive(asked(IQ, other)), taken;
		_ -> pass
	    end;
	{_, ?NS_MULTIEND} -> if_exists(IQ, fun() -> about_node(asked(IQ, about_devices(El))) end);
	_ -> pass
    end;
hand_over(_) -> pass.

if_exists(#iq{to = #jid{luser = User, lserver = Host}}, Ask) ->
    case ejabberd_auth:user_exists(User, Host) of
	true -> Ask(), taken;
	false -> pass
    end.

%% The verb and the node of a request about OMEMO. mod_pubsub has every device list as well and notifies of changes:
%% subscriptions are its own.
omemo_request(#xmlel{children = Children}) ->
    case [{Verb, Node} || #xmlel{name = Verb, attrs = Attrs} <- Children, {<<"node">>, Node} <- Attrs] of
	[{Verb, Node} | _] ->
	    IsSubscription = lists:member(Verb, [<<"subscribe">>, <<"unsubscribe">>, <<"subscriptions">>, <<"options">>]),
	    case mod_multiend_lists:is_device_list(Node) of
		true when IsSubscription -> none;
		true -> {Verb, Node};
		false ->
		    case mod_multiend_lists:is_bundle(Node) of
			true -> {Verb, Node};
			false -> none
		    end
	    end;
	[] -> none
    end.

about(Verb, Node) ->
    Changes = lists:member(Verb, [<<"publish">>, <<"retract">>, <<"delete">>]),
    case mod_multiend_lists:is_device_list(Node) of
	true when Changes -> {list, changes, Node};
	true when Verb =:= <<"items">> -> {list, reads, Node};
	_ -> other
    end.

%% A device that is added or removed by itself changes the list of its protocol.
about_devices(#xmlel{name = Name} = El) when Name =:= <<"add-device">>; Name =:= <<"remove-device">> ->
    case fxml:get_tag_attr_s(<<"protocol">>, El) of
	<<"urn:xmpp:omemo:2">> -> {list, changes, ?NS_OMEMO_2_DEVICES};
	<<"eu.siacs.conversations.axolotl">> -> {list, changes, ?NS_AXOLOTL_LIST};
	_ -> other
    end;
about_devices(_) -> other.

asked(#iq{from = From, to = #jid{luser = User, lserver = Host}} = IQ, About) ->
    #asked{host = Host, user = User, iq = IQ, about = About, session = session(From), relation = relation(User, Host, From)}.

%% The process of the session that asks: a later one with the same address is another.
session(#jid{luser = User, lserver = Server, lresource = Resource}) ->
    case User =/= <<>> andalso lists:member(Server, ejabberd_option:hosts()) of
	true -> ejabberd_sm:get_session_pid(User, Server, Resource);
	false -> remote
    end.

relation(User, Host, #jid{luser = User, lserver = Host}) -> <<"self">>;
relation(User, Host, From) ->
    case ejabberd_hooks:run_fold(roster_get_jid_info, Host, {none, none, []}, [User, Host, jid:remove_resource(From)]) of
	{Subscription, _, _} when Subscription =:= both; Subscription =:= from -> <<"contact">>;
	_ -> <<"other">>
    end.

about_node(#asked{host = Host, user = User} = Asked) ->
    mod_multiend_lists:when_imported(Host, User, fun() -> ask(false, Asked) end).

about_archive(#asked{host = Host, user = User} = Asked) ->
    Owner = jid:encode(jid:make(User, Host)),
    mod_multiend_sender:when_settled(Host, Owner, ?SETTLE, fun(Settled) -> ask(not Settled, Asked) end).

ask(Unsettled, #asked{host = Host, user = User, iq = IQ, relation = Relation} = Asked) ->
    Owner = jid:make(User, Host),
    #xmlel{attrs = Attrs} = El = xmpp:encode(IQ#iq{to = Owner}, ?NS_CLIENT),
    Inner = El#xmlel{attrs = [{<<"xmlns">>, ?NS_CLIENT} | lists:keydelete(<<"xmlns">>, 1, Attrs)]},
    mod_multiend_component:request(Host, set, wrapped(jid:encode(Owner), Relation, Unsettled, Inner),
				   fun(Answer) -> answered(Answer, Asked) end).

wrapped(Owner, Relation, Unsettled, Inner) ->
    Forwarded = #xmlel{name = <<"forwarded">>, attrs = [{<<"xmlns">>, ?NS_FORWARD}], children = [Inner]},
    #xmlel{name = <<"delegation">>,
	   attrs = [{<<"xmlns">>, ?NS_WRAPPER}, {<<"owner">>, Owner}, {<<"relation">>, Relation}]
	   ++ [{<<"unsettled">>, <<"true">>} || Unsettled],
	   children = [Forwarded]}.

answered({ok, #iq{type = result, sub_els = [#xmlel{name = <<"delegation">>, children = Children}]}}, Asked) ->
    Told = [decode(El) || #xmlel{name = <<"forwarded">>, children = Cs} <- Children, #xmlel{} = El <- Cs],
    {Messages, Rest} = lists:splitwith(fun(Stanza) -> is_record(Stanza, message) end, Told),
    case Rest of
	[#iq{type = Type} = Answer | _] when Type =:= result; Type =:= error ->
	    #asked{host = Host, user = User, iq = #iq{id = Id, to = To}, about = About} = Asked,
	    lists:foreach(fun(Message) -> tell(Message, Asked) end, Messages),
	    Tell = fun() -> tell(Answer#iq{id = Id, from = To}, Asked) end,
	    case {Type, [List || #xmlel{name = <<"list">>} = List <- Children], About} of
		{result, [List | _], _} -> mod_multiend_lists:changed(Host, User, List, Tell);
		{result, [], {list, changes, Node}} ->
		    Tell(),
		    mod_multiend_lists:refresh(Host, User, Node);
		{result, [], {list, reads, Node}} ->
		    Tell(),
		    mod_multiend_lists:compare(Host, User, Node, Answer#iq.sub_els);
		_ -> Tell()
	    end;
	_ -> fail(malformed, Asked)
    end;
answered({ok, #iq{type = error} = IQ}, Asked) ->
    ?ERROR_MSG("The component refused a request: ~p", [xmpp:get_error(IQ)]),
    fail(refused, Asked);
answered({ok, _}, Asked) -> fail(malformed, Asked);
answered({error, Reason}, Asked) -> fail(Reason, Asked).

decode(El) ->
    try xmpp:decode(El, ?NS_CLIENT, [ignore_els])
    catch _:{xmpp_codec, _} -> malformed
    end.

fail(Why, #asked{iq = #iq{lang = Lang} = IQ} = Asked) ->
    Text = <<"The OMEMO directory and archive cannot be reached now; try again later">>,
    Error = case Why of
		timeout -> xmpp:err_remote_server_timeout(Text, Lang);
		busy -> xmpp:err_resource_constraint(Text, Lang);
		_ -> xmpp:err_service_unavailable(Text, Lang)
	    end,
    tell(xmpp:make_error(IQ, Error#stanza_error{type = wait}), Asked).

%% To the session that asked, if it is still there. One mark keeps carbons away from it, and mod_stream_mgmt from sending it
%% elsewhere when the session is lost; the other is for sm_receive_packet/1.
tell(Stanza, #asked{iq = #iq{from = From}, session = Session}) ->
    case xmpp:put_meta(xmpp:set_to(Stanza, From), carbon_copy, true) of
	Told when is_pid(Session) -> ejabberd_c2s:route(Session, {route, xmpp:put_meta(Told, multiend_told, true)});
	_ when Session =:= none -> ok;
	Told -> ejabberd_router:route(Told)
    end.

%% Answers go to sessions directly. One that comes by the router was for a session that is just ending, which gives away
%% what it still gets; and then another session of the account would have it.
sm_receive_packet(#message{meta = #{multiend_told := true}}) -> {stop, drop};
sm_receive_packet(#iq{meta = #{multiend_told := true}}) -> {stop, drop};
sm_receive_packet(Packet) -> Packet.
