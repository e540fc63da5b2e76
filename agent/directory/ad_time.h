/* ad_time: Active Directory's times. Pure. FILETIME: 100 ns since 1601-01-01 (MS-DTYP 2.3.3); intervals are negative. */
#ifndef AGENT_DIRECTORY_AD_TIME_H
#define AGENT_DIRECTORY_AD_TIME_H

#include <stdbool.h>
#include <stdint.h>

/* Seconds since 1970 of seconds since 1601; 0 for 0. */
int64_t ad_time_from_1601(uint64_t seconds);
/* Seconds since 1970; 0 for 0 and below. */
int64_t ad_time_from_filetime(int64_t filetime);
/* accountExpires: 0 and 0x7FFFFFFFFFFFFFFF are "never", INT64_MAX. */
int64_t ad_time_expiry(int64_t filetime);
/* minPwdAge, maxPwdAge, lockoutDuration: -100 ns as seconds; 0 and INT64_MIN ("never": a password that does not expire, a lockout that does not end by itself) are 0. */
int64_t ad_time_interval(int64_t interval);
/* currentTime, "20261122120335.0Z" (RFC 4517 3.3.13, UTC only); false where malformed. */
bool ad_time_generalized(const char *text, int64_t *ret_seconds);
/* A whole decimal number and nothing behind it. */
bool ad_number(const char *text, int64_t *ret_value);

#endif
