#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>

#include "service/turned_away.h"

#define MINUTE INT64_C(60000000)

/* How many are told; 0: it is no news. */
static unsigned say(struct turned_away *all, unsigned code, const char *reason, const char *peer, int64_t at_min)
{
	unsigned times = 0;
	return turned_away_is_news(all, code, reason, peer, at_min * MINUTE, &times) ? times : 0;
}

static void the_same_again_is_no_news(void **state)
{
	struct turned_away all = { 0 };
	assert_int_equal(say(&all, 4003, "a clone", "192.0.2.1:1000", 1), 1);
	for (int64_t minute = 6; minute < 61; minute += 5)
		assert_int_equal(say(&all, 4003, "a clone", "192.0.2.1:2000", minute), 0); /* a port is nobody's name */
	assert_int_equal(say(&all, 4003, "a clone", "192.0.2.1:3000", 61), 12); /* it goes on: once an hour, and how often */
	assert_int_equal(say(&all, 4003, "a clone", "192.0.2.1:3000", 66), 0);
	turned_away_forget(&all); /* it was let in */
	assert_int_equal(say(&all, 4003, "a clone", "192.0.2.1:3000", 67), 1);
}

static void another_reason_or_address_is_news(void **state)
{
	struct turned_away all = { 0 };
	assert_int_equal(say(&all, 4003, "another instance was connected", "192.0.2.1:1000", 1), 1);
	assert_int_equal(say(&all, 4003, "a clone", "192.0.2.1:1000", 1), 1);
	assert_int_equal(say(&all, 4003, "a clone", "192.0.2.2:1000", 1), 1);
	assert_int_equal(say(&all, 4003, "a clone", "192.0.2.20:1000", 1), 1);
	assert_int_equal(say(&all, 4003, "a clone", "2001:db8::1:1000", 1), 1);
	assert_int_equal(say(&all, 4003, "a clone", "2001:db8::2:1000", 1), 1);
	assert_int_equal(say(&all, 4001, "a clone", "192.0.2.1:1000", 1), 1);
	assert_int_equal(say(&all, 4003, "a clone", "192.0.2.1:1001", 2), 0); /* two that take turns do not make each other news */
	assert_int_equal(say(&all, 4003, "a clone", "192.0.2.2:1001", 2), 0);
	assert_int_equal(say(&all, 4005, "1795400601", "192.0.2.1:1000", 3), 1);
	assert_int_equal(say(&all, 4005, "1795400901", "192.0.2.1:1000", 8), 0); /* the reason is the time */
}

static void strangers_do_not_fill_the_log(void **state)
{
	struct turned_away all = { 0 };
	char peer[32];
	unsigned said = 0;
	for (unsigned i = 0; i < 10000; i++) {
		snprintf(peer, sizeof peer, "10.0.%u.%u:1", i / 256, i % 256);
		said += say(&all, 1008, "wb-hello+jwt was expected", peer, 1) > 0;
	}
	assert_in_range(said, 60, 70);
}

/* A line that there is no room for takes nobody's place, and nobody's count. */
static void what_is_withheld_changes_nothing(void **state)
{
	struct turned_away all = { 0 }, flood = { 0 };
	char peer[32];
	assert_int_equal(say(&all, 4003, "a clone", "192.0.2.1:1000", 1), 1);
	for (unsigned i = 1; i < TURNED_AWAY_KINDS; i++) {
		snprintf(peer, sizeof peer, "10.0.0.%u:1", i);
		assert_int_equal(say(&all, 1008, "kid", peer, 2), 1);
	}
	for (int64_t minute = 3; minute < 6; minute++)
		assert_int_equal(say(&all, 4003, "a clone", "192.0.2.1:1000", minute), 0);
	while (log_allowed(&flood.budget))
		;
	all.budget = flood.budget;
	assert_int_equal(say(&all, 1008, "kid", "10.0.1.1:1", 6), 0);
	all.budget = (struct log_budget){ 0 };
	assert_int_equal(say(&all, 4003, "a clone", "192.0.2.1:1000", 61), 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_same_again_is_no_news), cmocka_unit_test(another_reason_or_address_is_news), cmocka_unit_test(strangers_do_not_fill_the_log),
		cmocka_unit_test(what_is_withheld_changes_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
