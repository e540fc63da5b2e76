/* dial: a TCP connection to host and port. The name is resolved by c-ares on the loop (hosts file and DNS, read anew each time), then every
 * address is tried in turn, 10 s each. An address in text is taken as it is. One dial makes one connection. */
#ifndef AGENT_CHANNEL_DIAL_H
#define AGENT_CHANNEL_DIAL_H

#include <event2/event.h>
#include <stdint.h>

#include "base/status.h"

struct dial;

/* Exactly once, on the loop and never from inside dial_new. `fd` is the callee's (non-blocking, TCP_NODELAY), -1 on failure: channel.name, channel.refused or channel.timeout, that
 * of the last address. `why` is borrowed. The owner frees the dial, here too. */
typedef void (*dial_done)(int take_fd, enum status status, const char *why, void *arg);

enum status dial_new(struct event_base *base, const char *host, uint16_t port, dial_done done, void *arg, struct dial **ret_dial) MUST_USE;
/* Takes NULL; what is under way is dropped. */
void dial_free(struct dial *dial);

#endif
