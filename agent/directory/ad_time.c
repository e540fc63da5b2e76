#include "agent/directory/ad_time.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TICKS_PER_SECOND = 10000000 };
static const int64_t EPOCH_1601 = 11644473600; /* seconds from 1601 to 1970 */

int64_t ad_time_from_1601(uint64_t seconds)
{
	return seconds == 0 || seconds > INT64_MAX / TICKS_PER_SECOND ? 0 : (int64_t)seconds - EPOCH_1601;
}

int64_t ad_time_from_filetime(int64_t filetime)
{
	return filetime <= 0 ? 0 : filetime / TICKS_PER_SECOND - EPOCH_1601;
}

int64_t ad_time_expiry(int64_t filetime)
{
	return filetime <= 0 || filetime == INT64_MAX ? INT64_MAX : ad_time_from_filetime(filetime);
}

int64_t ad_time_interval(int64_t interval)
{
	return interval == INT64_MIN || interval >= 0 ? 0 : -(interval / TICKS_PER_SECOND);
}

/* `count` digits as a number; false where one is none. */
static bool digits(const char *text, size_t count, int *ret_value)
{
	int value = 0;
	for (size_t i = 0; i < count; i++) {
		if (text[i] < '0' || text[i] > '9') {
			return false;
		}
		value = value * 10 + (text[i] - '0');
	}
	*ret_value = value;
	return true;
}

bool ad_time_generalized(const char *text, int64_t *ret_seconds)
{
	struct tm tm = { 0 };
	int year, month;
	if (strlen(text) < 15 || !digits(text, 4, &year) || !digits(text + 4, 2, &month) || !digits(text + 6, 2, &tm.tm_mday) || !digits(text + 8, 2, &tm.tm_hour) ||
	    !digits(text + 10, 2, &tm.tm_min) || !digits(text + 12, 2, &tm.tm_sec)) {
		return false;
	}
	text += 14;
	if (*text == '.') {
		text += 1 + strspn(text + 1, "0123456789");
	}
	if (strcmp(text, "Z") != 0 || year < 1601 || month < 1 || month > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60) {
		return false;
	}
	tm.tm_year = year - 1900;
	tm.tm_mon = month - 1;
	*ret_seconds = timegm(&tm);
	return true;
}

bool ad_number(const char *text, int64_t *ret_value)
{
	char *end;
	if ((*text < '0' || *text > '9') && *text != '-') {
		return false;
	}
	errno = 0;
	*ret_value = strtoll(text, &end, 10);
	return errno == 0 && *end == 0 && end != text;
}
