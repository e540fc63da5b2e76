/* limits: how much at once and how much in a while. Requests in flight; one at a time for one user, in order, a few waiting; applied a minute; a user's an hour; the latch; wrong passwords of a user; questions a minute.
 * In memory, one thread, time as a parameter; what must survive a restart is exported and imported as plain numbers, which the journal keeps. */
#ifndef AGENT_GATE_LIMITS_H
#define AGENT_GATE_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

struct limits_settings {
	unsigned in_flight;            /* 256; 1 to 4,096 */
	unsigned waiting_per_user;     /* 4 */
	unsigned per_minute;           /* 120 applied writes of passwords a minute; 0: none */
	unsigned per_user_hour;        /* 3 applied resets a user an hour; 0: none; more than 32 are 32 */
	unsigned latch_per_hour;       /* 300; 0: none. More applied resets within an hour close the latch until limits_resume */
	unsigned unlocks_per_minute;   /* 120; unlocks are counted apart */
	unsigned wrong_per_user_hour;  /* 3 wrong passwords a user an hour; 0: no limit; more than 32 are 32 */
	unsigned wrong_per_minute;     /* 20; 0: none. So many wrong passwords of all users within a minute close the latch of the guesses */
	unsigned lookups_per_minute;   /* 600 questions about a user a minute; 0: no limit */
};
/* What only limits_resume opens: LATCH_RESETS stops writes, LATCH_GUESSES stops what tries a password (verify and change), each by itself. */
enum latch { LATCH_RESETS, LATCH_GUESSES, LATCHES };
struct limits;
/* NULL when memory is out. */
struct limits *limits_new(const struct limits_settings *settings);
void limits_free(struct limits *limits);
void limits_reconfigure(struct limits *limits, const struct limits_settings *settings);

/* A request comes in: agent.overloaded where in_flight is reached. Every success is paired with limits_leave. */
enum status limits_enter(struct limits *limits) MUST_USE;
void limits_leave(struct limits *limits);
unsigned limits_in_flight(const struct limits *limits);

/* Before a write (password or unlock) for `guid`: agent.latched, agent.throttled (with *ret_retry_after_s) or STATUS_OK. A STATUS_OK reserves its place in the counts at once,
 * so that requests in flight together cannot pass the ceiling; limits_settle makes the reservation count (applied or unknown) or gives it back. Not more than latch_per_hour
 * resets are applied within an hour: the one that would be too many closes the latch; while reservations alone fill it, the answer is agent.throttled. agent.internal when memory is out. */
enum status limits_admit(struct limits *limits, const char *guid, bool sets_password, int64_t now_ms, int64_t *ret_retry_after_s) MUST_USE;
void limits_settle(struct limits *limits, const char *guid, bool sets_password, bool counts, int64_t now_ms);
/* The same for writes found in the journal at the start: `now_ms` is when it was applied. May close the latch. */
void limits_restore(struct limits *limits, const char *guid, bool sets_password, int64_t applied_at_ms);

/* Before the directory is asked whether a password is the user's: agent.latched, agent.throttled (with *ret_retry_after_s) or STATUS_OK. Tries in flight together have their places, as above; one that was
 * wrong, or may have been, counts, and the one that fills the minute closes LATCH_GUESSES. LATCH_RESETS says nothing here. `lockout_threshold`, of the user's policy, 0: none or not known: a user's ceiling stays two below it (one where it is 3; one try
 * is always let through), unless there is none. */
enum status limits_admit_guess(struct limits *limits, const char *guid, unsigned lockout_threshold, int64_t now_ms, int64_t *ret_retry_after_s) MUST_USE;
/* Likewise for a password that the agent itself tries: `most` wrong ones an hour for this user whatever the settings allow, 0: as for a guess. */
enum status limits_admit_proof(struct limits *limits, const char *guid, unsigned lockout_threshold, unsigned most, int64_t now_ms, int64_t *ret_retry_after_s) MUST_USE;
/* How many wrong passwords in all an account with this threshold can have without being closer than that to its lockout; UINT32_MAX: it is never locked. */
unsigned limits_safe_guesses(unsigned lockout_threshold);
void limits_settle_guess(struct limits *limits, const char *guid, bool wrong, int64_t now_ms);
/* `latches` false: from before the latch was opened last; it counts for its user alone. */
void limits_restore_guess(struct limits *limits, const char *guid, bool latches, int64_t tried_at_ms);
/* Before a user is looked up only to tell about him; what is admitted counts at once. */
enum status limits_admit_lookup(struct limits *limits, int64_t now_ms, int64_t *ret_retry_after_s) MUST_USE;

bool limits_latched(const struct limits *limits, enum latch latch);
/* Called once when a latch closes. */
void limits_on_latch(struct limits *limits, void (*latched)(enum latch latch, void *arg), void *arg);
void limits_latch(struct limits *limits, enum latch latch);   /* from the journal at the start */
void limits_resume(struct limits *limits, int64_t now_ms);  /* opens both and forgets the counts, but not a user's wrong passwords: the directory counts those too */

/* One at a time for one user. A turn is granted at once (true) or later by `granted`, in order; user.busy where waiting_per_user wait already. */
struct limits_turn { char guid[UUID_SIZE]; struct limits_turn *next; void (*granted)(void *arg); void *arg; bool active; };
enum status limits_take_turn(struct limits *limits, const char *guid, struct limits_turn *turn, bool *ret_now) MUST_USE;
/* Ends an active turn (the next one is granted from here) or takes a waiting one out of the queue. */
void limits_end_turn(struct limits *limits, struct limits_turn *turn);

#endif
