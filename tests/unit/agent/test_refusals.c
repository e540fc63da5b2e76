/* The memory of answers that the journal does not hold: what was told stays told until time alone refuses it, and what does not fit is not told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "agent/refusals.h"

#define NOW 1790000000

static struct refusal refusal(unsigned number, int64_t exp)
{
	struct refusal refusal = { .exp = exp, .code = STATUS_AGENT_OVERLOADED };
	snprintf(refusal.request_id, sizeof refusal.request_id, "6f9619ff-8b86-4d01-b42d-%012u", number);
	memset(refusal.frame_sha256, (int)number, sizeof refusal.frame_sha256);
	return refusal;
}

static bool add(struct refusals *refusals, unsigned number, int64_t exp, int64_t now)
{
	struct refusal row = refusal(number, exp);
	return refusals_add(refusals, &row, now);
}

static const struct refusal *find(const struct refusals *refusals, unsigned number)
{
	struct refusal row = refusal(number, 0);
	return refusals_find(refusals, row.request_id);
}

static void what_was_told_is_found(void **state)
{
	struct refusals *refusals = refusals_new(10);
	assert_null(find(refusals, 1));
	assert_true(add(refusals, 1, NOW + 30, NOW));
	assert_null(find(refusals, 2));
	const struct refusal *found = find(refusals, 1);
	assert_int_equal(found->code, STATUS_AGENT_OVERLOADED);
	assert_int_equal(found->frame_sha256[31], 1);
	refusals_free(refusals);
}

static void a_full_one_takes_nothing_until_time_has_passed(void **state)
{
	struct refusals *refusals = refusals_new(3);
	assert_true(add(refusals, 1, NOW + 30, NOW) && add(refusals, 2, NOW + 10, NOW) && add(refusals, 3, NOW + 20, NOW));
	assert_false(add(refusals, 4, NOW + 30, NOW));
	assert_false(add(refusals, 4, NOW + 30, NOW + 9));
	assert_true(add(refusals, 2, NOW + 10, NOW + 9)); /* known already */
	assert_true(find(refusals, 1) && find(refusals, 2) && find(refusals, 3));
	assert_true(add(refusals, 4, NOW + 30, NOW + 10));
	assert_null(find(refusals, 2));
	assert_true(find(refusals, 1) && find(refusals, 3) && find(refusals, 4));
	assert_false(add(refusals, 5, NOW + 60, NOW + 10));
	assert_true(add(refusals, 5, NOW + 60, NOW + 40) && add(refusals, 6, NOW + 60, NOW + 40) && add(refusals, 7, NOW + 60, NOW + 40));
	assert_false(add(refusals, 8, NOW + 60, NOW + 40));
	assert_null(find(refusals, 1));
	assert_true(find(refusals, 5) && find(refusals, 6) && find(refusals, 7));
	refusals_free(refusals);
}

static void the_past_needs_no_room(void **state)
{
	struct refusals *refusals = refusals_new(1);
	assert_int_equal(refusals_passed_exp(refusals), 0);
	assert_true(add(refusals, 1, NOW, NOW) && add(refusals, 2, NOW - 5, NOW) && add(refusals, 3, NOW + 9, NOW));
	assert_true(refusals_passed_exp(refusals) == NOW);
	assert_true(add(refusals, 4, NOW + 30, NOW + 10));
	assert_true(refusals_passed_exp(refusals) == NOW + 9);
	refusals_free(refusals);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_told_is_found), cmocka_unit_test(a_full_one_takes_nothing_until_time_has_passed), cmocka_unit_test(the_past_needs_no_room),
	};
	return cmocka_run_group_tests_name("refusals", tests, NULL, NULL);
}
