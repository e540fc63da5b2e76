#include "base/clock.h"

#include <stdio.h>
#include <time.h>

int64_t clock_now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t clock_monotonic_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t clock_boottime_us(void)
{
	struct timespec up;
	clock_gettime(CLOCK_BOOTTIME, &up);
	return (int64_t)up.tv_sec * 1000000 + up.tv_nsec / 1000;
}

int64_t clock_booted_ms(void)
{
	return clock_now_ms() - clock_boottime_us() / 1000;
}

void clock_format(int64_t ms, char out[CLOCK_TEXT_SIZE])
{
	/* The text has room for years 0000 to 9999. */
	const int64_t lowest = -62167219200000, highest = 253402300799999;
	ms = ms < lowest ? lowest : ms > highest ? highest : ms;
	int64_t part = ms % 1000;
	part += part < 0 ? 1000 : 0;
	time_t seconds = (time_t)((ms - part) / 1000);
	struct tm tm;
	gmtime_r(&seconds, &tm);
	char text[64];
	snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)part);
	snprintf(out, CLOCK_TEXT_SIZE, "%.24s", text);
}
