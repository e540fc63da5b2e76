#include "agent/realm.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"

#define RESOLVE_S 600
#define RESOLVE_SOON_S 5
#define RESOLVE_LATER_S 60
#define SOON_TRIES 12
#define LOOKUP_MS 5000

/* What the directory says of one name of the configuration. */
struct found {
	struct sid sid;                /* size 0: unknown, or the object has none */
	enum status status;            /* of the last answer; what was lost on the way is none */
	bool asked;
};
struct name_list {
	struct realm *realm;
	unsigned which;
	const struct config_strings *names;
	struct found *found;           /* by index of the name */
	struct sid *known;             /* the resolved ones, packed, for struct scope */
};
/* Bases are any objects; from LIST_GROUPS on they have SIDs. */
enum { LIST_BASE_DN, LIST_BASES, LIST_EXCLUDED_BASES, LIST_GROUPS, LIST_EXCLUDED, LIST_PROTECTED, LIST_EXEMPT, LISTS };

static const struct {
	const char *key, *consequence;
	bool decides;                  /* who is in scope cannot be said before it was looked up */
	bool refuses_all;              /* while one of them is not there */
} lists[LISTS] = {
	[LIST_BASE_DN] = { "base_dn", "nobody is found in it by name", false },
	[LIST_BASES] = { "scope.bases", "it selects nobody", false },
	[LIST_EXCLUDED_BASES] = { "scope.exclude_bases", "everybody is refused, since nobody knows whom it was to exclude", true, true },
	[LIST_GROUPS] = { "scope.groups", "it selects nobody", true },
	[LIST_EXCLUDED] = { "scope.exclude_groups", "everybody is refused, since nobody knows whom it was to exclude", true, true },
	[LIST_PROTECTED] = { "scope.protect", "everybody is refused, since nobody knows whom it was to protect", true, true },
	[LIST_EXEMPT] = { "scope.exempt_administrators", "it exempts nobody", true },
};

/* Whom the configuration names, and what was found out about it. */
struct names {
	const struct settings_directory *from;
	const char **bases, **exclude_bases;
	struct name_list lists[LISTS];
};

/* One name on its way to the directory. */
struct lookup {
	struct name_list *list;
	size_t index;
	unsigned generation;
};

struct waiter {
	struct waiter *next;
	void (*done)(void *arg);
	void *arg;
};

struct realm {
	struct realms *realms;
	const struct settings_directory *settings;   /* of the connection: as at the start */
	struct directory_settings directory_settings;
	const char **servers, **domains;
	struct directory *directory;
	char *base_dn;
	struct config_strings base_dn_list;          /* none or one */
	struct names names;                          /* as last loaded */
	unsigned generation, looking, tries;
	struct waiter *waiters;
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
enum locate_by realm_identity(const struct realm *realm) { return realm->settings->flavor == DIRECTORY_LDAP ? LOCATE_ENTRY_UUID : LOCATE_OBJECT_GUID; }
struct directory *realm_directory(const struct realm *realm) { return realm->directory; }
const struct settings_directory *realm_settings(const struct realm *realm) { return realm->settings; }

static const char **terminated(const struct config_strings *strings)
{
	const char **items = calloc(strings->count + 1, sizeof *items);
	for (size_t i = 0; items && i < strings->count; i++)
		items[i] = strings->items[i];
	return items;
}

/* Names ----------------------------------------------------------------------------------------------------------------------------- */

static bool is_sid_text(const char *name)
{
	return strncasecmp(name, "S-1-", 4) == 0;
}

/* An exemption is for protected groups; what else stands there is a mistake that exempts nobody. */
static bool is_misplaced(const struct name_list *list, size_t index)
{
	const struct sid *sid = &list->found[index].sid;
	return list->which == LIST_EXEMPT && sid->size > 0 && !scope_is_exemptible(sid);
}

static bool is_there(const struct name_list *list, size_t index)
{
	return list->found[index].asked && list->found[index].status == STATUS_OK;
}

/* A SID that belongs to another domain is no object of this one, and still may stand in a user's groups. */
static bool is_foreign(const struct name_list *list, size_t index)
{
	struct sid domain;
	return is_sid_text(list->names->items[index])
	       && (!directory_domain_sid(list->realm->directory, &domain) || !sid_in_domain(&list->found[index].sid, &domain));
}

/* What is not there is not known either, by whichever name: a SID may be mistyped like a DN, and a deleted group protects nobody any more. */
static size_t pack(struct name_list *list)
{
	size_t count = 0;
	for (size_t i = 0; i < list->names->count; i++)
		if (list->found[i].sid.size > 0 && (!list->found[i].asked || is_there(list, i) || is_foreign(list, i)))
			list->known[count++] = list->found[i].sid;
	return count;
}

static size_t count_there(const struct name_list *list)
{
	size_t count = 0;
	for (size_t i = 0; i < list->names->count; i++)
		count += is_there(list, i);
	return count;
}

static void describe_name(const struct name_list *list, size_t index, struct realm_name *ret_name)
{
	const struct found *found = &list->found[index];
	const char *name = list->names->items[index];
	char sid[SID_TEXT_MAX] = "";
	bool foreign = is_foreign(list, index);
	*ret_name = (struct realm_name){ .key = lists[list->which].key, .name = name, .good = (is_there(list, index) || foreign) && !is_misplaced(list, index), .asked = found->asked, .sid = found->sid };
	if (found->sid.size && !is_sid_text(name))
		sid_format(&found->sid, sid);
	if (is_misplaced(list, index))
		snprintf(ret_name->text, sizeof ret_name->text, "\"%.300s\" is no protected group that may be exempted: %s", name, lists[list->which].consequence);
	else if (is_there(list, index))
		snprintf(ret_name->text, sizeof ret_name->text, "\"%.300s\" is there%s%s", name, *sid ? ": " : "", sid);
	else if (foreign)
		snprintf(ret_name->text, sizeof ret_name->text, "%.200s is not of this domain: taken as it is written", name);
	else if (!found->asked)
		snprintf(ret_name->text, sizeof ret_name->text, "\"%.300s\" could not be looked up yet", name);
	else
		snprintf(ret_name->text, sizeof ret_name->text, "\"%.300s\" %s: %s", name,
		         found->status == STATUS_USER_NOT_FOUND ? "does not exist in the directory, or the agent may not see it" : status_code(found->status), lists[list->which].consequence);
}

void realm_each_name(const struct realm *realm, void (*visit)(const struct realm_name *name, void *arg), void *arg)
{
	struct realm_name name;
	for (unsigned l = 0; l < LISTS; l++)
		for (size_t i = 0; i < realm->names.lists[l].names->count; i++) {
			describe_name(&realm->names.lists[l], i, &name);
			visit(&name, arg);
		}
}

static bool find_name(const struct realm *realm, bool (*is)(const struct realm_name *name), struct realm_name *ret_name)
{
	for (unsigned l = 0; l < LISTS; l++)
		for (size_t i = 0; i < realm->names.lists[l].names->count; i++) {
			describe_name(&realm->names.lists[l], i, ret_name);
			if (is(ret_name))
				return true;
		}
	return false;
}

static bool is_missing(const struct realm_name *name) { return name->asked && !name->good; }
static bool is_not_good(const struct realm_name *name) { return !name->good; }

bool realm_names_good(const struct realm *realm, char *why, size_t capacity)
{
	struct realm_name name;
	if (!find_name(realm, is_missing, &name) && !find_name(realm, is_not_good, &name))
		return true;
	snprintf(why, capacity, "%s %s", name.key, name.text);
	return false;
}

bool realm_scope_known(const struct realm *realm)
{
	for (unsigned l = 0; l < LISTS; l++)
		for (size_t i = 0; lists[l].decides && i < realm->names.lists[l].names->count; i++)
			if (!realm->names.lists[l].found[i].asked && !is_sid_text(realm->names.lists[l].names->items[i]))
				return false;
	return true;
}

/* What says nothing about the name: the answer before it stands. */
static bool is_an_answer(enum status status)
{
	return status == STATUS_OK || status == STATUS_USER_NOT_FOUND || status == STATUS_DIRECTORY_DENIED || status == STATUS_DIRECTORY_PROTOCOL;
}

/* Without a server that is up, what came is why none is: it says nothing about the name. */
static bool is_up(const struct realm *realm)
{
	struct directory_health health;
	directory_health(realm->directory, &health);
	return health.servers_up > 0;
}

/* Once per change. */
static void log_name(const struct name_list *list, size_t index, bool was_good)
{
	struct realm_name name;
	describe_name(list, index, &name);
	int bad = lists[list->which].refuses_all ? LOG_ERR : LOG_WARNING;
	if (name.good != was_good)
		log_event(name.good ? LOG_NOTICE : bad, name.good ? "scope.resolved" : "scope.unresolved", LOG_FIELDS({ LOG_CODE, status_code(list->found[index].status) }), "directory %s: %s %s",
		          realm_name(list->realm), name.key, name.text);
}

static void tell_waiters(struct realm *realm)
{
	while (realm->waiters) {
		struct waiter *waiter = realm->waiters;
		realm->waiters = waiter->next;
		waiter->done(waiter->arg);
		free(waiter);
	}
}

static void end_looking(struct realm *realm)
{
	bool all = true;
	for (unsigned l = 0; l < LISTS; l++)
		all = all && count_there(&realm->names.lists[l]) == realm->names.lists[l].names->count;
	realm->tries = all ? 0 : realm->tries + 1;
	event_add(realm->resolving, &(struct timeval){ all ? RESOLVE_S : realm->tries <= SOON_TRIES ? RESOLVE_SOON_S : RESOLVE_LATER_S, 0 });
	tell_waiters(realm);
	if (realm->realms->health_changed)
		realm->realms->health_changed(realm->realms->health_arg);
}

static void take_answer(struct name_list *list, size_t index, enum status status, const struct sid *sid)
{
	struct found *found = &list->found[index];
	bool was_good = !found->asked || (found->status == STATUS_OK && !is_misplaced(list, index));
	if (status == STATUS_OK && list->which >= LIST_GROUPS && sid->size == 0)
		status = STATUS_USER_NOT_FOUND; /* there, and neither a group nor an account */
	if (!is_an_answer(status) || (status != STATUS_OK && !is_up(list->realm)))
		return;
	if (status == STATUS_OK && sid->size > 0)
		found->sid = *sid;
	found->status = status;
	found->asked = true;
	log_name(list, index, was_good);
}

static void handle_name(enum status status, const struct sid *sid, const struct directory_answer *answer, void *arg)
{
	struct lookup *lookup = arg;
	struct realm *realm = lookup->list->realm;
	if (lookup->generation == realm->generation) {
		take_answer(lookup->list, lookup->index, status, sid);
		if (--realm->looking == 0)
			end_looking(realm);
	}
	free(lookup);
}

static void look_up(struct name_list *list, size_t index)
{
	const char *name = list->names->items[index];
	char by_sid[SID_TEXT_MAX + 8];
	struct lookup *lookup = malloc(sizeof *lookup);
	struct directory_call *call;
	if (!lookup)
		return;
	*lookup = (struct lookup){ list, index, list->realm->generation };
	snprintf(by_sid, sizeof by_sid, "<SID=%.190s>", name); /* MS-ADTS 3.1.1.3.1.2.4 */
	enum status status = list->which >= LIST_GROUPS ? directory_lookup_sid(list->realm->directory, is_sid_text(name) ? by_sid : name, LOOKUP_MS, handle_name, lookup, &call)
	                                                : directory_exists(list->realm->directory, name, LOOKUP_MS, handle_name, lookup, &call);
	if (status == STATUS_OK)
		list->realm->looking++;
	else
		free(lookup);
}

static void resolve(evutil_socket_t fd, short what, void *arg)
{
	struct realm *realm = arg;
	if (realm->looking > 0)
		return; /* its end plans the next */
	for (unsigned l = 0; l < LISTS; l++)
		for (size_t i = 0; i < realm->names.lists[l].names->count; i++)
			look_up(&realm->names.lists[l], i);
	if (realm->looking == 0)
		end_looking(realm);
}

bool realm_refresh(struct realm *realm, void (*done)(void *arg), void *arg)
{
	struct waiter *waiter = malloc(sizeof *waiter);
	if (!waiter)
		return false;
	*waiter = (struct waiter){ realm->waiters, done, arg };
	realm->waiters = waiter;
	event_active(realm->resolving, EV_TIMEOUT, 0);
	return true;
}

/* Scope ----------------------------------------------------------------------------------------------------------------------------- */

/* What was found out about a name stands until it is looked up again: a reload refuses nobody in the meantime. */
static void carry_over(struct name_list *list, const struct name_list *before)
{
	for (size_t i = 0; i < list->names->count; i++)
		for (size_t k = 0; k < before->names->count; k++)
			if (strcmp(list->names->items[i], before->names->items[k]) == 0)
				list->found[i] = before->found[k];
}

static bool fill_list(struct realm *realm, unsigned which, const struct config_strings *names, struct name_list *ret_list)
{
	*ret_list = (struct name_list){ realm, which, names, calloc(names->count + 1, sizeof(struct found)), calloc(names->count + 1, sizeof(struct sid)) };
	for (size_t i = 0; ret_list->found && i < names->count; i++)
		if (is_sid_text(names->items[i]) && sid_parse(names->items[i], &ret_list->found[i].sid) != STATUS_OK)
			ret_list->found[i].sid.size = 0;
	if (ret_list->found && realm->names.from) /* not at the start */
		carry_over(ret_list, &realm->names.lists[which]);
	return ret_list->found && ret_list->known;
}

static void names_clear(struct names *names)
{
	for (unsigned l = 0; l < LISTS; l++) {
		free(names->lists[l].found);
		free(names->lists[l].known);
	}
	free(names->bases);
	free(names->exclude_bases);
}

/* False: out of memory; what there is of it is cleared all the same. */
static bool names_make(struct realm *realm, const struct settings_directory *from, struct names *ret_names)
{
	const struct config_strings *written[LISTS] = {
		[LIST_BASE_DN] = &realm->base_dn_list, [LIST_BASES] = &from->bases, [LIST_EXCLUDED_BASES] = &from->exclude_bases, [LIST_GROUPS] = &from->groups,
		[LIST_EXCLUDED] = &from->exclude_groups, [LIST_PROTECTED] = &from->protect, [LIST_EXEMPT] = &from->exempt_administrators,
	};
	*ret_names = (struct names){ .bases = terminated(&from->bases), .exclude_bases = terminated(&from->exclude_bases) };
	bool good = ret_names->bases && ret_names->exclude_bases;
	for (unsigned l = 0; l < LISTS; l++)
		good &= fill_list(realm, l, written[l], &ret_names->lists[l]);
	ret_names->from = from;
	return good;
}

void realm_describe_exemptions(const struct realm *realm, char *text, size_t capacity)
{
	const struct name_list *list = &realm->names.lists[LIST_EXEMPT];
	size_t used = 0;
	text[0] = 0;
	for (size_t i = 0; i < list->names->count && used < capacity; i++) {
		const char *known = list->found[i].sid.size ? scope_protected_group(&list->found[i].sid) : NULL;
		bool by_sid = known && is_sid_text(list->names->items[i]);
		used += snprintf(text + used, capacity - used, "%s%s%s%s%s", i ? "; " : "", list->names->items[i], by_sid ? " (" : "", by_sid ? known : "", by_sid ? ")" : "");
	}
}

/* Whoever runs the agent is told at each start and reload that it may reset administrators. */
static void warn_of_exemptions(const struct realm *realm)
{
	char text[2048];
	realm_describe_exemptions(realm, text, sizeof text);
	if (text[0])
		log_event(LOG_WARNING, "scope.exempts_administrators", LOG_FIELDS({ "directory", realm_name(realm) }),
		          "directory %s: ADMINISTRATORS MAY BE RESET: members of %s (scope.exempt_administrators)", realm_name(realm), text);
}

static void take_names(struct realm *realm, const struct names *take_names)
{
	names_clear(&realm->names);
	realm->names = *take_names;
	realm->generation++;
	realm->looking = realm->tries = 0;
	warn_of_exemptions(realm);
}

const struct scope *realm_scope(struct realm *realm)
{
	struct name_list *groups = &realm->names.lists[LIST_GROUPS], *excluded = &realm->names.lists[LIST_EXCLUDED], *protected = &realm->names.lists[LIST_PROTECTED], *exempt = &realm->names.lists[LIST_EXEMPT];
	realm->scope = (struct scope){
		.users = realm->names.from->scope_users, .bases = realm->names.bases, .exclude_bases = realm->names.exclude_bases, .exclude_bases_resolved = count_there(&realm->names.lists[LIST_EXCLUDED_BASES]),
		.groups = groups->known, .group_count = pack(groups), .groups_configured = groups->names->count,
		.exclude_groups = excluded->known, .exclude_group_count = pack(excluded), .exclude_groups_configured = excluded->names->count,
		.protect_groups = protected->known, .protect_group_count = pack(protected), .protect_groups_configured = protected->names->count,
		.exempt_groups = exempt->known, .exempt_group_count = pack(exempt), .allow = settings_allow(realm->names.from),
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
		.name = from->name, .kind = from->flavor, .servers = realm->servers, .discover = from->discover_domain, .site = from->discover_site,
		.prefer_pdc = from->prefer == PREFER_PDC, .base_dn = from->base_dn, .login_attribute = from->login_attribute,
		.default_policy = from->default_policy, .ca_file = from->ca_file, .crl_file = from->crl_file,
		.bind_mechanism = from->bind_mechanism, .bind_dn = from->bind_dn, .bind_password_file = from->bind_password_file, .bind_principal = from->bind_principal,
		.bind_keytab_file = from->bind_keytab, .bind_certificate_file = from->bind_certificate, .bind_key_file = from->bind_key, .domains = realm->domains, .policy_hints = from->policy_hints,
		.connections = from->connections, .pipeline = from->pipeline, .queue_limit = from->queue, .connect_timeout_ms = from->connect_timeout_ms,
		.locate_timeout_ms = from->locate_timeout_ms, .write_timeout_ms = from->write_timeout_ms, .policy_cache_ms = from->policy_cache_ms, .idle_probe_ms = from->idle_probe_ms,
	};
	realm->resolving = event_new(base, -1, 0, resolve, realm);
	realm->base_dn = from->base_dn;
	realm->base_dn_list = (struct config_strings){ &realm->base_dn, realm->base_dn != NULL };
	if (!realm->servers || !realm->domains || !realm->resolving || !names_make(realm, from, &realm->names))
		return STATUS_AGENT_INTERNAL;
	warn_of_exemptions(realm);
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
		tell_waiters(realm);
	if (realm->directory)
		directory_free(realm->directory);
	names_clear(&realm->names);
	free(realm->servers);
	free(realm->domains);
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

static bool are_the_same(const struct realms *realms, const struct settings *settings)
{
	bool same = settings_directory_count(settings) == realms->count;
	for (size_t i = 0; same && i < realms->count; i++)
		same = strcmp(settings_directory_at(settings, i)->name, realm_name(&realms->items[i])) == 0;
	return same;
}

enum status realms_rescope(struct realms *realms, const struct settings *settings)
{
	if (!are_the_same(realms, settings))
		return STATUS_LOCAL_CONFIG;
	struct names *fresh = calloc(realms->count, sizeof *fresh);
	size_t made = 0;
	bool good = fresh != NULL;
	while (good && made < realms->count) {
		good = names_make(&realms->items[made], settings_directory_at(settings, made), &fresh[made]);
		made++;
	}
	for (size_t i = 0; i < made; i++)
		if (good) {
			take_names(&realms->items[i], &fresh[i]);
			event_active(realms->items[i].resolving, EV_TIMEOUT, 0);
		} else
			names_clear(&fresh[i]);
	free(fresh);
	return good ? STATUS_OK : STATUS_AGENT_INTERNAL;
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

/* The configuration's word counts before what the directories say of themselves, and that before a directory that takes everybody. A directory that is down and was never asked
 * disturbs nobody whom another one claims. */
static enum status choose_by_domain(const struct realms *realms, const char *domain, struct realm **ret_realm)
{
	enum directory_claim best = CLAIM_NONE;
	size_t claiming = 0;
	bool unasked = false;
	for (size_t i = 0; i < realms->count; i++) {
		enum directory_claim claim = directory_claims(realms->items[i].directory, domain);
		unasked |= claim == CLAIM_UNKNOWN;
		claim = claim == CLAIM_UNKNOWN ? CLAIM_OPEN : claim;
		claiming = claim > best ? 1 : claiming + (claim == best);
		if (claim > best)
			*ret_realm = &realms->items[i];
		best = claim > best ? claim : best;
	}
	if (best == CLAIM_NONE || claiming == 1)
		return *ret_realm ? STATUS_OK : STATUS_USER_NOT_FOUND;
	*ret_realm = NULL;
	return best > CLAIM_OPEN ? STATUS_USER_AMBIGUOUS : unasked ? STATUS_DIRECTORY_UNAVAILABLE : STATUS_USER_NOT_FOUND;
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
	if (!domain || realms->count == 1) {
		bool one = realms->count == 1 && (!domain || directory_serves(realms->items[0].directory, domain));
		*ret_realm = one ? &realms->items[0] : NULL;
		return one ? STATUS_OK : realms->count == 1 ? STATUS_USER_NOT_FOUND : STATUS_USER_AMBIGUOUS;
	}
	return choose_by_domain(realms, domain, ret_realm);
}
