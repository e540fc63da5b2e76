#include "agent/gate/scope.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const uint8_t builtin_domain[] = { 1, 1, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0 };
enum { DOMAIN_SID_SIZE = 24, BUILTIN_SID_SIZE = 16 };

struct well_known { uint32_t rid; const char *name; bool of_controllers; };

/* MS-ADTS 3.1.1.6.1.2, set S, in BUILTIN. */
static const struct well_known builtin_groups[] = {
	{ 544, "Administrators" }, { 548, "Account Operators" }, { 549, "Server Operators" }, { 550, "Print Operators" }, { 551, "Backup Operators" },
	{ 552, "Replicator" }, { 0, NULL }
};

/* The same in a domain, whichever one: Schema and Enterprise Admins live in the forest's root, and RIDs below 1000 are nobody else's anywhere. More than set S:
 * Group Policy Creator Owners and Cert Publishers can take over domain controllers, and Protected Users says by its name what the premises want. */
static const struct well_known domain_groups[] = {
	{ 498, "Enterprise Read-only Domain Controllers", true }, { 512, "Domain Admins" }, { 516, "Domain Controllers", true }, { 517, "Cert Publishers" }, { 518, "Schema Admins" },
	{ 519, "Enterprise Admins" }, { 520, "Group Policy Creator Owners" }, { 521, "Read-only Domain Controllers", true }, { 525, "Protected Users" },
	{ 526, "Key Admins" }, { 527, "Enterprise Key Admins" }, { 0, NULL }
};

static const struct well_known domain_users[] = { { 500, "Administrator" }, { 501, "Guest" }, { 502, "krbtgt" }, { 0, NULL } };

static const struct { uint32_t bit; const char *why; } protected_uac[] = {
	{ UAC_INTERDOMAIN_TRUST_ACCOUNT, "an interdomain trust account" }, { UAC_WORKSTATION_TRUST_ACCOUNT, "a computer account" },
	{ UAC_SERVER_TRUST_ACCOUNT, "a domain controller's account" }, { UAC_PARTIAL_SECRETS_ACCOUNT, "a read-only domain controller's account" },
};

struct reason { char *text; size_t capacity; };

__attribute__((format(printf, 3, 4))) static enum status refuse(struct reason why, enum status status, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(why.text, why.capacity, format, arguments);
	va_end(arguments);
	return status;
}

static bool is_builtin(const struct sid *sid)
{
	return sid->size == BUILTIN_SID_SIZE && sid->octets[1] == 2 && !memcmp(sid->octets + 2, builtin_domain + 2, sizeof builtin_domain - 2);
}

/* S-1-5-21-a-b-c */
static bool is_domain(const struct sid *sid)
{
	static const uint8_t head[] = { 0, 0, 0, 0, 0, 5, 21, 0, 0, 0 };
	return sid->size == DOMAIN_SID_SIZE && sid->octets[1] == 4 && !memcmp(sid->octets + 2, head, sizeof head);
}

/* S-1-5-21-a-b-c-rid */
static bool is_in_a_domain(const struct sid *sid)
{
	struct sid domain = *sid;
	if (sid->size != DOMAIN_SID_SIZE + 4)
		return false;
	domain.size = DOMAIN_SID_SIZE;
	domain.octets[1]--;
	return is_domain(&domain);
}

static const struct well_known *find_rid(const struct well_known *rows, uint32_t rid)
{
	while (rows->name && rows->rid != rid)
		rows++;
	return rows->name ? rows : NULL;
}

static const struct well_known *find_protected(const struct sid *sid)
{
	if (is_builtin(sid))
		return find_rid(builtin_groups, sid_rid(sid));
	return is_in_a_domain(sid) ? find_rid(domain_groups, sid_rid(sid)) : NULL;
}

const char *scope_protected_group(const struct sid *sid)
{
	const struct well_known *group = find_protected(sid);
	return group ? group->name : NULL;
}

bool scope_is_exemptible(const struct sid *sid)
{
	const struct well_known *group = find_protected(sid);
	return group && !group->of_controllers;
}

static bool sid_among(const struct sid *sid, const struct sid *list, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (sid_equal(sid, &list[i]))
			return true;
	}
	return false;
}

/* The first of `list` that the account is a member of, or is. */
static const struct sid *find_listed(const struct account *account, const struct sid *list, size_t count, bool or_itself)
{
	for (size_t i = 0; i < account->group_count; i++) {
		if (sid_among(&account->groups[i], list, count))
			return &account->groups[i];
	}
	return or_itself && sid_among(&account->sid, list, count) ? &account->sid : NULL;
}

/* What the account is, by itself. */
static enum status judge_kind(const struct account *account, struct reason why)
{
	const struct well_known *built_in = is_in_a_domain(&account->sid) ? find_rid(domain_users, sid_rid(&account->sid)) : NULL;
	for (size_t i = 0; i < sizeof protected_uac / sizeof *protected_uac; i++) {
		if (account->uac & protected_uac[i].bit)
			return refuse(why, STATUS_USER_PROTECTED, "the account is %s", protected_uac[i].why);
	}
	if (!account->is_user || !(account->uac & UAC_NORMAL_ACCOUNT))
		return refuse(why, STATUS_USER_PROTECTED, "not an ordinary user (a computer, a managed service account or another object)");
	if (built_in)
		return refuse(why, STATUS_USER_PROTECTED, "the built-in account %s", built_in->name);
	if (account->is_critical_system_object)
		return refuse(why, STATUS_USER_PROTECTED, "isCriticalSystemObject is set");
	if (account->self_unknown)
		return refuse(why, STATUS_USER_PROTECTED, "the account that the agent itself binds as could not be found, which protects everybody");
	if (account->is_self)
		return refuse(why, STATUS_USER_PROTECTED, "the account that the agent itself binds as");
	if (account->has_spn)
		return refuse(why, STATUS_USER_PROTECTED, "a service account (servicePrincipalName is set)");
	return STATUS_OK;
}

static enum status judge_protected_sid(const struct sid *sid, const char *relation, struct reason why)
{
	char text[SID_TEXT_MAX];
	const char *name = scope_protected_group(sid);
	if (!name)
		return STATUS_OK;
	sid_format(sid, text);
	return refuse(why, STATUS_USER_PROTECTED, "%s %s (%s)", relation, text, name);
}

static bool is_exempt(const struct scope *scope, const struct sid *group)
{
	return sid_among(group, scope->exempt_groups, scope->exempt_group_count) && scope_is_exemptible(group);
}

/* adminCount stays when the membership goes, so it may stand for a group that nobody exempted: only a present, exempted membership explains it. */
static enum status judge_administrators(const struct scope *scope, const struct account *account, struct reason why)
{
	bool exempt = false;
	for (size_t i = 0; i < account->group_count; i++)
		exempt |= is_exempt(scope, &account->groups[i]);
	if (account->admin_count && !exempt)
		return refuse(why, STATUS_USER_PROTECTED, "adminCount is %" PRId64, account->admin_count);
	enum status status = judge_protected_sid(&account->sid, "is", why);
	for (size_t i = 0; status == STATUS_OK && i < account->group_count; i++)
		if (!is_exempt(scope, &account->groups[i]))
			status = judge_protected_sid(&account->groups[i], "member of", why);
	return status;
}

static enum status judge_local_protection(const struct scope *scope, const struct account *account, struct reason why)
{
	char text[SID_TEXT_MAX];
	if (scope->protect_groups_configured > scope->protect_group_count)
		return refuse(why, STATUS_USER_PROTECTED, "a group of scope.protect could not be resolved, which protects everybody");
	const struct sid *listed = find_listed(account, scope->protect_groups, scope->protect_group_count, true);
	if (!listed)
		return STATUS_OK;
	sid_format(listed, text);
	return refuse(why, STATUS_USER_PROTECTED, "%s %s (listed in scope.protect)", listed == &account->sid ? "is" : "member of", text);
}

/* Of the flavor ldap: it has no domain's SID to hold the account against, and no group at all is an answer. */
static enum status judge_readable_entry(const struct account *account, struct reason why)
{
	if (!sid_is_entry(&account->sid))
		return refuse(why, STATUS_USER_PROTECTED, "the entry's UUID could not be read");
	if (!account->groups_read)
		return refuse(why, STATUS_USER_PROTECTED, "groups could not be read");
	if (!dn_valid(account->dn))
		return refuse(why, STATUS_USER_PROTECTED, "the account's DN cannot be parsed");
	return STATUS_OK;
}

/* What cannot be read is a refusal. */
static enum status judge_readable(const struct scope *scope, const struct account *account, struct reason why)
{
	if (account->is_entry)
		return judge_readable_entry(account, why);
	if (!is_domain(&scope->domain))
		return refuse(why, STATUS_USER_PROTECTED, "the domain's SID is not known");
	if (!account->sid.size)
		return refuse(why, STATUS_USER_PROTECTED, "the account's SID could not be read");
	if (!sid_in_domain(&account->sid, &scope->domain))
		return refuse(why, STATUS_USER_PROTECTED, "the account belongs to another domain");
	if (!account->groups || !account->group_count)
		return refuse(why, STATUS_USER_PROTECTED, "groups could not be read");
	if (account->hidden)
		return refuse(why, STATUS_USER_PROTECTED, "the agent's account may not read %s", account->hidden);
	if (!dn_valid(account->dn))
		return refuse(why, STATUS_USER_PROTECTED, "the account's DN cannot be parsed");
	return STATUS_OK;
}

static enum status judge_exclusions(const struct scope *scope, const struct account *account, struct reason why)
{
	char text[SID_TEXT_MAX];
	size_t bases = 0;
	while (scope->exclude_bases && scope->exclude_bases[bases])
		bases++;
	for (size_t i = 0; i < bases; i++) {
		if (!dn_valid(scope->exclude_bases[i]))
			return refuse(why, STATUS_USER_OUT_OF_SCOPE, "scope.exclude_bases: '%s' cannot be parsed, which excludes everybody", scope->exclude_bases[i]);
		if (dn_is_below(account->dn, scope->exclude_bases[i]))
			return refuse(why, STATUS_USER_OUT_OF_SCOPE, "below '%s' of scope.exclude_bases", scope->exclude_bases[i]);
	}
	if (bases > scope->exclude_bases_resolved)
		return refuse(why, STATUS_USER_OUT_OF_SCOPE, "a base of scope.exclude_bases could not be found, which excludes everybody");
	if (scope->exclude_groups_configured > scope->exclude_group_count)
		return refuse(why, STATUS_USER_OUT_OF_SCOPE, "a group of scope.exclude_groups could not be resolved, which excludes everybody");
	const struct sid *listed = find_listed(account, scope->exclude_groups, scope->exclude_group_count, true);
	if (!listed)
		return STATUS_OK;
	sid_format(listed, text);
	return refuse(why, STATUS_USER_OUT_OF_SCOPE, "%s %s of scope.exclude_groups", listed == &account->sid ? "is" : "member of", text);
}

static enum status judge_inclusion(const struct scope *scope, const struct account *account, struct reason why)
{
	bool by_base = scope->bases && scope->bases[0], by_group = scope->groups_configured || scope->group_count, below = false;
	if (scope->users == SCOPE_SELECTED && !by_base && !by_group)
		return refuse(why, STATUS_USER_OUT_OF_SCOPE, "scope lists neither bases nor groups, which selects nobody");
	for (size_t i = 0; by_base && !below && scope->bases[i]; i++)
		below = dn_is_below(account->dn, scope->bases[i]);
	if (by_base && !below)
		return refuse(why, STATUS_USER_OUT_OF_SCOPE, "below none of scope.bases");
	if (by_group && !find_listed(account, scope->groups, scope->group_count, false))
		return refuse(why, STATUS_USER_OUT_OF_SCOPE, "member of none of scope.groups%s",
			scope->groups_configured > scope->group_count ? " (some could not be resolved)" : "");
	return STATUS_OK;
}

enum status scope_judge(const struct scope *scope, const struct account *account, char *why, size_t capacity)
{
	typedef enum status (*judge)(const struct scope *, const struct account *, struct reason);
	static const judge judges[] = { judge_readable, judge_administrators, judge_local_protection, judge_exclusions, judge_inclusion };
	struct reason reason = { why, capacity };
	refuse(reason, STATUS_OK, "in scope");
	if (scope->users != SCOPE_SELECTED && scope->users != SCOPE_ALL)
		return refuse(reason, STATUS_USER_OUT_OF_SCOPE, "scope.users is none");
	enum status status = judge_kind(account, reason);
	for (size_t i = 0; status == STATUS_OK && i < sizeof judges / sizeof *judges; i++)
		status = judges[i](scope, account, reason);
	return status;
}

enum status scope_judge_state(const struct scope *scope, const struct account *account, bool sets_password, bool must_change, int64_t now_s)
{
	if (account->uac & UAC_ACCOUNTDISABLE && !(scope->allow & SCOPE_ALLOW_DISABLED))
		return STATUS_USER_DISABLED;
	if (account->account_expires_s <= now_s && !(scope->allow & SCOPE_ALLOW_EXPIRED))
		return STATUS_USER_EXPIRED;
	if (!sets_password)
		return STATUS_OK;
	if (account->uac & UAC_SMARTCARD_REQUIRED && !(scope->allow & SCOPE_ALLOW_SMARTCARD))
		return STATUS_USER_SMARTCARD;
	if (account->cannot_change && !(scope->allow & SCOPE_ALLOW_CANNOT_CHANGE))
		return STATUS_USER_CANNOT_CHANGE;
	if (must_change && account->uac & UAC_DONT_EXPIRE_PASSWORD)
		return STATUS_USER_NEVER_EXPIRES;
	return STATUS_OK;
}
