/* The pre-flight: a fresh connection to each server, one after the other; what it met becomes rows. */
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "agent/directory/internal.h"
#include "base/clock.h"
#include "base/tls.h"

struct check {
	TAILQ_ENTRY(check) link;
	struct directory *directory;
	char *servers[SERVERS_MAX];    /* those to be tried: a copy, for the set may change meanwhile */
	unsigned server, server_count;
	bool discovered;
	struct connection *connection;
	struct event *next; /* the connection's end is looked at from the loop's top level */
	json_t *rows;
	check_done done;
	void *arg;
};

static void add_text(struct check *check, const char *server, const char *step, bool ok, const char *text)
{
	char clean[720];
	ad_answer_text(text, clean, sizeof clean);
	json_array_append_new(check->rows, json_pack("{s:s, s:s, s:b, s:s}", "server", server, "step", step, "ok", ok, "text", clean));
}

static void add_row(struct check *check, const char *step, bool ok, const char *format, ...) __attribute__((format(printf, 4, 5)));
static void add_row(struct check *check, const char *step, bool ok, const char *format, ...)
{
	char text[512];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	add_text(check, check->connection->name, step, ok, text);
}

static bool failed_in_tls(enum status status)
{
	return status >= STATUS_TLS_FAILED && status <= STATUS_TLS_REVOKED;
}

static void describe_tls(struct check *check)
{
	const struct tls_peer *peer = check->connection->peer;
	char until[CLOCK_TEXT_SIZE];
	if (peer != NULL) {
		clock_format(peer->not_after * 1000, until);
		add_row(check, "tls", true, "%s, %s, for %s, issued by %s, valid until %.10s", peer->version, peer->cipher, peer->subject_alt_name, peer->issuer, until);
	}
}

static void describe_bind(struct check *check)
{
	const struct directory_settings *settings = check->directory->settings;
	const char *name = check->connection->self_name, *mechanism = bind_name(settings->bind_mechanism);
	const char *file = settings->bind_mechanism == BIND_EXTERNAL ? settings->bind_certificate_file : settings->bind_keytab_file;
	struct ticket_facts ticket;
	char until[CLOCK_TEXT_SIZE], fault[256];
	if (settings->bind_mechanism == BIND_SIMPLE) {
		add_row(check, "bind", true, "as %s", settings->bind_dn);
	} else {
		add_row(check, "bind", true, "as %s, %s, %s", name[0] != 0 ? name : "somebody whom the server does not name", mechanism, file);
	}
	if (check->directory->kerberos != NULL) {
		kerberos_facts(check->directory->kerberos, &ticket);
		clock_format(ticket.until_s * 1000, until);
		kerberos_fault(check->directory->kerberos, fault, sizeof fault);
		add_row(check, "ticket", ticket.until_s > clock_now_ms() / 1000 && fault[0] == 0, "%s, from the KDC of %s, until %s%s%s", ticket.principal, ticket.realm, until,
		        fault[0] != 0 ? "; it could not be renewed: " : "", fault);
	}
}

/* The one that holds where a user has none of his own; explore.c has read it. */
static void describe_policy(struct check *check)
{
	const struct connection *connection = check->connection;
	struct view view = connection_view(connection);
	const struct flavor *flavor = connection->setup.flavor;
	const char *dn = flavor->domain_dn(&view);
	struct password_policy policy = { .source = POLICY_UNKNOWN };
	if (dn == NULL) {
		add_row(check, "policy", true, "no default policy is named (default_policy): it is known of those users alone who have one of their own");
	} else if (policy_cache_get(&check->directory->policies, dn, clock_monotonic_us(), INT64_MAX, &policy) && policy.source != POLICY_UNKNOWN) {
		const char *complexity = !flavor->settles_by_position ? "" : policy.complexity ? ", complexity on" : ", complexity off";
		add_row(check, "policy", true, "minimum length %u%s, history %u, minimum age %lld s", policy.min_length, complexity, policy.history, (long long)policy.min_age_s);
	} else {
		add_row(check, "policy", false, "the password policy %s cannot be read; the missing right: %s", dn, flavor->words.policy_right);
	}
	free(policy.source_name);
}

static void describe_server(struct check *check)
{
	const struct connection *connection = check->connection;
	const struct directory_settings *settings = check->directory->settings;
	const struct flavor *flavor = connection->setup.flavor;
	const char *host = connection->root.host_name != NULL ? connection->root.host_name : connection->host;
	char skew[64] = "";
	if (connection->clock_skew_ms != INT64_MIN) {
		snprintf(skew, sizeof skew, ", clock differs by %lld ms", (long long)connection->clock_skew_ms);
	}
	add_row(check, "rootdse", true, "%s, %s%s", host, connection->root.naming_context, skew);
	add_row(check, "account", connection->self_count > 0, connection->self_count > 0 ? "the agent's own account was found" : "the agent's own account cannot be found or read: everybody is protected");
	if (flavor->settles_by_position) {
		add_row(check, "position", connection->server.invocation_known, connection->server.invocation_known ? "invocationId can be read" : "invocationId cannot be read: lost answers cannot be settled");
	}
	describe_policy(check);
	const char *control = connection->root.policy_control;
	if (control != NULL) {
		add_row(check, "policy_control", true, "%s", control);
	} else {
		add_row(check, "policy_control", settings->policy_hints != POLICY_HINTS_REQUIRE, "the server lacks %s: %s", flavor->words.policy_control,
		        flavor->settles_by_position ? "history and minimum age are not enforced on a reset" : "why a password is refused is told by the server's text alone");
	}
}

/* What was reached was met; the rest was not tried. */
static void describe(struct check *check)
{
	const struct connection *connection = check->connection;
	bool ready = connection->state == CONNECTION_READY;
	enum connection_state reached = connection->reached;
	if (reached > CONNECTION_RESOLVE) {
		add_row(check, "resolve", true, "%zu address%s", connection->addresses.count, connection->addresses.count == 1 ? "" : "es");
	}
	if (reached > CONNECTION_CONNECT || (reached == CONNECTION_CONNECT && failed_in_tls(connection->failure))) {
		add_row(check, "connect", true, "port %u", connection->port);
	}
	if (reached > CONNECTION_CONNECT) {
		describe_tls(check);
	}
	if (reached > CONNECTION_BIND) {
		describe_bind(check);
	}
	if (ready) {
		describe_server(check);
		return;
	}
	static const char *const STEPS[] = { [CONNECTION_DOWN] = "resolve", [CONNECTION_RESOLVE] = "resolve", [CONNECTION_CONNECT] = "connect", [CONNECTION_BIND_TURN] = "bind",
		[CONNECTION_BIND] = "bind", [CONNECTION_EXPLORE] = "rootdse", [CONNECTION_READY] = "rootdse" };
	/* The site's record names the read-only ones too: that they are passed over is as it should be. */
	bool expected = connection->failure == STATUS_DIRECTORY_REFERRAL && check->directory->discovery != NULL;
	add_row(check, failed_in_tls(connection->failure) ? "tls" : STEPS[reached], expected, "%s: %s", status_code(connection->failure), connection->why);
}

static void drop_connection(struct check *check)
{
	if (check->connection != NULL) {
		connection_stop(check->connection);
		connection_unref(check->connection);
		check->connection = NULL;
	}
}

static void end_check(struct check *check)
{
	check_done done = check->done;
	json_t *rows = check->rows;
	void *arg = check->arg;
	drop_connection(check);
	TAILQ_REMOVE(&check->directory->checks, check, link);
	event_free(check->next);
	for (unsigned i = 0; i < check->server_count; i++) {
		free(check->servers[i]);
	}
	free(check);
	done(rows, arg);
}

static void on_check_changed(struct connection *connection, void *arg)
{
	struct check *check = arg;
	event_active(check->next, 0, 0);
}

static void on_check_turn(void *arg)
{
	struct check *check = arg;
	check->directory->setup.turn(check->directory);
}

static void start_server(struct check *check)
{
	struct connection_setup setup = check->directory->setup;
	setup.retry = false;
	setup.changed = on_check_changed;
	setup.room = NULL;
	setup.turn = on_check_turn;
	setup.arg = check;
	if (check->server >= check->server_count ||
	    connection_new(&setup, check->servers[check->server], check->directory, &check->connection) != STATUS_OK) {
		end_check(check);
		return;
	}
	check->server++;
	connection_start(check->connection);
}

static void add_lookup(const char *text, bool good, void *arg)
{
	struct check *check = arg;
	add_text(check, check->directory->settings->discover, "srv", good, text);
}

static void take_servers(struct check *check)
{
	const struct directory *directory = check->directory;
	check->discovered = true;
	if (directory->discovery != NULL) {
		discovery_each(directory->discovery, add_lookup, check);
	}
	for (unsigned i = 0; i < directory->server_count; i++) {
		if ((check->servers[check->server_count] = strdup(directory->servers[i]->name)) != NULL) {
			check->server_count++;
		}
	}
}

static void on_next(evutil_socket_t fd, short what, void *arg)
{
	struct check *check = arg;
	const struct discovery *discovery = check->directory->discovery;
	if (!check->discovered && discovery != NULL && discovery_is_running(discovery)) {
		return; /* its end goes on */
	}
	if (!check->discovered) {
		take_servers(check);
	}
	if (check->connection != NULL) {
		describe(check);
		drop_connection(check);
	}
	start_server(check);
}

enum status directory_check(struct directory *directory, check_done done, void *arg)
{
	struct check *check = directory->closing ? NULL : calloc(1, sizeof *check);
	if (check == NULL) {
		return directory->closing ? STATUS_DIRECTORY_UNAVAILABLE : STATUS_AGENT_INTERNAL;
	}
	*check = (struct check){ .directory = directory, .done = done, .arg = arg, .rows = json_array() };
	check->next = evtimer_new(directory->base, on_next, check);
	if (check->next == NULL || check->rows == NULL) {
		if (check->next != NULL) {
			event_free(check->next);
		}
		json_decref(check->rows);
		free(check);
		return STATUS_AGENT_INTERNAL;
	}
	TAILQ_INSERT_TAIL(&directory->checks, check, link);
	if (directory->discovery != NULL) {
		discovery_refresh(directory->discovery);
	}
	event_active(check->next, 0, 0);
	return STATUS_OK;
}

void checks_end(struct directory *directory)
{
	struct check *check;
	while ((check = TAILQ_FIRST(&directory->checks)) != NULL) {
		end_check(check);
	}
}

void checks_try_bind(struct directory *directory)
{
	struct check *check;
	TAILQ_FOREACH(check, &directory->checks, link) {
		if (check->connection != NULL) {
			connection_try_bind(check->connection);
		}
	}
}

void checks_discovered(struct directory *directory)
{
	struct check *check;
	TAILQ_FOREACH(check, &directory->checks, link) {
		if (!check->discovered) {
			event_active(check->next, 0, 0);
		}
	}
}
