#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/directory/ppolicy.h"

#define VALUE(text) bytes_of(text, sizeof text - 1)

static void check(struct bytes value, enum status status, int error, int64_t expires, int64_t grace)
{
	struct ppolicy_answer answer;
	assert_int_equal(ppolicy_parse(value, &answer), status);
	assert_int_equal(answer.error, error);
	assert_int_equal(answer.expires_in_s, expires);
	assert_int_equal(answer.grace, grace);
}

/* As OpenLDAP 2.5 and (with lengths in long form) 389 Directory Server 2.3 sent them. */
static void answers_of_servers(void **state)
{
	check(VALUE("\x30\x03\x81\x01\x06"), STATUS_OK, PPOLICY_TOO_SHORT, -1, -1);
	check(VALUE("\x30\x84\x00\x00\x00\x03\x81\x01\x05"), STATUS_OK, PPOLICY_QUALITY, -1, -1);
	check(VALUE("\x30\x00"), STATUS_OK, -1, -1, -1);
	check(VALUE("\x30\x05\xa0\x03\x80\x01\x3c"), STATUS_OK, -1, 60, -1);
	check(VALUE("\x30\x09\xa0\x04\x81\x02\x01\x00\x81\x01\x02"), STATUS_OK, PPOLICY_CHANGE_AFTER_RESET, -1, 256);
}

/* Each of them says nothing. */
static void malformed(void **state)
{
	check(VALUE(""), STATUS_LOCAL_INPUT, -1, -1, -1);
	check(VALUE("\x30"), STATUS_LOCAL_INPUT, -1, -1, -1);
	check(VALUE("\x31\x03\x81\x01\x06"), STATUS_LOCAL_INPUT, -1, -1, -1);
	check(VALUE("\x30\x03\x81\x01"), STATUS_LOCAL_INPUT, -1, -1, -1);
	check(VALUE("\x30\x03\x81\x01\x06\x00"), STATUS_LOCAL_INPUT, -1, -1, -1);
	check(VALUE("\x30\x02\x81\x00"), STATUS_LOCAL_INPUT, -1, -1, -1);
	check(VALUE("\x30\x03\x81\x01\xff"), STATUS_LOCAL_INPUT, -1, -1, -1);
	check(VALUE("\x30\x06\x81\x01\x06\x81\x01\x07"), STATUS_LOCAL_INPUT, -1, -1, -1);
	check(VALUE("\x30\x80\x81\x01\x06"), STATUS_LOCAL_INPUT, -1, -1, -1);
	check(VALUE("\x30\x85\x00\x00\x00\x00\x03\x81\x01\x06"), STATUS_LOCAL_INPUT, -1, -1, -1);
	check(VALUE("\x30\x84\xff\xff\xff\xff\x81\x01\x06"), STATUS_LOCAL_INPUT, -1, -1, -1);
	check(VALUE("\x30\x08\x81\x01\x06\xa0\x03\x80\x01\x3c"), STATUS_LOCAL_INPUT, -1, -1, -1);
	check(VALUE("\x30\x05\xa0\x03\x82\x01\x3c"), STATUS_LOCAL_INPUT, -1, -1, -1);
}

static void among_controls(void **state)
{
	static char OTHER[] = "1.2.3", OURS[] = PPOLICY_CONTROL, BYTES[] = "\x30\x03\x81\x01\x08";
	LDAPControl other = { OTHER, { 5, BYTES }, 0 }, ours = { OURS, { 5, BYTES }, 0 };
	LDAPControl *both[] = { &other, &ours, NULL }, *one[] = { &other, NULL };
	struct ppolicy_answer answer;
	assert_true(ppolicy_find(both, &answer));
	assert_int_equal(answer.error, PPOLICY_IN_HISTORY);
	assert_false(ppolicy_find(one, &answer));
	assert_false(ppolicy_find(NULL, &answer));
	ours.ldctl_value.bv_len = 4;
	assert_false(ppolicy_find(both, &answer));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(answers_of_servers), cmocka_unit_test(malformed), cmocka_unit_test(among_controls) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
