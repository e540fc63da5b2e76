/* link: the agent's end of the socket to writebackd-channel: listens, serves one connection at a time, pings it every 5 s and lets it go after 15 s of silence.
 * A second connection is refused while the first is alive. Knows packets, not what frames mean. On the loop's thread; callbacks fire on the loop. */
#ifndef AGENT_LINK_H
#define AGENT_LINK_H

#include <event2/event.h>

#include "agent/channel/packet.h"

struct link;
struct link_callbacks {
	void (*up)(uint8_t endpoint, const struct packet_up *up, void *arg);
	void (*down)(uint8_t endpoint, const struct packet_down *down, void *arg);
	void (*frame)(uint8_t endpoint, struct bytes frame, void *arg);
	void (*attached)(void *arg);
	/* The channel's program is gone, and with it every endpoint. */
	void (*detached)(const char *why, void *arg);
	void *arg;
};

/* `take_fd` listens already (SOCK_SEQPACKET). */
enum status link_new(struct event_base *base, int take_fd, const struct link_callbacks *callbacks, struct link **ret_link) MUST_USE;
void link_free(struct link *link);
/* No channel is wanted: who connects is told `code` and `reason` (constant) and held. reason NULL: wanted again. For connections from now on. */
void link_hold(struct link *link, enum status code, const char *reason);
/* Lets the connection go, without `detached`: the channel's program comes back and begins anew. */
void link_drop(struct link *link);
bool link_attached(const struct link *link);
enum status link_send_frame(struct link *link, uint8_t endpoint, struct bytes frame) MUST_USE;
/* Asks for the endpoint's WebSocket to be closed. */
void link_close_endpoint(struct link *link, uint8_t endpoint, unsigned close_code, const char *reason);

/* A listening SOCK_SEQPACKET socket at `path`: a stale one is replaced, a live one is not (STATUS_LOCAL_SYSTEM, errno EADDRINUSE). */
enum status link_listen(const char *path, unsigned mode, int *ret_fd) MUST_USE;

#endif
