/* loop: one libevent loop with its signals, the longest time it was held up, and systemd's notification.
 * Nothing that runs on it may block. */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <event2/event.h>
#include <stdint.h>

#include "base/status.h"

struct loop;

/* Called on the loop. */
struct loop_callbacks {
	void (*stop)(void *arg);    /* first SIGTERM or SIGINT: finish, then loop_end(); a second signal ends the loop at once */
	void (*reload)(void *arg);  /* SIGHUP, storms coalesced to one a second */
	void *arg;
};

/* Ignores SIGPIPE. `probe_ms` is how often the loop looks at its own punctuality (1000 for production; 10 in tests that measure). */
enum status loop_new(const struct loop_callbacks *callbacks, unsigned probe_ms, struct loop **ret_loop) MUST_USE;
void loop_free(struct loop *loop);
struct event_base *loop_base(struct loop *loop);
/* Until loop_end(). */
void loop_run(struct loop *loop);
void loop_end(struct loop *loop);
/* The longest time, in microseconds, by which a probe came late since the start or the last reset. */
int64_t loop_longest_gap_us(const struct loop *loop);
void loop_reset_gap(struct loop *loop);

/* accept(2), close-on-exec and non-blocking. Where no descriptor is left, the one in reserve is given up for a moment to close the door on whoever knocks: else a level-triggered loop would spin. -1: nobody. */
int loop_accept(int listening, int *reserve_fd);
/* The reserve; -1 where there is none, which loop_accept makes good. */
int loop_reserve_fd(void);

/* sd_notify, never waiting (base/notify.h); do nothing where there is no systemd. Of status texts the latest is told, at most one a second. The watchdog is fed by the loop itself, at half of WATCHDOG_USEC, while it turns. */
void loop_notify_ready(struct loop *loop, const char *status_text);
void loop_notify_status(struct loop *loop, const char *status_text);
void loop_notify_reloading(struct loop *loop);
void loop_notify_stopping(struct loop *loop);

#endif
