#include "agent/directory/discovery.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent/directory/internal.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/resolve.h"

enum { LOOKUPS_MAX = 3, PORT_LDAP = 389, AGAIN_US = 1000000 };
/* How soon the records are looked up again: by their time to live within bounds; after a failure, doubled each time. */
enum { TTL_FLOOR_S = 5, TTL_CEILING_S = 3600, RETRY_S = 1, RETRY_MAX_S = 60 };

/* What is asked for, in the order of preference. A site's and the PDC's records are asked for only where they are wanted. */
static const struct record {
	enum directory_kind kind;
	enum server_origin origin;
	const char *prefix, *after_site;
} RECORDS[] = {
	{ DIRECTORY_ACTIVE_DIRECTORY, ORIGIN_PDC, "_ldap._tcp.pdc._msdcs.", NULL },
	{ DIRECTORY_ACTIVE_DIRECTORY, ORIGIN_SITE, "_ldap._tcp.", "._sites.dc._msdcs." },
	{ DIRECTORY_ACTIVE_DIRECTORY, ORIGIN_DOMAIN, "_ldap._tcp.dc._msdcs.", NULL },
	{ DIRECTORY_LDAP, ORIGIN_LDAPS, "_ldaps._tcp.", NULL },
	{ DIRECTORY_LDAP, ORIGIN_DOMAIN, "_ldap._tcp.", NULL },
};

struct lookup {
	struct discovery *discovery;
	enum server_origin origin;
	char name[384];
	struct resolve *resolve;
	bool ended, answered, good;    /* in this round; good: it named a server */
	uint32_t ttl_s;
	char text[320];                /* how it ended */
	char told[320];                /* the answer that was looked at last: what is wrong with it is logged once */
};
struct discovery {
	struct directory *directory;
	struct lookup lookups[LOOKUPS_MAX];
	unsigned count, running, failures;
	bool ended_once;
	int64_t started_us;
	struct event *timer;           /* the round's deadline; then the next round */
};

/* Answers ----------------------------------------------------------------------------------------------------------------------------- */

/* DNS is not to be trusted with more than this: a forged answer must not lead to a host of somebody else's whose certificate is as good. */
static bool is_inside(const char *target, const char *domain)
{
	size_t size = strlen(target), tail = strlen(domain);
	return size > tail + 1 && target[size - tail - 1] == '.' && strcasecmp(target + size - tail, domain) == 0;
}

struct name { char text[280]; };

static struct name name_of(const struct srv *srv)
{
	struct name name;
	/* Active Directory registers 389, and LDAPS is on 636. */
	unsigned port = srv->port == PORT_LDAP ? LDAPS_PORT : srv->port;
	snprintf(name.text, sizeof name.text, port == LDAPS_PORT ? "%s" : "%s:%u", srv->target, port);
	return name;
}

static bool is_named_by(const char *name, const void *arg)
{
	const struct srv_answer *answer = arg;
	for (size_t i = 0; i < answer->count; i++) {
		if (strcasecmp(name_of(&answer->items[i]).text, name) == 0) {
			return true;
		}
	}
	return false;
}

static struct server *take_server(struct lookup *lookup, const struct srv_answer *answer, const struct srv *srv)
{
	struct directory *directory = lookup->discovery->directory;
	const struct name taken = name_of(srv);
	const char *name = taken.text;
	struct server *server = servers_find(directory, name);
	if (server == NULL) {
		/* A set full of those who were named before and never there keeps nobody out. */
		if (!servers_make_room(directory, lookup->origin, is_named_by, answer) || servers_add(directory, name, &server) != STATUS_OK) {
			return NULL;
		}
		log_event(LOG_NOTICE, "directory.discovered", LOG_FIELDS({ "directory", directory->settings->name }, { LOG_SERVER, name }), "%s is named by %s", name, lookup->name);
	}
	server->vanished = false;
	server->places[lookup->origin] = (struct server_place){ true, srv->priority, srv_key(srv->weight, server->random) };
	return server;
}

static void add_text(struct lookup *lookup, const char *text)
{
	size_t used = strlen(lookup->text);
	snprintf(lookup->text + used, sizeof lookup->text - used, "%s%s", used > 0 ? ", " : "", text);
}

/* Those that it does not name stay where another record, or nobody at all, names them: the end of the round decides. */
static void forget_others(struct lookup *lookup, struct server *const *named, size_t count)
{
	struct directory *directory = lookup->discovery->directory;
	for (unsigned i = 0; i < directory->server_count; i++) {
		bool found = false;
		for (size_t k = 0; k < count; k++) {
			found |= named[k] == directory->servers[i];
		}
		if (!found) {
			directory->servers[i]->places[lookup->origin].named = false;
		}
	}
}

/* What is not used of an answer, once for each answer. */
static void log_refusals(struct lookup *lookup, const struct srv_answer *answer, unsigned left_out)
{
	const struct directory_settings *settings = lookup->discovery->directory->settings;
	if (strcmp(lookup->told, lookup->text) == 0) {
		return;
	}
	snprintf(lookup->told, sizeof lookup->told, "%s", lookup->text);
	for (size_t i = 0; i < answer->count; i++) {
		const char *target = answer->items[i].target;
		if (!is_inside(target, settings->discover)) {
			log_event(LOG_WARNING, "directory.srv_refused", LOG_FIELDS({ "directory", settings->name }, { LOG_SERVER, target }), "%s names %s, which is outside %s: it is not used", lookup->name,
			          target, settings->discover);
		}
	}
	if (left_out > 0) {
		log_event(LOG_WARNING, "directory.srv_refused", LOG_FIELDS({ "directory", settings->name }), "%s: %u servers are left out: at most %d are used", lookup->name, left_out, SERVERS_MAX);
	}
}

static void take_answer(struct lookup *lookup, const struct srv_answer *answer)
{
	struct directory *directory = lookup->discovery->directory;
	struct server *named[SRV_MAX];
	size_t count = 0;
	unsigned left_out = 0;
	char tail[64];
	lookup->text[0] = 0;
	for (size_t i = 0; i < answer->count; i++) {
		const struct srv *srv = &answer->items[i];
		struct server *server = NULL;
		if (!is_inside(srv->target, directory->settings->discover)) {
			add_text(lookup, srv->target);
			add_text(lookup, "which is outside the domain and not used");
		} else if ((server = take_server(lookup, answer, srv)) != NULL) {
			named[count++] = server;
			add_text(lookup, server->name);
		} else {
			left_out++;
		}
	}
	log_refusals(lookup, answer, left_out);
	lookup->good = count > 0;
	lookup->ttl_s = answer->ttl_s;
	if (count == 0) {
		return;
	}
	snprintf(tail, sizeof tail, " (valid for %u s%s)", answer->ttl_s, answer->cut || left_out > 0 ? "; more than 64 are left out" : "");
	size_t used = strlen(lookup->text), room = sizeof lookup->text - strlen(tail) - 1;
	strcpy(lookup->text + (used < room ? used : room), tail);
	forget_others(lookup, named, count);
	servers_sort(directory);
	for (size_t i = 0; i < count; i++) {
		server_start(named[i]);
	}
}

/* Rounds ------------------------------------------------------------------------------------------------------------------------------ */

static bool names_any(const struct discovery *discovery)
{
	for (unsigned i = 0; i < discovery->count; i++) {
		if (discovery->lookups[i].good) {
			return true;
		}
	}
	return false;
}

static void plan(struct discovery *discovery)
{
	int64_t seconds = TTL_CEILING_S;
	bool complete = true;
	for (unsigned i = 0; i < discovery->count; i++) {
		const struct lookup *lookup = &discovery->lookups[i];
		complete &= lookup->answered;
		seconds = lookup->good && lookup->ttl_s < seconds ? lookup->ttl_s : seconds;
	}
	complete &= names_any(discovery);
	discovery->failures = complete ? 0 : discovery->failures + 1;
	seconds = seconds < TTL_FLOOR_S ? TTL_FLOOR_S : seconds;
	for (unsigned i = 0; !complete && i < discovery->failures; i++) {
		seconds = i == 0 ? RETRY_S : seconds * 2 > RETRY_MAX_S ? RETRY_MAX_S : seconds * 2;
	}
	if (!directory_has_usable(discovery->directory) && seconds > RETRY_MAX_S) {
		seconds = RETRY_MAX_S;
	}
	event_add(discovery->timer, &(struct timeval){ seconds, 0 });
}

/* At the first, and where things went wrong just now. Where nobody is known to ask, it is what a lost server would be. */
static void log_round(const struct discovery *discovery, bool first)
{
	bool good = directory_has_usable(discovery->directory);
	for (unsigned i = 0; i < discovery->count; i++) {
		good |= discovery->lookups[i].good;
	}
	for (unsigned i = 0; i < discovery->count; i++) {
		const struct lookup *lookup = &discovery->lookups[i];
		if (!lookup->good && (first || discovery->failures == 1)) {
			log_event(good ? LOG_WARNING : LOG_ERR, "directory.srv_failed", LOG_FIELDS({ "directory", discovery->directory->settings->name }), "%s: %s", lookup->name, lookup->text);
		}
	}
}

static void end_round(struct discovery *discovery)
{
	struct directory *directory = discovery->directory;
	bool first = !discovery->ended_once;
	discovery->running = 0;
	discovery->ended_once = true;
	for (unsigned i = 0; i < directory->server_count; i++) {
		struct server *server = directory->servers[i];
		bool named = false;
		for (unsigned origin = 0; origin < ORIGINS; origin++) {
			named |= server->places[origin].named;
		}
		server->vanished = !named;
	}
	plan(discovery);
	log_round(discovery, first);
	checks_discovered(directory);
	event_active(directory->news, 0, 0);
}

static void on_answer(const struct srv_answer *answer, const char *why, void *arg)
{
	struct lookup *lookup = arg;
	lookup->ended = true;
	lookup->answered = answer != NULL;
	snprintf(lookup->text, sizeof lookup->text, "%s", why != NULL ? why : "");
	if (why == NULL) {
		take_answer(lookup, answer);
	}
	resolve_free(lookup->resolve);
	lookup->resolve = NULL;
	if (--lookup->discovery->running == 0) {
		end_round(lookup->discovery);
	}
}

static void begin_round(struct discovery *discovery)
{
	int64_t ms = discovery->directory->settings->connect_timeout_ms;
	discovery->started_us = clock_monotonic_us();
	discovery->running = 0;
	for (unsigned i = 0; i < discovery->count; i++) {
		struct lookup *lookup = &discovery->lookups[i];
		lookup->ended = lookup->answered = lookup->good = false;
		if (resolve_srv_start(discovery->directory->base, lookup->name, on_answer, lookup, &lookup->resolve) == STATUS_OK) {
			discovery->running++;
		} else {
			snprintf(lookup->text, sizeof lookup->text, "could not be looked up");
		}
	}
	event_add(discovery->timer, &(struct timeval){ ms / 1000, ms % 1000 * 1000 });
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct discovery *discovery = arg;
	if (discovery->running == 0) {
		begin_round(discovery);
		return;
	}
	for (unsigned i = 0; i < discovery->count; i++) {
		struct lookup *lookup = &discovery->lookups[i];
		if (!lookup->ended) {
			resolve_free(lookup->resolve);
			lookup->resolve = NULL;
			snprintf(lookup->text, sizeof lookup->text, "no answer from DNS in time");
		}
	}
	end_round(discovery);
}

/* The module -------------------------------------------------------------------------------------------------------------------------- */

static bool is_wanted(const struct directory_settings *settings, const struct record *record)
{
	return record->kind == settings->kind && (record->origin != ORIGIN_PDC || settings->prefer_pdc) && (record->origin != ORIGIN_SITE || settings->site != NULL);
}

enum status discovery_new(struct directory *directory, struct discovery **ret_discovery)
{
	const struct directory_settings *settings = directory->settings;
	struct discovery *discovery = calloc(1, sizeof *discovery);
	if (discovery == NULL || (discovery->timer = evtimer_new(directory->base, on_timer, discovery)) == NULL) {
		free(discovery);
		return STATUS_AGENT_INTERNAL;
	}
	discovery->directory = directory;
	for (size_t i = 0; i < sizeof RECORDS / sizeof RECORDS[0]; i++) {
		const struct record *record = &RECORDS[i];
		if (is_wanted(settings, record)) {
			struct lookup *lookup = &discovery->lookups[discovery->count++];
			*lookup = (struct lookup){ .discovery = discovery, .origin = record->origin };
			snprintf(lookup->name, sizeof lookup->name, "%s%s%s%s", record->prefix, record->after_site != NULL ? settings->site : "", record->after_site != NULL ? record->after_site : "",
			         settings->discover);
		}
	}
	begin_round(discovery);
	*ret_discovery = discovery;
	return STATUS_OK;
}

void discovery_free(struct discovery *discovery)
{
	if (discovery == NULL) {
		return;
	}
	for (unsigned i = 0; i < discovery->count; i++) {
		resolve_free(discovery->lookups[i].resolve);
	}
	event_free(discovery->timer);
	free(discovery);
}

void discovery_refresh(struct discovery *discovery)
{
	if (discovery->running == 0 && clock_monotonic_us() - discovery->started_us > AGAIN_US) {
		begin_round(discovery);
	}
}

bool discovery_is_running(const struct discovery *discovery)
{
	return discovery->running > 0;
}

bool discovery_is_first(const struct discovery *discovery)
{
	return !discovery->ended_once;
}

void discovery_each(const struct discovery *discovery, void (*visit)(const char *text, bool good, void *arg), void *arg)
{
	for (unsigned i = 0; i < discovery->count; i++) {
		const struct lookup *lookup = &discovery->lookups[i];
		char text[720];
		snprintf(text, sizeof text, "%s: %s", lookup->name, lookup->text);
		visit(text, lookup->good || (lookup->answered && names_any(discovery)), arg);
	}
}

void discovery_describe(const struct discovery *discovery, char *text, size_t capacity)
{
	const struct lookup *last = &discovery->lookups[discovery->count - 1];
	if (discovery_is_first(discovery)) {
		snprintf(text, capacity, "DNS is asked for %s", last->name);
	} else {
		snprintf(text, capacity, "DNS names no server: %s: %s", last->name, last->text);
	}
}
