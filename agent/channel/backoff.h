/* backoff: how long to wait before the next try (proto/README.md, section 5). Pure: time and randomness are parameters.
 *
 * The first try after a loss comes within 200 ms; then a pause with full jitter from 0 to a bound that doubles from 1 s to 60 s, or to 300 s where
 * the peer has said that trying again will not help soon. A minute of stable channel forgets all that. */
#ifndef AGENT_CHANNEL_BACKOFF_H
#define AGENT_CHANNEL_BACKOFF_H

#include <stdint.h>

#define BACKOFF_STABLE_MS 60000

enum backoff_pace {
	BACKOFF_ORDINARY,  /* bound 60 s */
	BACKOFF_SLOW,      /* bound 300 s: 401, 403, 4001, 4002, 4003, 4005 */
	BACKOFF_PARKED     /* 270 to 300 s at once: each try costs something (a proxy that counts wrong passwords) */
};

struct backoff {
	unsigned failures; /* since the last stable channel */
};

/* The channel was lost, or could not be had. `up_ms`: how long it had stood (0: not at all). `retry_after`: seconds that the peer asked for, 0: none; it is a lower bound.
 * `random`: 32 uniform bits. Milliseconds. */
int64_t backoff_next_ms(struct backoff *backoff, enum backoff_pace pace, int64_t up_ms, unsigned retry_after, uint32_t random);

/* The pause before the next try to reach the agent's socket: 10 ms doubling to 5 s, the upper half jittered. */
int64_t backoff_local_ms(unsigned failures, uint32_t random);

/* The pace after the peer's close code, or after the HTTP status of a refused upgrade. */
enum backoff_pace backoff_pace_of(unsigned close_code, unsigned http_status);

#endif
