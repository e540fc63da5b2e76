/* turned_away: an agent that is not let in (revoked, a clone, an old key) comes again every few minutes for as long as nobody decides, and so may a stranger: which of these closings are worth a
 * line. The first of each kind (code, reason, address of the peer) is, then one an hour of the same, with how many there were; and of what anybody can cause no more than log_allowed says.
 * Time is a parameter. */
#ifndef SERVICE_TURNED_AWAY_H
#define SERVICE_TURNED_AWAY_H

#include <stdint.h>

#include "base/log.h"

#define TURNED_AWAY_KINDS 8 /* the one that was said longest ago gives way */

/* Zeroed at first. */
struct turned_away {
	struct { char what[224]; unsigned times; int64_t said_us; } kinds[TURNED_AWAY_KINDS];
	struct log_budget budget;
};

/* True: say it; `ret_times` is how often it was since the line before, this time included. `peer` is "address:port". */
bool turned_away_is_news(struct turned_away *all, unsigned code, const char *reason, const char *peer, int64_t now_us, unsigned *ret_times);
/* It was let in: what comes behind that is news again. */
void turned_away_forget(struct turned_away *all);

#endif
