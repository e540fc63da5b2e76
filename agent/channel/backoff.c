#include "agent/channel/backoff.h"

#include <stddef.h>

#define FIRST_MS 200
#define RETRY_AFTER_JITTER_MS 1000
#define PARKED_MS 270000
#define LOCAL_FIRST_MS 10
#define LOCAL_MAX_MS 5000

static int64_t between(int64_t low, int64_t high, uint32_t random)
{
	return low + (int64_t)(((uint64_t)random * (uint64_t)(high - low + 1)) >> 32);
}

static int64_t doubled(int64_t start, unsigned times, int64_t limit)
{
	while (times-- && start < limit)
		start *= 2;
	return start < limit ? start : limit;
}

int64_t backoff_next_ms(struct backoff *backoff, enum backoff_pace pace, int64_t up_ms, unsigned retry_after, uint32_t random)
{
	int64_t asked = retry_after * INT64_C(1000), wait;
	if (up_ms >= BACKOFF_STABLE_MS)
		backoff->failures = 0;
	if (pace == BACKOFF_PARKED)
		wait = between(PARKED_MS, 300000, random);
	else if (backoff->failures == 0)
		wait = between(0, FIRST_MS, random);
	else
		wait = between(0, doubled(1000, backoff->failures - 1, pace == BACKOFF_SLOW ? 300000 : 60000), random);
	if (backoff->failures < 64)
		backoff->failures++;
	/* Many agents are told the same number: they do not come back in the same instant, and none comes early. */
	return wait < asked ? asked + between(0, RETRY_AFTER_JITTER_MS, random) : wait;
}

int64_t backoff_local_ms(unsigned failures, uint32_t random)
{
	int64_t bound = doubled(LOCAL_FIRST_MS, failures, LOCAL_MAX_MS);
	return between(failures ? bound / 2 : bound, bound, random);
}

enum backoff_pace backoff_pace_of(unsigned close_code, unsigned http_status)
{
	static const unsigned slow[] = { 401, 403, 4001, 4002, 4003, 4005 };
	for (size_t i = 0; i < sizeof slow / sizeof *slow; i++)
		if (close_code == slow[i] || http_status == slow[i])
			return BACKOFF_SLOW;
	return http_status == 407 ? BACKOFF_PARKED : BACKOFF_ORDINARY;
}
