#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "agent/gate/limits.h"

enum { MINUTE = 60000, HOUR = 3600000 };
#define START INT64_C(1790000000000)
static const struct limits_settings defaults = { .in_flight = 256, .waiting_per_user = 4, .per_minute = 120, .per_user_hour = 3, .latch_per_hour = 300, .unlocks_per_minute = 120,
                                                 .wrong_per_user_hour = 3, .lookups_per_minute = 600 };

static const char *guid(unsigned n)
{
	static char text[UUID_SIZE];
	snprintf(text, sizeof text, "6f9619ff-8b86-4d01-b42d-%012x", n);
	return text;
}

static int64_t retry_after;

static enum status admit(struct limits *limits, unsigned user, int64_t now)
{
	return limits_admit(limits, guid(user), true, now, &retry_after);
}

/* One write that is applied at once. */
static enum status apply(struct limits *limits, unsigned user, int64_t now)
{
	enum status status = admit(limits, user, now);
	if (status == STATUS_OK)
		limits_settle(limits, guid(user), true, true, now);
	return status;
}

static void in_flight(void **state)
{
	struct limits_settings settings = defaults;
	settings.in_flight = 2;
	struct limits *limits = limits_new(&settings);
	assert_int_equal(limits_enter(limits), STATUS_OK);
	assert_int_equal(limits_enter(limits), STATUS_OK);
	assert_int_equal(limits_enter(limits), STATUS_AGENT_OVERLOADED);
	assert_int_equal(limits_in_flight(limits), 2);
	limits_leave(limits);
	assert_int_equal(limits_enter(limits), STATUS_OK);
	limits_free(limits);
	limits_free(NULL);
}

static void a_minute_heals_by_itself(void **state)
{
	struct limits *limits = limits_new(&defaults);
	for (unsigned i = 0; i < 120; i++)
		assert_int_equal(apply(limits, i, START + i), STATUS_OK);
	assert_int_equal(apply(limits, 1000, START + 120), STATUS_AGENT_THROTTLED);
	assert_int_equal(retry_after, 60);
	assert_int_equal(apply(limits, 1000, START + 30000), STATUS_AGENT_THROTTLED);
	assert_int_equal(retry_after, 30);
	assert_int_equal(apply(limits, 1000, START + MINUTE - 1), STATUS_AGENT_THROTTLED);
	assert_int_equal(retry_after, 1);
	assert_int_equal(apply(limits, 1000, START + MINUTE), STATUS_OK);
	assert_int_equal(apply(limits, 1001, START + MINUTE), STATUS_AGENT_THROTTLED);
	assert_false(limits_latched(limits, LATCH_RESETS));
	limits_free(limits);
}

static void reservations_hold_their_places(void **state)
{
	struct limits_settings settings = defaults;
	settings.per_minute = 2;
	struct limits *limits = limits_new(&settings);
	assert_int_equal(admit(limits, 1, START), STATUS_OK);
	assert_int_equal(admit(limits, 2, START), STATUS_OK);
	assert_int_equal(admit(limits, 3, START), STATUS_AGENT_THROTTLED);
	assert_int_equal(retry_after, 1);
	/* Refused by the directory: its place is free again. */
	limits_settle(limits, guid(1), true, false, START + 5);
	assert_int_equal(admit(limits, 3, START + 6), STATUS_OK);
	limits_settle(limits, guid(2), true, true, START + 7);
	limits_settle(limits, guid(3), true, true, START + 8);
	assert_int_equal(admit(limits, 4, START + 9), STATUS_AGENT_THROTTLED);
	/* A reservation does not expire while its end is open. */
	assert_int_equal(admit(limits, 4, START + 2 * MINUTE), STATUS_OK);
	assert_int_equal(admit(limits, 5, START + 2 * MINUTE), STATUS_OK);
	assert_int_equal(admit(limits, 6, START + 9 * MINUTE), STATUS_AGENT_THROTTLED);
	limits_free(limits);
}

static void k25_three_for_one_user_an_hour(void **state)
{
	struct limits *limits = limits_new(&defaults);
	assert_int_equal(apply(limits, 7, START), STATUS_OK);
	assert_int_equal(apply(limits, 7, START + 1), STATUS_OK);
	assert_int_equal(admit(limits, 7, START + 2), STATUS_OK);
	assert_int_equal(admit(limits, 7, START + 2), STATUS_AGENT_THROTTLED); /* three at once cannot become four */
	limits_settle(limits, guid(7), true, true, START + 2);
	assert_int_equal(apply(limits, 7, START + 3), STATUS_AGENT_THROTTLED);
	assert_int_equal(retry_after, 3600);
	assert_int_equal(apply(limits, 8, START + 3), STATUS_OK); /* another one is not concerned */
	assert_int_equal(limits_admit(limits, guid(7), false, START + 3, &retry_after), STATUS_OK); /* nor are unlocks */
	assert_int_equal(apply(limits, 7, START + HOUR - 1), STATUS_AGENT_THROTTLED);
	assert_int_equal(apply(limits, 7, START + HOUR), STATUS_OK);
	limits_free(limits);
}

static void unlocks_are_counted_apart(void **state)
{
	struct limits *limits = limits_new(&defaults);
	for (unsigned i = 0; i < 120; i++) {
		assert_int_equal(limits_admit(limits, guid(1), false, START, &retry_after), STATUS_OK);
		limits_settle(limits, guid(1), false, true, START);
	}
	assert_int_equal(limits_admit(limits, guid(1), false, START + 1, &retry_after), STATUS_AGENT_THROTTLED);
	assert_int_equal(retry_after, 60);
	assert_int_equal(apply(limits, 1, START + 1), STATUS_OK);
	assert_int_equal(limits_admit(limits, guid(1), false, START + MINUTE, &retry_after), STATUS_OK);
	limits_free(limits);
}

static void count_call(enum latch latch, void *arg)
{
	++*(unsigned *)arg;
}

static void k25_a_mass_reset_latches(void **state)
{
	struct limits *limits = limits_new(&defaults);
	unsigned latched = 0, applied = 0, throttled = 0;
	limits_on_latch(limits, count_call, &latched);
	/* 500 signed requests in one minute: 120 pass, the others are held back, and nothing latches yet. */
	for (unsigned i = 0; i < 500; i++) {
		enum status status = apply(limits, i, START + i * 100);
		applied += status == STATUS_OK;
		throttled += status == STATUS_AGENT_THROTTLED;
	}
	assert_int_equal(applied, 120);
	assert_int_equal(throttled, 380);
	assert_false(limits_latched(limits, LATCH_RESETS));
	/* Whoever goes on finds the latch closed behind the three hundredth, and an hour does not open it. */
	for (unsigned i = 500; i < 3500; i++)
		applied += apply(limits, i, START + MINUTE + i * 100) == STATUS_OK;
	assert_int_equal(applied, 300);
	assert_true(limits_latched(limits, LATCH_RESETS));
	assert_int_equal(latched, 1);
	assert_int_equal(apply(limits, 9999, START + 10 * HOUR), STATUS_AGENT_LATCHED);
	assert_int_equal(limits_admit(limits, guid(1), false, START + 10 * HOUR, &retry_after), STATUS_AGENT_LATCHED);
	limits_resume(limits, START + 10 * HOUR);
	assert_false(limits_latched(limits, LATCH_RESETS));
	assert_int_equal(apply(limits, 9999, START + 10 * HOUR), STATUS_OK);
	limits_free(limits);
}

static void open_reservations_do_not_latch(void **state)
{
	struct limits_settings settings = { .in_flight = 10, .latch_per_hour = 2 };
	struct limits *limits = limits_new(&settings);
	assert_int_equal(admit(limits, 1, START), STATUS_OK);
	assert_int_equal(admit(limits, 2, START), STATUS_OK);
	assert_int_equal(admit(limits, 3, START), STATUS_AGENT_THROTTLED); /* they may yet be refused */
	assert_false(limits_latched(limits, LATCH_RESETS));
	limits_settle(limits, guid(1), true, false, START);
	assert_int_equal(admit(limits, 3, START), STATUS_OK);
	limits_settle(limits, guid(2), true, true, START);
	limits_settle(limits, guid(3), true, true, START);
	assert_int_equal(admit(limits, 4, START), STATUS_AGENT_LATCHED);
	assert_true(limits_latched(limits, LATCH_RESETS));
	limits_free(limits);
}

static void no_limits_where_zero(void **state)
{
	struct limits_settings settings = { .in_flight = 1 };
	struct limits *limits = limits_new(&settings);
	for (unsigned i = 0; i < 5000; i++)
		assert_int_equal(apply(limits, 1, START), STATUS_OK);
	limits_free(limits);
}

static void restored_from_the_journal(void **state)
{
	struct limits *limits = limits_new(&defaults);
	limits_restore(limits, guid(1), true, START + 2); /* in no order */
	limits_restore(limits, guid(1), true, START);
	limits_restore(limits, guid(1), true, START + 1);
	assert_int_equal(apply(limits, 1, START + 10), STATUS_AGENT_THROTTLED);
	assert_int_equal(apply(limits, 1, START + HOUR), STATUS_OK);
	assert_int_equal(apply(limits, 1, START + HOUR), STATUS_AGENT_THROTTLED);
	limits_free(limits);
	limits = limits_new(&defaults);
	unsigned latched = 0;
	limits_on_latch(limits, count_call, &latched);
	for (unsigned i = 0; i < 300; i++)
		limits_restore(limits, guid(i), true, START + i);
	assert_false(limits_latched(limits, LATCH_RESETS));
	limits_restore(limits, guid(300), true, START + 300);
	assert_true(limits_latched(limits, LATCH_RESETS));
	assert_int_equal(latched, 1);
	limits_free(limits);
	limits = limits_new(&defaults);
	for (unsigned i = 0; i < 1000; i++) /* the same number over many hours */
		limits_restore(limits, guid(i), true, START + (int64_t)i * 30000);
	assert_false(limits_latched(limits, LATCH_RESETS));
	limits_latch(limits, LATCH_RESETS);
	assert_int_equal(apply(limits, 1, START + 100 * (int64_t)HOUR), STATUS_AGENT_LATCHED);
	limits_free(limits);
}

static void reconfigured(void **state)
{
	struct limits *limits = limits_new(&defaults);
	struct limits_settings settings = defaults;
	for (unsigned i = 0; i < 50; i++)
		assert_int_equal(apply(limits, i, START), STATUS_OK);
	settings.per_minute = 10;
	limits_reconfigure(limits, &settings);
	assert_int_equal(apply(limits, 100, START + 1), STATUS_AGENT_THROTTLED);
	settings.per_minute = 200;
	limits_reconfigure(limits, &settings);
	assert_int_equal(apply(limits, 100, START + 1), STATUS_OK);
	limits_free(limits);
}

static void a_clock_set_back_holds_nobody_for_ever(void **state)
{
	struct limits_settings settings = defaults;
	settings.per_minute = 1;
	struct limits *limits = limits_new(&settings);
	assert_int_equal(apply(limits, 1, START + 1000 * (int64_t)HOUR), STATUS_OK);
	assert_int_equal(apply(limits, 2, START), STATUS_AGENT_THROTTLED);
	assert_int_equal(apply(limits, 2, START + MINUTE), STATUS_OK);
	limits_free(limits);
}

static void memory_is_bounded(void **state)
{
	struct limits_settings settings = { .in_flight = 1, .per_user_hour = 1 };
	struct limits *limits = limits_new(&settings);
	for (unsigned i = 0; i < 16384; i++)
		assert_int_equal(apply(limits, i, START + i), STATUS_OK);
	assert_int_equal(apply(limits, 20000, START + 20000), STATUS_OK);
	/* The oldest had to go, the newest are remembered. */
	assert_int_equal(apply(limits, 16383, START + 20001), STATUS_AGENT_THROTTLED);
	assert_int_equal(apply(limits, 20000, START + 20001), STATUS_AGENT_THROTTLED);
	assert_int_equal(apply(limits, 0, START + 20001), STATUS_OK);
	limits_free(limits);
}

/* Turns */
static struct limits *turns;
static char order[32];
static void granted(void *arg)
{
	strcat(order, arg);
}

static void granted_and_done(void *arg)
{
	struct limits_turn *turn = arg;
	strcat(order, "!");
	limits_end_turn(turns, turn);
}

static struct limits_turn turn_of(const char *name)
{
	return (struct limits_turn){ .granted = granted, .arg = (char *)(uintptr_t)name };
}

static void one_at_a_time_in_order(void **state)
{
	struct limits_turn a = turn_of("a"), b = turn_of("b"), c = turn_of("c"), d = turn_of("d"), e = turn_of("e"), f = turn_of("f"), other = turn_of("o");
	bool now;
	order[0] = 0;
	turns = limits_new(&defaults);
	assert_int_equal(limits_take_turn(turns, guid(1), &a, &now), STATUS_OK);
	assert_true(now);
	struct limits_turn *waiting[] = { &b, &c, &d, &e };
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(limits_take_turn(turns, guid(1), waiting[i], &now), STATUS_OK);
		assert_false(now);
	}
	assert_int_equal(limits_take_turn(turns, guid(1), &f, &now), STATUS_USER_BUSY);
	assert_int_equal(limits_take_turn(turns, guid(2), &other, &now), STATUS_OK);
	assert_true(now);
	limits_end_turn(turns, &f); /* refused: nothing to end */
	limits_end_turn(turns, &c); /* gives up while it waits */
	assert_string_equal(order, "");
	limits_end_turn(turns, &a);
	limits_end_turn(turns, &a);
	assert_string_equal(order, "b");
	assert_true(b.active);
	limits_end_turn(turns, &b);
	limits_end_turn(turns, &d);
	assert_string_equal(order, "bde");
	limits_end_turn(turns, &e);
	assert_int_equal(limits_take_turn(turns, guid(1), &f, &now), STATUS_OK);
	assert_true(now);
	limits_free(turns);
}

static void a_turn_may_end_in_its_own_callback(void **state)
{
	struct limits_turn a = turn_of("a"), b = { .granted = granted_and_done, .arg = &b }, c = { .granted = granted_and_done, .arg = &c }, d = turn_of("d");
	bool now;
	order[0] = 0;
	turns = limits_new(&defaults);
	assert_int_equal(limits_take_turn(turns, guid(1), &a, &now), STATUS_OK);
	assert_int_equal(limits_take_turn(turns, guid(1), &b, &now), STATUS_OK);
	assert_int_equal(limits_take_turn(turns, guid(1), &c, &now), STATUS_OK);
	limits_end_turn(turns, &a);
	assert_string_equal(order, "!!");
	assert_int_equal(limits_take_turn(turns, guid(1), &d, &now), STATUS_OK);
	assert_true(now);
	limits_free(turns);
}

/* A wrong password at the directory counts towards the user's lockout there. */
static enum status guess(struct limits *limits, unsigned user, bool wrong, int64_t now)
{
	enum status status = limits_admit_guess(limits, guid(user), 0, now, &retry_after);
	if (status == STATUS_OK)
		limits_settle_guess(limits, guid(user), wrong, now);
	return status;
}

static void wrong_passwords_are_few(void **state)
{
	struct limits *limits = limits_new(&defaults);
	for (unsigned i = 0; i < 100; i++) /* right ones cost nothing */
		assert_int_equal(guess(limits, 1, false, START), STATUS_OK);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(guess(limits, 1, true, START + i * MINUTE), STATUS_OK);
	assert_int_equal(guess(limits, 1, false, START + 3 * MINUTE), STATUS_AGENT_THROTTLED);
	assert_int_equal(retry_after, 57 * 60);
	assert_int_equal(guess(limits, 2, true, START + 3 * MINUTE), STATUS_OK);
	assert_int_equal(apply(limits, 1, START + 3 * MINUTE), STATUS_OK); /* a reset is another matter */
	limits_resume(limits, START + 4 * MINUTE);
	assert_int_equal(guess(limits, 1, false, START + 4 * MINUTE), STATUS_AGENT_THROTTLED); /* the directory did not forget */
	assert_int_equal(guess(limits, 1, true, START + HOUR), STATUS_OK);
	assert_int_equal(guess(limits, 1, true, START + HOUR), STATUS_AGENT_THROTTLED);
	limits_free(limits);
}

/* Those under way together cannot pass the ceiling. */
static void guesses_in_flight_have_their_places(void **state)
{
	struct limits *limits = limits_new(&defaults);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(limits_admit_guess(limits, guid(1), 0, START, &retry_after), STATUS_OK);
	assert_int_equal(limits_admit_guess(limits, guid(1), 0, START, &retry_after), STATUS_AGENT_THROTTLED);
	assert_int_equal(retry_after, 1);
	limits_settle_guess(limits, guid(1), false, START);
	assert_int_equal(limits_admit_guess(limits, guid(1), 0, START, &retry_after), STATUS_OK);
	limits_free(limits);
	limits = limits_new(&defaults);
	for (unsigned i = 0; i < 3; i++)
		limits_restore_guess(limits, guid(1), true, START - i * MINUTE);
	assert_int_equal(guess(limits, 1, false, START), STATUS_AGENT_THROTTLED);
	assert_int_equal(retry_after, 58 * 60);
	limits_free(limits);
}

/* A password tried on everybody is few wrong ones of each: it closes a latch of its own, once, and only resume opens it. */
static unsigned closed[LATCHES];
static void note_latch(enum latch latch, void *arg)
{
	closed[latch]++;
}

static void wrong_passwords_of_all_close_a_latch_of_their_own(void **state)
{
	struct limits_settings settings = defaults;
	settings.wrong_per_minute = 20;
	memset(closed, 0, sizeof closed);
	struct limits *limits = limits_new(&settings);
	limits_on_latch(limits, note_latch, NULL);
	for (unsigned i = 0; i < 100; i++) /* right ones cost nothing */
		assert_int_equal(guess(limits, i, false, START), STATUS_OK);
	for (unsigned i = 0; i < 19; i++)
		assert_int_equal(guess(limits, i, true, START + i * 1000), STATUS_OK);
	for (unsigned i = 0; i < 19; i++) /* a slower one never does */
		assert_int_equal(guess(limits, 30 + i, true, START + MINUTE + 18000 + i * 1000), STATUS_OK);
	assert_false(limits_latched(limits, LATCH_GUESSES));
	assert_int_equal(guess(limits, 50, true, START + MINUTE + 40000), STATUS_OK);
	assert_true(limits_latched(limits, LATCH_GUESSES));
	assert_int_equal(closed[LATCH_GUESSES], 1);
	assert_int_equal(guess(limits, 51, false, START + 100 * HOUR), STATUS_AGENT_LATCHED);
	assert_int_equal(guess(limits, 51, false, START - HOUR), STATUS_AGENT_LATCHED);
	assert_int_equal(apply(limits, 51, START + 100 * HOUR), STATUS_OK); /* resets go on */
	assert_false(limits_latched(limits, LATCH_RESETS));
	limits_reconfigure(limits, &settings);
	assert_true(limits_latched(limits, LATCH_GUESSES));
	limits_resume(limits, START + 100 * HOUR);
	assert_int_equal(guess(limits, 51, true, START + 100 * HOUR), STATUS_OK);
	assert_int_equal(closed[LATCH_GUESSES] + closed[LATCH_RESETS], 1);
	limits_free(limits);
}

/* Those under way together cannot pass it; and what the journal holds closes it again, unless it was opened since. */
static void guesses_of_all_at_once_and_from_the_journal(void **state)
{
	struct limits_settings settings = defaults;
	settings.wrong_per_minute = 20;
	struct limits *limits = limits_new(&settings);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(limits_admit_guess(limits, guid(100 + i), 0, START, &retry_after), STATUS_OK);
	assert_int_equal(guess(limits, 50, true, START), STATUS_AGENT_THROTTLED);
	limits_free(limits);
	for (unsigned latches = 0; latches < 2; latches++) {
		limits = limits_new(&settings);
		for (unsigned i = 0; i < 20; i++)
			limits_restore_guess(limits, guid(i), latches, START);
		assert_int_equal(guess(limits, 50, false, START), latches ? STATUS_AGENT_LATCHED : STATUS_OK);
		limits_free(limits);
	}
}

/* Who sends requests locks nobody out. */
static void the_lockout_threshold_is_not_reached(void **state)
{
	static const struct { unsigned threshold, tries; } rows[] = { { 0, 3 }, { 1, 1 }, { 2, 1 }, { 3, 2 }, { 4, 2 }, { 5, 3 }, { 10, 3 } };
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct limits *limits = limits_new(&defaults);
		for (unsigned k = 0; k < rows[i].tries; k++) {
			assert_int_equal(limits_admit_guess(limits, guid(1), rows[i].threshold, START, &retry_after), STATUS_OK);
			limits_settle_guess(limits, guid(1), true, START);
		}
		assert_int_equal(limits_admit_guess(limits, guid(1), rows[i].threshold, START, &retry_after), STATUS_AGENT_THROTTLED);
		assert_int_equal(retry_after, 3600);
		limits_free(limits);
	}
	struct limits_settings settings = defaults;
	settings.wrong_per_user_hour = 0;
	struct limits *limits = limits_new(&settings);
	for (unsigned k = 0; k < 10; k++) {
		assert_int_equal(limits_admit_guess(limits, guid(1), 3, START, &retry_after), STATUS_OK); /* as it is configured */
		limits_settle_guess(limits, guid(1), true, START);
	}
	limits_free(limits);
}

static void questions_a_minute(void **state)
{
	struct limits_settings settings = defaults;
	settings.lookups_per_minute = 2;
	struct limits *limits = limits_new(&settings);
	assert_int_equal(limits_admit_lookup(limits, START, &retry_after), STATUS_OK);
	assert_int_equal(limits_admit_lookup(limits, START + 1, &retry_after), STATUS_OK);
	assert_int_equal(limits_admit_lookup(limits, START + 2, &retry_after), STATUS_AGENT_THROTTLED);
	assert_int_equal(retry_after, 60);
	assert_int_equal(limits_admit_lookup(limits, START + MINUTE, &retry_after), STATUS_OK);
	settings.lookups_per_minute = settings.wrong_per_user_hour = 0;
	limits_reconfigure(limits, &settings);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(limits_admit_lookup(limits, START + MINUTE, &retry_after), STATUS_OK);
		assert_int_equal(guess(limits, 1, true, START + MINUTE), STATUS_OK);
	}
	limits_free(limits);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_flight), cmocka_unit_test(a_minute_heals_by_itself), cmocka_unit_test(reservations_hold_their_places),
		cmocka_unit_test(k25_three_for_one_user_an_hour), cmocka_unit_test(unlocks_are_counted_apart), cmocka_unit_test(k25_a_mass_reset_latches),
		cmocka_unit_test(open_reservations_do_not_latch), cmocka_unit_test(no_limits_where_zero), cmocka_unit_test(restored_from_the_journal),
		cmocka_unit_test(reconfigured), cmocka_unit_test(a_clock_set_back_holds_nobody_for_ever), cmocka_unit_test(memory_is_bounded),
		cmocka_unit_test(wrong_passwords_are_few), cmocka_unit_test(guesses_in_flight_have_their_places), cmocka_unit_test(wrong_passwords_of_all_close_a_latch_of_their_own), cmocka_unit_test(guesses_of_all_at_once_and_from_the_journal), cmocka_unit_test(the_lockout_threshold_is_not_reached), cmocka_unit_test(questions_a_minute),
		cmocka_unit_test(one_at_a_time_in_order), cmocka_unit_test(a_turn_may_end_in_its_own_callback),
	};
	return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
