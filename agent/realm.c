#include "agent/realm.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"

#define RESOLVE_S 600
#define RESOLVE_SOON_S 5
#define LOOKUP_MS 5000
#define MAX_GROUPS 64

/* Names of groups, as SIDs where they are known. */
struct group_list {
	struct realm *realm;
	const struct config_strings *names;
	struct sid *found;             /* by index of the name; size 0: not resolved */
	struct sid *known;             /* the resolved ones, packed, for struct scope */
};
enum { LIST_GROUPS, LIST_EXCLUDED, LIST_PROTECTED, LISTS };

/* One DN on its way to a SID. */
struct lookup {
	struct group_list *list;
	size_t index;
	unsigned generation;
};

struct realm {
	struct realms *realms;
	const struct settings_directory *settings;   /* of the connection: as at the start */
	const struct settings_directory *scope_from; /* of the scope: as last loaded */
	struct directory_settings directory_settings;
	const char **servers, **domains, **bases, **exclude_bases;
	struct directory *directory;
	struct group_list lists[LISTS];
	unsigned generation;
	struct scope scope;
	struct event *resolving;
	unsigned servers_up;
};

struct realms {
	size_t count;
	struct realm *items;
	void (*health_changed)(void *arg);
	void *health_arg;
};

size_t realms_count(const struct realms *realms) { return realms->count; }
struct realm *realms_at(const struct realms *realms, size_t index) { return &realms->items[index]; }
const char *realm_name(const struct realm *realm) { return realm->settings->name; }
struct directory *realm_directory(const struct realm *realm) { return realm->directory; }
const struct settings_directory *realm_settings(const struct realm *realm) { return realm->settings; }

static const char **terminated(const struct config_strings *strings)
{
	const char **items = calloc(strings->count + 1, sizeof *items);
	for (size_t i = 0; items && i < strings->count; i++)
		items[i] = strings->items[i];
	return items;
}

/* Groups ---------------------------------------------------------------------------------------------------------------------------- */

static bool has_sid(const struct group_list *list, size_t index)
{
	return list->found[index].size > 0;
}

static size_t pack(struct group_list *list)
{
	size_t count = 0;
	for (size_t i = 0; i < list->names->count; i++)
		if (has_sid(list, i))
			list->known[count++] = list->found[i];
	return count;
}

static void handle_sid(enum status status, const struct sid *sid, const struct directory_answer *answer, void *arg)
{
	struct lookup *lookup = arg;
	struct group_list *list = lookup->list;
	if (lookup->generation == list->realm->generation) {
		if (status == STATUS_OK)
			list->found[lookup->index] = *sid;
		else
			log_event(LOG_WARNING, "scope.unresolved", LOG_FIELDS({ LOG_CODE, status_code(status) }), "group \"%s\" of directory %s cannot be resolved: it matches nobody, and where it excludes or protects, everybody",
			          list->names->items[lookup->index], realm_name(list->realm));
	}
	free(lookup);
}

static void look_up(struct group_list *list, size_t index)
{
	struct lookup *lookup = malloc(sizeof *lookup);
	struct directory_call *call;
	if (!lookup)
		return;
	*lookup = (struct lookup){ list, index, list->realm->generation };
	if (directory_lookup_sid(list->realm->directory, list->names->items[index], LOOKUP_MS, handle_sid, lookup, &call) != STATUS_OK)
		free(lookup);
}

static bool is_sid_text(const char *name)
{
	return strncasecmp(name, "S-1-", 4) == 0;
}

static void resolve(evutil_socket_t fd, short what, void *arg)
{
	struct realm *realm = arg;
	bool all = true;
	for (unsigned l = 0; l < LISTS; l++)
		for (size_t i = 0; i < realm->lists[l].names->count; i++)
			if (!is_sid_text(realm->lists[l].names->items[i])) {
				all = all && has_sid(&realm->lists[l], i);
				look_up(&realm->lists[l], i);
			}
	event_add(realm->resolving, &(struct timeval){ all ? RESOLVE_S : RESOLVE_SOON_S, 0 });
}

static bool set_list(struct group_list *list, struct realm *realm, const struct config_strings *names)
{
	free(list->found);
	free(list->known);
	*list = (struct group_list){ realm, names, calloc(names->count + 1, sizeof(struct sid)), calloc(names->count + 1, sizeof(struct sid)) };
	for (size_t i = 0; list->found && i < names->count; i++)
		if (is_sid_text(names->items[i]) && sid_parse(names->items[i], &list->found[i]) != STATUS_OK)
			list->found[i].size = 0;
	return list->found && list->known;
}

static bool set_scope(struct realm *realm, const struct settings_directory *from)
{
	realm->generation++;
	realm->scope_from = from;
	free(realm->bases);
	free(realm->exclude_bases);
	realm->bases = terminated(&from->bases);
	realm->exclude_bases = terminated(&from->exclude_bases);
	bool good = realm->bases && realm->exclude_bases;
	good &= set_list(&realm->lists[LIST_GROUPS], realm, &from->groups);
	good &= set_list(&realm->lists[LIST_EXCLUDED], realm, &from->exclude_groups);
	good &= set_list(&realm->lists[LIST_PROTECTED], realm, &from->protect);
	return good;
}

const struct scope *realm_scope(struct realm *realm)
{
	struct group_list *lists = realm->lists;
	realm->scope = (struct scope){
		.users = realm->scope_from->scope_users, .bases = realm->bases, .exclude_bases = realm->exclude_bases,
		.groups = lists[LIST_GROUPS].known, .group_count = pack(&lists[LIST_GROUPS]), .groups_configured = lists[LIST_GROUPS].names->count,
		.exclude_groups = lists[LIST_EXCLUDED].known, .exclude_group_count = pack(&lists[LIST_EXCLUDED]), .exclude_groups_configured = lists[LIST_EXCLUDED].names->count,
		.protect_groups = lists[LIST_PROTECTED].known, .protect_group_count = pack(&lists[LIST_PROTECTED]), .protect_groups_configured = lists[LIST_PROTECTED].names->count,
	};
	if (!directory_domain_sid(realm->directory, &realm->scope.domain))
		realm->scope.domain.size = 0;
	return &realm->scope;
}

/* Directories ----------------------------------------------------------------------------------------------------------------------- */

static void handle_health(struct directory *directory, void *arg)
{
	struct realm *realm = arg;
	struct directory_health health;
	if (!realm->resolving) /* closing */
		return;
	directory_health(directory, &health);
	if ((health.servers_up > 0) != (realm->servers_up > 0)) {
		log_event(health.servers_up ? LOG_NOTICE : LOG_ERR, health.servers_up ? "directory.ready" : "directory.unready",
		          LOG_FIELDS({ LOG_CODE, health.servers_up ? NULL : status_code(health.status) }), "directory %s: %s", realm_name(realm), health.text);
		/* Groups that could not be had while no server was there. */
		event_active(realm->resolving, EV_TIMEOUT, 0);
	}
	realm->servers_up = health.servers_up;
	if (realm->realms->health_changed)
		realm->realms->health_changed(realm->realms->health_arg);
}

static enum status open_realm(struct event_base *base, struct realm *realm, const struct settings_directory *from, char **ret_why)
{
	realm->settings = from;
	realm->servers = terminated(&from->servers);
	realm->domains = terminated(&from->domains);
	realm->directory_settings = (struct directory_settings){
		.name = from->name, .kind = from->flavor, .servers = realm->servers, .base_dn = from->base_dn, .ca_file = from->ca_file, .crl_file = from->crl_file,
		.bind_dn = from->bind_dn, .bind_password_file = from->bind_password_file, .domains = realm->domains, .policy_hints = from->policy_hints,
		.connections = from->connections, .pipeline = from->pipeline, .queue_limit = from->queue, .connect_timeout_ms = from->connect_timeout_ms,
		.locate_timeout_ms = from->locate_timeout_ms, .write_timeout_ms = from->write_timeout_ms, .policy_cache_ms = from->policy_cache_ms, .idle_probe_ms = from->idle_probe_ms,
	};
	realm->resolving = event_new(base, -1, 0, resolve, realm);
	if (!realm->servers || !realm->domains || !realm->resolving || !set_scope(realm, from))
		return STATUS_AGENT_INTERNAL;
	enum status status = directory_new(base, &realm->directory_settings, &realm->directory, ret_why);
	if (status == STATUS_OK) {
		directory_on_health(realm->directory, handle_health, realm);
		event_active(realm->resolving, EV_TIMEOUT, 0);
	}
	return status;
}

static void close_realm(struct realm *realm)
{
	if (realm->resolving)
		event_free(realm->resolving);
	realm->resolving = NULL;
	realm->generation++;
	if (realm->directory)
		directory_free(realm->directory);
	for (unsigned l = 0; l < LISTS; l++) {
		free(realm->lists[l].found);
		free(realm->lists[l].known);
	}
	free(realm->servers);
	free(realm->domains);
	free(realm->bases);
	free(realm->exclude_bases);
}

enum status realms_new(struct event_base *base, const struct settings *settings, struct realms **ret_realms, char **ret_why)
{
	struct realms *realms = calloc(1, sizeof *realms);
	size_t count = settings_directory_count(settings);
	if (realms)
		realms->items = calloc(count, sizeof *realms->items);
	enum status status = realms && realms->items ? STATUS_OK : STATUS_AGENT_INTERNAL;
	for (size_t i = 0; status == STATUS_OK && i < count; i++) {
		realms->count = i + 1;
		realms->items[i].realms = realms;
		status = open_realm(base, &realms->items[i], settings_directory_at(settings, i), ret_why);
	}
	if (status == STATUS_OK)
		*ret_realms = realms;
	else
		realms_free(realms);
	return status;
}

void realms_free(struct realms *realms)
{
	if (!realms)
		return;
	realms->health_changed = NULL;
	for (size_t i = 0; i < realms->count; i++)
		close_realm(&realms->items[i]);
	free(realms->items);
	free(realms);
}

bool realms_rescope(struct realms *realms, const struct settings *settings)
{
	bool same = settings_directory_count(settings) == realms->count;
	for (size_t i = 0; same && i < realms->count; i++)
		same = strcmp(settings_directory_at(settings, i)->name, realm_name(&realms->items[i])) == 0;
	for (size_t i = 0; same && i < realms->count; i++) {
		if (!set_scope(&realms->items[i], settings_directory_at(settings, i)))
			return false;
		event_active(realms->items[i].resolving, EV_TIMEOUT, 0);
	}
	return same;
}

void realms_on_health(struct realms *realms, void (*changed)(void *arg), void *arg)
{
	realms->health_changed = changed;
	realms->health_arg = arg;
}

/* Choosing -------------------------------------------------------------------------------------------------------------------------- */

struct realm *realms_find(const struct realms *realms, const char *name)
{
	for (size_t i = 0; i < realms->count; i++)
		if (strcmp(realm_name(&realms->items[i]), name) == 0)
			return &realms->items[i];
	return NULL;
}

enum status realms_choose(const struct realms *realms, const char *name, const char *domain, struct realm **ret_realm)
{
	*ret_realm = NULL;
	if (name) {
		struct realm *realm = realms_find(realms, name);
		/* The name chooses among those that serve the domain, never one that does not: the secret names the user by the domain, and not by the directory. */
		if (!realm || (domain && !directory_serves(realm->directory, domain)))
			return STATUS_USER_NOT_FOUND;
		*ret_realm = realm;
		return STATUS_OK;
	}
	for (size_t i = 0; i < realms->count; i++)
		if (!domain || directory_serves(realms->items[i].directory, domain)) {
			if (*ret_realm)
				return STATUS_USER_AMBIGUOUS;
			*ret_realm = &realms->items[i];
		}
	return *ret_realm ? STATUS_OK : STATUS_USER_NOT_FOUND;
}
