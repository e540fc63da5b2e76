#include "attributes.h"

#include "descriptor.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define GETTER(name) static void name(const struct view *view, struct object *object, struct values *out)

static void put_generalized(struct values *out, int64_t filetime)
{
	time_t seconds = (time_t)(filetime / TICKS_PER_SECOND - SECONDS_1601_TO_1970);
	struct tm tm;
	char text[32];
	gmtime_r(&seconds, &tm);
	size_t size = strftime(text, sizeof text, "%Y%m%d%H%M%S.0Z", &tm);
	values_add_copy(out, text, size);
}

static void put_number(struct values *out, int64_t number)
{
	values_printf(out, "%" PRId64, number);
}

static void put_text(struct values *out, const char *text)
{
	if (text)
		values_add_text(out, text);
}

GETTER(get_class)
{
	for (size_t i = 0; i < 7 && class_rows[object->class].names[i]; i++)
		values_add_text(out, class_rows[object->class].names[i]);
}

GETTER(get_category)
{
	/* Made once a class: a filter asks every object. */
	char **category = &view->forest->categories[object->class];
	if (!*category && asprintf(category, "CN=%s,CN=Schema,%s", class_rows[object->class].category, view->forest->configuration->dn) < 0)
		abort();
	values_add_text(out, *category);
}

GETTER(get_cn)
{
	if (!strncasecmp(object->dn, "CN=", 3))
		values_add_text(out, object->rdn);
}

GETTER(get_ou)
{
	if (object->class == CLASS_UNIT)
		values_add_text(out, object->rdn);
}

GETTER(get_dc)
{
	if (object->class == CLASS_DOMAIN)
		values_add_text(out, object->rdn);
}

GETTER(get_role_owner)
{
	if (object == view->forest->domain)
		values_add_text(out, view->forest->role_owner);
}

GETTER(get_name)
{
	values_add_text(out, object->rdn);
}

GETTER(get_dn)
{
	values_add_text(out, object->dn);
}

GETTER(get_guid)
{
	values_add(out, object->guid, 16);
}

GETTER(get_anchor)
{
	if (object->anchor_set)
		values_add(out, object->anchor, 16);
}

GETTER(get_sid)
{
	if (object->sid_size)
		values_add(out, object->sid, object->sid_size);
}

GETTER(get_sam)
{
	if (object->account)
		values_add_text(out, object->account->sam);
	else if (object->class == CLASS_GROUP)
		values_add_text(out, object->rdn);
}

GETTER(get_sam_type)
{
	if (object->account)
		values_add_text(out, object->class == CLASS_USER ? "805306368" : "805306369");
	else if (object->class == CLASS_GROUP)
		values_add_text(out, object->sid_size == 16 ? "536870912" : "268435456");
}

GETTER(get_group_type)
{
	if (object->class == CLASS_GROUP)
		values_add_text(out, object->sid_size == 16 ? "-2147483643" : "-2147483646");
}

GETTER(get_upn)
{
	put_text(out, object->account ? object->account->upn : NULL);
}

GETTER(get_display_name)
{
	put_text(out, object->account ? object->account->display_name : NULL);
}

GETTER(get_control)
{
	if (object->account)
		put_number(out, object->account->control);
}

GETTER(get_control_computed)
{
	if (!object->account)
		return;
	const struct policy *policy = forest_policy(view->forest, object);
	uint32_t bits = account_locked(object->account, policy, view->now) ? UAC_LOCKOUT : 0;
	if (account_expired_password(object->account, policy, view->now))
		bits |= UAC_PASSWORD_EXPIRED;
	put_number(out, bits);
}

GETTER(get_expiry)
{
	if (!object->account)
		return;
	const struct policy *policy = forest_policy(view->forest, object);
	int64_t expiry = INT64_MAX;
	if (!(object->account->control & (UAC_DONT_EXPIRE | UAC_SMARTCARD | UAC_WORKSTATION | UAC_SERVER)) && policy->max_age)
		expiry = object->account->password_last_set ? object->account->password_last_set + policy->max_age : 0;
	put_number(out, expiry);
}

GETTER(get_resultant_pso)
{
	struct object *pso = forest_resultant_pso(view->forest, object);
	put_text(out, pso ? pso->dn : NULL);
}

GETTER(get_last_set)
{
	if (object->account)
		put_number(out, object->account->password_last_set);
}

GETTER(get_lockout_time)
{
	if (object->account && object->account->lockout_record.version)
		put_number(out, object->account->lockout_time);
}

GETTER(get_bad_count)
{
	if (object->account)
		put_number(out, object->account->bad_password_count);
}

GETTER(get_bad_time)
{
	if (object->account)
		put_number(out, object->account->bad_password_time);
}

GETTER(get_expires)
{
	if (object->account)
		put_number(out, object->account->expires ? object->account->expires : INT64_MAX);
}

GETTER(get_primary_group)
{
	if (object->account)
		put_number(out, object_primary_rid(object));
}

GETTER(get_admin_count)
{
	if (object->admin)
		values_add_text(out, "1");
}

GETTER(get_member_of)
{
	for (size_t i = 0; i < object->member_of_count; i++)
		values_add_text(out, object->member_of[i]->dn);
}

GETTER(get_member)
{
	if (object->class != CLASS_GROUP)
		return;
	for (size_t i = 0; i < view->forest->count; i++) {
		const struct object *other = view->forest->objects[i];
		for (size_t j = 0; j < other->member_of_count; j++)
			if (other->member_of[j] == object)
				values_add_text(out, other->dn);
	}
}

GETTER(get_token_groups)
{
	if (!object->account)
		return;
	forest_mark_groups(view->forest, object);
	for (size_t i = 0; i < view->forest->count; i++) {
		const struct object *group = view->forest->objects[i];
		if (group->class == CLASS_GROUP && group->mark == view->forest->mark)
			values_add(out, group->sid, group->sid_size);
	}
}

GETTER(get_allowed)
{
	static const struct { const char *name; enum right right; } rows[] = { { "lockoutTime", RIGHT_WRITE_LOCKOUT }, { "pwdLastSet", RIGHT_WRITE_LAST_SET } };
	for (size_t i = 0; object->account && i < 2; i++)
		if (forest_may(view->forest, view->who, object, rows[i].right))
			values_add_text(out, rows[i].name);
}

GETTER(get_descriptor)
{
	descriptor_put(view->forest, view->who, object, view->descriptor_parts, out);
}

/* Layout of the NDR blob: u32 1, 0, count, 0; then of each attribute id, version, seconds since 1601, originator, its USN, ours (MS-ADTS 3.1.1.1.9). */
static uint8_t *put_little(uint8_t *out, uint64_t number, unsigned octets)
{
	for (unsigned i = 0; i < octets; i++)
		*out++ = (uint8_t)(number >> 8 * i);
	return out;
}

GETTER(get_metadata)
{
	struct replication creation = { .version = 1, .usn = object->usn_created, .local = object->usn_created, .time = object->when_created }, none = { 0 };
	const struct account *account = object->account;
	memcpy(creation.originator, view->forest->founder, sizeof creation.originator);
	const struct { uint32_t id; const struct replication *record; } rows[] = {
		{ 0x00000000, &creation }, { 0x00000003, &creation }, { 0x00020001, &creation }, { 0x00090008, account ? &creation : &none },
		{ 0x0009005A, account ? &account->password_record : &none }, { 0x00090060, account ? &account->last_set_record : &none },
		{ 0x000900DD, account ? &creation : &none }, { 0x00090296, account ? &account->lockout_record : &none },
	};
	uint8_t *blob = arena_take(out->arena, 16 + sizeof rows / sizeof rows[0] * 48), *at = blob + 16;
	unsigned count = 0;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		if (!rows[i].record->version)
			continue;
		at = put_little(at, rows[i].id, 4);
		at = put_little(at, rows[i].record->version, 4);
		at = put_little(at, (uint64_t)(rows[i].record->time / TICKS_PER_SECOND), 8);
		memcpy(at, rows[i].record->originator, 16);
		at = put_little(at + 16, rows[i].record->usn, 8);
		at = put_little(at, rows[i].record->local, 8);
		count++;
	}
	put_little(put_little(put_little(put_little(blob, 1, 4), 0, 4), count, 4), 0, 4);
	values_add(out, blob, (size_t)(at - blob));
}

GETTER(get_when_created)
{
	put_generalized(out, object->when_created);
}

GETTER(get_when_changed)
{
	put_generalized(out, object->when_changed);
}

GETTER(get_usn_created)
{
	put_number(out, (int64_t)object->usn_created);
}

GETTER(get_usn_changed)
{
	put_number(out, (int64_t)object->usn_changed);
}

/* The domain's policy and a PSO's have the same content under other names (MS-SAMR 3.1.1.5, MS-ADTS 3.1.1.4.5.36). */
enum policy_part { MIN_LENGTH, PROPERTIES, COMPLEXITY, HISTORY, MIN_AGE, MAX_AGE, THRESHOLD, DURATION, WINDOW, PRECEDENCE, REVERSIBLE };

static void put_age(struct values *out, int64_t age)
{
	put_number(out, -age);
}

static void put_policy(const struct object *object, enum class_kind class, enum policy_part part, struct values *out)
{
	const struct policy *policy = object->policy;
	if (!policy || object->class != class)
		return;
	switch (part) {
	case MIN_LENGTH: put_number(out, policy->min_length); return;
	case PROPERTIES: put_number(out, policy->complexity); return;
	case COMPLEXITY: put_text(out, policy->complexity ? "TRUE" : "FALSE"); return;
	case HISTORY: put_number(out, policy->history); return;
	case MIN_AGE: put_age(out, policy->min_age); return;
	case MAX_AGE: put_number(out, policy->max_age ? -policy->max_age : INT64_MIN); return;
	case THRESHOLD: put_number(out, policy->lockout_threshold); return;
	case DURATION: put_number(out, policy->lockout_duration ? -policy->lockout_duration : INT64_MIN); return;
	case WINDOW: put_age(out, policy->lockout_window); return;
	case PRECEDENCE: put_number(out, object->precedence); return;
	case REVERSIBLE: put_text(out, "FALSE"); return;
	}
}

#define POLICY_GETTER(name, class, part) GETTER(name) { put_policy(object, class, part, out); }
POLICY_GETTER(domain_min_length, CLASS_DOMAIN, MIN_LENGTH)
POLICY_GETTER(domain_properties, CLASS_DOMAIN, PROPERTIES)
POLICY_GETTER(domain_history, CLASS_DOMAIN, HISTORY)
POLICY_GETTER(domain_min_age, CLASS_DOMAIN, MIN_AGE)
POLICY_GETTER(domain_max_age, CLASS_DOMAIN, MAX_AGE)
POLICY_GETTER(domain_threshold, CLASS_DOMAIN, THRESHOLD)
POLICY_GETTER(domain_duration, CLASS_DOMAIN, DURATION)
POLICY_GETTER(domain_window, CLASS_DOMAIN, WINDOW)
POLICY_GETTER(pso_min_length, CLASS_PSO, MIN_LENGTH)
POLICY_GETTER(pso_complexity, CLASS_PSO, COMPLEXITY)
POLICY_GETTER(pso_history, CLASS_PSO, HISTORY)
POLICY_GETTER(pso_min_age, CLASS_PSO, MIN_AGE)
POLICY_GETTER(pso_max_age, CLASS_PSO, MAX_AGE)
POLICY_GETTER(pso_threshold, CLASS_PSO, THRESHOLD)
POLICY_GETTER(pso_duration, CLASS_PSO, DURATION)
POLICY_GETTER(pso_window, CLASS_PSO, WINDOW)
POLICY_GETTER(pso_precedence, CLASS_PSO, PRECEDENCE)
POLICY_GETTER(pso_reversible, CLASS_PSO, REVERSIBLE)

GETTER(get_applies_to)
{
	for (size_t i = 0; i < object->applies_to_count; i++)
		values_add_text(out, object->applies_to[i]->dn);
}

/* In the order of strcasecmp, for bsearch. */
const struct attribute_row attribute_rows[] = {
	{ "accountExpires", SYNTAX_INTEGER, 0, get_expires },
	{ "adminCount", SYNTAX_INTEGER, 0, get_admin_count },
	{ "allowedAttributesEffective", SYNTAX_TEXT, CONSTRUCTED, get_allowed },
	{ "badPasswordTime", SYNTAX_INTEGER, 0, get_bad_time },
	{ "badPwdCount", SYNTAX_INTEGER, 0, get_bad_count },
	{ "cn", SYNTAX_TEXT, 0, get_cn },
	{ "dc", SYNTAX_TEXT, 0, get_dc },
	{ "description", SYNTAX_TEXT, 0, NULL },
	{ "displayName", SYNTAX_TEXT, 0, get_display_name },
	{ "distinguishedName", SYNTAX_NAME, 0, get_dn },
	{ "dNSHostName", SYNTAX_TEXT, 0, NULL },
	{ "dnsRoot", SYNTAX_TEXT, 0, NULL },
	{ "dSHeuristics", SYNTAX_TEXT, 0, NULL },
	{ "fSMORoleOwner", SYNTAX_NAME, 0, get_role_owner },
	{ "groupType", SYNTAX_INTEGER, 0, get_group_type },
	{ "invocationId", SYNTAX_OCTETS, 0, NULL },
	{ "lDAPAdminLimits", SYNTAX_TEXT, 0, NULL },
	{ "lockoutDuration", SYNTAX_INTEGER, 0, domain_duration },
	{ "lockOutObservationWindow", SYNTAX_INTEGER, 0, domain_window },
	{ "lockoutThreshold", SYNTAX_INTEGER, 0, domain_threshold },
	{ "lockoutTime", SYNTAX_INTEGER, 0, get_lockout_time },
	{ "mail", SYNTAX_TEXT, 0, NULL },
	{ "maxPwdAge", SYNTAX_INTEGER, 0, domain_max_age },
	{ "member", SYNTAX_NAME, 0, get_member },
	{ "memberOf", SYNTAX_NAME, 0, get_member_of },
	{ "minPwdAge", SYNTAX_INTEGER, 0, domain_min_age },
	{ "minPwdLength", SYNTAX_INTEGER, 0, domain_min_length },
	{ "mS-DS-ConsistencyGuid", SYNTAX_OCTETS, 0, get_anchor },
	{ "msDS-Behavior-Version", SYNTAX_INTEGER, 0, NULL },
	{ "msDS-isRODC", SYNTAX_TEXT, CONSTRUCTED, NULL },
	{ "msDS-LockoutDuration", SYNTAX_INTEGER, 0, pso_duration },
	{ "msDS-LockoutObservationWindow", SYNTAX_INTEGER, 0, pso_window },
	{ "msDS-LockoutThreshold", SYNTAX_INTEGER, 0, pso_threshold },
	{ "msDS-MaximumPasswordAge", SYNTAX_INTEGER, 0, pso_max_age },
	{ "msDS-MinimumPasswordAge", SYNTAX_INTEGER, 0, pso_min_age },
	{ "msDS-MinimumPasswordLength", SYNTAX_INTEGER, 0, pso_min_length },
	{ "msDS-PasswordComplexityEnabled", SYNTAX_TEXT, 0, pso_complexity },
	{ "msDS-PasswordHistoryLength", SYNTAX_INTEGER, 0, pso_history },
	{ "msDS-PasswordReversibleEncryptionEnabled", SYNTAX_TEXT, 0, pso_reversible },
	{ "msDS-PasswordSettingsPrecedence", SYNTAX_INTEGER, 0, pso_precedence },
	{ "msDS-PSOAppliesTo", SYNTAX_NAME, 0, get_applies_to },
	{ "msDS-ResultantPSO", SYNTAX_NAME, CONSTRUCTED, get_resultant_pso },
	{ "msDS-User-Account-Control-Computed", SYNTAX_INTEGER, CONSTRUCTED, get_control_computed },
	{ "msDS-UserPasswordExpiryTimeComputed", SYNTAX_INTEGER, CONSTRUCTED, get_expiry },
	{ "name", SYNTAX_TEXT, 0, get_name },
	{ "nCName", SYNTAX_NAME, 0, NULL },
	{ "nETBIOSName", SYNTAX_TEXT, 0, NULL },
	{ "nTSecurityDescriptor", SYNTAX_OCTETS, CONSTRUCTED, get_descriptor },
	{ "objectCategory", SYNTAX_CATEGORY, 0, get_category },
	{ "objectClass", SYNTAX_TEXT, 0, get_class },
	{ "objectGUID", SYNTAX_GUID, 0, get_guid },
	{ "objectSid", SYNTAX_SID, 0, get_sid },
	{ "options", SYNTAX_INTEGER, 0, NULL },
	{ "ou", SYNTAX_TEXT, 0, get_ou },
	{ "primaryGroupID", SYNTAX_INTEGER, 0, get_primary_group },
	{ "pwdHistoryLength", SYNTAX_INTEGER, 0, domain_history },
	{ "pwdLastSet", SYNTAX_INTEGER, 0, get_last_set },
	{ "pwdProperties", SYNTAX_INTEGER, 0, domain_properties },
	{ "replPropertyMetaData", SYNTAX_OCTETS, CONSTRUCTED, get_metadata },
	{ "sAMAccountName", SYNTAX_TEXT, 0, get_sam },
	{ "sAMAccountType", SYNTAX_INTEGER, 0, get_sam_type },
	{ "serverReference", SYNTAX_NAME, 0, NULL },
	{ "servicePrincipalName", SYNTAX_TEXT, 0, NULL },
	{ "systemFlags", SYNTAX_INTEGER, 0, NULL },
	{ "tokenGroups", SYNTAX_SID, CONSTRUCTED | BASE_ONLY, get_token_groups },
	{ "unicodePwd", SYNTAX_OCTETS, SECRET, NULL },
	{ "uPNSuffixes", SYNTAX_TEXT, 0, NULL },
	{ "userAccountControl", SYNTAX_INTEGER, 0, get_control },
	{ "userPassword", SYNTAX_OCTETS, SECRET, NULL },
	{ "userPrincipalName", SYNTAX_TEXT, 0, get_upn },
	{ "uSNChanged", SYNTAX_INTEGER, 0, get_usn_changed },
	{ "uSNCreated", SYNTAX_INTEGER, 0, get_usn_created },
	{ "whenChanged", SYNTAX_TEXT, 0, get_when_changed },
	{ "whenCreated", SYNTAX_TEXT, 0, get_when_created },
};
const size_t attribute_row_count = sizeof attribute_rows / sizeof attribute_rows[0];

static int compare_name(const void *key, const void *row)
{
	return strcasecmp(key, ((const struct attribute_row *)row)->name);
}

const struct attribute_row *attribute_find(struct value name)
{
	char copy[64];
	const char *option = memchr(name.data, ';', name.size);
	size_t size = option ? (size_t)(option - name.data) : name.size;
	if (size >= sizeof copy || memchr(name.data, 0, size))
		return NULL;
	memcpy(copy, name.data, size);
	copy[size] = 0;
	return bsearch(copy, attribute_rows, attribute_row_count, sizeof attribute_rows[0], compare_name);
}

void attribute_values(const struct attribute_row *row, const struct view *view, struct object *object, struct values *out)
{
	if (!row || (row->flags & SECRET) || ((object->class == CLASS_PSO || object->class == CLASS_PSO_CONTAINER) && !forest_may_read_policy(view->forest, view->who, object)))
		return;
	if (row == object->hidden && !forest_is_administrator(view->forest, view->who))
		return;
	if (row->get) {
		row->get(view, object, out);
		return;
	}
	for (size_t i = 0; i < object->stored_count; i++)
		if (!strcasecmp(object->stored[i].name, row->name))
			values_add(out, object->stored[i].data, object->stored[i].size);
}
