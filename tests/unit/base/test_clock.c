#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <limits.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"

static void formats(void **state)
{
	static const struct { int64_t ms; const char *text; } rows[] = {
		{ 0, "1970-01-01T00:00:00.000Z" },
		{ 1795365601123, "2026-11-22T16:40:01.123Z" },
		{ 951782400000, "2000-02-29T00:00:00.000Z" },
		{ -1, "1969-12-31T23:59:59.999Z" },
		{ 253402300799999, "9999-12-31T23:59:59.999Z" },
		{ INT64_MAX, "9999-12-31T23:59:59.999Z" },
		{ INT64_MIN, "0000-01-01T00:00:00.000Z" },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		char text[CLOCK_TEXT_SIZE];
		clock_format(rows[i].ms, text);
		assert_string_equal(text, rows[i].text);
	}
}

static void goes_on(void **state)
{
	int64_t before = clock_monotonic_us();
	assert_true(clock_monotonic_us() >= before);
	int64_t seconds = (int64_t)time(NULL), ms = clock_now_ms();
	assert_true(ms / 1000 >= seconds && ms / 1000 <= seconds + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(formats), cmocka_unit_test(goes_on) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
