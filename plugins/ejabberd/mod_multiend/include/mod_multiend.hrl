%% Namespaces that more than one of the modules here names. docs/plugin-protocol.md says what each is for.
-define(NS_MULTIEND, <<"urn:multiend:0">>).
-define(NS_MULTIEND_PLUGIN, <<"urn:multiend:plugin:0">>).
-define(NS_WRAPPER, <<"urn:xmpp:delegation:2">>).
-define(NS_OMEMO_2_DEVICES, <<"urn:xmpp:omemo:2:devices">>).
-define(NS_OMEMO_2_BUNDLES, <<"urn:xmpp:omemo:2:bundles">>).
-define(NS_AXOLOTL_LIST, <<"eu.siacs.conversations.axolotl.devicelist">>).
