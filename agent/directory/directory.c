#include "agent/directory/verification.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "agent/directory/sasl.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/tls.h"

enum { NEWS_AGAIN_S = 1 };

static void on_connection_changed(struct connection *connection, void *arg)
{
	struct directory *directory = arg;
	if (directory->closing) {
		return;
	}
	if (connection->domain.size > 0) {
		directory->domain = connection->domain;
	}
	servers_note(directory, connection);
	names_learn(directory, connection);
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
		for (unsigned k = 0; k < directory->servers[i]->slots; k++) {
			connection_try_bind(directory->servers[i]->connections[k]);
		}
	}
	checks_try_bind(directory);
}

static void on_news(evutil_socket_t fd, short what, void *arg)
{
	struct directory *directory = arg;
	struct directory_health health;
	servers_sort(directory);
	bool more_news = servers_retire(directory);
	calls_pump(directory);
	directory_health(directory, &health);
	if (health.servers_up == 0 && directory->told.servers_up > 0 && directory->discovery != NULL) {
		discovery_refresh(directory->discovery);
	}
	for (unsigned i = 0; i < directory->server_count; i++) {
		more_news |= server_usable(directory->servers[i]) && server_is_settling(directory->servers[i], clock_monotonic_us());
	}
	if (more_news) {
		event_add(directory->news, &(struct timeval){ NEWS_AGAIN_S, 0 });
	}
	bool same = health.servers_up == directory->told.servers_up && health.status == directory->told.status && strcmp(health.text, directory->told.text) == 0;
	directory->told = health;
	if (!same && directory->changed != NULL) {
		directory->changed(directory, directory->changed_arg);
	}
}

static enum status add_listed(struct directory *directory, char **ret_why)
{
	const char *const *names = directory->settings->servers;
	for (unsigned i = 0; names != NULL && names[i] != NULL; i++) {
		struct server *server;
		if (servers_add(directory, names[i], &server) != STATUS_OK) {
			if (asprintf(ret_why, "'%s' is not a server's name, or memory is out", names[i]) < 0) {
				*ret_why = NULL;
			}
			return STATUS_LOCAL_CONFIG;
		}
		server->places[ORIGIN_LISTED] = (struct server_place){ .named = true, .priority = i };
	}
	if (directory->server_count == 0 && directory->settings->discover == NULL) {
		*ret_why = strdup("no servers are configured");
		return STATUS_LOCAL_CONFIG;
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
		status = add_listed(directory, why);
	}
	if (status == STATUS_OK && settings->discover != NULL) {
		status = discovery_new(directory, &directory->discovery);
	}
	if (status != STATUS_OK) {
		directory_free(directory);
		free(unwanted);
		return status;
	}
	for (unsigned i = 0; i < directory->server_count; i++) {
		server_start(directory->servers[i]);
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
	discovery_free(directory->discovery);
	directory->discovery = NULL;
	servers_stop(directory);
	calls_end(directory);
	verifications_end(directory);
	servers_free(directory);
	names_clear(directory);
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

const char *directory_flavor(const struct directory *directory)
{
	return directory->flavor->name;
}

const struct directory_words *directory_words(const struct directory *directory)
{
	return &directory->flavor->words;
}

const char *directory_name(const struct directory *directory)
{
	return directory->settings->name;
}

void directory_health(const struct directory *directory, struct directory_health *ret_health)
{
	const struct server *next = servers_next(directory, NULL, NULL, NULL);
	const struct connection *first = next != NULL ? next->connections[0] : NULL;
	*ret_health = (struct directory_health){ .servers = directory->server_count, .clock_skew_ms = INT64_MIN };
	for (unsigned i = 0; i < directory->server_count; i++) {
		ret_health->servers_up += server_usable(directory->servers[i]);
	}
	if (first != NULL) {
		ret_health->clock_skew_ms = first->clock_skew_ms;
		snprintf(ret_health->text, sizeof ret_health->text, "%.150s (LDAPS, %s%s)", first->name, bind_name(directory->settings->bind_mechanism), first->self_count == 0 ? "; the agent's own account cannot be found: everybody is protected" : "");
		return;
	}
	first = servers_worst(directory);
	if (first == NULL) {
		ret_health->status = STATUS_DIRECTORY_UNAVAILABLE;
		discovery_describe(directory->discovery, ret_health->text, sizeof ret_health->text);
		return;
	}
	ret_health->status = first->failure != STATUS_OK ? first->failure : STATUS_DIRECTORY_UNAVAILABLE;
	snprintf(ret_health->text, sizeof ret_health->text, "%.120s: %.200s", first->name, first->failure != STATUS_OK ? first->why : "connecting");
	struct timeval retry;
	if (first->state == CONNECTION_DOWN && evtimer_pending(first->timer, &retry)) {
		ret_health->next_try_s = retry.tv_sec;
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
	if (directory->discovery != NULL) {
		discovery_refresh(directory->discovery);
	}
	for (unsigned i = 0; i < directory->server_count; i++) {
		struct connection *connection = directory->servers[i]->connections[0];
		connection->attempts = 0;
		connection_start(connection);
	}
}

void directory_on_health(struct directory *directory, void (*changed)(struct directory *, void *arg), void *arg)
{
	directory->changed = changed;
	directory->changed_arg = arg;
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
