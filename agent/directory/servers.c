#include "agent/directory/servers.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent/directory/internal.h"
#include "base/clock.h"
#include "base/log.h"

enum { KICK_PAUSE_US = 200000, PATIENCE = 3, SILENCE_US = 1000000 };
/* A server that was lost is preferred again after two seconds, four where it is lost again, …; after five quiet minutes all is forgotten. */
enum { SETTLE_US = 2000000, SETTLE_DOUBLINGS = 6, FORGET_US = 300000000 };

/* The set ----------------------------------------------------------------------------------------------------------------------------- */

struct server *servers_find(const struct directory *directory, const char *name)
{
	for (unsigned i = 0; i < directory->server_count; i++) {
		if (strcasecmp(directory->servers[i]->name, name) == 0) {
			return directory->servers[i];
		}
	}
	return NULL;
}

static void server_stop(struct server *server)
{
	for (unsigned k = 0; k < server->slots; k++) {
		connection_stop(server->connections[k]);
	}
}

static void server_free(struct server *server)
{
	for (unsigned k = 0; k < server->slots; k++) {
		connection_unref(server->connections[k]);
	}
	free(server->connections);
	free(server->name);
	free(server);
}

static void drop(struct directory *directory, unsigned index)
{
	struct server *server = directory->servers[index];
	log_event(LOG_NOTICE, "directory.retired", LOG_FIELDS({ "directory", directory->settings->name }, { LOG_SERVER, server->name }), "%s is no longer named by DNS", server->name);
	memmove(&directory->servers[index], &directory->servers[index + 1], (directory->server_count - index - 1) * sizeof directory->servers[0]);
	directory->server_count--;
	server_stop(server);
	server_free(server);
}

enum status servers_add(struct directory *directory, const char *name, struct server **ret_server)
{
	unsigned slots = directory->settings->connections > 0 ? directory->settings->connections : 1;
	if (directory->server_count >= SERVERS_MAX) {
		return STATUS_AGENT_OVERLOADED;
	}
	struct server *server = calloc(1, sizeof *server);
	if (server == NULL) {
		return STATUS_AGENT_INTERNAL;
	}
	server->name = strdup(name);
	server->connections = calloc(slots, sizeof *server->connections);
	random_bytes(&server->random, sizeof server->random);
	enum status status = server->name != NULL && server->connections != NULL ? STATUS_OK : STATUS_AGENT_INTERNAL;
	while (status == STATUS_OK && server->slots < slots) {
		struct connection_setup setup = directory->setup;
		setup.retry = server->slots == 0;
		status = connection_new(&setup, name, directory, &server->connections[server->slots]);
		server->slots += status == STATUS_OK;
	}
	if (status != STATUS_OK) {
		server_free(server);
		return status;
	}
	directory->servers[directory->server_count++] = server;
	*ret_server = server;
	return STATUS_OK;
}

void server_start(struct server *server)
{
	connection_start(server->connections[0]);
}

static bool is_idle(const struct server *server)
{
	for (unsigned k = 0; k < server->slots; k++) {
		/* More references are users who were found there, and calls. */
		if (connection_load(server->connections[k]) > 0 || server->connections[k]->references > 1) {
			return false;
		}
	}
	return true;
}

static bool is_named_elsewhere(const struct server *server, enum server_origin origin)
{
	for (unsigned other = 0; other < ORIGINS; other++) {
		if (other != origin && server->places[other].named) {
			return true;
		}
	}
	return false;
}

bool servers_make_room(struct directory *directory, enum server_origin origin, bool (*spared)(const char *name, const void *arg), const void *arg)
{
	for (unsigned i = directory->server_count; directory->server_count >= SERVERS_MAX && i-- > 0;) {
		const struct server *server = directory->servers[i];
		if (!is_named_elsewhere(server, origin) && !server_usable(server) && is_idle(server) && !spared(server->name, arg)) {
			drop(directory, i);
		}
	}
	return directory->server_count < SERVERS_MAX;
}

bool servers_retire(struct directory *directory)
{
	bool some = false;
	for (unsigned i = directory->server_count; i-- > 0;) {
		struct server *server = directory->servers[i];
		if (!server->vanished) {
			continue;
		}
		const struct server *next = servers_next(directory, NULL, NULL, server->name);
		if (next == NULL || next->vanished || !is_idle(server)) {
			some = true;
			continue;
		}
		drop(directory, i);
	}
	return some;
}

void servers_stop(struct directory *directory)
{
	for (unsigned i = 0; i < directory->server_count; i++) {
		server_stop(directory->servers[i]);
	}
}

void servers_free(struct directory *directory)
{
	while (directory->server_count > 0) {
		server_free(directory->servers[--directory->server_count]);
	}
}

/* The order --------------------------------------------------------------------------------------------------------------------------- */

bool server_is_pdc(const struct server *server)
{
	enum pdc_role role = server->connections[0]->pdc;
	return role == PDC_IS || (role == PDC_UNKNOWN && server->places[ORIGIN_PDC].named);
}

static unsigned first_origin(const struct server *server)
{
	unsigned origin = 0;
	while (origin < ORIGINS && !server->places[origin].named) {
		origin++;
	}
	return origin;
}

static bool comes_before(const struct directory *directory, const struct server *a, const struct server *b)
{
	unsigned first = first_origin(a), second = first_origin(b);
	if (directory->settings->prefer_pdc && server_is_pdc(a) != server_is_pdc(b)) {
		return server_is_pdc(a);
	}
	if (first != second || first == ORIGINS) {
		return first < second;
	}
	const struct server_place *place = &a->places[first], *other = &b->places[first];
	return place->priority != other->priority ? place->priority < other->priority : place->key < other->key;
}

/* Stable: equals stay as they are. */
void servers_sort(struct directory *directory)
{
	for (unsigned i = 1; i < directory->server_count; i++) {
		struct server *server = directory->servers[i];
		unsigned k = i;
		for (; k > 0 && comes_before(directory, server, directory->servers[k - 1]); k--) {
			directory->servers[k] = directory->servers[k - 1];
		}
		directory->servers[k] = server;
	}
}

/* Health ------------------------------------------------------------------------------------------------------------------------------ */

bool server_usable(const struct server *server)
{
	for (unsigned k = 0; k < server->slots; k++) {
		if (connection_usable(server->connections[k])) {
			return true;
		}
	}
	return false;
}

bool server_is_silent(const struct server *server, int64_t now_us)
{
	int64_t heard_us = 0;
	for (unsigned k = 0; k < server->slots; k++) {
		const struct connection *connection = server->connections[k];
		const struct operation *oldest = connection->state == CONNECTION_READY ? TAILQ_FIRST(&connection->outstanding) : NULL;
		int64_t since_us = oldest != NULL && oldest->submitted_us > connection->last_read_us ? oldest->submitted_us : connection->last_read_us;
		if (oldest != NULL && now_us - since_us >= SILENCE_US) {
			return true;
		}
		heard_us = connection->last_read_us > heard_us ? connection->last_read_us : heard_us;
	}
	return server->doubted_us > heard_us;
}

static int64_t settle_us(const struct server *server)
{
	unsigned doublings = server->losses > SETTLE_DOUBLINGS ? SETTLE_DOUBLINGS : server->losses - 1;
	return server->losses == 0 ? 0 : (int64_t)SETTLE_US << doublings;
}

bool server_is_settling(const struct server *server, int64_t now_us)
{
	return now_us - server->up_since_us < settle_us(server);
}

/* Its connections are asked whether they live, and meanwhile new work goes elsewhere. */
static void doubt(struct server *server, int64_t probe_ms)
{
	server->doubted_us = clock_monotonic_us();
	for (unsigned k = 0; k < server->slots; k++) {
		if (server->connections[k]->state == CONNECTION_READY) {
			explore_probe(server->connections[k], probe_ms);
		}
	}
}

static void note_change(struct directory *directory, struct server *server, struct connection *connection)
{
	bool up = server_usable(server), lost = server->was_up && !up;
	int64_t now = clock_monotonic_us();
	const struct log_field *fields = LOG_FIELDS({ "directory", directory->settings->name }, { LOG_SERVER, connection->name },
	                                            { LOG_STATUS, up ? "up" : "down" }, { LOG_CODE, status_code(connection->failure) });
	if (up && !server->was_up) {
		server->up_since_us = now;
		log_event(LOG_NOTICE, "directory.up", fields, "%s is ready", connection->name);
	} else if (lost || (!up && connection->attempts == 1)) {
		server->losses = !lost ? server->losses : now - server->up_since_us > FORGET_US ? 1 : server->losses + 1;
		log_event(status_level(connection->failure), "directory.down", fields, "%s cannot be used: %s", connection->name, connection->why);
	}
	server->was_up = up;
	/* One was given up for its silence: what of the others? */
	if (up && connection->state == CONNECTION_DOWN && connection->failure == STATUS_DIRECTORY_TIMEOUT) {
		doubt(server, directory->settings->connect_timeout_ms);
	}
}

static struct server *server_of(const struct directory *directory, const struct connection *connection)
{
	for (unsigned i = 0; i < directory->server_count; i++) {
		for (unsigned k = 0; k < directory->servers[i]->slots; k++) {
			if (directory->servers[i]->connections[k] == connection) {
				return directory->servers[i];
			}
		}
	}
	return NULL;
}

void servers_note(struct directory *directory, struct connection *connection)
{
	struct server *server = server_of(directory, connection);
	if (server != NULL) {
		note_change(directory, server, connection);
	}
}

void servers_doubt(struct directory *directory, const struct connection *connection, int64_t probe_ms)
{
	struct server *server = server_of(directory, connection);
	if (server != NULL && server->doubted_us <= connection->last_read_us) {
		doubt(server, probe_ms);
	}
}

const struct connection *servers_worst(const struct directory *directory)
{
	const struct connection *found = directory->server_count > 0 ? directory->servers[0]->connections[0] : NULL;
	for (unsigned i = 1; i < directory->server_count; i++) {
		const struct connection *connection = directory->servers[i]->connections[0];
		if (connection->failure != STATUS_OK && (found->failure == STATUS_OK || status_level(connection->failure) < status_level(found->failure))) {
			found = connection;
		}
	}
	return found;
}

/* Choosing ---------------------------------------------------------------------------------------------------------------------------- */

static bool server_is(const struct server *server, const char *name)
{
	const struct connection *first = server->connections[0];
	return strcasecmp(first->name, name) == 0 || (first->root.host_name != NULL && strcasecmp(first->root.host_name, name) == 0);
}

struct server *servers_next(const struct directory *directory, const char *prefer, const char *avoid, const char *exclude)
{
	struct server *chosen = NULL;
	unsigned least = UINT32_MAX;
	int64_t now = clock_monotonic_us();
	for (unsigned i = 0; i < directory->server_count; i++) {
		struct server *server = directory->servers[i];
		bool avoided = avoid != NULL && server_is(server, avoid);
		if (!server_usable(server) || (exclude != NULL && server_is(server, exclude))) {
			continue;
		}
		if (prefer != NULL && !avoided && server_is(server, prefer)) {
			return server;
		}
		unsigned doubts = (avoided ? 8u : 0u) + (server_is_silent(server, now) ? 4u : 0u) + (server->vanished ? 2u : 0u) + (server_is_settling(server, now) ? 1u : 0u);
		if (doubts < least) {
			least = doubts;
			chosen = server;
		}
	}
	return chosen;
}

/* The least loaded usable connection; where even that one is half full another one is opened for those who come next. */
static struct connection *choose_connection(struct server *server, unsigned pipeline)
{
	struct connection *best = NULL, *idle = NULL;
	for (unsigned k = 0; k < server->slots; k++) {
		struct connection *connection = server->connections[k];
		if (connection_usable(connection) && (best == NULL || connection_load(connection) < connection_load(best))) {
			best = connection;
		} else if (connection->state == CONNECTION_DOWN && idle == NULL && k > 0) {
			idle = connection;
		}
	}
	if (best != NULL && idle != NULL && connection_load(best) * 2 >= pipeline && clock_monotonic_us() - idle->started_us > KICK_PAUSE_US) {
		idle->addresses = best->addresses; /* should nobody answer for its name just now */
		connection_start(idle);
	}
	return best != NULL && connection_load(best) < pipeline ? best : NULL;
}

struct connection *directory_choose(struct directory *directory, const char *prefer, const char *avoid, const char *exclude)
{
	struct server *chosen = servers_next(directory, prefer, avoid, exclude);
	return chosen != NULL ? choose_connection(chosen, directory->settings->pipeline) : NULL;
}

bool directory_has_beside(const struct directory *directory, const char *not_server)
{
	return servers_next(directory, NULL, NULL, not_server) != NULL;
}

bool directory_can_reach_beside(const struct directory *directory, const char *exclude)
{
	for (unsigned i = 0; i < directory->server_count; i++) {
		const struct server *server = directory->servers[i];
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
		if (strcasecmp(directory->servers[i]->connections[0]->name, connection->name) != 0 && server_usable(directory->servers[i])) {
			return true;
		}
	}
	return false;
}

bool directory_has_usable(const struct directory *directory)
{
	for (unsigned i = 0; i < directory->server_count; i++) {
		if (server_usable(directory->servers[i])) {
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
	if (directory->discovery != NULL && discovery_is_first(directory->discovery)) {
		return false;
	}
	for (unsigned i = 0; i < directory->server_count; i++) {
		if (is_worth_waiting(directory->servers[i]->connections[0])) {
			return false;
		}
		for (unsigned k = 0; k < directory->servers[i]->slots; k++) {
			if (directory->servers[i]->connections[k]->state != CONNECTION_DOWN) {
				return false;
			}
		}
	}
	return true;
}

void directory_kick(struct directory *directory)
{
	int64_t now = clock_monotonic_us();
	if (directory->discovery != NULL) {
		discovery_refresh(directory->discovery);
	}
	for (unsigned i = 0; i < directory->server_count && now >= directory->credential.blocked_until_us; i++) {
		struct connection *connection = directory->servers[i]->connections[0];
		if (connection->state == CONNECTION_DOWN && now - connection->started_us > KICK_PAUSE_US) {
			connection_start(connection);
		}
	}
}

enum status directory_outage(const struct directory *directory)
{
	const struct connection *worst = servers_worst(directory);
	enum status status = worst != NULL ? worst->failure : STATUS_DIRECTORY_UNAVAILABLE;
	bool travels = status == STATUS_DIRECTORY_CREDENTIAL || status == STATUS_DIRECTORY_REFERRAL || status == STATUS_DIRECTORY_ENCRYPTION || status == STATUS_DIRECTORY_BUSY ||
	               status == STATUS_DIRECTORY_PROTOCOL;
	return travels ? status : STATUS_DIRECTORY_UNAVAILABLE; /* tls.* are the agent's own; the health text names them */
}
