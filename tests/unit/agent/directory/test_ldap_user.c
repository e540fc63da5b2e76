/* What is made of a user's entry of OpenLDAP and of 389 Directory Server, whole, poor and hostile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "agent/directory/ldap_directory.h"

#define ESCAPED_DN "uid\\3dalice\\2cou\\3dpeople\\2cdc\\3dexample\\2cdc\\3dtest"
#define DN "uid=alice,ou=people,dc=example,dc=test"
#define UUID "6f9619ff-8b86-d011-b42d-00cf4fc964ff"
#define AGENT "cn=svc,dc=example,dc=test"

enum { ATTRIBUTES_MAX = 12, VALUES_MAX = 33 };
struct made {
	struct entry entry;
	struct entry_attribute attributes[ATTRIBUTES_MAX];
	struct berval values[ATTRIBUTES_MAX][VALUES_MAX + 1];
};
static const struct directory_settings SETTINGS = { .kind = DIRECTORY_LDAP };
static const struct root_facts ROOT = { .kind = SERVER_OPENLDAP };
static const struct view VIEW = { .settings = &SETTINGS, .root = &ROOT, .self = AGENT };

static void add(struct made *made, const char *name, const char *value)
{
	size_t i = 0, k = 0;
	made->entry.attributes = made->attributes;
	while (i < made->entry.count && strcmp(made->attributes[i].name.bv_val, name) != 0) {
		i++;
	}
	assert_true(i < ATTRIBUTES_MAX);
	made->entry.count += i == made->entry.count;
	made->attributes[i] = (struct entry_attribute){ { strlen(name), (char *)name }, made->values[i] };
	while (made->values[i][k].bv_val != NULL) {
		k++;
	}
	assert_true(k < VALUES_MAX);
	made->values[i][k] = (struct berval){ strlen(value), (char *)value };
}

/* Whom nothing speaks against. */
static void make(struct made *made)
{
	*made = (struct made){ .entry.dn = { strlen(DN), (char *)DN } };
	add(made, "objectClass", "inetOrgPerson");
	add(made, "uid", "alice");
	add(made, "cn", "Alice Archer");
	add(made, "entryUUID", UUID);
}

static struct user_facts facts;
static const struct account *read_user(const struct made *made)
{
	user_facts_clear(&facts);
	assert_int_equal(ldap_user_from_entry(&VIEW, &made->entry, &facts), STATUS_OK);
	return &facts.account;
}

static void complete(void **state)
{
	struct made made;
	make(&made);
	add(&made, "gidNumber", "5000");
	add(&made, "pwdPolicySubentry", "cn=aged,dc=example,dc=test");
	const struct account *account = read_user(&made);
	assert_string_equal(account->guid, UUID);
	assert_string_equal(account->uid, "alice");
	assert_string_equal(account->display_name, "Alice Archer");
	assert_true(account->is_user && account->is_entry && !account->locked && !account->lockout_time_set && !(account->uac & UAC_ACCOUNTDISABLE));
	assert_string_equal(facts.policy_dn, "cn=aged,dc=example,dc=test");
	assert_string_equal(facts.group_filter, "(|(member=" ESCAPED_DN ")(uniqueMember=" ESCAPED_DN ")(memberUid=alice)(&(objectClass=posixGroup)(gidNumber=5000)))");
}

/* Nothing is guessed where one of these is hidden. */
static void what_it_rests_on(void **state)
{
	static const char *const NEEDED[] = { "objectClass", "entryUUID" };
	for (size_t hidden = 0; hidden <= 2; hidden++) {
		struct made made;
		make(&made);
		for (size_t i = 0; hidden < 2 && i < made.entry.count; i++) {
			if (strcmp(made.attributes[i].name.bv_val, NEEDED[hidden]) == 0) {
				made.attributes[i].name = (struct berval){ 6, (char *)"hidden" };
			}
		}
		if (hidden == 2) {
			made.entry.dn = (struct berval){ 0 };
		}
		struct user_facts none;
		assert_int_equal(ldap_user_from_entry(&VIEW, &made.entry, &none), STATUS_DIRECTORY_DENIED);
		assert_null(none.group_filter);
	}
}

static void identities(void **state)
{
	static const struct { const char *name, *value; bool good; } ROWS[] = {
		{ "entryUUID", UUID, true }, { "nsUniqueId", "6f9619ff-8b86d011-b42d00cf-4fc964ff", true }, { "entryUUID", "", false }, { "entryUUID", "6f9619ff-8b86-d011-b42d-00cf4fc964f", false },
		{ "nsUniqueId", "6f9619ff-8b86d011-b42d00cf-4fc964fff", false }, { "nsUniqueId", "6f9619ff-8b86d011-b42d00cf-4fc964f", false }, { "nsUniqueId", "zz9619ff-8b86d011-b42d00cf-4fc964ff", false },
		{ "nsUniqueId", "", false },
	};
	for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
		struct made made = { 0 };
		char text[64];
		uint8_t guid[16];
		add(&made, ROWS[i].name, ROWS[i].value);
		assert_int_equal(ldap_entry_guid(&made.entry, guid), ROWS[i].good);
		if (ROWS[i].good) {
			guid_format(guid, text);
			assert_string_equal(text, UUID);
		}
	}
}

static void who_is_a_person(void **state)
{
	static const struct { const char *class; bool is; } ROWS[] = { { "inetOrgPerson", true }, { "POSIXACCOUNT", true }, { "account", true }, { "organizationalRole", false }, { "groupOfNames", false }, { "personal", false } };
	for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
		struct made made;
		make(&made);
		made.values[0][0] = (struct berval){ strlen(ROWS[i].class), (char *)ROWS[i].class };
		assert_int_equal(read_user(&made)->is_user, ROWS[i].is);
	}
}

static void states(void **state)
{
	static const struct { const char *names[2], *values[2]; bool locked, set, disabled; } ROWS[] = {
		{ { "pwdAccountLockedTime" }, { "20261122205344Z" }, true, true, false },
		{ { "pwdAccountLockedTime" }, { "000001010000Z" }, false, false, true },
		{ { "nsAccountLock" }, { "true" }, false, false, true },
		{ { "nsAccountLock" }, { "false" }, false, false, false },
		{ { "accountUnlockTime", "passwordRetryCount" }, { "20990101000000Z", "3" }, true, true, false },
		{ { "accountUnlockTime", "passwordRetryCount" }, { "20200101000000Z", "3" }, false, true, false },
		{ { "accountUnlockTime", "passwordRetryCount" }, { "20990101000000Z", "0" }, false, false, false },
		{ { "accountUnlockTime" }, { "19700101000000Z" }, true, true, false },
		{ { "accountUnlockTime" }, { "not a time" }, true, true, false }, /* the safe side */
		{ { "passwordRetryCount" }, { "2" }, false, false, false },
	};
	for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
		struct made made;
		make(&made);
		for (size_t k = 0; k < 2 && ROWS[i].names[k] != NULL; k++) {
			add(&made, ROWS[i].names[k], ROWS[i].values[k]);
		}
		const struct account *account = read_user(&made);
		assert_int_equal(account->locked, ROWS[i].locked);
		assert_int_equal(account->lockout_time_set, ROWS[i].set);
		assert_int_equal((account->uac & UAC_ACCOUNTDISABLE) != 0, ROWS[i].disabled);
	}
}

/* What a name holds never becomes a part of the filter; where not all names can be asked for, nobody is read. */
static void hostile_names(void **state)
{
	struct made made;
	static char names[VALUES_MAX][16];
	make(&made);
	made.entry.dn = (struct berval){ strlen("uid=a\\2a)(uid=*,dc=x"), (char *)"uid=a\\2a)(uid=*,dc=x" };
	for (size_t i = 1; i < VALUES_MAX - 1; i++) {
		snprintf(names[i], sizeof names[i], "*)(cn=%zu", i);
		add(&made, "uid", names[i]);
	}
	add(&made, "gidNumber", "5000)(cn=*");
	read_user(&made);
	unsigned asked = 0, depth = 0, closed = 0;
	for (const char *at = facts.group_filter; *at; at++) {
		asked += strncmp(at, "(memberUid=", 11) == 0;
		depth += *at == '(';
		closed += *at == ')';
	}
	assert_int_equal(asked, VALUES_MAX - 1);
	assert_int_equal(depth, closed);
	assert_int_equal(depth, 3 + asked);
	assert_null(strchr(facts.group_filter, '*'));
	assert_null(strstr(facts.group_filter, "gidNumber"));
	struct user_facts none;
	add(&made, "uid", "one too many");
	assert_int_equal(ldap_user_from_entry(&VIEW, &made.entry, &none), STATUS_DIRECTORY_DENIED);
}

static void generalized(time_t at, char out[32])
{
	strftime(out, 32, "%Y%m%d%H%M%SZ", gmtime(&at));
}

/* A record settles nothing while its second may still see another write, nor says it anything without a writer. */
static void records(void **state)
{
	static const struct { int age_s; const char *writer; bool known, young; } ROWS[] = {
		{ 100, AGENT, true, false }, { 6, AGENT, true, false }, { 2, AGENT, true, true }, { -60, AGENT, true, true }, { 100, NULL, false, false }, { 2, NULL, false, false },
	};
	for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
		struct made made;
		char at[32];
		time_t set = time(NULL) - ROWS[i].age_s;
		generalized(set, at);
		make(&made);
		add(&made, "pwdChangedTime", at);
		if (ROWS[i].writer != NULL) {
			add(&made, "modifiersName", ROWS[i].writer);
		}
		read_user(&made);
		assert_int_equal(facts.password_record.known, ROWS[i].known);
		assert_int_equal(facts.password_record.young, ROWS[i].young);
		assert_false(facts.password_record.absent);
		assert_int_equal(facts.password_record.time_s, set);
		assert_int_equal(facts.password_record.originating_usn, set);
	}
}

/* Whose write it would be: the agent's account, however its DN is spelled; of a change the user himself. */
static void originators(void **state)
{
	struct made made;
	struct server_position position = { 0 };
	make(&made);
	add(&made, "modifiersName", "CN=svc, dc=Example,dc=test");
	add(&made, "pwdChangedTime", "20261122205344Z");
	read_user(&made);
	ldap_complete_user(&VIEW, &facts, &position);
	assert_memory_equal(position.invocation_id, facts.password_record.originator, 16);
	assert_false(position.invocation_known); /* so there is no second write */
	assert_true(position.own_known);
	assert_memory_not_equal(position.own_id, facts.password_record.originator, 16);
	made.values[4][0] = (struct berval){ strlen(DN), (char *)DN };
	read_user(&made);
	assert_memory_equal(position.own_id, facts.password_record.originator, 16);
	assert_memory_not_equal(position.invocation_id, facts.password_record.originator, 16);
	/* Nobody tells as whom it is bound: nothing is ours. */
	static const uint8_t NOBODY[16];
	struct view unknown = VIEW;
	struct server_position open = { 0 };
	unknown.self = "";
	ldap_complete_user(&unknown, &facts, &open);
	assert_memory_equal(open.invocation_id, NOBODY, 16);
}

static enum status change_of(struct directory_change wanted, enum server_kind kind, bool must_change, struct change **ret_change, struct change **ret_after)
{
	struct root_facts root = { .kind = kind, .policy_control = "1.3.6.1.4.1.42.2.27.8.5.1" };
	struct view view = { .settings = &SETTINGS, .root = &root };
	struct account account = { .dn = (char *)DN, .policy.must_change = must_change };
	*ret_change = *ret_after = NULL;
	return ldap_change_new(&view, &account, &wanted, NULL, ret_change, ret_after);
}

#define NEW { (const uint8_t *)"new", 3 }
static void changes(void **state)
{
	static const struct { struct directory_change wanted; enum server_kind kind; bool extended, after; const char *first; } ROWS[] = {
		{ { .set_password = true, .password = NEW }, SERVER_OPENLDAP, true, false, NULL },
		{ { .set_password = true, .password = NEW, .must_change = true }, SERVER_OPENLDAP, true, true, NULL },
		{ { .set_password = true, .password = NEW, .clear_lockout = true }, SERVER_389, false, false, "userPassword" },
		{ { .set_password = true, .password = NEW, .must_change = true }, SERVER_389, true, false, NULL },
		{ { .set_password = true, .password = NEW, .old_password = NEW }, SERVER_389, true, false, NULL },
		{ { .clear_lockout = true }, SERVER_OPENLDAP, false, false, "pwdAccountLockedTime" },
		{ { .clear_lockout = true }, SERVER_389, false, false, "accountUnlockTime" },
	};
	for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
		struct change *change, *after;
		assert_int_equal(change_of(ROWS[i].wanted, ROWS[i].kind, true, &change, &after), STATUS_OK);
		assert_int_equal(change->extended != NULL, ROWS[i].extended);
		assert_int_equal(after != NULL, ROWS[i].after);
		assert_non_null(change_controls(change));
		if (ROWS[i].first != NULL) {
			assert_string_equal(change_mods(change)[0]->mod_type, ROWS[i].first);
		}
		change_free(change);
		change_free(after);
	}
}

/* RFC 3062 section 2; lengths of one, two and three octets. */
static void the_extended_request(void **state)
{
	static const uint8_t SHORT[] = "\x30\x32\x80\x26" DN "\x81\x03" "old" "\x82\x03" "new";
	static uint8_t long_password[300];
	struct change *change, *after;
	struct directory_change wanted = { .set_password = true, .password = NEW, .old_password = { (const uint8_t *)"old", 3 } };
	assert_int_equal(change_of(wanted, SERVER_OPENLDAP, false, &change, &after), STATUS_OK);
	assert_int_equal(change->request_value.bv_len, sizeof SHORT - 1);
	assert_memory_equal(change->request_value.bv_val, SHORT, sizeof SHORT - 1);
	change_free(change);
	memset(long_password, 'x', sizeof long_password);
	wanted = (struct directory_change){ .set_password = true, .password = { long_password, 200 } };
	assert_int_equal(change_of(wanted, SERVER_OPENLDAP, false, &change, &after), STATUS_OK);
	assert_memory_equal(change->request_value.bv_val, "\x30\x81\xf3\x80\x26", 5);
	assert_memory_equal(change->request_value.bv_val + 3 + 2 + 38, "\x82\x81\xc8xxx", 6);
	change_free(change);
	wanted.password.size = 300;
	assert_int_equal(change_of(wanted, SERVER_OPENLDAP, false, &change, &after), STATUS_OK);
	assert_memory_equal(change->request_value.bv_val, "\x30\x82\x01\x58\x80\x26", 6);
	assert_memory_equal(change->request_value.bv_val + 4 + 2 + 38, "\x82\x82\x01\x2cxxx", 7);
	change_free(change);
}

static void refused_changes(void **state)
{
	struct change *change, *after;
	struct directory_change wanted = { .set_password = true, .password = NEW, .must_change = true };
	assert_int_equal(change_of(wanted, SERVER_OPENLDAP, false, &change, &after), STATUS_REQUEST_UNSUPPORTED);
	assert_int_equal(change_of(wanted, SERVER_389, false, &change, &after), STATUS_REQUEST_UNSUPPORTED);
	wanted = (struct directory_change){ .set_password = true, .password = { (const uint8_t *)"a\xff", 2 } };
	assert_int_equal(change_of(wanted, SERVER_OPENLDAP, true, &change, &after), STATUS_DIRECTORY_ENCRYPTION);
	assert_null(change);
}

static int clear(void **state)
{
	user_facts_clear(&facts);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(complete), cmocka_unit_test(what_it_rests_on), cmocka_unit_test(identities), cmocka_unit_test(who_is_a_person), cmocka_unit_test(states),
		cmocka_unit_test(hostile_names), cmocka_unit_test(records), cmocka_unit_test(originators), cmocka_unit_test(changes), cmocka_unit_test(the_extended_request),
		cmocka_unit_test(refused_changes),
	};
	return cmocka_run_group_tests_name("ldap_user", tests, NULL, clear);
}
