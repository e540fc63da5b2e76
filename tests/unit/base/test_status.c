#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "base/status.h"

static void every_code_is_found_again(void **state)
{
	for (unsigned i = 0; i < STATUS_COUNT; i++) {
		enum status found = STATUS_COUNT;
		assert_true(status_from_code(status_code(i), &found));
		assert_int_equal(found, i);
		assert_non_null(status_admin_text(i));
		assert_in_range(status_level(i), LOG_CRIT, LOG_INFO);
		/* What travels has a text for the user, what does not has none. */
		assert_int_equal(status_user_text(i) != NULL, status_outcome(i) != OUTCOME_NONE);
	}
	enum status found;
	assert_false(status_from_code("no.such.code", &found));
	assert_int_equal(STATUS_OK, 0);
	assert_string_equal(status_code(STATUS_OK), "ok");
}

static void an_impossible_status_is_internal(void **state)
{
	assert_string_equal(status_code((enum status)STATUS_COUNT), "agent.internal");
	assert_string_equal(status_code((enum status)-1), "agent.internal");
}

static void outcomes_have_names(void **state)
{
	for (unsigned i = OUTCOME_APPLIED; i <= OUTCOME_SETTLING; i++) {
		enum outcome found;
		assert_true(outcome_from_name(outcome_name(i), &found));
		assert_int_equal(found, i);
		assert_int_equal(outcome_is_final(i), i != OUTCOME_SETTLING);
	}
	enum outcome found;
	assert_false(outcome_from_name("none", &found));
	assert_false(outcome_from_name("", &found));
	assert_false(outcome_is_final(OUTCOME_NONE));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_code_is_found_again), cmocka_unit_test(an_impossible_status_is_internal), cmocka_unit_test(outcomes_have_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
