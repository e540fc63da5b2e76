/* Binding a connection: by name and password, by tokens that the directory's Kerberos thread makes, or by the certificate that TLS has shown. */
#include <event2/bufferevent_ssl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "agent/directory/connection.h"
#include "base/tls.h"

static const struct mechanism_row {
	const char *name;
	const char *sasl;          /* NULL: none */
	bool kerberos;
} MECHANISMS[] = {
	[BIND_SIMPLE] = { "simple", NULL, false },
	[BIND_GSSAPI] = { "GSSAPI", "GSSAPI", true },
	[BIND_GSS_SPNEGO] = { "GSS-SPNEGO", "GSS-SPNEGO", true },
	[BIND_EXTERNAL] = { "EXTERNAL", "EXTERNAL", false },
};

const char *bind_name(enum bind_mechanism mechanism)
{
	return MECHANISMS[mechanism].name;
}

bool bind_by_kerberos(enum bind_mechanism mechanism)
{
	return MECHANISMS[mechanism].kerberos;
}

static const char *reason_of(const struct connection *connection, uint32_t win32, const char *diagnostic)
{
	if (diagnostic != NULL && strncasecmp(diagnostic, "80090346", 8) == 0) {
		return connection->binding_size == 0 ? "it demands channel binding, and its certificate has none (an Ed25519 signature): give it an RSA or ECDSA certificate"
		                                     : "it refused the channel binding: TLS ends somewhere before it (a proxy, a load balancer, an inspecting firewall); connect to it directly";
	}
	if (connection->setup.settings->bind_mechanism == BIND_EXTERNAL && ad_answer_bind_reason(win32) == NULL) {
		return "it takes the client certificate for no account";
	}
	return ad_answer_bind_reason(win32);
}

static void fail_refused(struct connection *connection, enum status status, const struct reply *reply, uint32_t win32)
{
	struct credential *credential = connection->setup.credential;
	const char *reason = reason_of(connection, win32, reply->diagnostic);
	char text[128], *why = credential->reason;
	ad_answer_text(reply->diagnostic, text, sizeof text);
	if (status == STATUS_DIRECTORY_CREDENTIAL && reason != NULL) {
		snprintf(why, sizeof credential->reason, "bind refused: %s (%x)", reason, win32);
	} else {
		snprintf(why, sizeof credential->reason, "bind refused (%d): %s%s%.100s", reply->ldap_result, reason != NULL ? reason : "", reason != NULL ? "; " : "", text);
	}
	if (status == STATUS_DIRECTORY_CREDENTIAL && connection->setup.kerberos != NULL) {
		kerberos_renew(connection->setup.kerberos, true); /* the server's key may have changed */
	}
	connection_fail(connection, status, "%s", why);
}

static enum status send_token(struct connection *connection, struct bytes token);

/* How cyrus-sasl wants to be told what came: nothing is NULL. */
static void go_on(struct connection *connection, const struct reply *reply)
{
	struct bytes token = reply->server_token;
	bool success = reply->ldap_result == LDAP_SUCCESS;
	connection->bind_succeeded = success;
	if (success && connection->bind_complete) {
		connection_bound(connection);
	} else if (connection->negotiation == NULL || (connection->bind_complete && !success && token.size == 0)) {
		connection_fail(connection, STATUS_DIRECTORY_PROTOCOL, "the bind ended in a way that SASL does not know");
	} else if (negotiation_step(connection->negotiation, token) != STATUS_OK) {
		connection_fail(connection, STATUS_AGENT_INTERNAL, "the bind could not go on");
	}
}

static void on_bound(const struct reply *reply, void *arg)
{
	struct connection *connection = arg;
	uint32_t win32 = 0;
	if (reply->status != STATUS_OK) {
		return; /* the connection is being torn down */
	}
	if (connection->negotiation != NULL && reply->ldap_result == LDAP_SASL_BIND_IN_PROGRESS) {
		go_on(connection, reply);
		return;
	}
	enum status status = connection->setup.flavor->answer(AD_BIND, reply->ldap_result, reply->diagnostic, reply->controls, &win32);
	if (status != STATUS_OK) {
		fail_refused(connection, status, reply, win32);
	} else if (connection->negotiation != NULL) {
		go_on(connection, reply);
	} else {
		connection_bound(connection);
	}
}

static void on_token(const struct negotiation_answer *answer, void *arg)
{
	struct connection *connection = connection_ref(arg);
	enum status status = answer->status;
	connection->bind_complete = answer->complete;
	if (status != STATUS_OK) {
		char *why = connection->setup.credential->reason;
		snprintf(why, sizeof connection->setup.credential->reason, "%s", answer->why);
		connection_fail(connection, status, "%s", why);
	} else if (connection->bind_succeeded && answer->complete) {
		connection_bound(connection);
	} else if (connection->bind_succeeded) {
		connection_fail(connection, STATUS_DIRECTORY_PROTOCOL, "it ended the bind before SASL did");
	} else if ((status = send_token(connection, answer->token)) != STATUS_OK) {
		connection_fail(connection, status, "the bind could not be sent");
	}
	connection_unref(connection);
}

static enum status send_token(struct connection *connection, struct bytes token)
{
	const struct directory_settings *settings = connection->setup.settings;
	return operation_bind(connection, "", MECHANISMS[settings->bind_mechanism].sasl, token, settings->connect_timeout_ms, on_bound, connection);
}

static enum status begin_kerberos(struct connection *connection)
{
	X509 *certificate = SSL_get1_peer_certificate(bufferevent_openssl_get_ssl(connection->bufferevent));
	uint8_t hash[TLS_BINDING_MAX];
	connection->binding_size = certificate != NULL ? tls_server_end_point(certificate, hash) : 0;
	X509_free(certificate);
	return negotiation_new(connection->setup.kerberos, connection->host, bytes_of(hash, connection->binding_size), on_token, connection, &connection->negotiation);
}

void bind_begin(struct connection *connection)
{
	const struct directory_settings *settings = connection->setup.settings;
	enum bind_mechanism mechanism = settings->bind_mechanism;
	enum status status;
	connection->bind_complete = connection->bind_succeeded = false;
	connection->binding_size = 0;
	if (MECHANISMS[mechanism].kerberos) {
		status = begin_kerberos(connection);
	} else if (mechanism == BIND_EXTERNAL) {
		status = send_token(connection, bytes_of("", 0));
	} else {
		status = operation_bind(connection, settings->bind_dn, NULL, secret_bytes(&connection->setup.credential->password), settings->connect_timeout_ms, on_bound, connection);
	}
	if (status != STATUS_OK) {
		connection_fail(connection, status, "the bind could not be sent");
	}
}

void bind_abandon(struct connection *connection)
{
	negotiation_free(connection->negotiation);
	connection->negotiation = NULL;
}

bool bind_waits_for_kdc(const struct connection *connection)
{
	struct ticket_facts facts = { 0 };
	if (connection->negotiation != NULL || connection->setup.kerberos == NULL) {
		return connection->negotiation != NULL && negotiation_waits(connection->negotiation);
	}
	/* In the queue behind the one that waits for the first ticket. */
	kerberos_facts(connection->setup.kerberos, &facts);
	return facts.until_s == 0;
}

void bind_realm(const struct connection *connection, char *out, size_t capacity)
{
	const struct directory_settings *settings = connection->setup.settings;
	const char *at = settings->bind_principal != NULL ? strrchr(settings->bind_principal, '@') : NULL;
	struct ticket_facts facts = { 0 };
	if (connection->setup.kerberos != NULL) {
		kerberos_facts(connection->setup.kerberos, &facts);
	}
	snprintf(out, capacity, "%s", facts.realm[0] != 0 ? facts.realm : at != NULL ? at + 1 : "the realm");
}

/* The name by which the agent's own account is looked for. Where only the server knows it (a certificate; a principal outside Active Directory) it is asked. */
bool bind_self(const struct connection *connection, char *out, size_t capacity)
{
	const struct directory_settings *settings = connection->setup.settings;
	struct ticket_facts facts = { 0 };
	if (connection->setup.kerberos != NULL) {
		kerberos_facts(connection->setup.kerberos, &facts);
	}
	bool principal_tells = settings->kind == DIRECTORY_ACTIVE_DIRECTORY;
	const char *name = settings->bind_dn != NULL ? settings->bind_dn : !principal_tells ? NULL : facts.principal[0] != 0 ? facts.principal : settings->bind_principal;
	snprintf(out, capacity, "%s", name != NULL ? name : "");
	return name != NULL;
}
