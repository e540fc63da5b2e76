#include "service/turned_away.h"

#include <stdio.h>
#include <string.h>

#define AGAIN_US INT64_C(3600000000)

bool turned_away_is_news(struct turned_away *all, unsigned code, const char *reason, const char *peer, int64_t now_us, unsigned *ret_times)
{
	char what[sizeof all->kinds[0].what];
	const char *port = strrchr(peer, ':');
	size_t kind = 0, oldest = 0;
	/* The reason of 4005 is the time. */
	snprintf(what, sizeof what, "%u %.*s %.140s", code, port != NULL ? (int)(port - peer) : 64, peer, code == 4005 ? "" : reason);
	while (kind < TURNED_AWAY_KINDS && strcmp(all->kinds[kind].what, what) != 0) {
		oldest = all->kinds[kind].said_us < all->kinds[oldest].said_us ? kind : oldest;
		kind++;
	}
	bool known = kind < TURNED_AWAY_KINDS;
	if (!known)
		kind = oldest;
	*ret_times = known ? ++all->kinds[kind].times : 1;
	if ((known && now_us < all->kinds[kind].said_us + AGAIN_US) || !log_allowed(&all->budget))
		return false;
	snprintf(all->kinds[kind].what, sizeof what, "%s", what);
	all->kinds[kind].times = 0;
	all->kinds[kind].said_us = now_us;
	return true;
}

void turned_away_forget(struct turned_away *all)
{
	memset(all->kinds, 0, sizeof all->kinds);
}
