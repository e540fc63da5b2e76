#include "fake_server.h"

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <event2/listener.h>
#include <lber.h>
#include <ldap.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <cmocka.h>

#include "base/tls.h"

struct client {
	LIST_ENTRY(client) link;
	struct fake *fake;
	struct bufferevent *bufferevent;
	struct evbuffer *slow;
};
struct fake_server {
	struct event_base *base;
	struct evconnlistener *listener;
	SSL_CTX *tls;
	LIST_HEAD(, client) clients;
};

static const uint8_t GUID[16] = "0123456789abcdef";
#define ENTRY_UUID "6f9619ff-8b86-4d01-b42d-00c04fc964ff"
static const uint8_t USER_SID[] = { 1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0x50, 4, 0, 0 };
static const uint8_t DOMAIN_SID[] = { 1, 4, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0 };
static const uint8_t METADATA[64] = { 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x5a, 0, 9, 0, 7, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 'i' };

static void client_free(struct client *client)
{
	LIST_REMOVE(client, link);
	bufferevent_free(client->bufferevent);
	evbuffer_free(client->slow);
	free(client);
}

/* The output is empty: the next byte, in a record of its own. */
static void on_drained(struct bufferevent *bufferevent, void *arg)
{
	struct client *client = arg;
	char byte;
	if (evbuffer_remove(client->slow, &byte, 1) == 1) {
		bufferevent_write(bufferevent, &byte, 1);
	}
}

static void send_ber(struct client *client, BerElement *ber)
{
	struct berval *value;
	assert_int_equal(ber_flatten(ber, &value), 0);
	if (client->fake->dribble) {
		evbuffer_add(client->slow, value->bv_val, value->bv_len);
		if (evbuffer_get_length(bufferevent_get_output(client->bufferevent)) == 0) {
			on_drained(client->bufferevent, client);
		}
	} else {
		bufferevent_write(client->bufferevent, value->bv_val, value->bv_len);
	}
	ber_bvfree(value);
	ber_free(ber, 1);
}

static void send_result(struct client *client, int id, ber_tag_t tag, int result, const char *text)
{
	BerElement *ber = ber_alloc_t(LBER_USE_DER);
	ber_printf(ber, "{it{ess}}", id, tag, result, "", text != NULL ? text : "");
	send_ber(client, ber);
}

static BerElement *begin_entry(int id, const char *dn)
{
	BerElement *ber = ber_alloc_t(LBER_USE_DER);
	ber_printf(ber, "{it{s{", id, (ber_tag_t)LDAP_RES_SEARCH_ENTRY, dn);
	return ber;
}

static void add_value(BerElement *ber, const char *name, const void *value, size_t size)
{
	ber_printf(ber, "{s[o]}", name, (const char *)value, (ber_len_t)size);
}

static void add_text(BerElement *ber, const char *name, const char *value)
{
	add_value(ber, name, value, strlen(value));
}

static void end_entry(struct client *client, BerElement *ber)
{
	ber_printf(ber, "}}}");
	send_ber(client, ber);
}

static void send_root(struct client *client, int id)
{
	BerElement *ber = begin_entry(id, "");
	add_text(ber, "defaultNamingContext", "DC=x");
	add_text(ber, "namingContexts", "DC=x");
	add_text(ber, "objectClass", "OpenLDAProotDSE");
	add_text(ber, "dnsHostName", client->fake->name);
	add_text(ber, "dsServiceName", "CN=NTDS Settings,CN=DC,DC=x");
	add_text(ber, "isSynchronized", client->fake->unsynchronized ? "FALSE" : "TRUE");
	add_text(ber, "currentTime", "20261122120335.0Z");
	add_text(ber, "highestCommittedUSN", "4123");
	if (client->fake->has_control) {
		ber_printf(ber, "{s[ss]}", "supportedControl", "1.2.840.113556.1.4.2066", "1.2.840.113556.1.4.2239");
	}
	end_entry(client, ber);
	send_result(client, id, LDAP_RES_SEARCH_RESULT, 0, NULL);
}

static void send_server(struct client *client, int id)
{
	BerElement *ber = begin_entry(id, "CN=NTDS Settings,CN=DC,DC=x");
	add_value(ber, "invocationId", GUID, sizeof GUID);
	add_text(ber, "msDS-isRODC", client->fake->read_only ? "TRUE" : "FALSE");
	end_entry(client, ber);
	send_result(client, id, LDAP_RES_SEARCH_RESULT, 0, NULL);
}

static void send_domain(struct client *client, int id)
{
	BerElement *ber = begin_entry(id, "DC=x");
	add_value(ber, "objectSid", DOMAIN_SID, sizeof DOMAIN_SID);
	add_text(ber, "minPwdLength", "10");
	add_text(ber, "pwdProperties", "1");
	add_text(ber, "pwdHistoryLength", "24");
	if (!client->fake->partial_policy)
		add_text(ber, "minPwdAge", "-864000000000");
	add_text(ber, "maxPwdAge", "-9223372036854775808"); /* never */
	add_text(ber, "lockoutThreshold", "5");
	add_text(ber, "lockoutDuration", "0"); /* until an administrator unlocks */
	end_entry(client, ber);
	send_result(client, id, LDAP_RES_SEARCH_RESULT, 0, NULL);
}

static void send_user(struct client *client, int id)
{
	if (client->fake->user_result != 0) {
		send_result(client, id, LDAP_RES_SEARCH_RESULT, client->fake->user_result, "0000208D: NameErr");
		return;
	}
	BerElement *ber = begin_entry(id, "CN=alice,DC=x");
	add_value(ber, "objectGUID", GUID, sizeof GUID);
	add_text(ber, "entryUUID", ENTRY_UUID);
	add_value(ber, "objectSid", USER_SID, sizeof USER_SID);
	ber_printf(ber, "{s[sss]}", "objectClass", "top", "person", "user");
	add_text(ber, "sAMAccountName", "alice");
	add_text(ber, "userAccountControl", "512");
	add_text(ber, "msDS-User-Account-Control-Computed", "16");
	add_text(ber, "lockoutTime", "133000000000000000");
	add_value(ber, "tokenGroups", DOMAIN_SID, sizeof DOMAIN_SID);
	add_value(ber, "replPropertyMetaData", METADATA, sizeof METADATA);
	if (client->fake->other_pso) {
		add_text(ber, "msDS-ResultantPSO", "CN=PSO,DC=x");
	}
	end_entry(client, ber);
	send_result(client, id, LDAP_RES_SEARCH_RESULT, 0, NULL);
}

static void send_matches(struct client *client, int id)
{
	for (unsigned i = 0; i < client->fake->matches; i++) {
		BerElement *ber = begin_entry(id, "CN=alice,DC=x");
		add_value(ber, "objectGUID", GUID, sizeof GUID);
		add_text(ber, "entryUUID", ENTRY_UUID);
		end_entry(client, ber);
	}
	BerElement *reference = ber_alloc_t(LBER_USE_DER);
	ber_printf(reference, "{it{s}}", id, (ber_tag_t)LDAP_RES_SEARCH_REFERENCE, "ldaps://elsewhere/DC=y");
	send_ber(client, reference);
	send_result(client, id, LDAP_RES_SEARCH_RESULT, client->fake->matches > 2 ? LDAP_SIZELIMIT_EXCEEDED : 0, NULL);
}

/* True where the request is to be answered as usual. */
static bool react(struct client *client, int id, enum fake_reaction reaction)
{
	static const char HUGE_HEAD[] = "\x30\x84\x7f\xff\xff\xff\x02\x01";
	switch (reaction) {
	case FAKE_ANSWER: return true;
	case FAKE_SILENT: return false;
	case FAKE_CLOSE: bufferevent_trigger_event(client->bufferevent, BEV_EVENT_EOF, BEV_OPT_DEFER_CALLBACKS); return false;
	case FAKE_WRONG_TAG: send_result(client, id, LDAP_RES_EXTENDED, LDAP_UNAVAILABLE_CRITICAL_EXTENSION, NULL); return false;
	case FAKE_GARBAGE: bufferevent_write(client->bufferevent, "HTTP/1.1 400 Bad Request\r\n\r\n", 28); return false;
	case FAKE_MALFORMED: bufferevent_write(client->bufferevent, (uint8_t[]){ 0x30, 5, 2, 1, (uint8_t)id, 0x67, 0 }, 7); return false; /* a modifyResponse without a resultCode */
	case FAKE_NO_TAG: bufferevent_write(client->bufferevent, (uint8_t[]){ 0x30, 5, 2, 1, (uint8_t)id, 0, 0 }, 7); return false;
	case FAKE_NO_OPERATION: bufferevent_write(client->bufferevent, (uint8_t[]){ 0x30, 3, 2, 1, (uint8_t)id }, 5); return false;
	case FAKE_NOTICE: send_result(client, 0, LDAP_RES_EXTENDED, LDAP_UNAVAILABLE, "the server says something to nobody"); return true;
	case FAKE_HUGE: bufferevent_write(client->bufferevent, HUGE_HEAD, sizeof HUGE_HEAD - 1); return false;
	}
	return true;
}

/* Only that search asks for nothing but objectSid, in the whole tree or by the agent's DN. */
static bool is_for_self(const struct berval *message, const struct berval *base, ber_int_t scope)
{
	return strncmp(base->bv_val, "CN=svc", 6) == 0 || (scope == LDAP_SCOPE_SUBTREE && memmem(message->bv_val, message->bv_len, "objectSid", 9) != NULL);
}

static void send_selves(struct client *client, int id)
{
	uint8_t sid[sizeof USER_SID];
	memcpy(sid, USER_SID, sizeof sid);
	for (unsigned i = client->fake->selves; i > 0; i--) {
		BerElement *ber = begin_entry(id, "CN=svc,DC=x");
		sid[sizeof sid - 4] = (uint8_t)(USER_SID[sizeof sid - 4] + i - 1);
		add_value(ber, "objectSid", sid, sizeof sid);
		end_entry(client, ber);
	}
	send_result(client, id, LDAP_RES_SEARCH_RESULT, client->fake->selves == 0 ? LDAP_NO_SUCH_OBJECT : client->fake->selves > 2 ? LDAP_SIZELIMIT_EXCEEDED : 0, NULL);
}

static void answer_search(struct client *client, int id, BerElement *ber, const struct berval *message)
{
	struct berval base;
	ber_int_t scope;
	assert_int_not_equal(ber_scanf(ber, "{me", &base, &scope), LBER_ERROR);
	client->fake->reads++;
	if (base.bv_len == 0) {
		send_root(client, id);
	} else if (strncmp(base.bv_val, "CN=NTDS", 7) == 0) {
		send_server(client, id);
	} else if (strncmp(base.bv_val, "<GUID=", 6) == 0 || strncmp(base.bv_val, "CN=alice", 8) == 0) {
		if (react(client, id, client->fake->on_user_read)) {
			send_user(client, id);
		}
	} else if (is_for_self(message, &base, scope)) {
		send_selves(client, id);
	} else if (strncmp(base.bv_val, "CN=PSO", 6) == 0) {
		if (client->fake->policy_result == 0) {
			end_entry(client, begin_entry(id, "CN=PSO,DC=x")); /* may not be read: no attributes, and result 0 */
		}
		send_result(client, id, LDAP_RES_SEARCH_RESULT, client->fake->policy_result, NULL);
	} else if (scope == LDAP_SCOPE_SUBTREE) {
		if (react(client, id, client->fake->on_search)) {
			send_matches(client, id);
		}
	} else if (strcmp(base.bv_val, "DC=x") == 0 && client->fake->policy_result != 0) {
		send_result(client, id, LDAP_RES_SEARCH_RESULT, client->fake->policy_result, NULL);
	} else if (strcmp(base.bv_val, "DC=x") == 0) {
		send_domain(client, id);
	} else {
		send_result(client, id, LDAP_RES_SEARCH_RESULT, LDAP_NO_SUCH_OBJECT, NULL);
	}
}

static void answer_request(struct client *client, struct berval *message)
{
	struct fake *fake = client->fake;
	BerElement *ber = ber_init(message);
	ber_int_t id;
	ber_len_t size;
	assert_int_not_equal(ber_scanf(ber, "{i", &id), LBER_ERROR);
	ber_tag_t tag = ber_peek_tag(ber, &size);
	switch (tag) {
	case LDAP_REQ_BIND:
		fake->binds++;
		fake->certified_binds += !fake->no_tls && SSL_get0_peer_certificate(bufferevent_openssl_get_ssl(client->bufferevent)) != NULL;
		send_result(client, id, LDAP_RES_BIND, fake->bind_result, "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data 52e, v1db1");
		break;
	case LDAP_REQ_SEARCH:
		answer_search(client, id, ber, message);
		break;
	case LDAP_REQ_EXTENDED:
	case LDAP_REQ_MODIFY:
		fake->modifies++;
		fake->modified_size = message->bv_len < sizeof fake->modified ? message->bv_len : sizeof fake->modified;
		memcpy(fake->modified, message->bv_val, fake->modified_size);
		if (react(client, id, fake->on_modify)) {
			send_result(client, id, tag == LDAP_REQ_MODIFY ? LDAP_RES_MODIFY : LDAP_RES_EXTENDED, fake->modify_result, fake->text);
		}
		break;
	default:
		break;
	}
	ber_free(ber, 1);
}

/* The size of the first whole message in the buffer, 0 where there is none. */
static size_t message_size(struct evbuffer *input)
{
	uint8_t head[6] = { 0 };
	size_t have = evbuffer_copyout(input, head, sizeof head), size;
	if (have < 2) {
		return 0;
	}
	size_t more = head[1] & 0x80 ? head[1] & 0x7f : 0;
	assert_true(head[0] == 0x30 && more <= 4);
	size = more == 0 ? head[1] : 0;
	for (size_t i = 0; i < more; i++) {
		size = size << 8 | head[2 + i];
	}
	size += 2 + more;
	return evbuffer_get_length(input) >= size ? size : 0;
}

static void on_read(struct bufferevent *bufferevent, void *arg)
{
	struct client *client = arg;
	struct evbuffer *input = bufferevent_get_input(bufferevent);
	size_t size;
	while ((size = message_size(input)) > 0) {
		struct berval message = { size, malloc(size) };
		evbuffer_remove(input, message.bv_val, size);
		if (!client->fake->stalled) {
			answer_request(client, &message);
		}
		free(message.bv_val);
	}
}

static void on_event(struct bufferevent *bufferevent, short what, void *arg)
{
	if ((what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) != 0) {
		client_free(arg);
	}
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int size, void *arg)
{
	struct fake *fake = arg;
	struct client *client = calloc(1, sizeof *client);
	fake->connections++;
	client->fake = fake;
	client->slow = evbuffer_new();
	client->bufferevent = fake->no_tls ? bufferevent_socket_new(fake->server->base, fd, BEV_OPT_CLOSE_ON_FREE)
	                                   : bufferevent_openssl_socket_new(fake->server->base, fd, SSL_new(fake->server->tls), BUFFEREVENT_SSL_ACCEPTING,
	                                                                    BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
	LIST_INSERT_HEAD(&fake->server->clients, client, link);
	bufferevent_setcb(client->bufferevent, fake->no_tls ? NULL : on_read, on_drained, on_event, client);
	bufferevent_enable(client->bufferevent, EV_READ | EV_WRITE);
}

/* Asked for, and taken whosever it is. */
static int take_certificate(int preverified, X509_STORE_CTX *context)
{
	return 1;
}

int64_t fake_slowness(void)
{
	const char *text = getenv("SLOWNESS");
	return text != NULL && atoi(text) > 1 ? atoi(text) : 1;
}

void fake_start(struct fake *fake, struct event_base *base, const char *folder)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof address;
	char certificate[128], key[128];
	signal(SIGPIPE, SIG_IGN); /* as loop_new() does for the programs: one end of a TLS connection may be gone when the other writes */
	fake->server = calloc(1, sizeof *fake->server);
	fake->server->base = base;
	LIST_INIT(&fake->server->clients);
	snprintf(certificate, sizeof certificate, "%s/server.pem", folder);
	snprintf(key, sizeof key, "%s/server.key", folder);
	assert_int_equal(tls_server_context(certificate, key, &fake->server->tls, NULL), STATUS_OK);
	SSL_CTX_set_verify(fake->server->tls, SSL_VERIFY_PEER, take_certificate);
	SSL_CTX_set_session_id_context(fake->server->tls, (const unsigned char *)"fake", 4);
	fake->server->listener = evconnlistener_new_bind(base, on_accept, fake, LEV_OPT_CLOSE_ON_FREE, 16, (struct sockaddr *)&address, sizeof address);
	assert_non_null(fake->server->listener);
	getsockname(evconnlistener_get_fd(fake->server->listener), (struct sockaddr *)&address, &size);
	snprintf(fake->name, sizeof fake->name, "localhost:%u", ntohs(address.sin_port));
	fake->matches = 1;
	fake->selves = 2;
}

void fake_hang_up(struct fake *fake)
{
	while (!LIST_EMPTY(&fake->server->clients)) {
		client_free(LIST_FIRST(&fake->server->clients));
	}
}

void fake_stop(struct fake *fake)
{
	fake_hang_up(fake);
	evconnlistener_free(fake->server->listener);
	SSL_CTX_free(fake->server->tls);
	free(fake->server);
}

static void add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX context;
	X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	X509_add_ext(certificate, extension, -1);
	X509_EXTENSION_free(extension);
}

static X509 *issue(const char *name, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key)
{
	X509 *certificate = X509_new();
	X509_set_version(certificate, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(certificate), issuer != NULL ? 2 : 1);
	X509_gmtime_adj(X509_getm_notBefore(certificate), -86400);
	X509_gmtime_adj(X509_getm_notAfter(certificate), 86400);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_UTF8, (const unsigned char *)name, -1, -1, 0);
	X509_set_issuer_name(certificate, X509_get_subject_name(issuer != NULL ? issuer : certificate));
	X509_set_pubkey(certificate, key);
	if (issuer == NULL) {
		add_extension(certificate, certificate, NID_basic_constraints, "critical,CA:TRUE");
		add_extension(certificate, certificate, NID_key_usage, "critical,keyCertSign,cRLSign");
	} else {
		add_extension(certificate, issuer, NID_subject_alt_name, "DNS:localhost,DNS:dc1.x,DNS:dc2.x,IP:127.0.0.1");
	}
	assert_true(X509_sign(certificate, issuer_key, EVP_sha256()) > 0);
	return certificate;
}

static FILE *create(const char *folder, const char *name)
{
	char path[128];
	snprintf(path, sizeof path, "%s/%s", folder, name);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	return file;
}

void fake_certificates(const char *folder)
{
	EVP_PKEY *root_key = EVP_EC_gen("P-256"), *key = EVP_EC_gen("P-256");
	X509 *root = issue("Root", root_key, NULL, root_key), *leaf = issue("server", key, root, root_key);
	FILE *file = create(folder, "root.pem");
	PEM_write_X509(file, root);
	fclose(file);
	file = create(folder, "server.pem");
	PEM_write_X509(file, leaf);
	fclose(file);
	file = create(folder, "server.key");
	PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
	fclose(file);
	X509_free(root);
	X509_free(leaf);
	EVP_PKEY_free(root_key);
	EVP_PKEY_free(key);
}
