/* What the entries of a controller say about the agent's own rights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "agent/directory/ad_rights.h"
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-const-variable"
#include "descriptors.h"
#pragma GCC diagnostic pop

/* An entry of up to three attributes with one value each. */
struct made {
	struct entry entry;
	struct entry_attribute attributes[3];
	struct berval values[3][2];
};

static void add(struct made *made, const char *name, const void *data, size_t size)
{
	size_t i = made->entry.count++;
	made->values[i][0] = (struct berval){ size, (char *)data };
	made->attributes[i] = (struct entry_attribute){ { strlen(name), (char *)name }, made->values[i] };
	made->entry.attributes = made->attributes;
}

static struct sid sids[3];
static struct token token = { sids, 3 };

static int set_up(void **state)
{
	assert_int_equal(sid_parse("S-1-5-21-1-2-3-1103", &sids[0]), STATUS_OK);
	assert_int_equal(sid_parse("S-1-1-0", &sids[1]), STATUS_OK);
	assert_int_equal(sid_parse("S-1-5-11", &sids[2]), STATUS_OK);
	return 0;
}

static void rights_come_from_the_descriptor(void **state)
{
	struct made user = { 0 };
	struct directory_rights rights = { 0 };
	add(&user, "nTSecurityDescriptor", WRITE_SET, sizeof WRITE_SET);
	ad_rights_read(RIGHTS_OF_USER, &user.entry, &token, &rights);
	assert_int_equal(rights.answers[RIGHT_RESET_PASSWORD], RIGHT_NO);
	assert_int_equal(rights.answers[RIGHT_WRITE_PWD_LAST_SET], RIGHT_YES); /* by its property set */
	assert_int_equal(rights.answers[RIGHT_WRITE_LOCKOUT_TIME], RIGHT_NO);
	assert_int_equal(rights.answers[RIGHT_READ_USER], RIGHT_NO);
	assert_non_null(strstr(rights.unreadable, "adminCount"));
	assert_null(strstr(rights.unreadable, "userAccountControl"));
	assert_int_equal(rights.answers[RIGHT_UNEXPIRE_PASSWORD], RIGHT_UNKNOWN); /* another entry's */
}

static void the_servers_own_word_counts(void **state)
{
	struct made user = { 0 };
	struct directory_rights rights = { 0 };
	add(&user, "nTSecurityDescriptor", WRITE_SET, sizeof WRITE_SET);
	add(&user, "allowedAttributesEffective", "lockoutTime", 11);
	ad_rights_read(RIGHTS_OF_USER, &user.entry, &token, &rights);
	assert_int_equal(rights.answers[RIGHT_WRITE_PWD_LAST_SET], RIGHT_NO);
	assert_int_equal(rights.answers[RIGHT_WRITE_LOCKOUT_TIME], RIGHT_YES);
	assert_true(rights.contradicted[RIGHT_WRITE_PWD_LAST_SET] && rights.contradicted[RIGHT_WRITE_LOCKOUT_TIME]);
	assert_false(rights.contradicted[RIGHT_RESET_PASSWORD]);
}

static void what_cannot_be_read_is_unknown(void **state)
{
	struct made sealed = { 0 }, broken = { 0 }, user = { 0 };
	struct token nobody = { 0 };
	struct sid sid = sids[0];
	struct directory_rights rights = { 0 };
	bool known = true;
	ad_rights_read(RIGHTS_OF_USER, &sealed.entry, &token, &rights);
	assert_int_equal(rights.answers[RIGHT_RESET_PASSWORD], RIGHT_UNKNOWN);
	assert_false(ad_rights_cannot_change(&sealed.entry, &sid, &known) || known);
	add(&broken, "nTSecurityDescriptor", CHANGE_FORBIDDEN, sizeof CHANGE_FORBIDDEN - 1);
	ad_rights_read(RIGHTS_OF_USER, &broken.entry, &token, &rights);
	assert_int_equal(rights.answers[RIGHT_RESET_PASSWORD], RIGHT_UNKNOWN);
	assert_false(ad_rights_cannot_change(&broken.entry, &sid, &known) || known);
	add(&user, "nTSecurityDescriptor", RESET, sizeof RESET);
	ad_rights_read(RIGHTS_OF_USER, &user.entry, &nobody, &rights); /* who we are is not known */
	assert_int_equal(rights.answers[RIGHT_RESET_PASSWORD], RIGHT_UNKNOWN);
	ad_rights_read(RIGHTS_OF_USER, &user.entry, &token, &rights);
	assert_int_equal(rights.answers[RIGHT_RESET_PASSWORD], RIGHT_YES);
}

static void a_container_that_shows_nothing_is_a_no(void **state)
{
	struct made hidden = { 0 }, shown = { 0 }, sealed = { 0 };
	struct directory_rights rights = { 0 };
	add(&sealed, "objectClass", "top", 3);
	ad_rights_read(RIGHTS_OF_POLICIES, &sealed.entry, &token, &rights);
	assert_int_equal(rights.answers[RIGHT_READ_POLICIES], RIGHT_UNKNOWN);
	ad_rights_read(RIGHTS_OF_POLICIES, &hidden.entry, &token, &rights);
	assert_int_equal(rights.answers[RIGHT_READ_POLICIES], RIGHT_NO);
	add(&shown, "nTSecurityDescriptor", CHILDREN_ONLY, sizeof CHILDREN_ONLY);
	ad_rights_read(RIGHTS_OF_POLICIES, &shown.entry, &token, &rights);
	assert_int_equal(rights.answers[RIGHT_READ_POLICIES], RIGHT_YES);
}

static void a_token_has_what_every_token_has(void **state)
{
	struct made root = { 0 }, nothing = { 0 };
	struct token made = { 0 };
	add(&root, "tokenGroups", sids[0].octets, sids[0].size);
	ad_rights_token(&root.entry, &made);
	assert_int_equal(made.count, 3);
	assert_true(sid_equal(&made.sids[0], &sids[0]) && sid_equal(&made.sids[1], &sids[1]) && sid_equal(&made.sids[2], &sids[2]));
	token_clear(&made);
	ad_rights_token(&nothing.entry, &made);
	assert_int_equal(made.count, 0);
}

static void knows_who_cannot_change(void **state)
{
	struct made forbidden = { 0 }, free = { 0 };
	struct sid sid = sids[0];
	bool known = false;
	add(&forbidden, "nTSecurityDescriptor", CHANGE_FORBIDDEN, sizeof CHANGE_FORBIDDEN);
	assert_true(ad_rights_cannot_change(&forbidden.entry, &sid, &known) && known);
	add(&free, "nTSecurityDescriptor", CHANGE_DEFAULT, sizeof CHANGE_DEFAULT);
	assert_true(!ad_rights_cannot_change(&free.entry, &sid, &known) && known);
}

/* Restrictions may be read, and nothing else. */
static void an_absent_attribute_may_be_hidden(void **state)
{
	struct made user = { 0 }, sealed = { 0 }, present = { 0 };
	struct token nobody = { 0 };
	add(&user, "nTSecurityDescriptor", WRITE_SET, sizeof WRITE_SET);
	assert_true(ad_rights_hide(&user.entry, &token, "adminCount"));
	assert_true(ad_rights_hide(&user.entry, &token, "msDS-ResultantPSO"));
	assert_false(ad_rights_hide(&user.entry, &token, "accountExpires"));
	assert_false(ad_rights_hide(&user.entry, &nobody, "adminCount")); /* who we are is not known */
	assert_false(ad_rights_hide(&user.entry, NULL, "adminCount"));
	assert_false(ad_rights_hide(&sealed.entry, &token, "adminCount"));
	add(&present, "nTSecurityDescriptor", WRITE_SET, sizeof WRITE_SET);
	add(&present, "adminCount", "1", 1);
	assert_false(ad_rights_hide(&present.entry, &token, "adminCount"));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(rights_come_from_the_descriptor), cmocka_unit_test(the_servers_own_word_counts), cmocka_unit_test(what_cannot_be_read_is_unknown),
		cmocka_unit_test(a_container_that_shows_nothing_is_a_no), cmocka_unit_test(a_token_has_what_every_token_has), cmocka_unit_test(knows_who_cannot_change), cmocka_unit_test(an_absent_attribute_may_be_hidden) };
	return cmocka_run_group_tests(tests, set_up, NULL);
}
