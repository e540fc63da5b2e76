#include "forest.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "identity.h"

const struct class_row class_rows[CLASS_COUNT] = {
	[CLASS_CONTAINER] = { "Container", "container", { "top", "container" } },
	[CLASS_DOMAIN] = { "Domain-DNS", "domainDNS", { "top", "domain", "domainDNS" } },
	[CLASS_UNIT] = { "Organizational-Unit", "organizationalUnit", { "top", "organizationalUnit" } },
	[CLASS_USER] = { "Person", "person", { "top", "person", "organizationalPerson", "user" } },
	[CLASS_COMPUTER] = { "Computer", "computer", { "top", "person", "organizationalPerson", "user", "computer" } },
	[CLASS_GMSA] = { "ms-DS-Group-Managed-Service-Account", "msDS-GroupManagedServiceAccount",
		{ "top", "person", "organizationalPerson", "user", "computer", "msDS-GroupManagedServiceAccount" } },
	[CLASS_GROUP] = { "Group", "group", { "top", "group" } },
	[CLASS_PSO] = { "ms-DS-Password-Settings", "msDS-PasswordSettings", { "top", "msDS-PasswordSettings" } },
	[CLASS_PSO_CONTAINER] = { "ms-DS-Password-Settings-Container", "msDS-PasswordSettingsContainer", { "top", "msDS-PasswordSettingsContainer" } },
	[CLASS_BUILTIN] = { "Builtin-Domain", "builtinDomain", { "top", "builtinDomain" } },
	[CLASS_CONFIGURATION] = { "Configuration", "configuration", { "top", "configuration" } },
	[CLASS_SITES] = { "Sites-Container", "sitesContainer", { "top", "sitesContainer" } },
	[CLASS_SITE] = { "Site", "site", { "top", "site" } },
	[CLASS_SERVERS] = { "Servers-Container", "serversContainer", { "top", "serversContainer" } },
	[CLASS_SERVER] = { "Server", "server", { "top", "server" } },
	[CLASS_NTDS] = { "NTDS-DSA", "nTDSDSA", { "top", "applicationSettings", "nTDSDSA" } },
	[CLASS_PARTITIONS] = { "Cross-Ref-Container", "crossRefContainer", { "top", "crossRefContainer" } },
	[CLASS_CROSSREF] = { "Cross-Ref", "crossRef", { "top", "crossRef" } },
	[CLASS_SERVICE] = { "NTDS-Service", "nTDSService", { "top", "nTDSService" } },
	[CLASS_QUERY_POLICY] = { "Query-Policy", "queryPolicy", { "top", "queryPolicy" } },
};

int64_t forest_now(const struct forest *forest)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (now.tv_sec + SECONDS_1601_TO_1970) * TICKS_PER_SECOND + now.tv_nsec / 100 + forest->clock_offset;
}

static unsigned hash_text(const char *text)
{
	unsigned hash = 2166136261u;
	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * 16777619u;
	return hash % 1024;
}

/* The same name has the same GUID on every run. */
static void derive_guid(const char *folded, uint8_t guid[16])
{
	uint8_t digest[32];
	EVP_Digest(folded, strlen(folded), digest, NULL, EVP_sha256(), NULL);
	memcpy(guid, digest, 16);
	guid[7] = (uint8_t)(0x40 | (guid[7] & 0x0f)); /* little-endian third field: version 4 */
	guid[8] = (uint8_t)(0x80 | (guid[8] & 0x3f));
}

static void link_hash(struct forest *forest, struct object *object)
{
	unsigned slot = hash_text(object->folded);
	object->next_hash = forest->hash[slot];
	forest->hash[slot] = object;
}

static void unlink_hash(struct forest *forest, struct object *object)
{
	struct object **at = &forest->hash[hash_text(object->folded)];
	while (*at != object)
		at = &(*at)->next_hash;
	*at = object->next_hash;
}

static struct object *add(struct forest *forest, const char *dn, const char *rdn, enum class_kind class)
{
	char *folded = name_fold(&forest->arena, value_of(dn));
	if (!folded || forest_by_folded(forest, folded))
		return NULL;
	struct object *object = must_alloc(sizeof *object);
	object->dn = must_strdup(dn);
	object->folded = must_strdup(folded);
	object->rdn = must_strdup(rdn);
	object->class = class;
	object->when_created = object->when_changed = forest_now(forest);
	object->usn_created = object->usn_changed = ++forest->usn;
	derive_guid(folded, object->guid);
	link_hash(forest, object);
	if (forest->count == forest->capacity) {
		forest->capacity = forest->capacity ? forest->capacity * 2 : 256;
		forest->objects = must_grow(forest->objects, forest->capacity, sizeof(struct object *));
	}
	forest->objects[forest->count++] = object;
	return object;
}

struct object *forest_add_head(struct forest *forest, const char *dn, enum class_kind class)
{
	const char *value = strchr(dn, '=') + 1;
	char *rdn = strndup(value, strcspn(value, ","));
	struct object *object = add(forest, dn, rdn, class);
	free(rdn);
	return object;
}

struct object *forest_add(struct forest *forest, struct object *parent, const char *type, const char *value, enum class_kind class)
{
	char *dn = arena_printf(&forest->arena, "%s=%s,%s", type, name_escape(&forest->arena, value), parent->dn);
	struct object *object = add(forest, dn, value, class);
	if (object)
		object->configuration = parent->configuration;
	return object;
}

bool forest_move(struct forest *forest, struct arena *arena, struct object *account, const struct object *parent, const char *value)
{
	char *dn = arena_printf(arena, "CN=%s,%s", name_escape(arena, value), parent->dn), *folded = name_fold(arena, value_of(dn)), *rdn = must_strdup(value);
	if (!folded || forest_by_folded(forest, folded)) {
		free(rdn);
		return false;
	}
	unlink_hash(forest, account);
	free(account->dn);
	free(account->folded);
	free(account->rdn);
	account->dn = must_strdup(dn);
	account->folded = must_strdup(folded);
	account->rdn = rdn;
	link_hash(forest, account);
	account->when_changed = forest_now(forest);
	account->usn_changed = ++forest->usn;
	return true;
}

void forest_set_rid(struct forest *forest, struct object *object, uint32_t rid)
{
	memcpy(object->sid, forest->domain_sid, 24);
	object->sid[1] = 5;
	for (unsigned i = 0; i < 4; i++)
		object->sid[24 + i] = (uint8_t)(rid >> 8 * i);
	object->sid_size = 28;
	object->rid = rid;
	if (rid >= forest->next_rid)
		forest->next_rid = rid + 1;
}

struct account *forest_add_account(struct forest *forest, struct object *object, const char *sam)
{
	object->account = must_alloc(sizeof *object->account);
	object->account->sam = must_strdup(sam);
	object->account->control = object->class == CLASS_USER ? UAC_NORMAL : UAC_WORKSTATION;
	return object->account;
}

void object_store(struct object *object, const char *name, const void *data, size_t size)
{
	object->stored = must_grow(object->stored, object->stored_count + 1, sizeof *object->stored);
	struct stored *stored = &object->stored[object->stored_count++];
	*stored = (struct stored){ .name = must_strdup(name), .data = must_alloc(size + 1), .size = size };
	memcpy(stored->data, data, size);
}

void object_store_text(struct object *object, const char *name, const char *text)
{
	object_store(object, name, text, strlen(text));
}

void object_join(struct object *member, struct object *group)
{
	for (size_t i = 0; i < member->member_of_count; i++)
		if (member->member_of[i] == group)
			return;
	member->member_of = must_grow(member->member_of, member->member_of_count + 1, sizeof(struct object *));
	member->member_of[member->member_of_count++] = group;
}

void forest_free(struct forest *forest)
{
	if (!forest)
		return;
	for (size_t i = 0; i < forest->count; i++) {
		struct object *object = forest->objects[i];
		if (object->account) {
			free(object->account->sam);
			free(object->account->upn);
			free(object->account->display_name);
			free(object->account);
		}
		for (size_t j = 0; j < object->stored_count; j++) {
			free(object->stored[j].name);
			free(object->stored[j].data);
		}
		free(object->stored);
		free(object->policy);
		free(object->member_of);
		free(object->applies_to);
		free(object->readers);
		free(object->dn);
		free(object->folded);
		free(object->rdn);
		free(object);
	}
	for (size_t i = 0; i < forest->filter_count; i++)
		free(forest->filter_words[i]);
	for (size_t i = 0; i < CLASS_COUNT; i++)
		free(forest->categories[i]);
	free(forest->filter_words);
	free(forest->grants);
	free(forest->objects);
	free(forest->dns_name);
	free(forest->role_owner);
	free(forest->netbios);
	free(forest->host);
	free(forest->server_name);
	arena_free(&forest->arena);
	free(forest);
}

struct object *forest_by_folded(const struct forest *forest, const char *folded)
{
	for (struct object *object = forest->hash[hash_text(folded)]; object; object = object->next_hash)
		if (!strcmp(object->folded, folded))
			return object;
	return NULL;
}

static struct object *resolve_special(struct forest *forest, struct value name, bool *ret_bad)
{
	uint8_t octets[28];
	size_t size = 0;
	if (name.size > 7 && !strncasecmp(name.data, "<GUID=", 6) && name.data[name.size - 1] == '>') {
		if (guid_from_text((struct value){ name.data + 6, name.size - 7 }, octets))
			size = 16;
	} else if (name.size > 6 && !strncasecmp(name.data, "<SID=", 5) && name.data[name.size - 1] == '>') {
		struct value text = { name.data + 5, name.size - 6 };
		size = sid_from_text(text, octets);
		if (!size && text.size % 2 == 0 && text.size <= 56 && octets_from_hex(text.data, text.size / 2, octets))
			size = text.size / 2;
	}
	if (!size)
		*ret_bad = true;
	for (size_t i = 0; size && i < forest->count; i++) {
		struct object *object = forest->objects[i];
		if (size == 16 ? !memcmp(object->guid, octets, 16) : object->sid_size == size && !memcmp(object->sid, octets, size))
			return object;
	}
	return NULL;
}

struct object *forest_resolve(struct forest *forest, struct arena *arena, struct value name, bool *ret_bad)
{
	*ret_bad = false;
	if (name.size && name.data[0] == '<')
		return resolve_special(forest, name, ret_bad);
	char *folded = name_fold(arena, name);
	if (!folded) {
		*ret_bad = true;
		return NULL;
	}
	return forest_by_folded(forest, folded);
}

struct object *forest_by_sam(struct forest *forest, struct arena *arena, struct value sam)
{
	for (size_t i = 0; i < forest->count; i++) {
		struct account *account = forest->objects[i]->account;
		if (account && text_equal(arena, value_of(account->sam), sam))
			return forest->objects[i];
	}
	return NULL;
}

struct object *forest_by_logon(struct forest *forest, struct arena *arena, struct value name)
{
	const char *backslash = memchr(name.data, '\\', name.size), *at = memrchr(name.data, '@', name.size);
	bool bad;
	struct object *found = forest_resolve(forest, arena, name, &bad);
	if (found)
		return found;
	if (backslash && value_is((struct value){ name.data, (size_t)(backslash - name.data) }, forest->netbios))
		return forest_by_sam(forest, arena, (struct value){ backslash + 1, name.size - (size_t)(backslash + 1 - name.data) });
	if (!at)
		return NULL;
	unsigned hits = 0;
	for (size_t i = 0; i < forest->count; i++) {
		struct account *account = forest->objects[i]->account;
		if (account && account->upn && text_equal(arena, value_of(account->upn), name)) {
			found = forest->objects[i];
			hits++;
		}
	}
	if (hits)
		return hits == 1 ? found : NULL;
	struct value suffix = { at + 1, name.size - (size_t)(at + 1 - name.data) };
	if (!value_is(suffix, forest->dns_name) && !value_is(suffix, forest->netbios))
		return NULL;
	return forest_by_sam(forest, arena, (struct value){ name.data, (size_t)(at - name.data) });
}

struct object *forest_group(struct forest *forest, const char *name)
{
	for (size_t i = 0; i < forest->count; i++)
		if (forest->objects[i]->class == CLASS_GROUP && !strcasecmp(forest->objects[i]->rdn, name))
			return forest->objects[i];
	return NULL;
}

unsigned object_primary_rid(const struct object *object)
{
	if (!object->account)
		return 0;
	return object->account->control & UAC_SERVER ? 516 : object->class == CLASS_USER ? 513 : 515;
}

struct object *forest_primary_group(const struct forest *forest, const struct object *object)
{
	unsigned rid = object_primary_rid(object);
	for (size_t i = 0; rid && i < forest->count; i++)
		if (forest->objects[i]->rid == rid && forest->objects[i]->class == CLASS_GROUP)
			return forest->objects[i];
	return NULL;
}

static void mark_up(struct forest *forest, struct object *object)
{
	for (size_t i = 0; i < object->member_of_count; i++) {
		if (object->member_of[i]->mark != forest->mark) {
			object->member_of[i]->mark = forest->mark;
			mark_up(forest, object->member_of[i]);
		}
	}
}

void forest_mark_groups(struct forest *forest, struct object *object)
{
	forest->mark++;
	mark_up(forest, object);
	struct object *primary = forest_primary_group(forest, object);
	if (primary && primary->mark != forest->mark) {
		primary->mark = forest->mark;
		mark_up(forest, primary);
	}
}

bool forest_is_member(struct forest *forest, struct object *object, const struct object *group, bool primary_too)
{
	if (primary_too) {
		forest_mark_groups(forest, object);
	} else {
		forest->mark++;
		mark_up(forest, object);
	}
	return group->mark == forest->mark;
}

bool forest_is_administrator(struct forest *forest, struct object *who)
{
	if (!who)
		return false;
	forest_mark_groups(forest, who);
	for (size_t i = 0; i < forest->count; i++) {
		const struct object *group = forest->objects[i];
		if (group->mark == forest->mark && group->class == CLASS_GROUP && (group->rid == 512 || group->rid == 519 || (group->sid_size == 16 && group->rid == 544)))
			return true;
	}
	return who->rid == 500;
}

static bool is_who(struct forest *forest, struct object *who, const struct object *trustee)
{
	return who == trustee || (trustee->class == CLASS_GROUP && forest_is_member(forest, who, trustee, true));
}

bool forest_may(struct forest *forest, struct object *who, struct object *target, enum right right)
{
	if (!who)
		return false;
	/* AdminSDHolder's descriptor inherits nothing from the OU: the delegation ends there (MS-ADTS 3.1.1.6.1). */
	for (size_t i = 0; !target->admin && i < forest->grant_count; i++) {
		const struct grant *grant = &forest->grants[i];
		if ((grant->rights & right) && name_is_below(target->folded, grant->where->folded) && is_who(forest, who, grant->who))
			return true;
	}
	return forest_is_administrator(forest, who);
}

bool forest_may_read_policy(struct forest *forest, struct object *who, struct object *pso)
{
	if (!who)
		return false;
	for (size_t i = 0; i < pso->readers_count; i++)
		if (is_who(forest, who, pso->readers[i]))
			return true;
	for (size_t i = 0; i < forest->grant_count; i++)
		if ((forest->grants[i].rights & RIGHT_READ_PSO) && is_who(forest, who, forest->grants[i].who))
			return true;
	return forest_is_administrator(forest, who);
}

struct object *forest_resultant_pso(struct forest *forest, struct object *object)
{
	if (object->class != CLASS_USER)
		return NULL;
	struct object *direct = NULL, *by_group = NULL;
	forest_mark_groups(forest, object);
	for (size_t i = 0; i < forest->count; i++) {
		struct object *pso = forest->objects[i];
		for (size_t j = 0; pso->class == CLASS_PSO && j < pso->applies_to_count; j++) {
			struct object **best = pso->applies_to[j] == object ? &direct : &by_group;
			if (pso->applies_to[j] != object && pso->applies_to[j]->mark != forest->mark)
				continue;
			if (!*best || pso->precedence < (*best)->precedence)
				*best = pso;
		}
	}
	return direct ? direct : by_group;
}

const struct policy *forest_policy(struct forest *forest, struct object *object)
{
	struct object *pso = forest_resultant_pso(forest, object);
	return pso ? pso->policy : forest->domain->policy;
}

bool account_locked(const struct account *account, const struct policy *policy, int64_t now)
{
	return account->lockout_time && (!policy->lockout_duration || now < account->lockout_time + policy->lockout_duration);
}

bool account_expired_password(const struct account *account, const struct policy *policy, int64_t now)
{
	if (account->control & (UAC_DONT_EXPIRE | UAC_SMARTCARD | UAC_WORKSTATION | UAC_SERVER))
		return false;
	return !account->password_last_set || (policy->max_age && now > account->password_last_set + policy->max_age);
}

void replication_write(struct forest *forest, struct object *object, struct replication *record, uint64_t usn)
{
	record->version++;
	record->usn = record->local = usn;
	memcpy(record->originator, forest->invocation_id, sizeof record->originator);
	record->time = object->when_changed = forest_now(forest);
	object->usn_changed = usn;
}
