/* The first look at a server, over a connection that has just been bound; and the probe of an idle one. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "agent/directory/ad_names.h"
#include "agent/directory/connection.h"
#include "base/clock.h"
#include "base/log.h"

static void read_clock(struct connection *connection)
{
	if (connection->root.current_time_s != 0) {
		connection->clock_skew_ms = clock_now_ms() - connection->root.current_time_s * 1000;
	}
}

static const char *domain_dn(const struct connection *connection)
{
	struct view view = connection_view(connection);
	return connection->setup.flavor->domain_dn(&view);
}

static bool has_entry(const struct reply *reply)
{
	return reply->status == STATUS_OK && reply->ldap_result == LDAP_SUCCESS && reply->count > 0;
}

static void finish_one(struct connection *connection);

static void on_token(const struct reply *reply, void *arg)
{
	struct connection *connection = arg;
	if (reply->status != STATUS_OK) {
		return;
	}
	if (has_entry(reply)) {
		connection->setup.flavor->read_token(reply->ldap, reply->entries[0], &connection->token);
	}
	finish_one(connection);
}

/* A server whose rootDSE has no token: the account's groups instead, without those that the way of logging on brings. */
static bool start_token(struct connection *connection)
{
	static const char *const ATTRIBUTES[] = { "tokenGroups", "objectSid", NULL };
	char sid[SID_TEXT_MAX], name[SID_TEXT_MAX + 8];
	connection->token_asked = true;
	sid_format(&connection->self[0], sid);
	snprintf(name, sizeof name, "<SID=%s>", sid);
	connection->exploring = 1;
	return operation_read(connection, name, ATTRIBUTES, connection->setup.settings->connect_timeout_ms, on_token, connection, NULL) == STATUS_OK;
}

static void finish_one(struct connection *connection)
{
	if (--connection->exploring > 0 || connection->state != CONNECTION_EXPLORE) {
		return;
	}
	if (connection->server.read_only || connection->root.read_only) {
		connection_fail(connection, STATUS_DIRECTORY_REFERRAL, "it is a read-only domain controller");
		return;
	}
	if (connection->token.count == 0 && connection->setup.flavor->first_attributes != connection->setup.flavor->root_attributes && connection->self_count == 1 && !connection->token_asked && start_token(connection)) {
		return;
	}
	connection_become_ready(connection);
}

static void on_server(const struct reply *reply, void *arg)
{
	struct connection *connection = arg;
	if (reply->status != STATUS_OK) {
		return; /* torn down */
	}
	if (has_entry(reply)) {
		connection->setup.flavor->read_server(reply->ldap, reply->entries[0], &connection->server);
	}
	finish_one(connection);
}

static void on_self(const struct reply *reply, void *arg)
{
	struct connection *connection = arg;
	if (reply->status != STATUS_OK) {
		return;
	}
	/* Two: one account is called so by its userPrincipalName, another by its sAMAccountName and the domain. Neither is touched. */
	size_t most = sizeof connection->self / sizeof connection->self[0];
	for (size_t i = 0; has_entry(reply) && reply->count <= most && i < reply->count; i++) {
		if (!connection->setup.flavor->read_sid(reply->ldap, reply->entries[i], &connection->self[i])) {
			connection->self_count = 0;
			break;
		}
		connection->self_count++;
	}
	if (connection->self_count == 0) {
		log_event(LOG_ERR, "directory.self", LOG_FIELDS({ "directory", connection->setup.settings->name }, { LOG_SERVER, connection->name }),
		          "the account \"%s\" that the agent binds as cannot be found or read: everybody is protected", connection->self_name);
	}
	finish_one(connection);
}

/* PDC emulator: whose NTDS Settings the domain's head names (MS-ADTS 3.1.1.1.11). */
static void read_role(struct connection *connection, const struct reply *reply)
{
	const struct flavor *flavor = connection->setup.flavor;
	AUTO_FREE char *owner = flavor->read_role_owner != NULL ? flavor->read_role_owner(reply->ldap, reply->entries[0]) : NULL;
	const char *own = connection->root.service_name;
	connection->pdc = owner == NULL || own == NULL ? PDC_UNKNOWN : strcasecmp(owner, own) == 0 ? PDC_IS : PDC_IS_NOT;
}

static void on_domain(const struct reply *reply, void *arg)
{
	struct connection *connection = arg;
	struct password_policy policy;
	if (reply->status != STATUS_OK) {
		return;
	}
	if (has_entry(reply)) {
		read_role(connection, reply);
		connection->setup.flavor->read_policy(reply->ldap, reply->entries[0], false, &policy);
		policy_cache_put(connection->setup.policies, domain_dn(connection), clock_monotonic_us(), &policy);
		free(policy.source_name);
		if (!connection->setup.flavor->read_sid(reply->ldap, reply->entries[0], &connection->domain)) {
			connection->domain.size = 0;
		}
	}
	finish_one(connection);
}

/* A read that fails to start is a lost connection; the others then end with it. */
static bool start_read(struct connection *connection, const char *dn, const char *const *attributes, operation_done done)
{
	connection->exploring++;
	return operation_read(connection, dn, attributes, connection->setup.settings->connect_timeout_ms, done, connection, NULL) == STATUS_OK;
}

static bool start_search_of_self(struct connection *connection)
{
	struct ldap_search search;
	struct view view = connection_view(connection);
	if (connection->setup.flavor->find_self(&view, connection->self_name, &search) != STATUS_OK) {
		return false;
	}
	connection->exploring++;
	return operation_search(connection, &search, connection->setup.settings->connect_timeout_ms, on_self, connection, NULL) == STATUS_OK;
}

/* "dn:…" or "u:…" (RFC 4513 section 5.2.1.8). A server that does not tell leaves us unknown, and with us everybody protected. */
static void on_who_am_i(const struct reply *reply, void *arg)
{
	struct connection *connection = arg;
	if (reply->status != STATUS_OK) {
		return;
	}
	struct bytes name = reply->server_token;
	size_t prefix = name.size > 3 && memcmp(name.data, "dn:", 3) == 0 ? 3 : name.size > 2 && memcmp(name.data, "u:", 2) == 0 ? 2 : 0;
	bool told = reply->ldap_result == LDAP_SUCCESS && prefix > 0 && name.size - prefix < sizeof connection->self_name && memchr(name.data, 0, name.size) == NULL;
	if (told) {
		memcpy(connection->self_name, name.data + prefix, name.size - prefix);
		connection->self_name[name.size - prefix] = 0;
	} else {
		log_event(LOG_ERR, "directory.self", LOG_FIELDS({ "directory", connection->setup.settings->name }, { LOG_SERVER, connection->name }),
		          "the server does not tell as whom the certificate bound the agent (%d): name the account in bind.dn; until then everybody is protected", reply->ldap_result);
	}
	if (told && !start_search_of_self(connection)) {
		connection_fail(connection, STATUS_AGENT_INTERNAL, "the server could not be looked at");
		return;
	}
	finish_one(connection);
}

static bool start_self(struct connection *connection)
{
	if (bind_self(connection, connection->self_name, sizeof connection->self_name)) {
		return start_search_of_self(connection);
	}
	connection->exploring++;
	return operation_who_am_i(connection, connection->setup.settings->connect_timeout_ms, on_who_am_i, connection) == STATUS_OK;
}

static void read_the_rest(struct connection *connection)
{
	const struct flavor *flavor = connection->setup.flavor;
	bool started = true;
	connection->exploring = 1; /* this function */
	if (connection->root.service_name != NULL) {
		started = start_read(connection, connection->root.service_name, flavor->server_attributes, on_server);
	}
	if (started && domain_dn(connection) != NULL) {
		started = start_read(connection, domain_dn(connection), flavor->domain_attributes, on_domain);
	}
	started = started && start_self(connection);
	if (!started) {
		connection_fail(connection, STATUS_AGENT_INTERNAL, "the server could not be looked at");
		return;
	}
	finish_one(connection);
}

/* What DNS named for a domain must be of that domain. */
static bool serves_the_domain(const struct connection *connection)
{
	const struct directory_settings *settings = connection->setup.settings;
	char context[1024];
	return settings->discover == NULL || settings->kind != DIRECTORY_ACTIVE_DIRECTORY ||
	       (ad_names_context(settings->discover, context, sizeof context) && strcasecmp(context, connection->root.naming_context) == 0);
}

static void on_root(const struct reply *reply, void *arg)
{
	struct connection *connection = arg;
	if (reply->status != STATUS_OK) {
		return;
	}
	if (!has_entry(reply)) {
		connection_fail(connection, STATUS_DIRECTORY_PROTOCOL, "its rootDSE could not be read (%d)", reply->ldap_result);
		return;
	}
	root_facts_clear(&connection->root);
	connection->setup.flavor->read_root(connection->setup.settings, reply->ldap, reply->entries[0], &connection->root);
	token_clear(&connection->token);
	connection->token_asked = false;
	connection->setup.flavor->read_token(reply->ldap, reply->entries[0], &connection->token);
	read_clock(connection);
	bool ldap = connection->setup.settings->kind == DIRECTORY_LDAP;
	if (ldap && connection->root.kind == SERVER_UNKNOWN) {
		connection_fail(connection, STATUS_DIRECTORY_PROTOCOL, "it is neither OpenLDAP nor 389 Directory Server");
	} else if (connection->root.naming_context == NULL) {
		connection_fail(connection, STATUS_DIRECTORY_PROTOCOL, ldap ? "none of its naming contexts holds base_dn" : "its rootDSE names no defaultNamingContext");
	} else if (!serves_the_domain(connection)) {
		connection_fail(connection, STATUS_DIRECTORY_PROTOCOL, "it is a controller of %.120s, not of %.80s", connection->root.naming_context, connection->setup.settings->discover);
	} else if (!connection->root.synchronized) {
		connection_fail(connection, STATUS_DIRECTORY_UNAVAILABLE, "it is not synchronized (isSynchronized)");
	} else {
		read_the_rest(connection);
	}
}

void explore_begin(struct connection *connection)
{
	connection->server = (struct server_facts){ 0 };
	connection->self_count = 0;
	connection->pdc = PDC_UNKNOWN;
	connection->domain.size = 0;
	if (operation_read(connection, "", connection->setup.flavor->first_attributes, connection->setup.settings->connect_timeout_ms, on_root, connection, NULL) != STATUS_OK) {
		connection_fail(connection, STATUS_AGENT_INTERNAL, "the server could not be looked at");
	}
}

static void on_probe_domain(const struct reply *reply, void *arg)
{
	struct connection *connection = arg;
	enum pdc_role before = connection->pdc;
	if (!has_entry(reply)) {
		return;
	}
	read_role(connection, reply);
	if (connection->pdc != before && connection->setup.changed != NULL) {
		connection->setup.changed(connection, connection->setup.arg);
	}
}

/* A queue that is full is no fault of the server's. */
static void fail_probe(struct connection *connection, enum status status)
{
	if (status != STATUS_OK && status != STATUS_AGENT_OVERLOADED) {
		connection_fail(connection, status, "it could not be probed");
	}
}

static void probe_role(struct connection *connection)
{
	const struct flavor *flavor = connection->setup.flavor;
	if (flavor->read_role_owner != NULL) {
		fail_probe(connection, operation_read(connection, connection->root.naming_context, flavor->domain_attributes, connection->setup.settings->connect_timeout_ms, on_probe_domain,
		                                      connection, NULL));
	}
}

static void on_probe(const struct reply *reply, void *arg)
{
	struct connection *connection = arg;
	struct root_facts root;
	if (reply->status != STATUS_OK) {
		return; /* the deadline of an operation closes a silent connection */
	}
	if (!has_entry(reply)) {
		connection_fail(connection, STATUS_DIRECTORY_UNAVAILABLE, "it does not answer a probe (%d)", reply->ldap_result);
		return;
	}
	connection->setup.flavor->read_root(connection->setup.settings, reply->ldap, reply->entries[0], &root);
	connection->root.current_time_s = root.current_time_s;
	read_clock(connection);
	bool synchronized = root.synchronized;
	root_facts_clear(&root);
	connection->root.synchronized = synchronized;
	if (!synchronized) {
		connection_fail(connection, STATUS_DIRECTORY_UNAVAILABLE, "it is no longer synchronized (isSynchronized)");
	} else {
		probe_role(connection);
	}
}

void explore_probe(struct connection *connection, int64_t timeout_ms)
{
	fail_probe(connection, operation_read(connection, "", connection->setup.flavor->root_attributes, timeout_ms, on_probe, connection, NULL));
}
