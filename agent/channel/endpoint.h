/* endpoint: holds one WebSocket to one URL, and gets it back when it is lost: resolve, connect, perhaps a proxy's CONNECT, TLS, upgrade, up; then
 * a pause by backoff.h. All on the loop. It knows neither the socket to writebackd nor what messages mean. */
#ifndef AGENT_CHANNEL_ENDPOINT_H
#define AGENT_CHANNEL_ENDPOINT_H

#include <event2/event.h>

#include "agent/channel/settings.h"
#include "base/bytes.h"
#include "base/tls.h"

struct endpoint;

struct endpoint_down {
	enum status status;
	unsigned close_code;   /* 0: it was never up; else of the peer's close frame, 1006 without one */
	const char *reason;
	unsigned http_status, retry_after;
	int64_t next_try_ms;
	bool was_up, changed;  /* changed: not what was said last, worth a line */
};

struct endpoint_callbacks {
	/* `news`: worth a line. It is not where the service has refused this agent the last time: then `let_in` says when it does not any more. */
	void (*up)(struct endpoint *endpoint, const struct tls_peer *peer, bool news, void *arg);
	void (*let_in)(struct endpoint *endpoint, const struct tls_peer *peer, void *arg);
	void (*message)(struct endpoint *endpoint, struct bytes message, void *arg);
	/* After each try that failed and each loss, at once: where a closing handshake follows, before that. Likewise where it was up and this side closes it (endpoint_stop, endpoint_reconfigure). */
	void (*down)(struct endpoint *endpoint, const struct endpoint_down *down, void *arg);
	/* After endpoint_stop: nothing is open any more. */
	void (*stopped)(struct endpoint *endpoint, void *arg);
	void *arg;
};

/* `settings` is borrowed and must outlive the endpoint or be replaced by endpoint_reconfigure. `number`: which of its URLs. It does nothing before endpoint_start. */
enum status endpoint_new(struct event_base *base, uint8_t number, const struct settings *settings, const struct endpoint_callbacks *callbacks,
                         struct endpoint **ret_endpoint) MUST_USE;
/* At once, without a close frame. Takes NULL. Of its callbacks only `stopped` may do it. */
void endpoint_free(struct endpoint *endpoint);

void endpoint_start(struct endpoint *endpoint);
/* Closes with `close_code`: `down` where it was up, and then `stopped`, from in here where there is nothing to close. Starting again before that is allowed: it waits for the end of the old one. */
void endpoint_stop(struct endpoint *endpoint, unsigned close_code, const char *reason);
/* Other settings for the next try; where they name another way (URL, proxy), the present connection is closed with 1001 (`down`). A pause is cut short. */
void endpoint_reconfigure(struct endpoint *endpoint, const struct settings *settings);

bool endpoint_is_up(const struct endpoint *endpoint);
bool endpoint_is_stopped(const struct endpoint *endpoint);
/* Sends where it is up; else the message is dropped, as everything is that a channel loses. */
void endpoint_send(struct endpoint *endpoint, struct bytes message);
/* Reads nothing more from the WebSocket that is up, or goes on. TCP holds the peer back. */
void endpoint_hold(struct endpoint *endpoint, bool hold);
/* Closes the WebSocket that is up; another is opened after the pause. */
void endpoint_close(struct endpoint *endpoint, unsigned close_code, const char *reason);

uint8_t endpoint_number(const struct endpoint *endpoint);
const char *endpoint_url(const struct endpoint *endpoint);
/* "resolving and connecting", "up", …, and the status of the last failure (STATUS_OK: none). */
const char *endpoint_state_name(const struct endpoint *endpoint);
enum status endpoint_last_status(const struct endpoint *endpoint);
/* Wall clock, milliseconds; of the last change between up and down. */
int64_t endpoint_since(const struct endpoint *endpoint);

#endif
