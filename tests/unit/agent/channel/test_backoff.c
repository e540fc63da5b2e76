#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/channel/backoff.h"

#define LOW 0u
#define HIGH UINT32_MAX

/* proto/README.md, section 5. */
static void the_bound_doubles(void **state)
{
	static const int64_t ordinary[] = { 200, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000 };
	static const int64_t slow[] = { 200, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 128000, 256000, 300000, 300000 };
	struct backoff a = { 0 }, b = { 0 }, c = { 0 };
	for (size_t i = 0; i < sizeof ordinary / sizeof *ordinary; i++) {
		assert_int_equal(backoff_next_ms(&a, BACKOFF_ORDINARY, 0, 0, HIGH), ordinary[i]);
		assert_int_equal(backoff_next_ms(&b, BACKOFF_ORDINARY, 0, 0, LOW), 0); /* full jitter */
	}
	for (size_t i = 0; i < sizeof slow / sizeof *slow; i++)
		assert_int_equal(backoff_next_ms(&c, BACKOFF_SLOW, 0, 0, HIGH), slow[i]);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(backoff_next_ms(&c, BACKOFF_ORDINARY, 0, 0, HIGH), 60000);
}

static void a_stable_minute_forgets(void **state)
{
	struct backoff backoff = { 0 };
	for (int i = 0; i < 5; i++)
		(void)backoff_next_ms(&backoff, BACKOFF_ORDINARY, 0, 0, HIGH);
	assert_int_equal(backoff_next_ms(&backoff, BACKOFF_ORDINARY, 59999, 0, HIGH), 16000);
	assert_int_equal(backoff_next_ms(&backoff, BACKOFF_ORDINARY, 60000, 0, HIGH), 200);
	assert_int_equal(backoff_next_ms(&backoff, BACKOFF_ORDINARY, 0, 0, HIGH), 1000);
}

static void retry_after_is_a_lower_bound(void **state)
{
	struct backoff backoff = { 0 };
	assert_int_equal(backoff_next_ms(&backoff, BACKOFF_ORDINARY, 0, 3600, LOW), 3600000);
	assert_int_equal(backoff_next_ms(&backoff, BACKOFF_ORDINARY, 0, 3600, HIGH), 3601000);
	backoff.failures = 7;
	assert_int_equal(backoff_next_ms(&backoff, BACKOFF_ORDINARY, 0, 5, HIGH), 60000);
}

static void parked(void **state)
{
	struct backoff backoff = { 0 };
	assert_int_equal(backoff_next_ms(&backoff, BACKOFF_PARKED, 0, 0, LOW), 270000);
	assert_int_equal(backoff_next_ms(&backoff, BACKOFF_PARKED, 0, 0, HIGH), 300000);
}

static void paces(void **state)
{
	static const unsigned slow_close[] = { 4001, 4002, 4003, 4005 }, ordinary_close[] = { 0, 1000, 1001, 1006, 1008, 1012, 1013, 4004 };
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(backoff_pace_of(slow_close[i], 0), BACKOFF_SLOW);
	for (size_t i = 0; i < 8; i++)
		assert_int_equal(backoff_pace_of(ordinary_close[i], 0), BACKOFF_ORDINARY);
	assert_int_equal(backoff_pace_of(1006, 401), BACKOFF_SLOW);
	assert_int_equal(backoff_pace_of(1006, 403), BACKOFF_SLOW);
	assert_int_equal(backoff_pace_of(0, 407), BACKOFF_PARKED);
	assert_int_equal(backoff_pace_of(1006, 503), BACKOFF_ORDINARY);
}

static void the_agents_socket(void **state)
{
	static const int64_t bounds[] = { 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000 };
	for (unsigned i = 0; i < sizeof bounds / sizeof *bounds; i++) {
		assert_int_equal(backoff_local_ms(i, HIGH), bounds[i]);
		assert_int_equal(backoff_local_ms(i, LOW), i ? bounds[i] / 2 : 10);
	}
	assert_int_equal(backoff_local_ms(1000000, HIGH), 5000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_bound_doubles), cmocka_unit_test(a_stable_minute_forgets), cmocka_unit_test(retry_after_is_a_lower_bound),
		cmocka_unit_test(parked), cmocka_unit_test(paces), cmocka_unit_test(the_agents_socket),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
