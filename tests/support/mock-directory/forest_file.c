/* The forest's file: YAML, read once at start. Unknown keys, duplicate keys and names that lead nowhere are errors. */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

#include "forest.h"
#include "identity.h"
#include "password.h"

struct reader {
	yaml_document_t document;
	struct forest *forest;
	char *why; /* the first complaint */
};

static void complain(struct reader *reader, const yaml_node_t *node, const char *what, const char *about)
{
	if (!reader->why && asprintf(&reader->why, "line %zu: %s: %s", node ? node->start_mark.line + 1 : 0, what, about) < 0)
		abort();
}

static const char *text_of(struct reader *reader, yaml_node_t *node)
{
	if (!node || node->type != YAML_SCALAR_NODE) {
		complain(reader, node, "a plain value is expected", "");
		return "";
	}
	return (const char *)node->data.scalar.value;
}

static yaml_node_t *get(struct reader *reader, yaml_node_t *map, const char *key)
{
	if (!map || map->type != YAML_MAPPING_NODE)
		return NULL;
	for (yaml_node_pair_t *pair = map->data.mapping.pairs.start; pair < map->data.mapping.pairs.top; pair++)
		if (!strcmp(text_of(reader, yaml_document_get_node(&reader->document, pair->key)), key))
			return yaml_document_get_node(&reader->document, pair->value);
	return NULL;
}

/* `keys`: blank-separated. */
static void allow_only(struct reader *reader, yaml_node_t *map, const char *keys)
{
	if (!map || map->type != YAML_MAPPING_NODE) {
		complain(reader, map, "a mapping is expected with", keys);
		return;
	}
	for (yaml_node_pair_t *pair = map->data.mapping.pairs.start; pair < map->data.mapping.pairs.top; pair++) {
		yaml_node_t *node = yaml_document_get_node(&reader->document, pair->key);
		const char *key = text_of(reader, node), *found = keys;
		size_t size = strlen(key);
		while ((found = strstr(found, key)) && !((found == keys || found[-1] == ' ') && (!found[size] || found[size] == ' ')))
			found++;
		if (!found || !size)
			complain(reader, node, "unknown key", key);
		for (yaml_node_pair_t *other = map->data.mapping.pairs.start; other < pair; other++)
			if (!strcmp(key, text_of(reader, yaml_document_get_node(&reader->document, other->key))))
				complain(reader, node, "twice", key);
	}
}

static const char *get_text(struct reader *reader, yaml_node_t *map, const char *key, const char *otherwise)
{
	yaml_node_t *node = get(reader, map, key);
	return node ? text_of(reader, node) : otherwise;
}

static unsigned get_number(struct reader *reader, yaml_node_t *map, const char *key, unsigned otherwise)
{
	const char *text = get_text(reader, map, key, NULL);
	if (!text)
		return otherwise;
	if (!*text || strspn(text, "0123456789") != strlen(text) || strlen(text) > 9)
		complain(reader, get(reader, map, key), "a number is expected", text);
	return (unsigned)strtoul(text, NULL, 10);
}

static bool get_flag(struct reader *reader, yaml_node_t *map, const char *key, bool otherwise)
{
	const char *text = get_text(reader, map, key, otherwise ? "true" : "false");
	if (strcmp(text, "true") && strcmp(text, "false"))
		complain(reader, get(reader, map, key), "true or false is expected", text);
	return !strcmp(text, "true");
}

bool duration_from_text(const char *text, int64_t *ret_ticks)
{
	static const struct { const char *unit; int64_t seconds; } units[] = { { "d", 86400 }, { "h", 3600 }, { "min", 60 }, { "m", 60 }, { "s", 1 }, { "", 1 } };
	char *end;
	if (*text < '0' || *text > '9')
		return false;
	long long count = strtoll(text, &end, 10);
	for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
		if (!strcmp(end, units[i].unit) && count < 1000000000) {
			*ret_ticks = count * units[i].seconds * TICKS_PER_SECOND;
			return true;
		}
	}
	return false;
}

static int64_t get_duration(struct reader *reader, yaml_node_t *map, const char *key, int64_t otherwise)
{
	const char *text = get_text(reader, map, key, NULL);
	int64_t ticks = otherwise;
	if (text && !duration_from_text(text, &ticks))
		complain(reader, get(reader, map, key), "a duration such as 3d, 1h, 30min is expected", text);
	return ticks;
}

typedef void (*item_reader)(struct reader *reader, yaml_node_t *item, void *arg);
static void each(struct reader *reader, yaml_node_t *map, const char *key, item_reader read, void *arg)
{
	yaml_node_t *list = get(reader, map, key);
	if (!list)
		return;
	if (list->type != YAML_SEQUENCE_NODE) {
		complain(reader, list, "a list is expected", key);
		return;
	}
	for (yaml_node_item_t *item = list->data.sequence.items.start; item < list->data.sequence.items.top && !reader->why; item++)
		read(reader, yaml_document_get_node(&reader->document, *item), arg);
}

#define POLICY_KEYS "min_length complexity history min_age max_age lockout_threshold lockout_duration lockout_window"

static void read_policy(struct reader *reader, yaml_node_t *map, struct policy *policy)
{
	policy->min_length = get_number(reader, map, "min_length", policy->min_length);
	policy->complexity = get_flag(reader, map, "complexity", policy->complexity);
	policy->history = get_number(reader, map, "history", policy->history);
	policy->min_age = get_duration(reader, map, "min_age", policy->min_age);
	policy->max_age = get_duration(reader, map, "max_age", policy->max_age);
	policy->lockout_threshold = get_number(reader, map, "lockout_threshold", policy->lockout_threshold);
	policy->lockout_duration = get_duration(reader, map, "lockout_duration", policy->lockout_duration);
	policy->lockout_window = get_duration(reader, map, "lockout_window", policy->lockout_window);
	if (policy->history > HISTORY_MAX)
		complain(reader, map, "a history is at most", "24");
}

/* A name in the file: of an account, a group, or an organizational unit relative to the domain. */
static struct object *find(struct reader *reader, const char *name)
{
	struct forest *forest = reader->forest;
	struct object *object = forest_by_sam(forest, &forest->arena, value_of(name));
	bool bad;
	if (!object)
		object = forest_group(forest, name);
	if (!object && !strcasecmp(name, "domain"))
		object = forest->domain;
	if (!object)
		object = forest_resolve(forest, &forest->arena, value_of(name), &bad);
	if (!object && strchr(name, '='))
		object = forest_resolve(forest, &forest->arena, value_of(arena_printf(&forest->arena, "%s,%s", name, forest->domain->dn)), &bad);
	return object;
}

static void read_unit(struct reader *reader, yaml_node_t *item, void *arg)
{
	const char *name = text_of(reader, item);
	char *value = arena_printf(&reader->forest->arena, "%s", name), *out = value;
	const char *at = name;
	/* Up to the first comma that is not escaped, without the backslashes (RFC 4514). */
	for (; *at && *at != ','; at++) {
		at += at[0] == '\\' && at[1];
		*out++ = *at;
	}
	*out = 0;
	struct object *parent = *at ? find(reader, at + 1) : reader->forest->domain;
	if (strncasecmp(value, "OU=", 3) || !parent || !forest_add(reader->forest, parent, "OU", value + 3, CLASS_UNIT))
		complain(reader, item, "not a new organizational unit below an earlier one", name);
}

static struct object *parent_of(struct reader *reader, yaml_node_t *item, const char *otherwise)
{
	const char *unit = get_text(reader, item, "ou", otherwise);
	struct object *parent = find(reader, unit);
	if (!parent)
		complain(reader, item, "no such container", unit);
	return parent ? parent : reader->forest->domain;
}

static void read_group(struct reader *reader, yaml_node_t *item, void *arg)
{
	allow_only(reader, item, "name ou rid member_of description");
	const char *name = get_text(reader, item, "name", ""), *description = get_text(reader, item, "description", NULL);
	struct object *group = forest_group(reader->forest, name);
	if (!group) {
		group = forest_add(reader->forest, parent_of(reader, item, "CN=Users"), "CN", name, CLASS_GROUP);
		if (!group) {
			complain(reader, item, "not a new name", name);
			return;
		}
		forest_set_rid(reader->forest, group, get_number(reader, item, "rid", reader->forest->next_rid));
	}
	if (description)
		object_store_text(group, "description", description);
}

static void join(struct reader *reader, yaml_node_t *item, void *arg)
{
	struct object *group = forest_group(reader->forest, text_of(reader, item));
	if (group)
		object_join(arg, group);
	else
		complain(reader, item, "no such group", text_of(reader, item));
}

static void read_nesting(struct reader *reader, yaml_node_t *item, void *arg)
{
	each(reader, item, "member_of", join, forest_group(reader->forest, get_text(reader, item, "name", "")));
}

struct flag_row {
	const char *name;
	uint32_t control;
};
static const struct flag_row flag_rows[] = {
	{ "disabled", UAC_DISABLED }, { "smartcard", UAC_SMARTCARD }, { "dont_expire", UAC_DONT_EXPIRE }, { "password_not_required", UAC_PASSWORD_NOT_REQUIRED },
	{ "must_change", 0 }, { "locked", 0 }, { "logon_hours", 0 }, { "workstation", 0 }, { "expired", 0 }, { "cannot_change", 0 },
};

static void read_account_flag(struct reader *reader, yaml_node_t *item, void *arg)
{
	struct object *object = arg;
	struct account *account = object->account;
	const char *name = text_of(reader, item);
	size_t i = 0;
	while (i < sizeof flag_rows / sizeof flag_rows[0] && strcmp(flag_rows[i].name, name))
		i++;
	if (i == sizeof flag_rows / sizeof flag_rows[0])
		complain(reader, item, "unknown flag", name);
	else
		account->control |= flag_rows[i].control;
	int64_t now = forest_now(reader->forest);
	if (!strcmp(name, "must_change"))
		account->password_last_set = 0;
	else if (!strcmp(name, "locked"))
		account->lockout_time = now, account->bad_password_count = reader->forest->domain->policy->lockout_threshold, account->bad_password_time = now;
	else if (!strcmp(name, "expired"))
		account->expires = now - TICKS_PER_SECOND * 86400;
	else if (!strcmp(name, "logon_hours"))
		account->logon_hours_closed = true;
	else if (!strcmp(name, "cannot_change"))
		object->cannot_change = true;
	else if (!strcmp(name, "workstation"))
		account->workstation_bound = true;
}

static void store_text(struct reader *reader, yaml_node_t *item, void *arg)
{
	object_store_text(arg, "servicePrincipalName", text_of(reader, item));
}

static char *optional(const char *text)
{
	return text ? must_strdup(text) : NULL;
}

static void read_identity(struct reader *reader, yaml_node_t *item, struct object *object)
{
	const char *guid = get_text(reader, item, "object_guid", NULL), *anchor = get_text(reader, item, "consistency_guid", NULL);
	if (guid && !guid_from_text(value_of(guid), object->guid))
		complain(reader, item, "not a GUID", guid);
	if (anchor && !guid_from_text(value_of(anchor), object->anchor))
		complain(reader, item, "not a GUID", anchor);
	object->anchor_set = anchor;
	forest_set_rid(reader->forest, object, get_number(reader, item, "rid", reader->forest->next_rid));
	object->admin = get_number(reader, item, "admin_count", 0);
}

/* The password's two records are those of one write at its age; a lock is one of its own. */
static void first_records(struct forest *forest, struct object *object)
{
	struct account *account = object->account;
	struct replication record = { .version = 2, .usn = ++forest->usn, .time = account->password_last_set ? account->password_last_set : forest_now(forest) };
	record.local = record.usn;
	memcpy(record.originator, forest->founder, sizeof record.originator);
	account->password_record = account->last_set_record = record;
	if (account->lockout_time)
		account->lockout_record = record, account->lockout_record.version = 1, account->lockout_record.time = account->lockout_time,
		account->lockout_record.usn = account->lockout_record.local = ++forest->usn;
	object->usn_changed = forest->usn;
}

static void read_user(struct reader *reader, yaml_node_t *item, void *arg)
{
	allow_only(reader, item, "name cn ou upn display_name password member_of flags password_age admin_count spn consistency_guid object_guid kind rid description mail");
	const char *name = get_text(reader, item, "name", ""), *kind = get_text(reader, item, "kind", "user"), *password = get_text(reader, item, "password", NULL);
	enum class_kind class = !strcmp(kind, "computer") ? CLASS_COMPUTER : !strcmp(kind, "gmsa") ? CLASS_GMSA : CLASS_USER;
	static const char *const containers[] = { [CLASS_USER] = "CN=Users", [CLASS_COMPUTER] = "CN=Computers", [CLASS_GMSA] = "CN=Managed Service Accounts" };
	if (class == CLASS_USER && strcmp(kind, "user"))
		complain(reader, item, "kind is user, computer or gmsa, not", kind);
	char *plain = arena_printf(&reader->forest->arena, "%.*s", (int)strcspn(name, "$"), name);
	struct object *object = forest_add(reader->forest, parent_of(reader, item, containers[class]), "CN", get_text(reader, item, "cn", plain), class);
	if (!*name || !object || forest_by_sam(reader->forest, &reader->forest->arena, value_of(name))) {
		complain(reader, item, "not a new name", name);
		return;
	}
	struct account *account = forest_add_account(reader->forest, object, class == CLASS_USER ? name : arena_printf(&reader->forest->arena, "%s$", plain));
	account->upn = optional(get_text(reader, item, "upn", NULL));
	account->display_name = optional(get_text(reader, item, "display_name", NULL));
	account->password_last_set = forest_now(reader->forest) - get_duration(reader, item, "password_age", 10 * 86400 * TICKS_PER_SECOND);
	if (password)
		password_digest(value_of(password), &account->password);
	account->history[0] = account->password;
	read_identity(reader, item, object);
	each(reader, item, "flags", read_account_flag, object);
	each(reader, item, "member_of", join, object);
	each(reader, item, "spn", store_text, object);
	const char *description = get_text(reader, item, "description", NULL), *mail = get_text(reader, item, "mail", NULL);
	if (description)
		object_store_text(object, "description", description);
	if (mail)
		object_store_text(object, "mail", mail);
	first_records(reader->forest, object);
}

/* `bench: 200`, or {count, ou, password, password_age, member_of}: bench000 to bench199. */
static void read_bench(struct reader *reader, yaml_node_t *node)
{
	struct forest *forest = reader->forest;
	if (!node)
		return;
	bool scalar = node->type == YAML_SCALAR_NODE;
	if (!scalar)
		allow_only(reader, node, "count ou password password_age member_of");
	unsigned count = scalar ? (unsigned)strtoul(text_of(reader, node), NULL, 10) : get_number(reader, node, "count", 0);
	struct object *parent = parent_of(reader, scalar ? NULL : node, "OU=People"), *group = forest_group(forest, "Bench Users");
	if (count > 100000)
		complain(reader, node, "too many", "bench");
	for (unsigned i = 0; i < count && !reader->why; i++) {
		char *name = arena_printf(&forest->arena, "bench%03u", i);
		struct object *object = forest_add(forest, parent, "CN", name, CLASS_USER);
		struct account *account = forest_add_account(forest, object, name);
		account->upn = must_strdup(arena_printf(&forest->arena, "%s@%s", name, forest->dns_name));
		/* Without a number: three digits would be a token that no password may contain. */
		account->display_name = must_strdup("Workload Person");
		account->password_last_set = forest_now(forest) - get_duration(reader, scalar ? NULL : node, "password_age", 30 * 86400 * TICKS_PER_SECOND);
		password_digest(value_of(get_text(reader, scalar ? NULL : node, "password", "Old-Marble-Step-7")), &account->password);
		account->history[0] = account->password;
		forest_set_rid(forest, object, forest->next_rid);
		if (group)
			object_join(object, group);
		each(reader, scalar ? NULL : node, "member_of", join, object);
		first_records(forest, object);
	}
}

static void add_subject(struct reader *reader, yaml_node_t *item, void *arg)
{
	struct object *pso = arg, *object = find(reader, text_of(reader, item));
	if (!object)
		complain(reader, item, "nobody is called", text_of(reader, item));
	pso->applies_to = must_grow(pso->applies_to, pso->applies_to_count + 1, sizeof(struct object *));
	pso->applies_to[pso->applies_to_count++] = object;
}

static void add_reader(struct reader *reader, yaml_node_t *item, void *arg)
{
	struct object *pso = arg, *object = find(reader, text_of(reader, item));
	if (!object)
		complain(reader, item, "nobody is called", text_of(reader, item));
	pso->readers = must_grow(pso->readers, pso->readers_count + 1, sizeof(struct object *));
	pso->readers[pso->readers_count++] = object;
}

static void read_pso(struct reader *reader, yaml_node_t *item, void *arg)
{
	allow_only(reader, item, "name precedence applies_to readable_by " POLICY_KEYS);
	struct object *container = find(reader, "CN=Password Settings Container,CN=System");
	struct object *pso = forest_add(reader->forest, container, "CN", get_text(reader, item, "name", ""), CLASS_PSO);
	if (!pso) {
		complain(reader, item, "not a new name", get_text(reader, item, "name", ""));
		return;
	}
	pso->policy = must_alloc(sizeof *pso->policy);
	*pso->policy = *reader->forest->domain->policy;
	read_policy(reader, item, pso->policy);
	pso->precedence = get_number(reader, item, "precedence", 10);
	each(reader, item, "applies_to", add_subject, pso);
	each(reader, item, "readable_by", add_reader, pso);
}

unsigned right_from_text(const char *name)
{
	static const struct { const char *name; enum right right; } rows[] = { { "reset-password", RIGHT_RESET_PASSWORD }, { "write-lockoutTime", RIGHT_WRITE_LOCKOUT },
		{ "write-pwdLastSet", RIGHT_WRITE_LAST_SET }, { "read-pso", RIGHT_READ_PSO }, { "unexpire-password", RIGHT_UNEXPIRE } };
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if (!strcmp(name, rows[i].name))
			return rows[i].right;
	return 0;
}

static void add_right(struct reader *reader, yaml_node_t *item, void *arg)
{
	unsigned *rights = arg, right = right_from_text(text_of(reader, item));
	*rights |= right;
	if (!right)
		complain(reader, item, "unknown right", text_of(reader, item));
}

static void read_grant(struct reader *reader, yaml_node_t *item, void *arg)
{
	allow_only(reader, item, "who ou allow");
	struct forest *forest = reader->forest;
	struct grant grant = { find(reader, get_text(reader, item, "who", "")), parent_of(reader, item, "domain"), 0 };
	if (!grant.who)
		complain(reader, item, "nobody is called", get_text(reader, item, "who", ""));
	each(reader, item, "allow", add_right, &grant.rights);
	forest->grants = must_grow(forest->grants, forest->grant_count + 1, sizeof grant);
	forest->grants[forest->grant_count++] = grant;
}

static void add_word(struct reader *reader, yaml_node_t *item, void *arg)
{
	struct forest *forest = arg;
	forest->filter_words = must_grow(forest->filter_words, forest->filter_count + 1, sizeof(char *));
	forest->filter_words[forest->filter_count++] = must_strdup(text_fold(&forest->arena, value_of(text_of(reader, item))).data);
}

static void add_suffix(struct reader *reader, yaml_node_t *item, void *arg)
{
	struct forest *forest = arg;
	object_store_text(forest->partitions, "uPNSuffixes", text_of(reader, item));
}

static void read_domain(struct reader *reader, yaml_node_t *root)
{
	struct forest *forest = reader->forest;
	allow_only(reader, root, "domain netbios sid upn_suffixes read_only policy psos ous groups users bench rights");
	forest->dns_name = must_strdup(get_text(reader, root, "domain", "corp.example.test"));
	forest->netbios = must_strdup(get_text(reader, root, "netbios", "CORP"));
	forest->read_only = get_flag(reader, root, "read_only", false);
	yaml_node_t *policy = get(reader, root, "policy");
	const char *sid = get_text(reader, root, "sid", "S-1-5-21-1004336348-1177238915-682003330");
	uint8_t octets[28];
	if (sid_from_text(value_of(sid), octets) != 24) {
		complain(reader, root, "not a domain's SID", sid);
		return;
	}
	if (policy)
		allow_only(reader, policy, POLICY_KEYS " filter max_conn_idle unexpire_needed unknown_user");
	forest->idle_seconds = (unsigned)(get_duration(reader, policy, "max_conn_idle", 900 * TICKS_PER_SECOND) / TICKS_PER_SECOND);
	forest->unexpire_needed = get_flag(reader, policy, "unexpire_needed", false);
	forest->unknown_user = strcmp(get_text(reader, policy, "unknown_user", "52e"), "525") ? 0x52e : 0x525;
	if (reader->why)
		return;
	forest_build(forest, sid);
	*forest->domain->policy = (struct policy){ .min_length = 10, .complexity = true, .history = 5, .min_age = 86400 * TICKS_PER_SECOND,
		.max_age = 90 * 86400 * TICKS_PER_SECOND, .lockout_threshold = 5, .lockout_duration = 1800 * TICKS_PER_SECOND, .lockout_window = 1800 * TICKS_PER_SECOND };
	read_policy(reader, policy, forest->domain->policy);
	each(reader, root, "upn_suffixes", add_suffix, forest);
	each(reader, policy, "filter", add_word, forest);
	each(reader, root, "ous", read_unit, NULL);
	each(reader, root, "groups", read_group, NULL);
	each(reader, root, "groups", read_nesting, NULL);
	each(reader, root, "users", read_user, NULL);
	read_bench(reader, get(reader, root, "bench"));
	each(reader, root, "psos", read_pso, NULL);
	each(reader, root, "rights", read_grant, NULL);
	forest_protect(forest);
}

static void name_server(struct forest *forest, const char *host, unsigned seed)
{
	uint8_t digest[32];
	forest->host = must_strdup(host);
	forest->server_name = strndup(host, strcspn(host, "."));
	for (char *at = forest->server_name; *at; at++)
		*at = (char)(*at >= 'a' && *at <= 'z' ? *at - 32 : *at);
	char *text = arena_printf(&forest->arena, "invocation %s %u", host, seed);
	EVP_Digest(text, strlen(text), digest, NULL, EVP_sha256(), NULL);
	memcpy(forest->invocation_id, digest, 16);
	text = arena_printf(&forest->arena, "invocation dc1%s %u", host + strcspn(host, "."), seed);
	EVP_Digest(text, strlen(text), digest, NULL, EVP_sha256(), NULL);
	memcpy(forest->founder, digest, 16);
}

struct forest *forest_read(const char *path, const char *host, unsigned seed, char **ret_why)
{
	FILE *file = fopen(path, "r");
	if (!file) {
		*ret_why = must_strdup("cannot be opened");
		return NULL;
	}
	struct reader reader = { .forest = must_alloc(sizeof(struct forest)) };
	name_server(reader.forest, host, seed);
	yaml_parser_t parser;
	yaml_parser_initialize(&parser);
	yaml_parser_set_input_file(&parser, file);
	if (yaml_parser_load(&parser, &reader.document)) {
		yaml_node_t *root = yaml_document_get_root_node(&reader.document);
		read_domain(&reader, root);
		yaml_document_delete(&reader.document);
	} else if (asprintf(&reader.why, "line %zu: %s", parser.problem_mark.line + 1, parser.problem ? parser.problem : "not YAML") < 0) {
		abort();
	}
	yaml_parser_delete(&parser);
	fclose(file);
	arena_reset(&reader.forest->arena);
	*ret_why = reader.why;
	if (!reader.why)
		return reader.forest;
	forest_free(reader.forest);
	return NULL;
}
