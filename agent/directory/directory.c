#include "agent/directory/verification.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "agent/directory/sasl.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/tls.h"

enum { KICK_PAUSE_US = 200000, PATIENCE = 3 };

static bool server_usable(const struct server *server)
{
	for (unsigned i = 0; i < server->slots; i++) {
		if (connection_usable(server->connections[i])) {
			return true;
		}
	}
	return false;
}

static bool server_is(const struct server *server, const char *name)
{
	const struct connection *first = server->connections[0];
	return strcasecmp(first->name, name) == 0 || (first->root.host_name != NULL && strcasecmp(first->root.host_name, name) == 0);
}

/* The least loaded usable connection; where even that one is half full another one is opened for those who come next. */
static struct connection *server_choose(struct server *server, unsigned pipeline)
{
	struct connection *best = NULL, *idle = NULL;
	for (unsigned i = 0; i < server->slots; i++) {
		struct connection *connection = server->connections[i];
		if (connection_usable(connection) && (best == NULL || connection_load(connection) < connection_load(best))) {
			best = connection;
		} else if (connection->state == CONNECTION_DOWN && idle == NULL && i > 0) {
			idle = connection;
		}
	}
	if (best != NULL && idle != NULL && connection_load(best) * 2 >= pipeline && clock_monotonic_us() - idle->started_us > KICK_PAUSE_US) {
		connection_start(idle);
	}
	return best != NULL && connection_load(best) < pipeline ? best : NULL;
}

struct connection *directory_choose(struct directory *directory, const char *prefer, const char *avoid, const char *exclude)
{
	struct server *chosen = NULL;
	for (unsigned i = 0; i < directory->server_count; i++) {
		struct server *server = &directory->servers[i];
		const char *name = server->connections[0]->name;
		if (!server_usable(server) || (exclude != NULL && server_is(server, exclude))) {
			continue;
		}
		if (prefer != NULL && server_is(server, prefer) && (avoid == NULL || strcasecmp(avoid, name) != 0)) {
			chosen = server;
			break;
		}
		if (chosen == NULL || (avoid != NULL && strcasecmp(avoid, chosen->connections[0]->name) == 0)) {
			chosen = server;
		}
	}
	return chosen != NULL ? server_choose(chosen, directory->settings->pipeline) : NULL;
}

bool directory_has_beside(const struct directory *directory, const char *not_server)
{
	for (unsigned i = 0; i < directory->server_count; i++) {
		if (!server_is(&directory->servers[i], not_server) && server_usable(&directory->servers[i])) {
			return true;
		}
	}
	return false;
}

bool directory_can_reach_beside(const struct directory *directory, const char *exclude)
{
	for (unsigned i = 0; i < directory->server_count; i++) {
		const struct server *server = &directory->servers[i];
		for (unsigned k = 0; k < server->slots && !server_is(server, exclude); k++) {
			if (server->connections[k]->state != CONNECTION_DOWN) {
				return true;
			}
		}
	}
	return false;
}

bool directory_has_other(const struct directory *directory, const struct connection *connection)
{
	for (unsigned i = 0; i < directory->server_count; i++) {
		if (strcasecmp(directory->servers[i].connections[0]->name, connection->name) != 0 && server_usable(&directory->servers[i])) {
			return true;
		}
	}
	return false;
}

bool directory_has_usable(const struct directory *directory)
{
	for (unsigned i = 0; i < directory->server_count; i++) {
		if (server_usable(&directory->servers[i])) {
			return true;
		}
	}
	return false;
}

/* A controller that restarts is back within a second or two: the first attempts, whose pauses are short, are waited for. */
static bool is_worth_waiting(const struct connection *connection)
{
	return (connection->failure == STATUS_DIRECTORY_UNAVAILABLE && connection->attempts <= PATIENCE) || (connection->generation > 0 && connection->attempts <= 1 && connection->failure != STATUS_DIRECTORY_CREDENTIAL);
}

bool directory_is_hopeless(const struct directory *directory)
{
	for (unsigned i = 0; i < directory->server_count; i++) {
		if (is_worth_waiting(directory->servers[i].connections[0])) {
			return false;
		}
		for (unsigned k = 0; k < directory->servers[i].slots; k++) {
			if (directory->servers[i].connections[k]->state != CONNECTION_DOWN) {
				return false;
			}
		}
	}
	return true;
}

void directory_kick(struct directory *directory)
{
	int64_t now = clock_monotonic_us();
	for (unsigned i = 0; i < directory->server_count && now >= directory->credential.blocked_until_us; i++) {
		struct connection *connection = directory->servers[i].connections[0];
		if (connection->state == CONNECTION_DOWN && now - connection->started_us > KICK_PAUSE_US) {
			connection_start(connection);
		}
	}
}

/* The server whose state needs an administrator most. */
static const struct connection *worst(const struct directory *directory)
{
	const struct connection *found = directory->servers[0].connections[0];
	for (unsigned i = 1; i < directory->server_count; i++) {
		const struct connection *connection = directory->servers[i].connections[0];
		if (connection->failure != STATUS_OK && (found->failure == STATUS_OK || status_level(connection->failure) < status_level(found->failure))) {
			found = connection;
		}
	}
	return found;
}

enum status directory_outage(const struct directory *directory)
{
	enum status status = worst(directory)->failure;
	bool travels = status == STATUS_DIRECTORY_CREDENTIAL || status == STATUS_DIRECTORY_REFERRAL || status == STATUS_DIRECTORY_ENCRYPTION || status == STATUS_DIRECTORY_BUSY ||
	               status == STATUS_DIRECTORY_PROTOCOL;
	return travels ? status : STATUS_DIRECTORY_UNAVAILABLE; /* tls.* are the agent's own; the health text names them */
}

static void log_change(struct directory *directory, struct server *server, const struct connection *connection)
{
	bool up = server_usable(server);
	const struct log_field *fields = LOG_FIELDS({ "directory", directory->settings->name }, { LOG_SERVER, connection->name },
	                                            { LOG_STATUS, up ? "up" : "down" }, { LOG_CODE, status_code(connection->failure) });
	if (up && !server->was_up) {
		log_event(LOG_NOTICE, "directory.up", fields, "%s is ready", connection->name);
	} else if (!up && (server->was_up || connection->attempts == 1)) {
		log_event(status_level(connection->failure), "directory.down", fields, "%s cannot be used: %s", connection->name, connection->why);
	}
	server->was_up = up;
}

static void on_connection_changed(struct connection *connection, void *arg)
{
	struct directory *directory = arg;
	if (directory->closing) {
		return;
	}
	if (connection->domain.size > 0) {
		directory->domain = connection->domain;
	}
	for (unsigned i = 0; i < directory->server_count; i++) {
		struct server *server = &directory->servers[i];
		for (unsigned k = 0; k < server->slots; k++) {
			if (server->connections[k] == connection) {
				log_change(directory, server, connection);
			}
		}
	}
	/* Not from here: this may be the middle of a call that goes on with the connection. */
	event_active(directory->news, 0, 0);
}

static void on_room(struct connection *connection, void *arg)
{
	struct directory *directory = arg;
	if (!directory->closing && directory->queued > 0) {
		calls_pump(directory);
	}
}

static void on_turn(void *arg)
{
	struct directory *directory = arg;
	for (unsigned i = 0; i < directory->server_count; i++) {
		for (unsigned k = 0; k < directory->servers[i].slots; k++) {
			connection_try_bind(directory->servers[i].connections[k]);
		}
	}
	checks_try_bind(directory);
}

static void on_news(evutil_socket_t fd, short what, void *arg)
{
	struct directory *directory = arg;
	struct directory_health health;
	calls_pump(directory);
	directory_health(directory, &health);
	bool same = health.servers_up == directory->told.servers_up && health.status == directory->told.status && strcmp(health.text, directory->told.text) == 0;
	directory->told = health;
	if (!same && directory->changed != NULL) {
		directory->changed(directory, directory->changed_arg);
	}
}

static enum status make_servers(struct directory *directory, char **ret_why)
{
	const struct directory_settings *settings = directory->settings;
	unsigned count = 0;
	while (settings->servers != NULL && settings->servers[count] != NULL) {
		count++;
	}
	directory->servers = calloc(count > 0 ? count : 1, sizeof *directory->servers);
	if (count == 0 || directory->servers == NULL) {
		*ret_why = strdup("no servers are configured");
		return STATUS_LOCAL_CONFIG;
	}
	for (directory->server_count = 0; directory->server_count < count; directory->server_count++) {
		struct server *server = &directory->servers[directory->server_count];
		unsigned slots = settings->connections > 0 ? settings->connections : 1;
		server->connections = calloc(slots, sizeof *server->connections);
		for (server->slots = 0; server->connections != NULL && server->slots < slots; server->slots++) {
			struct connection_setup setup = directory->setup;
			setup.retry = server->slots == 0;
			if (connection_new(&setup, settings->servers[directory->server_count], directory, &server->connections[server->slots]) != STATUS_OK) {
				break;
			}
		}
		if (server->slots < slots) {
			directory->server_count++;
			if (asprintf(ret_why, "'%s' is not a server's name, or memory is out", settings->servers[directory->server_count - 1]) < 0) {
				*ret_why = NULL;
			}
			return STATUS_LOCAL_CONFIG;
		}
	}
	return STATUS_OK;
}

static bool list_user_attributes(struct directory *directory)
{
	if (directory->settings->login_attribute == NULL) {
		return true;
	}
	const char *const *known = directory->flavor->user_attributes;
	size_t count = 0;
	while (known[count] != NULL) {
		count++;
	}
	directory->user_attributes = calloc(count + 2, sizeof *directory->user_attributes);
	if (directory->user_attributes == NULL) {
		return false;
	}
	memcpy(directory->user_attributes, known, count * sizeof *known);
	directory->user_attributes[count] = directory->settings->login_attribute;
	return true;
}

static enum status read_credential(struct directory *directory, char **ret_why)
{
	directory->credential.file = directory->settings->bind_mechanism == BIND_SIMPLE ? directory->settings->bind_password_file : NULL;
	enum status status = credential_read(&directory->credential);
	if (status != STATUS_OK && asprintf(ret_why, "%s: %s", directory->credential.file,
	                                    status == STATUS_LOCAL_PERMISSION ? "must be a regular file that others cannot read"
	                                    : status == STATUS_LOCAL_INPUT    ? "is empty or too long"
	                                                                      : "cannot be read") < 0) {
		*ret_why = NULL;
	}
	return status;
}

/* CA, CRL and certificate are read; where one of them cannot be used the old ones stay. What is connected goes on with what it began with. */
static enum status load_tls(struct directory *directory, char **ret_why)
{
	const struct directory_settings *settings = directory->settings;
	SSL_CTX *fresh = NULL;
	enum status status = tls_client_context(settings->ca_file, settings->crl_file, &fresh, ret_why);
	if (status == STATUS_OK && settings->bind_mechanism == BIND_EXTERNAL) {
		status = tls_client_identity(fresh, settings->bind_certificate_file, settings->bind_key_file, ret_why);
	}
	if (status != STATUS_OK) {
		SSL_CTX_free(fresh);
		return status;
	}
	SSL_CTX_free(directory->tls);
	directory->tls = fresh;
	return STATUS_OK;
}

/* Kerberos and SASL are prepared while the program has one thread. */
static enum status start_kerberos(struct directory *directory)
{
	if (!bind_by_kerberos(directory->settings->bind_mechanism)) {
		return STATUS_OK;
	}
	enum status status = ticket_prepare();
	return status == STATUS_OK ? kerberos_new(directory->base, directory->settings, &directory->kerberos) : status;
}

/* Before libldap is used: neither ldap.conf nor LDAP… and SASL_… in the environment count. Its first handle looks up this host's own name by the blocking resolver: so it is made here,
 * while no loop waits for it. */
static enum status prepare_libldap(void)
{
	LDAP *first = NULL;
	setenv("LDAPNOINIT", "1", 1);
	enum status status = sasl_prepare();
	if (ldap_create(&first) == LDAP_SUCCESS) {
		ldap_destroy(first);
	}
	return status;
}

enum status directory_new(struct event_base *base, const struct directory_settings *settings, struct directory **ret_directory, char **ret_why)
{
	char *unwanted = NULL;
	char **why = ret_why != NULL ? ret_why : &unwanted;
	struct directory *directory = calloc(1, sizeof *directory);
	*why = NULL;
	if (directory == NULL) {
		return STATUS_AGENT_INTERNAL;
	}
	enum status status = prepare_libldap();
	directory->base = base;
	directory->settings = settings;
	directory->flavor = settings->kind == DIRECTORY_LDAP ? &LDAP_DIRECTORY : &ACTIVE_DIRECTORY;
	TAILQ_INIT(&directory->calls);
	TAILQ_INIT(&directory->queue);
	TAILQ_INIT(&directory->checks);
	TAILQ_INIT(&directory->verifications);
	directory->news = evtimer_new(base, on_news, directory);
	if (status == STATUS_OK) {
		status = directory->news != NULL && list_user_attributes(directory) ? read_credential(directory, why) : STATUS_AGENT_INTERNAL;
	}
	if (status == STATUS_OK) {
		status = load_tls(directory, why);
	}
	if (status == STATUS_OK) {
		status = start_kerberos(directory);
	}
	directory->setup = (struct connection_setup){ .base = base, .flavor = directory->flavor, .settings = settings, .tls = &directory->tls, .credential = &directory->credential, .kerberos = directory->kerberos,
		.policies = &directory->policies, .changed = on_connection_changed, .room = on_room, .turn = on_turn, .arg = directory };
	if (status == STATUS_OK) {
		status = make_servers(directory, why);
	}
	if (status != STATUS_OK) {
		directory_free(directory);
		free(unwanted);
		return status;
	}
	for (unsigned i = 0; i < directory->server_count; i++) {
		connection_start(directory->servers[i].connections[0]);
	}
	*ret_directory = directory;
	return STATUS_OK;
}

void directory_free(struct directory *directory)
{
	if (directory == NULL) {
		return;
	}
	directory->closing = true;
	checks_end(directory);
	for (unsigned i = 0; i < directory->server_count; i++) {
		for (unsigned k = 0; k < directory->servers[i].slots; k++) {
			connection_stop(directory->servers[i].connections[k]);
		}
	}
	calls_end(directory);
	verifications_end(directory);
	for (unsigned i = 0; i < directory->server_count; i++) {
		for (unsigned k = 0; k < directory->servers[i].slots; k++) {
			connection_unref(directory->servers[i].connections[k]);
		}
		free(directory->servers[i].connections);
	}
	free(directory->servers);
	if (directory->news != NULL) {
		event_free(directory->news);
	}
	kerberos_free(directory->kerberos);
	free(directory->user_attributes);
	SSL_CTX_free(directory->tls);
	secret_wipe(&directory->credential.password);
	policy_cache_clear(&directory->policies);
	free(directory);
}

const char *directory_name(const struct directory *directory)
{
	return directory->settings->name;
}

void directory_health(const struct directory *directory, struct directory_health *ret_health)
{
	const struct connection *first = NULL;
	*ret_health = (struct directory_health){ .servers = directory->server_count, .clock_skew_ms = INT64_MIN };
	for (unsigned i = 0; i < directory->server_count; i++) {
		const struct connection *connection = directory->servers[i].connections[0];
		if (server_usable(&directory->servers[i])) {
			ret_health->servers_up++;
			first = first != NULL ? first : connection;
		}
	}
	if (first != NULL) {
		ret_health->clock_skew_ms = first->clock_skew_ms;
		snprintf(ret_health->text, sizeof ret_health->text, "%.150s (LDAPS, %s%s)", first->name, bind_name(directory->settings->bind_mechanism), first->self_count == 0 ? "; the agent's own account cannot be found: everybody is protected" : "");
		return;
	}
	first = worst(directory);
	ret_health->status = first->failure != STATUS_OK ? first->failure : STATUS_DIRECTORY_UNAVAILABLE;
	snprintf(ret_health->text, sizeof ret_health->text, "%.120s: %.200s", first->name, first->failure != STATUS_OK ? first->why : "connecting");
	struct timeval next;
	if (first->state == CONNECTION_DOWN && evtimer_pending(first->timer, &next)) {
		ret_health->next_try_s = next.tv_sec;
	}
}

void directory_retry(struct directory *directory)
{
	AUTO_FREE char *why = NULL;
	enum status status = load_tls(directory, &why);
	if (status != STATUS_OK) {
		log_event(LOG_ERR, "directory.tls", LOG_FIELDS({ "directory", directory->settings->name }, { LOG_CODE, status_code(status) }),
		          "certificates are not read again, those of before stay: %s", why != NULL ? why : "memory is out");
	}
	if (directory->kerberos != NULL) {
		kerberos_renew(directory->kerberos, false);
	}
	credential_retry(&directory->credential);
	for (unsigned i = 0; i < directory->server_count; i++) {
		struct connection *connection = directory->servers[i].connections[0];
		connection->attempts = 0;
		connection_start(connection);
	}
}

void directory_on_health(struct directory *directory, void (*changed)(struct directory *, void *arg), void *arg)
{
	directory->changed = changed;
	directory->changed_arg = arg;
}

bool directory_serves(const struct directory *directory, const char *domain)
{
	const char *const *domains = directory->settings->domains;
	if (domains == NULL || domains[0] == NULL) {
		return true;
	}
	for (size_t i = 0; domains[i] != NULL; i++) {
		if (strcasecmp(domains[i], domain) == 0) {
			return true;
		}
	}
	return false;
}

void directory_forget_policies(struct directory *directory)
{
	policy_cache_clear(&directory->policies);
}

bool directory_domain_sid(const struct directory *directory, struct sid *ret_sid)
{
	*ret_sid = directory->domain;
	return directory->domain.size > 0;
}
