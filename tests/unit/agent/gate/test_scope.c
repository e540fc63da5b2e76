#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/gate/scope.h"

#define DOMAIN "S-1-5-21-10-20-30"
#define PEOPLE "OU=People,DC=corp,DC=example,DC=test"

static struct sid sid(const char *text)
{
	struct sid parsed;
	assert_int_equal(sid_parse(text, &parsed), STATUS_OK);
	return parsed;
}

/* An ordinary user below PEOPLE, member of Domain Users, Users and "staff" (1200), and a scope that takes him: each test breaks one thing. */
struct fixture {
	struct account account;
	struct scope scope;
	struct sid groups[8];
	const char *bases[3], *exclude_bases[3];
	struct sid listed[2];
	char why[256];
};

static struct fixture *make(struct fixture *f)
{
	memset(f, 0, sizeof *f);
	f->groups[0] = sid(DOMAIN "-513");
	f->groups[1] = sid("S-1-5-32-545");
	f->groups[2] = sid(DOMAIN "-1200");
	f->bases[0] = PEOPLE;
	f->account = (struct account){ .dn = (char *)(uintptr_t)"CN=alice,OU=Berlin," PEOPLE, .sid = sid(DOMAIN "-1104"), .is_user = true, .uac = UAC_NORMAL_ACCOUNT,
		.account_expires_s = INT64_MAX, .groups = f->groups, .group_count = 3 };
	f->scope = (struct scope){ .users = SCOPE_SELECTED, .bases = f->bases, .exclude_bases = f->exclude_bases, .domain = sid(DOMAIN) };
	return f;
}

static enum status judge(struct fixture *f)
{
	memset(f->why, 'x', sizeof f->why);
	enum status status = scope_judge(&f->scope, &f->account, f->why, sizeof f->why);
	assert_true(strlen(f->why) > 0 && strlen(f->why) < sizeof f->why);
	return status;
}

static void ordinary_user_is_in_scope(void **state)
{
	struct fixture f;
	assert_int_equal(judge(make(&f)), STATUS_OK);
}

static void k16_groups_are_protected(void **state)
{
	/* Domain Admins, Enterprise and Schema Admins of the forest's root (another domain), Protected Users, the operators, … whether direct, nested or primary: tokenGroups has them all. */
	static const char *const groups[] = {
		"S-1-5-32-544", "S-1-5-32-548", "S-1-5-32-549", "S-1-5-32-550", "S-1-5-32-551", "S-1-5-32-552", DOMAIN "-512", DOMAIN "-516", DOMAIN "-517",
		DOMAIN "-518", DOMAIN "-519", DOMAIN "-520", DOMAIN "-521", DOMAIN "-525", DOMAIN "-526", DOMAIN "-527", DOMAIN "-498",
		"S-1-5-21-7-8-9-512", "S-1-5-21-7-8-9-518", "S-1-5-21-7-8-9-519", "S-1-5-21-7-8-9-527", "S-1-5-21-7-8-9-498",
	};
	for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
		for (size_t at = 0; at < 4; at++) {
			struct fixture f;
			make(&f)->groups[at] = sid(groups[i]);
			f.account.group_count = at < 3 ? 3 : 4;
			assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
			assert_non_null(strstr(f.why, groups[i]));
			f.scope.users = SCOPE_ALL;
			assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
		}
	}
}

static void other_groups_are_not_protected(void **state)
{
	static const char *const groups[] = { "S-1-5-32-545", "S-1-5-32-546", "S-1-5-32-555", DOMAIN "-513", DOMAIN "-514", DOMAIN "-1512", DOMAIN "-522", DOMAIN "-553",
		"S-1-5-11", "S-1-5-21-7-8-9-10-512", "S-1-5-21-512", "S-1-5-15-1-2-3-512", "S-1-5-33-544" };
	for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
		struct fixture f;
		make(&f)->groups[3] = sid(groups[i]);
		f.account.group_count = 4;
		assert_int_equal(judge(&f), STATUS_OK);
	}
}

static void k16_accounts_are_protected(void **state)
{
	struct fixture f;
	make(&f)->account.sid = sid(DOMAIN "-500");
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	make(&f)->account.sid = sid(DOMAIN "-501");
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	make(&f)->account.sid = sid(DOMAIN "-502");
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	make(&f)->account.is_critical_system_object = true; /* krbtgt_12345 of a read-only controller */
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	make(&f)->account.admin_count = 1; /* stale or not */
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	make(&f)->account.self_unknown = true;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	make(&f)->account.is_self = true;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	make(&f)->account.has_spn = true;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	make(&f)->account.sid = sid("S-1-5-21-10-20-31-1104"); /* a foreign domain */
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	make(&f)->account.sid = sid(DOMAIN "-1105");
	assert_int_equal(judge(&f), STATUS_OK);
}

static void k23_machine_and_trust_accounts_are_protected(void **state)
{
	static const uint32_t bits[] = { UAC_INTERDOMAIN_TRUST_ACCOUNT, UAC_WORKSTATION_TRUST_ACCOUNT, UAC_SERVER_TRUST_ACCOUNT, UAC_PARTIAL_SECRETS_ACCOUNT };
	struct fixture f;
	for (size_t i = 0; i < sizeof bits / sizeof *bits; i++) {
		make(&f)->account.uac |= bits[i];
		assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
		make(&f)->account.uac = bits[i];
		assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	}
	make(&f)->account.is_user = false; /* computer, managed service account, contact */
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	make(&f)->account.uac = 0; /* could not be read */
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	make(&f)->account.sam_account_name = (char *)(uintptr_t)"machine$"; /* names decide nothing */
	f.account.uac |= UAC_DONT_EXPIRE_PASSWORD | UAC_PASSWD_NOTREQD;
	assert_int_equal(judge(&f), STATUS_OK);
}

static void what_cannot_be_read_is_a_refusal(void **state)
{
	struct fixture f;
	make(&f)->account.group_count = 0;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	assert_string_equal(f.why, "groups could not be read");
	make(&f)->account.hidden = "adminCount";
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	assert_string_equal(f.why, "the agent's account may not read adminCount");
	make(&f)->account.sid.size = 0;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	make(&f)->scope.domain.size = 0;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	make(&f)->scope.domain = sid("S-1-5-32");
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	make(&f)->account.dn = NULL;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	make(&f)->account.dn = (char *)(uintptr_t)"not a name," PEOPLE;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
}

static void users_none_refuses_everybody(void **state)
{
	struct fixture f;
	make(&f)->scope.users = SCOPE_NONE;
	assert_int_equal(judge(&f), STATUS_USER_OUT_OF_SCOPE);
	f.scope.users = (enum scope_users)77;
	assert_int_equal(judge(&f), STATUS_USER_OUT_OF_SCOPE);
}

static void bases_select(void **state)
{
	struct fixture f;
	make(&f)->bases[0] = "OU=Other,DC=corp,DC=example,DC=test";
	assert_int_equal(judge(&f), STATUS_USER_OUT_OF_SCOPE);
	f.bases[1] = PEOPLE;
	assert_int_equal(judge(&f), STATUS_OK);
	make(&f)->account.dn = (char *)(uintptr_t)"CN=x\\,OU=People,DC=corp,DC=example,DC=test";
	assert_int_equal(judge(&f), STATUS_USER_OUT_OF_SCOPE);
	make(&f)->bases[0] = NULL;
	assert_int_equal(judge(&f), STATUS_USER_OUT_OF_SCOPE); /* neither bases nor groups */
	f.scope.bases = NULL;
	assert_int_equal(judge(&f), STATUS_USER_OUT_OF_SCOPE);
	f.scope.users = SCOPE_ALL;
	assert_int_equal(judge(&f), STATUS_OK);
	make(&f)->bases[0] = "OU=Other,DC=corp,DC=example,DC=test";
	f.scope.users = SCOPE_ALL;
	assert_int_equal(judge(&f), STATUS_USER_OUT_OF_SCOPE);
}

static void groups_select(void **state)
{
	struct fixture f;
	make(&f)->listed[0] = sid(DOMAIN "-1200");
	f.scope.groups = f.listed;
	f.scope.group_count = f.scope.groups_configured = 1;
	assert_int_equal(judge(&f), STATUS_OK);
	f.bases[0] = NULL;
	assert_int_equal(judge(&f), STATUS_OK); /* a group alone */
	f.listed[0] = sid(DOMAIN "-1201");
	assert_int_equal(judge(&f), STATUS_USER_OUT_OF_SCOPE);
	f.bases[0] = PEOPLE;
	assert_int_equal(judge(&f), STATUS_USER_OUT_OF_SCOPE); /* base and group */
	f.scope.group_count = 0; /* configured, not resolved: matches nobody */
	assert_int_equal(judge(&f), STATUS_USER_OUT_OF_SCOPE);
}

static void exclusions_win(void **state)
{
	struct fixture f;
	make(&f)->exclude_bases[0] = "OU=Berlin," PEOPLE;
	assert_int_equal(judge(&f), STATUS_USER_OUT_OF_SCOPE);
	f.scope.users = SCOPE_ALL;
	assert_int_equal(judge(&f), STATUS_USER_OUT_OF_SCOPE);
	f.exclude_bases[0] = "OU=Paris," PEOPLE;
	assert_int_equal(judge(&f), STATUS_USER_OUT_OF_SCOPE); /* not in the directory: a typo, perhaps of "OU=Berlin" */
	assert_non_null(strstr(f.why, "exclude_bases"));
	f.scope.exclude_bases_resolved = 1;
	assert_int_equal(judge(&f), STATUS_OK);
	f.exclude_bases[1] = "broken";
	assert_int_equal(judge(&f), STATUS_USER_OUT_OF_SCOPE);
	make(&f)->listed[0] = sid(DOMAIN "-1200");
	f.scope.exclude_groups = f.listed;
	f.scope.exclude_group_count = f.scope.exclude_groups_configured = 1;
	assert_int_equal(judge(&f), STATUS_USER_OUT_OF_SCOPE);
	f.listed[0] = sid(DOMAIN "-1201");
	assert_int_equal(judge(&f), STATUS_OK);
	f.scope.exclude_groups_configured = 2; /* one could not be resolved */
	assert_int_equal(judge(&f), STATUS_USER_OUT_OF_SCOPE);
}

static void local_protection(void **state)
{
	struct fixture f;
	make(&f)->listed[0] = sid(DOMAIN "-1200");
	f.scope.protect_groups = f.listed;
	f.scope.protect_group_count = f.scope.protect_groups_configured = 1;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	f.listed[0] = f.account.sid; /* an account by itself */
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	f.listed[0] = sid(DOMAIN "-1201");
	assert_int_equal(judge(&f), STATUS_OK);
	f.scope.protect_groups_configured = 2;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
}

static void a_short_buffer_is_enough(void **state)
{
	struct fixture f;
	char why[4] = "xxx";
	make(&f)->account.group_count = 0;
	assert_int_equal(scope_judge(&f.scope, &f.account, why, sizeof why), STATUS_USER_PROTECTED);
	assert_string_equal(why, "gro");
	assert_int_equal(scope_judge(&f.scope, &f.account, NULL, 0), STATUS_USER_PROTECTED);
}

static void states(void **state)
{
	const struct scope scope = { 0 };
	struct account account = { .uac = UAC_NORMAL_ACCOUNT, .account_expires_s = INT64_MAX };
	assert_int_equal(scope_judge_state(&scope, &account, true, true, 1000), STATUS_OK);
	account.uac = UAC_NORMAL_ACCOUNT | UAC_ACCOUNTDISABLE;
	assert_int_equal(scope_judge_state(&scope, &account, true, false, 1000), STATUS_USER_DISABLED);
	assert_int_equal(scope_judge_state(&scope, &account, false, false, 1000), STATUS_USER_DISABLED);
	account.uac = UAC_NORMAL_ACCOUNT;
	account.account_expires_s = 1000;
	assert_int_equal(scope_judge_state(&scope, &account, false, false, 999), STATUS_OK);
	assert_int_equal(scope_judge_state(&scope, &account, false, false, 1000), STATUS_USER_EXPIRED);
	assert_int_equal(scope_judge_state(&scope, &account, true, false, 1000), STATUS_USER_EXPIRED);
	account.account_expires_s = INT64_MAX;
	account.uac = UAC_NORMAL_ACCOUNT | UAC_SMARTCARD_REQUIRED;
	assert_int_equal(scope_judge_state(&scope, &account, true, false, 1000), STATUS_USER_SMARTCARD);
	assert_int_equal(scope_judge_state(&scope, &account, false, false, 1000), STATUS_OK);
	account.uac = UAC_NORMAL_ACCOUNT | UAC_DONT_EXPIRE_PASSWORD;
	assert_int_equal(scope_judge_state(&scope, &account, true, true, 1000), STATUS_USER_NEVER_EXPIRES);
	assert_int_equal(scope_judge_state(&scope, &account, true, false, 1000), STATUS_OK);
	account.uac = UAC_NORMAL_ACCOUNT;
	account.cannot_change = true;
	assert_int_equal(scope_judge_state(&scope, &account, true, false, 1000), STATUS_USER_CANNOT_CHANGE);
	assert_int_equal(scope_judge_state(&scope, &account, false, false, 1000), STATUS_OK);
}

/* Each word lets its own state through and no other one. */
static void states_that_the_premises_allow(void **state)
{
	static const struct { unsigned bit; uint32_t uac; int64_t expires_s; bool cannot_change, of_unlock; enum status status; } rows[] = {
		{ SCOPE_ALLOW_DISABLED, UAC_ACCOUNTDISABLE, INT64_MAX, false, true, STATUS_USER_DISABLED }, { SCOPE_ALLOW_EXPIRED, 0, 1000, false, true, STATUS_USER_EXPIRED },
		{ SCOPE_ALLOW_SMARTCARD, UAC_SMARTCARD_REQUIRED, INT64_MAX, false, false, STATUS_USER_SMARTCARD }, { SCOPE_ALLOW_CANNOT_CHANGE, 0, INT64_MAX, true, false, STATUS_USER_CANNOT_CHANGE },
	};
	const unsigned all = SCOPE_ALLOW_DISABLED | SCOPE_ALLOW_EXPIRED | SCOPE_ALLOW_SMARTCARD | SCOPE_ALLOW_CANNOT_CHANGE;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct account account = { .uac = UAC_NORMAL_ACCOUNT | rows[i].uac, .account_expires_s = rows[i].expires_s, .cannot_change = rows[i].cannot_change };
		struct scope scope = { .allow = rows[i].bit };
		assert_int_equal(scope_judge_state(&scope, &account, true, false, 1000), STATUS_OK);
		assert_int_equal(scope_judge_state(&scope, &account, false, false, 1000), STATUS_OK);
		scope.allow = all & ~rows[i].bit;
		assert_int_equal(scope_judge_state(&scope, &account, true, false, 1000), rows[i].status);
		assert_int_equal(scope_judge_state(&scope, &account, false, false, 1000), rows[i].of_unlock ? rows[i].status : STATUS_OK);
	}
	/* must_change of a password that never expires means nothing, whatever is allowed. */
	struct account never = { .uac = UAC_NORMAL_ACCOUNT | UAC_DONT_EXPIRE_PASSWORD, .account_expires_s = INT64_MAX };
	const struct scope scope = { .allow = all };
	assert_int_equal(scope_judge_state(&scope, &never, true, true, 1000), STATUS_USER_NEVER_EXPIRES);
}

/* alice as a member of Print Operators (550) and of Key Admins (526), with both exempted. */
static struct fixture *make_exempt(struct fixture *f)
{
	make(f)->groups[3] = sid("S-1-5-32-550");
	f->groups[4] = sid(DOMAIN "-526");
	f->account.group_count = 5;
	f->listed[0] = sid("S-1-5-32-550");
	f->listed[1] = sid(DOMAIN "-526");
	f->scope.exempt_groups = f->listed;
	f->scope.exempt_group_count = 2;
	return f;
}

static void administrators_are_exempt_group_by_group(void **state)
{
	struct fixture f;
	assert_int_equal(judge(make_exempt(&f)), STATUS_OK);
	f.account.admin_count = 1; /* explained by the exempted membership */
	assert_int_equal(judge(&f), STATUS_OK);
	f.scope.exempt_group_count = 1; /* one of two is not enough */
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	assert_non_null(strstr(f.why, DOMAIN "-526"));
	make_exempt(&f)->groups[5] = sid("S-1-5-32-544"); /* a third one, nested */
	f.account.group_count = 6;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	make_exempt(&f)->groups[4] = sid("S-1-5-21-7-8-9-526"); /* another domain's group of the same name */
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	make_exempt(&f)->bases[0] = "OU=Paris,DC=corp,DC=example,DC=test"; /* the scope holds for them as for others */
	assert_int_equal(judge(&f), STATUS_USER_OUT_OF_SCOPE);
	make_exempt(&f)->account.group_count = 0;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
}

static void a_sticky_admin_count_is_no_exemption(void **state)
{
	struct fixture f;
	make_exempt(&f)->account.group_count = 3; /* in no protected group any more */
	assert_int_equal(judge(&f), STATUS_OK);
	f.account.admin_count = 1;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	assert_string_equal(f.why, "adminCount is 1");
}

/* Each with its twin, which differs in that one thing only and is let through. */
static void exemptions_never_hold_for_these(void **state)
{
	static const char *const accounts[] = { DOMAIN "-500", DOMAIN "-501", DOMAIN "-502" };
	static const uint32_t bits[] = { UAC_INTERDOMAIN_TRUST_ACCOUNT, UAC_WORKSTATION_TRUST_ACCOUNT, UAC_SERVER_TRUST_ACCOUNT, UAC_PARTIAL_SECRETS_ACCOUNT };
	static const char *const controllers[] = { DOMAIN "-498", DOMAIN "-516", DOMAIN "-521" };
	struct fixture f;
	for (size_t i = 0; i < sizeof accounts / sizeof *accounts; i++) {
		make_exempt(&f)->account.sid = sid(accounts[i]);
		assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	}
	for (size_t i = 0; i < sizeof bits / sizeof *bits; i++) {
		make_exempt(&f)->account.uac |= bits[i];
		assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	}
	for (size_t i = 0; i < sizeof controllers / sizeof *controllers; i++) {
		make_exempt(&f);
		f.groups[3] = f.listed[0] = sid(controllers[i]);
		assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	}
	make_exempt(&f)->account.is_user = false;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	make_exempt(&f)->account.is_critical_system_object = true;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	make_exempt(&f)->account.is_self = true;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	make_exempt(&f)->account.self_unknown = true;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	make_exempt(&f)->account.has_spn = true;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	make_exempt(&f)->scope.protect_groups = &f.groups[2]; /* "staff" */
	f.scope.protect_group_count = f.scope.protect_groups_configured = 1;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	assert_non_null(strstr(f.why, "scope.protect"));
	f.scope.protect_groups = f.listed; /* the exempted group itself: protection wins */
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	assert_int_equal(judge(make_exempt(&f)), STATUS_OK);
}

static void what_may_be_exempted(void **state)
{
	static const char *const groups[] = { "S-1-5-32-544", "S-1-5-32-548", "S-1-5-32-552", DOMAIN "-512", DOMAIN "-519", DOMAIN "-526", "S-1-5-21-7-8-9-518" };
	static const char *const others[] = { DOMAIN "-516", DOMAIN "-498", DOMAIN "-521", DOMAIN "-500", DOMAIN "-513", DOMAIN "-1200", "S-1-5-32-545", "S-1-5-11" };
	struct sid parsed;
	for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
		parsed = sid(groups[i]);
		assert_true(scope_is_exemptible(&parsed));
		assert_non_null(scope_protected_group(&parsed));
	}
	for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
		parsed = sid(others[i]);
		assert_false(scope_is_exemptible(&parsed));
	}
}

/* Flavor ldap: identities are entries' UUIDs, no domain's SID is needed, and no group at all is an answer. */
static void entries(void **state)
{
	static const uint8_t ALICE[16] = { 1 }, STAFF[16] = { 2 }, ADMINS[16] = { 3 };
	struct fixture f;
	make(&f);
	struct sid staff, admins;
	sid_from_entry(STAFF, &staff);
	sid_from_entry(ADMINS, &admins);
	sid_from_entry(ALICE, &f.account.sid);
	f.account.is_entry = f.account.groups_read = true;
	f.account.group_count = 0;
	f.scope.domain = (struct sid){ 0 };
	assert_int_equal(judge(&f), STATUS_OK);
	/* Unread groups are not none; an entry without an identity is nobody; a SID is no entry. */
	f.account.groups_read = false;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	f.account.groups_read = true;
	struct sid own = f.account.sid;
	f.account.sid = (struct sid){ 0 };
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	f.account.sid = sid(DOMAIN "-1104");
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	f.account.sid = own;
	f.account.is_user = false;
	assert_int_not_equal(judge(&f), STATUS_OK);
	f.account.is_user = true;
	/* Selected by a group, and protected by another one or by name. */
	f.groups[0] = staff;
	f.account.group_count = 1;
	f.scope.groups = &staff;
	f.scope.group_count = f.scope.groups_configured = 1;
	assert_int_equal(judge(&f), STATUS_OK);
	f.groups[0] = admins;
	assert_int_equal(judge(&f), STATUS_USER_OUT_OF_SCOPE);
	f.groups[1] = staff;
	f.account.group_count = 2;
	f.listed[0] = admins;
	f.scope.protect_groups = f.listed;
	f.scope.protect_group_count = f.scope.protect_groups_configured = 1;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	f.listed[0] = own;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
	f.listed[0] = (struct sid){ .size = 0 };
	f.scope.protect_groups_configured = 2;
	assert_int_equal(judge(&f), STATUS_USER_PROTECTED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ordinary_user_is_in_scope), cmocka_unit_test(entries), cmocka_unit_test(k16_groups_are_protected), cmocka_unit_test(other_groups_are_not_protected),
		cmocka_unit_test(k16_accounts_are_protected), cmocka_unit_test(k23_machine_and_trust_accounts_are_protected),
		cmocka_unit_test(what_cannot_be_read_is_a_refusal), cmocka_unit_test(users_none_refuses_everybody), cmocka_unit_test(bases_select),
		cmocka_unit_test(groups_select), cmocka_unit_test(exclusions_win), cmocka_unit_test(local_protection), cmocka_unit_test(a_short_buffer_is_enough),
		cmocka_unit_test(states), cmocka_unit_test(states_that_the_premises_allow), cmocka_unit_test(administrators_are_exempt_group_by_group),
		cmocka_unit_test(a_sticky_admin_count_is_no_exemption), cmocka_unit_test(exemptions_never_hold_for_these), cmocka_unit_test(what_may_be_exempted),
	};
	return cmocka_run_group_tests_name("scope", tests, NULL, NULL);
}
