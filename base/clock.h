/* clock: the clocks. Modules that decide take `now` as a parameter; only those that coordinate read a clock. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

/* Wall clock: milliseconds since 1970 in UTC. */
int64_t clock_now_ms(void);
/* CLOCK_MONOTONIC in microseconds: for durations and deadlines. */
int64_t clock_monotonic_us(void);
/* CLOCK_BOOTTIME in microseconds: for how long ago something was elsewhere. It goes on while this host is suspended. */
int64_t clock_boottime_us(void);
/* When this host booted, by the wall clock in milliseconds: the same until it boots again or the clock is set, within a second. */
int64_t clock_booted_ms(void);
/* "2026-11-22T16:40:01.123Z" */
#define CLOCK_TEXT_SIZE 25
void clock_format(int64_t ms, char out[CLOCK_TEXT_SIZE]);

#endif
