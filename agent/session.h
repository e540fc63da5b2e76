/* session: the protocol on one endpoint's WebSocket: the greeting (proto/README.md section 5.1) and, after it, who may say what.
 *
 * States are rows: what may come in it, and how long it may last. Frames come in, frames go out by callbacks: no sockets in here. The service's key set is
 * the identity's, shared by all sessions. On the loop's thread; callbacks must not free the session. */
#ifndef AGENT_SESSION_H
#define AGENT_SESSION_H

#include <event2/event.h>

#include "agent/identity.h"

enum session_state { SESSION_DOWN, SESSION_KEYS, SESSION_CHALLENGE, SESSION_WELCOME, SESSION_READY, SESSION_DRAINING, SESSION_STATES };

/* What the agent says of itself in the hello; asked for anew at each greeting. Strings are borrowed. */
struct session_self {
	const struct hello_directory *directories;
	size_t directory_count;
	unsigned operations;
	unsigned max_in_flight;
	int64_t boot;
};

struct session;
struct session_callbacks {
	enum status (*send)(struct session *session, struct bytes frame, void *arg);
	/* Ask for the WebSocket to be closed. */
	void (*close)(struct session *session, unsigned close_code, const char *reason, void *arg);
	void (*self)(struct session_self *ret_self, void *arg);
	void (*changed)(struct session *session, void *arg);
	/* A request whose signature is good: its payload, not parsed, and the frame. `started_us`: when the frame came. */
	void (*request)(struct session *session, struct bytes payload, struct bytes frame, int64_t started_us, void *arg);
	/* A frame that cannot be verified, after the greeting. */
	void (*unverified)(struct session *session, struct bytes frame, enum jose_reason reason, void *arg);
	void (*acknowledged)(struct session *session, const char *request_id, void *arg);
	/* Another key set is in force. */
	void (*key_set)(struct session *session, void *arg);
	/* The service's answer to TYP_REKEY, of this channel. */
	void (*rekeyed)(struct session *session, const struct rekeyed *rekeyed, void *arg);
	/* It has welcomed a hello by the next pair: that is the one in force there. Before `changed`. */
	void (*next_welcomed)(struct session *session, void *arg);
	void *arg;
};

/* `identity` is borrowed and may change between sessions' connections. */
struct session *session_new(struct event_base *base, uint8_t endpoint, struct identity *identity, const struct session_callbacks *callbacks);
void session_free(struct session *session);

/* The WebSocket is open; it is gone. */
void session_up(struct session *session);
void session_down(struct session *session);
/* The service has closed it with 1008, before session_down: where it was our hello that it refused, the other pair of keys has its turn at the next greeting. */
void session_refused(struct session *session);
void session_frame(struct session *session, struct bytes frame, int64_t now_s);

/* Signs and sends; only in ready and draining. */
enum status session_send(struct session *session, const char *typ, struct bytes payload) MUST_USE;
/* Tells the service that nothing new may come. */
void session_drain(struct session *session, const char *reason);
/* What the agent says of itself has changed: the channel drains, or its greeting ends, and the next one says it. */
void session_greet_again(struct session *session, const char *reason);
/* Draining, and nothing is owed any more: closes with 1001. Nothing in other states. */
void session_end_drain(struct session *session);
enum session_state session_state(const struct session *session);
const char *session_state_name(enum session_state state);
/* The service's name for the channel; "" before the welcome. */
const char *session_id(const struct session *session);
uint8_t session_endpoint(const struct session *session);
/* Ready or draining: results may be sent. */
bool session_talks(const struct session *session);
/* The service's clock less ours at the welcome, in seconds. */
int64_t session_clock_difference_s(const struct session *session);

#endif
