/* Descriptors as Samba's own code writes them; each that grants has a twin that does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "agent/directory/security_descriptor.h"
#include "descriptors.h"

static const uint8_t RESET_GUID[] = { 0x70, 0x95, 0x29, 0x00, 0x6d, 0x24, 0xd0, 0x11, 0xa7, 0x68, 0x00, 0xaa, 0x00, 0x6e, 0x05, 0x29 };
static const uint8_t LOCKOUT_GUID[] = { 0xbf, 0x0e, 0x63, 0x28, 0xd5, 0x41, 0xd1, 0x11, 0xa9, 0xc1, 0x00, 0x00, 0xf8, 0x03, 0x67, 0xc1 };
static const uint8_t LAST_SET_GUID[] = { 0x0a, 0x7a, 0x96, 0xbf, 0xe6, 0x0d, 0xd0, 0x11, 0xa2, 0x85, 0x00, 0xaa, 0x00, 0x30, 0x49, 0xe2 };
static const uint8_t RESTRICTIONS_GUID[] = { 0x00, 0x42, 0x16, 0x4c, 0xc0, 0x20, 0xd0, 0x11, 0xa7, 0x68, 0x00, 0xaa, 0x00, 0x6e, 0x05, 0x29 };
static const uint8_t PSO_GUID[] = { 0xb8, 0x9d, 0xcd, 0x3b, 0x4b, 0xf8, 0x1c, 0x45, 0x95, 0x2f, 0x6c, 0x52, 0xb8, 0x1f, 0x9e, 0xc6 };

static const struct access_wanted RESET_PASSWORD = { ACCESS_CONTROL, RESET_GUID, NULL, NULL }, WRITE_LOCKOUT_TIME = { ACCESS_WRITE_PROPERTY, LOCKOUT_GUID, NULL, NULL },
	WRITE_LAST_SET = { ACCESS_WRITE_PROPERTY, LAST_SET_GUID, RESTRICTIONS_GUID, NULL }, READ_LAST_SET = { ACCESS_READ_PROPERTY, LAST_SET_GUID, RESTRICTIONS_GUID, NULL },
	READ_CHILD = { ACCESS_READ_PROPERTY, NULL, NULL, PSO_GUID }, LIST = { ACCESS_LIST_CONTENTS, NULL, NULL, NULL };

#define OCTETS(name) #name, { name, sizeof name }
static const struct row {
	const char *name;
	struct bytes octets;
	const struct access_wanted *wanted;
	enum access access;
} ROWS[] = {
	{ OCTETS(RESET), &RESET_PASSWORD, ACCESS_GRANTED },
	{ OCTETS(RESET), &WRITE_LOCKOUT_TIME, ACCESS_NONE },
	{ OCTETS(RESET_BY_GROUP), &RESET_PASSWORD, ACCESS_GRANTED },
	{ OCTETS(RESET_OTHERS), &RESET_PASSWORD, ACCESS_NONE },
	{ OCTETS(RESET_INHERIT_ONLY), &RESET_PASSWORD, ACCESS_NONE },
	{ OCTETS(RESET_DENIED), &RESET_PASSWORD, ACCESS_DENIED },
	{ OCTETS(RESET_DENIED_LATE), &RESET_PASSWORD, ACCESS_GRANTED },
	{ OCTETS(RESET_DENIED_ALL_RIGHTS), &RESET_PASSWORD, ACCESS_DENIED },
	{ OCTETS(ALL_EXTENDED), &RESET_PASSWORD, ACCESS_GRANTED },
	{ OCTETS(ALL_EXTENDED), &WRITE_LAST_SET, ACCESS_NONE },
	{ OCTETS(GENERIC_ALL), &RESET_PASSWORD, ACCESS_GRANTED },
	{ OCTETS(GENERIC_ALL), &WRITE_LAST_SET, ACCESS_GRANTED },
	{ OCTETS(GENERIC_WRITE), &WRITE_LAST_SET, ACCESS_GRANTED },
	{ OCTETS(GENERIC_WRITE), &RESET_PASSWORD, ACCESS_NONE },
	{ OCTETS(GENERIC_READ), &READ_LAST_SET, ACCESS_GRANTED },
	{ OCTETS(GENERIC_READ), &LIST, ACCESS_GRANTED },
	{ OCTETS(GENERIC_READ), &WRITE_LAST_SET, ACCESS_NONE },
	{ OCTETS(FULL_CONTROL), &RESET_PASSWORD, ACCESS_GRANTED },
	{ OCTETS(FULL_CONTROL), &WRITE_LOCKOUT_TIME, ACCESS_GRANTED },
	{ OCTETS(WRITE_LOCKOUT), &WRITE_LOCKOUT_TIME, ACCESS_GRANTED },
	{ OCTETS(WRITE_LOCKOUT), &WRITE_LAST_SET, ACCESS_NONE },
	{ OCTETS(WRITE_SET), &WRITE_LAST_SET, ACCESS_GRANTED },
	{ OCTETS(WRITE_SET), &READ_LAST_SET, ACCESS_GRANTED },
	{ OCTETS(WRITE_SET), &WRITE_LOCKOUT_TIME, ACCESS_NONE },
	{ OCTETS(WRITE_SET), &RESET_PASSWORD, ACCESS_NONE },
	{ OCTETS(WRITE_ANY), &WRITE_LAST_SET, ACCESS_GRANTED },
	{ OCTETS(WRITE_ANY), &READ_LAST_SET, ACCESS_NONE },
	{ OCTETS(WRITE_SET_DENIED), &WRITE_LAST_SET, ACCESS_DENIED },
	{ OCTETS(WRITE_SET_DENIED), &WRITE_LOCKOUT_TIME, ACCESS_GRANTED },
	{ OCTETS(SELF_WRITES), &WRITE_LOCKOUT_TIME, ACCESS_NONE },
	{ OCTETS(OWNER_RIGHTS), &WRITE_LAST_SET, ACCESS_GRANTED },
	{ OCTETS(OWNER_RIGHTS_OTHER), &WRITE_LAST_SET, ACCESS_NONE },
	{ OCTETS(NO_OWNER), &WRITE_LAST_SET, ACCESS_NONE },
	{ OCTETS(NO_LIST), &RESET_PASSWORD, ACCESS_GRANTED },
	{ OCTETS(EMPTY_LIST), &RESET_PASSWORD, ACCESS_NONE },
	{ OCTETS(CHILDREN), &READ_CHILD, ACCESS_GRANTED },
	{ OCTETS(CHILDREN_ONLY), &READ_CHILD, ACCESS_GRANTED },
	{ OCTETS(CHILDREN_OF_ANOTHER_CLASS), &READ_CHILD, ACCESS_NONE },
	{ OCTETS(CHILDREN_NONE), &READ_CHILD, ACCESS_NONE },
	{ OCTETS(CHILDREN_NONE), &LIST, ACCESS_GRANTED },
};

static struct sid sid_of(const char *text)
{
	struct sid sid;
	assert_int_equal(sid_parse(text, &sid), STATUS_OK);
	return sid;
}

static void grants_what_it_says(void **state)
{
	struct sid sids[] = { sid_of("S-1-5-21-1-2-3-1103"), sid_of("S-1-5-21-1-2-3-1200"), sid_of("S-1-1-0"), sid_of("S-1-5-11") }, user = sid_of("S-1-5-21-1-2-3-1104");
	struct access_token token = { sids, 4, &user };
	for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
		struct security_descriptor descriptor;
		assert_int_equal(security_descriptor_read(ROWS[i].octets, &descriptor), STATUS_OK);
		if (security_descriptor_check(&descriptor, &token, ROWS[i].wanted) != ROWS[i].access) {
			fail_msg("row %zu: %s", i, ROWS[i].name);
		}
	}
}

static void self_is_the_object(void **state)
{
	struct sid user = sid_of("S-1-5-21-1-2-3-1104"), other = sid_of("S-1-5-21-1-2-3-1199");
	struct security_descriptor descriptor;
	assert_int_equal(security_descriptor_read(bytes_of(SELF_WRITES, sizeof SELF_WRITES), &descriptor), STATUS_OK);
	struct access_token self = { &user, 1, &user }, another = { &user, 1, &other };
	assert_int_equal(security_descriptor_check(&descriptor, &self, &WRITE_LOCKOUT_TIME), ACCESS_GRANTED);
	assert_int_equal(security_descriptor_check(&descriptor, &another, &WRITE_LOCKOUT_TIME), ACCESS_NONE);
}

static void knows_who_cannot_change(void **state)
{
	static const struct { struct bytes octets; bool forbids; } CASES[] = {
		{ { CHANGE_DEFAULT, sizeof CHANGE_DEFAULT }, false }, { { CHANGE_FORBIDDEN, sizeof CHANGE_FORBIDDEN }, true },
		{ { CHANGE_FORBIDDEN_SELF, sizeof CHANGE_FORBIDDEN_SELF }, true }, { { CHANGE_FORBIDDEN_EVERYONE, sizeof CHANGE_FORBIDDEN_EVERYONE }, true },
		{ { CHANGE_FORBIDDEN_LATE, sizeof CHANGE_FORBIDDEN_LATE }, false }, { { CHANGE_FORBIDDEN_ELSEWHERE, sizeof CHANGE_FORBIDDEN_ELSEWHERE }, false },
		{ { CHANGE_NOBODY, sizeof CHANGE_NOBODY }, false }, { { NO_LIST, sizeof NO_LIST }, false },
	};
	struct sid user = sid_of("S-1-5-21-1-2-3-1104");
	for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
		struct security_descriptor descriptor;
		assert_int_equal(security_descriptor_read(CASES[i].octets, &descriptor), STATUS_OK);
		if (security_descriptor_forbids_change(&descriptor, &user) != CASES[i].forbids) {
			fail_msg("case %zu", i);
		}
	}
}

/* Where Samba put it: 20 octets of header, the owner behind the list or before it. */
static size_t offset_of_list(const uint8_t *octets)
{
	return (size_t)octets[16] | (size_t)octets[17] << 8;
}

static void refuses_each_cut(void **state)
{
	struct security_descriptor descriptor;
	for (size_t size = 0; size < sizeof CHANGE_FORBIDDEN; size++) {
		uint8_t *copy = malloc(size + 1); /* so that a read behind the end is seen */
		assert_non_null(copy);
		memcpy(copy, CHANGE_FORBIDDEN, size);
		assert_int_equal(security_descriptor_read(bytes_of(copy, size), &descriptor), STATUS_LOCAL_INPUT);
		assert_int_equal(descriptor.aces.size, 0);
		free(copy);
	}
}

static void refuses_what_does_not_fit(void **state)
{
	size_t list = offset_of_list(CHANGE_FORBIDDEN);
	/* revision; not self-relative; owner and list outside, inside the header; the list's revision, size and count; the first ACE's size, odd and too large; its SID's count */
	const struct { size_t at; uint8_t value; } CHANGES[] = {
		{ 0, 2 }, { 3, 0 }, { 5, 0xff }, { 7, 0x80 }, { 17, 0xff }, { 16, 3 }, { list, 1 }, { list + 2, 7 }, { list + 3, 0xff }, { list + 4, 9 }, { list + 5, 0xff },
		{ list + 10, 3 }, { list + 10, 0 }, { list + 10, 0x29 }, { list + 11, 0xff }, { list + 10, 8 }, { list + 37, 16 }, { list + 36, 2 }, { list + 37, 9 },
	};
	uint8_t octets[sizeof CHANGE_FORBIDDEN];
	struct security_descriptor descriptor;
	for (size_t i = 0; i < sizeof CHANGES / sizeof CHANGES[0]; i++) {
		memcpy(octets, CHANGE_FORBIDDEN, sizeof octets);
		octets[CHANGES[i].at] = CHANGES[i].value;
		if (security_descriptor_read(bytes_of(octets, sizeof octets), &descriptor) != STATUS_LOCAL_INPUT) {
			fail_msg("change %zu", i);
		}
	}
}

static void steps_over_unknown_types(void **state)
{
	uint8_t octets[sizeof CHANGE_FORBIDDEN];
	struct sid user = sid_of("S-1-5-21-1-2-3-1104");
	struct security_descriptor descriptor;
	size_t list = offset_of_list(CHANGE_FORBIDDEN);
	memcpy(octets, CHANGE_FORBIDDEN, sizeof octets);
	octets[list + 8] = octets[list + 8 + 40] = 0x42;
	assert_int_equal(security_descriptor_read(bytes_of(octets, sizeof octets), &descriptor), STATUS_OK);
	assert_false(security_descriptor_forbids_change(&descriptor, &user));
	/* a conditional one that denies counts */
	octets[list + 8] = 0x0c;
	assert_int_equal(security_descriptor_read(bytes_of(octets, sizeof octets), &descriptor), STATUS_OK);
	assert_true(security_descriptor_forbids_change(&descriptor, &user));
	/* and one that allows does not */
	struct access_token token = { &user, 1, &user };
	uint8_t granted[sizeof SELF_WRITES];
	memcpy(granted, SELF_WRITES, sizeof granted);
	granted[offset_of_list(SELF_WRITES) + 8] = 0x0b;
	assert_int_equal(security_descriptor_read(bytes_of(granted, sizeof granted), &descriptor), STATUS_OK);
	assert_int_equal(security_descriptor_check(&descriptor, &token, &WRITE_LOCKOUT_TIME), ACCESS_NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(grants_what_it_says), cmocka_unit_test(self_is_the_object), cmocka_unit_test(knows_who_cannot_change),
		cmocka_unit_test(refuses_each_cut), cmocka_unit_test(refuses_what_does_not_fit), cmocka_unit_test(steps_over_unknown_types) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
