#include "agent/gate/window.h"

#include <stdlib.h>
#include <string.h>

void window_expire(struct window *window, int64_t now_ms)
{
	unsigned gone = 0;
	/* The clock was set back: what seems to lie ahead happened at the latest now, so that a wrong clock, once right again, holds nobody up for longer than the span. */
	for (unsigned i = window->count; i > 0 && window->stamps[i - 1] > now_ms; i--)
		window->stamps[i - 1] = now_ms;
	while (gone < window->count && now_ms - window->stamps[gone] >= window->span_ms)
		gone++;
	if (gone) {
		window->count -= gone;
		memmove(window->stamps, window->stamps + gone, window->count * sizeof *window->stamps);
	}
}

void window_add(struct window *window, int64_t at_ms)
{
	if (!window->capacity)
		return;
	if (window->count == window->capacity) {
		if (at_ms <= window->stamps[0])
			return;
		window->count--;
		memmove(window->stamps, window->stamps + 1, window->count * sizeof *window->stamps);
	}
	unsigned i = window->count++;
	for (; i > 0 && window->stamps[i - 1] > at_ms; i--)
		window->stamps[i] = window->stamps[i - 1];
	window->stamps[i] = at_ms;
}

int64_t window_wait_s(const struct window *window, unsigned limit, int64_t now_ms)
{
	if (!limit || (uint64_t)window->count + window->pending < limit)
		return 0;
	if (window->count < limit)
		return 1;
	return (window->stamps[window->count - limit] + window->span_ms - now_ms + 999) / 1000;
}

bool window_resize(struct window *window, unsigned capacity)
{
	unsigned kept = window->count < capacity ? window->count : capacity;
	int64_t *stamps = calloc(capacity ? capacity : 1, sizeof *stamps);
	if (!stamps)
		return false;
	if (kept)
		memcpy(stamps, window->stamps + window->count - kept, kept * sizeof *stamps);
	free(window->stamps);
	window->stamps = stamps;
	window->count = kept;
	window->capacity = capacity;
	return true;
}
