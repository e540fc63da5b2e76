/* resolve: one name by c-ares on the loop: to addresses, by /etc/hosts, then DNS (address literals are taken as they are); or to its SRV records, by DNS alone. */
#ifndef BASE_RESOLVE_H
#define BASE_RESOLVE_H

#include <event2/event.h>
#include <sys/socket.h>

#include "base/srv.h"
#include "base/status.h"

enum { RESOLVE_MAX = 8 };
struct addresses {
	size_t count;
	struct sockaddr_storage items[RESOLVE_MAX];
	socklen_t sizes[RESOLVE_MAX];
};

struct resolve;
/* Fires once, from the loop, unless resolve_free came first; it may free the resolve. `why` is NULL where addresses were found. */
typedef void (*resolve_done)(const struct addresses *addresses, const char *why, void *arg);
/* Every lookup has a c-ares channel of its own, so that a changed resolv.conf counts from the next connection on. The caller keeps the deadline. */
enum status resolve_start(struct event_base *base, const char *host, unsigned port, resolve_done done, void *arg, struct resolve **ret_resolve) MUST_USE;
/* The SRV records of `name`, as they came. Fires as above. `why` is NULL where there is at least one; `answer` is NULL where nobody answered, and without records where the answer was that
 * there are none. */
typedef void (*resolve_srv_done)(const struct srv_answer *answer, const char *why, void *arg);
enum status resolve_srv_start(struct event_base *base, const char *name, resolve_srv_done done, void *arg, struct resolve **ret_resolve) MUST_USE;
void resolve_free(struct resolve *resolve);

#endif
