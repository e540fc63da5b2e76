#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/account.h"

static struct sid sid(const char *text)
{
	struct sid parsed;
	assert_int_equal(sid_parse(text, &parsed), STATUS_OK);
	return parsed;
}

static void text_and_octets_agree(void **state)
{
	static const char *const texts[] = { "S-1-5-32-544", "S-1-5-21-1-2-4294967295-512", "S-1-0-0", "S-1-5-18", "S-1-0x123456789abc-1-2",
		"S-1-5-1-2-3-4-5-6-7-8-9-10-11-12-13-14-15" };
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct sid one = sid(texts[i]), two;
		char text[SID_TEXT_MAX];
		sid_format(&one, text);
		assert_string_equal(text, texts[i]);
		assert_int_equal(sid_from_octets(bytes_of(one.octets, one.size), &two), STATUS_OK);
		assert_true(sid_equal(&one, &two));
	}
}

static void known_octets(void **state)
{
	static const uint8_t octets[] = { 1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 0x15, 0xcd, 0x5b, 7, 2, 0, 0, 0, 3, 0, 0, 0, 0, 2, 0, 0 };
	struct sid parsed;
	char text[SID_TEXT_MAX];
	assert_int_equal(sid_from_octets(bytes_of(octets, sizeof octets), &parsed), STATUS_OK);
	sid_format(&parsed, text);
	assert_string_equal(text, "S-1-5-21-123456789-2-3-512");
	assert_int_equal(sid_rid(&parsed), 512);
}

static void longest_text_fits(void **state)
{
	struct sid longest = { .size = SID_MAX };
	char text[SID_TEXT_MAX];
	memset(longest.octets, 0xff, SID_MAX);
	longest.octets[0] = 1;
	longest.octets[1] = 15;
	sid_format(&longest, text);
	assert_true(strlen(text) < SID_TEXT_MAX);
	struct sid again = sid(text);
	assert_true(sid_equal(&longest, &again));
}

static void refuses_malformed_text(void **state)
{
	static const char *const texts[] = { "", "S", "S-1", "S-1-", "S-1-5", "S-1-5-", "S-2-5-32-544", "1-5-32", "S-1-5-32-544-", "S-1-5--32", "S-1-5-4294967296", "S-1-5-032",
		"S-1-5-+1", "S-1-5- 1", "S-1-5-32-544 ", " S-1-5-32-544", "S-1-281474976710656-1", "S-1-0x-1", "S-1-0x1000000000000-1", "S-1-5-0x20",
		"S-1-5-1-2-3-4-5-6-7-8-9-10-11-12-13-14-15-16", "S-1-5-99999999999999999999999999" };
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct sid parsed;
		assert_int_equal(sid_parse(texts[i], &parsed), STATUS_LOCAL_INPUT);
		assert_int_equal(parsed.size, 0);
	}
	struct sid parsed;
	assert_int_equal(sid_parse(NULL, &parsed), STATUS_LOCAL_INPUT);
}

static void refuses_octets_of_any_other_size(void **state)
{
	struct sid whole = sid("S-1-5-21-1-2-3-1104"), parsed;
	uint8_t octets[SID_MAX + 8] = { 0 };
	memcpy(octets, whole.octets, whole.size);
	for (size_t size = 0; size < sizeof octets; size++) {
		enum status expected = size == whole.size ? STATUS_OK : STATUS_LOCAL_INPUT;
		assert_int_equal(sid_from_octets(bytes_of(octets, size), &parsed), expected);
	}
	octets[0] = 2;
	assert_int_equal(sid_from_octets(bytes_of(octets, whole.size), &parsed), STATUS_LOCAL_INPUT);
	octets[0] = 1;
	octets[1] = 16;
	assert_int_equal(sid_from_octets(bytes_of(octets, 72), &parsed), STATUS_LOCAL_INPUT);
}

static void equality_and_domains(void **state)
{
	struct sid domain = sid("S-1-5-21-1-2-3"), other = sid("S-1-5-21-1-2-4"), user = sid("S-1-5-21-1-2-3-1104"), nested = sid("S-1-5-21-1-2-3-4-5"), none = { 0 };
	assert_true(sid_in_domain(&user, &domain));
	assert_false(sid_in_domain(&user, &other));
	assert_false(sid_in_domain(&domain, &domain));
	assert_false(sid_in_domain(&nested, &domain));
	assert_false(sid_in_domain(&user, &none));
	assert_false(sid_in_domain(&none, &none));
	assert_false(sid_equal(&user, &domain));
	/* Two that could not be read are not the same one. */
	assert_false(sid_equal(&none, &none));
	assert_int_equal(sid_rid(&none), 0);
}

static void clearing_takes_zeroed_and_filled(void **state)
{
	struct account account = { 0 };
	account_clear(&account);
	account_clear(NULL);
	account.dn = strdup("CN=a");
	account.display_name = strdup("A");
	account.groups = calloc(2, sizeof *account.groups);
	account.group_count = 2;
	account.policy.source_name = strdup("DC=x");
	account_clear(&account);
	assert_null(account.dn);
	assert_int_equal(account.group_count, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_and_octets_agree), cmocka_unit_test(known_octets), cmocka_unit_test(longest_text_fits), cmocka_unit_test(refuses_malformed_text),
		cmocka_unit_test(refuses_octets_of_any_other_size), cmocka_unit_test(equality_and_domains), cmocka_unit_test(clearing_takes_zeroed_and_filled),
	};
	return cmocka_run_group_tests_name("account", tests, NULL, NULL);
}
