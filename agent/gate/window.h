/* window: how many in the last while. Pure: the time is a parameter. */
#ifndef AGENT_GATE_WINDOW_H
#define AGENT_GATE_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

/* When the last `capacity` writes were, ascending: enough to tell whether `capacity` of them lie within `span_ms`. */
struct window {
	int64_t *stamps;
	unsigned count, capacity;
	int64_t span_ms;
	unsigned pending;            /* admitted and not settled */
};

void window_expire(struct window *window, int64_t now_ms);
/* In its place, for the journal's rows need not come in order. A full window forgets its oldest. */
void window_add(struct window *window, int64_t at_ms);
/* 0: there is room under `limit` (0: no limit), else seconds until there may be: precisely where settled writes fill it, one second where some are not settled yet. */
int64_t window_wait_s(const struct window *window, unsigned limit, int64_t now_ms);
/* Keeps the latest; false when memory is out. */
bool window_resize(struct window *window, unsigned capacity);

#endif
