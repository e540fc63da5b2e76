/* What is asked and what is written: filters, the GUID name, the encoded modify, the control. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "agent/directory/credential.h"
#include "agent/directory/flavor.h"
#include "agent/directory/ldap_filter.h"
#include "agent/directory/policy_cache.h"

#define BASE "DC=corp,DC=example,DC=com"
static const struct root_facts ROOT = { .naming_context = (char *)BASE };
static const struct view VIEW = { .root = &ROOT, .base_dn = BASE };
#define PERSON "(objectCategory=person)(objectClass=user)"
#define ANCHOR "\\ff\\19\\96o\\86\\8b\\11\\d0\\b4\\2d\\00\\cfO\\c9d\\ff"

static void check_filter(enum locate_by by, const char *id, const char *filter)
{
	struct ldap_search search;
	uint8_t guid[16];
	assert_int_equal(ACTIVE_DIRECTORY.find_user(&VIEW, by, id, &search, guid), STATUS_OK);
	assert_string_equal(search.base, BASE);
	assert_int_equal(search.scope, LDAP_SCOPE_SUBTREE);
	assert_int_equal(search.size_limit, 2);
	assert_string_equal(search.filter, filter);
	ldap_search_clear(&search);
}

static void filters(void **state)
{
	check_filter(LOCATE_UPN, "alice@corp", "(&" PERSON "(userPrincipalName=alice\\40corp))");
	check_filter(LOCATE_SAM, "alice", "(&" PERSON "(sAMAccountName=alice))");
	check_filter(LOCATE_CONSISTENCY_GUID, "6f9619ff-8b86-d011-b42d-00cf4fc964ff",
	             "(&" PERSON "(|(mS-DS-ConsistencyGuid=" ANCHOR ")(&(objectGUID=" ANCHOR ")(!(mS-DS-ConsistencyGuid=*)))))");
}

static void injections(void **state)
{
	static const char *const IDS[] = { "*", ")(objectClass=*", "\\2a", "admin)(|(cn=*", "a\x01z", "J\xc3\xbcrgen", "a=b,c+d<e>f#g;h\"i\\" };
	for (size_t i = 0; i < sizeof IDS / sizeof IDS[0]; i++) {
		struct ldap_search search;
		uint8_t guid[16];
		assert_int_equal(ACTIVE_DIRECTORY.find_user(&VIEW, LOCATE_SAM, IDS[i], &search, guid), STATUS_OK);
		const char *value = strstr(search.filter, "sAMAccountName=") + strlen("sAMAccountName=");
		assert_int_equal(strspn(value, "\\0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") + 2, strlen(value)); /* "))" and nothing else */
		ldap_search_clear(&search);
	}
}

static void guids(void **state)
{
	struct ldap_search search;
	uint8_t guid[16];
	char name[64];
	static const char *const WRONG[] = { "", "nonsense", "6f9619ff-8b86-d011-b42d-00cf4fc964f", "6f9619ff-8b86-d011-b42d-00cf4fc964fff" };
	assert_int_equal(ACTIVE_DIRECTORY.find_user(&VIEW, LOCATE_OBJECT_GUID, "6f9619ff-8b86-d011-b42d-00cf4fc964ff", &search, guid), STATUS_OK);
	assert_null(search.base);
	ACTIVE_DIRECTORY.name_user(guid, name);
	assert_string_equal(name, "<GUID=ff19966f868b11d0b42d00cf4fc964ff>");
	for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
		assert_int_equal(ACTIVE_DIRECTORY.find_user(&VIEW, LOCATE_OBJECT_GUID, WRONG[i], &search, guid), STATUS_USER_NOT_FOUND);
		assert_int_equal(ACTIVE_DIRECTORY.find_user(&VIEW, LOCATE_CONSISTENCY_GUID, WRONG[i], &search, guid), STATUS_USER_NOT_FOUND);
	}
	assert_int_equal(ACTIVE_DIRECTORY.find_user(&VIEW, LOCATE_UPN, "", &search, guid), STATUS_USER_NOT_FOUND);
}

static void self(void **state)
{
	static const struct { const char *name, *base, *filter; int scope; } ROWS[] = {
		{ "CN=svc,DC=x", "CN=svc,DC=x", NULL, LDAP_SCOPE_BASE },
		{ "svc@x", BASE, "(|(userPrincipalName=svc\\40x)(sAMAccountName=svc))", LDAP_SCOPE_SUBTREE },
		{ "CORP\\svc", BASE, "(|(userPrincipalName=svc)(sAMAccountName=svc))", LDAP_SCOPE_SUBTREE },
		{ "svc", BASE, "(|(userPrincipalName=svc)(sAMAccountName=svc))", LDAP_SCOPE_SUBTREE },
	};
	for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
		struct ldap_search search;
		assert_int_equal(ACTIVE_DIRECTORY.find_self(&VIEW, ROWS[i].name, &search), STATUS_OK);
		assert_string_equal(search.base, ROWS[i].base);
		assert_int_equal(search.scope, ROWS[i].scope);
		assert_true((search.filter == NULL) == (ROWS[i].filter == NULL));
		if (search.filter != NULL) {
			assert_string_equal(search.filter, ROWS[i].filter);
		}
		ldap_search_clear(&search);
	}
}

static void check_item(const LDAPMod *mod, int kind, const char *type, const void *value, size_t size)
{
	assert_int_equal(mod->mod_op, kind | LDAP_MOD_BVALUES);
	assert_string_equal(mod->mod_type, type);
	assert_int_equal(mod->mod_bvalues[0]->bv_len, size);
	assert_memory_equal(mod->mod_bvalues[0]->bv_val, value, size);
	assert_null(mod->mod_bvalues[1]);
}

static void check_mod(const LDAPMod *mod, const char *type, const void *value, size_t size)
{
	check_item(mod, LDAP_MOD_REPLACE, type, value, size);
}

static void changes(void **state)
{
	/* "aü" and a key outside the BMP, in quotes, UTF-16LE */
	static const uint8_t WIRE[] = { 0x22, 0, 0x61, 0, 0xfc, 0, 0x3d, 0xd8, 0x11, 0xdd, 0x22, 0 };
	struct directory_change wanted = { .set_password = true, .password = bytes_of("a\xc3\xbc\xf0\x9f\x94\x91", 7), .must_change = true, .clear_lockout = true, .enforce_policy = true };
	struct change *change, *after;
	assert_int_equal(ACTIVE_DIRECTORY.change_new(&VIEW, NULL, &wanted, "1.2.840.113556.1.4.2239", &change, &after), STATUS_OK);
	LDAPMod **mods = change_mods(change);
	check_mod(mods[0], "unicodePwd", WIRE, sizeof WIRE);
	check_mod(mods[1], "lockoutTime", "0", 1);
	check_mod(mods[2], "pwdLastSet", "0", 1);
	assert_null(mods[3]);
	LDAPControl **controls = change_controls(change);
	assert_string_equal(controls[0]->ldctl_oid, "1.2.840.113556.1.4.2239");
	assert_int_equal(controls[0]->ldctl_iscritical, 1);
	assert_int_equal(controls[0]->ldctl_value.bv_len, 5);
	assert_memory_equal(controls[0]->ldctl_value.bv_val, "\x30\x03\x02\x01\x01", 5);
	assert_null(controls[1]);
	change_free(change);
}

/* MS-ADTS 3.1.1.3.1.5.1: the old value deleted, then the new one added. */
static void change_of_the_user(void **state)
{
	struct directory_change wanted = { .set_password = true, .password = bytes_of_string("b"), .old_password = bytes_of("\xc3\xbc", 2) };
	struct change *change, *after;
	assert_int_equal(ACTIVE_DIRECTORY.change_new(&VIEW, NULL, &wanted, NULL, &change, &after), STATUS_OK);
	LDAPMod **mods = change_mods(change);
	check_item(mods[0], LDAP_MOD_DELETE, "unicodePwd", "\x22\0\xfc\0\x22\0", 6);
	check_item(mods[1], LDAP_MOD_ADD, "unicodePwd", "\x22\0\x62\0\x22\0", 6);
	assert_null(mods[2]);
	assert_null(change_controls(change));
	change_free(change);
	wanted.old_password = bytes_of("\xff", 1);
	assert_int_equal(ACTIVE_DIRECTORY.change_new(&VIEW, NULL, &wanted, NULL, &change, &after), STATUS_DIRECTORY_ENCRYPTION);
}

static void unlock_only(void **state)
{
	struct directory_change wanted = { .clear_lockout = true };
	struct change *change, *after;
	assert_int_equal(ACTIVE_DIRECTORY.change_new(&VIEW, NULL, &wanted, NULL, &change, &after), STATUS_OK);
	check_mod(change_mods(change)[0], "lockoutTime", "0", 1);
	assert_null(change_mods(change)[1]);
	assert_null(change_controls(change));
	change_free(change);
}

static void invalid_password(void **state)
{
	struct directory_change wanted = { .set_password = true, .password = bytes_of("a\xff", 2) };
	struct change *change, *after;
	assert_int_equal(ACTIVE_DIRECTORY.change_new(&VIEW, NULL, &wanted, NULL, &change, &after), STATUS_DIRECTORY_ENCRYPTION);
}

static void policies(void **state)
{
	struct policy_cache *cache = test_calloc(1, sizeof *cache);
	struct password_policy policy = { .source = POLICY_PSO, .source_name = (char *)"CN=a", .min_length = 16 }, got;
	char dn[16];
	policy_cache_put(cache, "CN=a", 1000, &policy);
	assert_true(policy_cache_get(cache, "cn=A", 1500, 500, &got));
	assert_int_equal(got.min_length, 16);
	assert_string_equal(got.source_name, "CN=a");
	free(got.source_name);
	assert_false(policy_cache_get(cache, "CN=a", 1501, 500, &got));
	assert_false(policy_cache_get(cache, "CN=b", 1000, 500, &got));
	for (int i = 0; i < POLICY_CACHE_MAX; i++) { /* the oldest goes */
		snprintf(dn, sizeof dn, "CN=%d", i);
		policy_cache_put(cache, dn, 2000 + i, &policy);
	}
	assert_false(policy_cache_get(cache, "CN=a", 2000, 100000, &got));
	assert_true(policy_cache_get(cache, "CN=0", 2000, 100000, &got));
	free(got.source_name);
	policy_cache_clear(cache);
	test_free(cache);
}

static void credential_turns(void **state)
{
	static const char *const FILE_NAME = "/nonexistent/credential";
	struct credential credential = { .file = FILE_NAME };
	int64_t minute = (int64_t)CREDENTIAL_PAUSE_S * 1000000;
	assert_int_equal(credential_take(&credential, 0), CREDENTIAL_GO);
	assert_int_equal(credential_take(&credential, 0), CREDENTIAL_WAIT); /* one at a time until one has succeeded */
	credential_report(&credential, STATUS_DIRECTORY_CREDENTIAL, 10);
	assert_int_equal(credential_take(&credential, 10 + minute - 1), CREDENTIAL_BLOCKED);
	assert_int_equal(credential_take(&credential, 10 + minute), CREDENTIAL_GO);
	credential_report(&credential, STATUS_DIRECTORY_TIMEOUT, 20 + minute); /* says nothing about the password */
	assert_int_equal(credential_take(&credential, 20 + minute), CREDENTIAL_GO);
	credential_report(&credential, STATUS_OK, 30 + minute);
	assert_int_equal(credential_take(&credential, 30 + minute), CREDENTIAL_GO);
	assert_int_equal(credential_take(&credential, 30 + minute), CREDENTIAL_GO);
	assert_int_equal(credential_take(&credential, 30 + minute), CREDENTIAL_WAIT);
	credential_report(&credential, STATUS_DIRECTORY_CREDENTIAL, 40 + minute); /* the password was changed behind our back */
	assert_int_equal(credential_take(&credential, 40 + minute), CREDENTIAL_BLOCKED);
	assert_int_equal(credential_read(&credential), STATUS_LOCAL_SYSTEM);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(filters), cmocka_unit_test(injections), cmocka_unit_test(guids), cmocka_unit_test(self), cmocka_unit_test(changes), cmocka_unit_test(change_of_the_user),
		cmocka_unit_test(unlock_only), cmocka_unit_test(invalid_password), cmocka_unit_test(policies), cmocka_unit_test(credential_turns) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
