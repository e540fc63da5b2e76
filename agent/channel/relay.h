/* relay: joins the socket to writebackd (packet.h) with the endpoints. Only while that socket stands are WebSockets opened; losing it closes them all with 1001.
 * Frames pass both ways unread. On the loop. */
#ifndef AGENT_CHANNEL_RELAY_H
#define AGENT_CHANNEL_RELAY_H

#include <event2/event.h>

#include "agent/channel/settings.h"

struct relay;

struct relay_callbacks {
	/* Something that `relay_status` says has changed; the first time after the first try to reach writebackd. */
	void (*changed)(struct relay *relay, void *arg);
	/* After relay_stop: everything is closed, or two seconds have passed. */
	void (*stopped)(struct relay *relay, void *arg);
	void *arg;
};

/* `settings` is borrowed until relay_free or the next relay_reconfigure. */
enum status relay_new(struct event_base *base, const struct settings *settings, const struct relay_callbacks *callbacks, struct relay **ret_relay) MUST_USE;
void relay_reconfigure(struct relay *relay, const struct settings *settings);
void relay_stop(struct relay *relay);
void relay_free(struct relay *relay);
/* "Endpoint wss://…: up since …; endpoint wss://…: down: tls.name", for systemd's STATUS. */
void relay_status(const struct relay *relay, char *out, size_t capacity);

#endif
