/* The servers as an administrator sees them. */
#include <stdio.h>
#include <string.h>

#include "agent/directory/internal.h"
#include "base/clock.h"

static void describe_origin(const struct directory_settings *settings, const struct server *server, char *text, size_t capacity)
{
	static const char *const WORDS[ORIGINS] = { [ORIGIN_LISTED] = "listed", [ORIGIN_SITE] = "site ", [ORIGIN_LDAPS] = "_ldaps record of ", [ORIGIN_DOMAIN] = "domain ", [ORIGIN_PDC] = "PDC record" };
	size_t used = 0;
	text[0] = 0;
	for (unsigned origin = 0; origin < ORIGINS && used < capacity; origin++) {
		const char *more = origin == ORIGIN_SITE ? settings->site : origin == ORIGIN_DOMAIN || origin == ORIGIN_LDAPS ? settings->discover : "";
		if (server->places[origin].named) {
			int written = snprintf(text + used, capacity - used, "%s%s%s", used > 0 ? ", " : "", WORDS[origin], more != NULL ? more : "");
			used += written > 0 ? (size_t)written : capacity;
		}
	}
	if (used == 0) {
		snprintf(text, capacity, "no longer named by DNS");
	}
}

static void describe_state(const struct server *server, char *text, size_t capacity)
{
	const struct connection *first = server->connections[0];
	int64_t now = clock_monotonic_us();
	if (server_usable(server)) {
		snprintf(text, capacity, "%s", server_is_silent(server, now)     ? "up, but owes an answer: others are asked first"
		                               : server_is_settling(server, now) ? "up again: others are asked until it has stayed so"
		                                                                 : "ready");
	} else if (first->failure == STATUS_OK) {
		snprintf(text, capacity, "connecting");
	} else {
		snprintf(text, capacity, "%s", first->why);
	}
}

void directory_each_server(const struct directory *directory, void (*visit)(const struct directory_server *server, void *arg), void *arg)
{
	const struct server *next = servers_next(directory, NULL, NULL, NULL);
	for (unsigned i = 0; i < directory->server_count; i++) {
		const struct server *server = directory->servers[i];
		const struct connection *first = server->connections[0];
		struct directory_server row = { .name = first->name, .up = server_usable(server), .next = server == next, .pdc = server_is_pdc(server),
			.read_only = first->server.read_only || first->root.read_only, .unsynchronized = first->root.naming_context != NULL && !first->root.synchronized };
		describe_origin(directory->settings, server, row.origin, sizeof row.origin);
		describe_state(server, row.text, sizeof row.text);
		visit(&row, arg);
	}
}
