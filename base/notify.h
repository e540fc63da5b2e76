/* notify: what sd_notify(3) does, without ever waiting for the other end: PID 1 may stand still, and a loop must not stand still with it. States (READY=1 and the like) wait in a short
 * queue until they are taken; of status texts the latest is sent, at most one a second; the watchdog's sign of life is sent or dropped.
 * On the loop's thread. Where $NOTIFY_SOCKET names no socket nothing is done. */
#ifndef BASE_NOTIFY_H
#define BASE_NOTIFY_H

#include <event2/event.h>

struct notify;

/* NULL when memory is out. */
struct notify *notify_new(struct event_base *base);
void notify_free(struct notify *notify);
/* One whole message; copied. */
void notify_state(struct notify *notify, const char *message);
void notify_status(struct notify *notify, const char *message);
void notify_alive(struct notify *notify);

#endif
