/* websocket: one RFC 6455 connection on a bufferevent, by wslay, for either end, with this protocol's limits: text messages up to 64 KiB, 64 fragments, pings both ways, bounded output.
 *
 * The opening handshake of a client is done here too; a server's is done by its HTTP layer, which checks the request by websocket_accept_key and hands over the upgraded bufferevent.
 * All on the loop of the bufferevent. A websocket is freed by its owner, inside a callback too (the memory goes at the end of the turn). */
#ifndef PROTO_WEBSOCKET_H
#define PROTO_WEBSOCKET_H

#include <event2/bufferevent.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

struct websocket;

struct websocket_closed {
	enum status status;    /* channel.closed (by close frame), channel.refused (TCP), channel.timeout (silence, or handshake too slow), channel.protocol, channel.too_big, channel.http, channel.rejected, tls.* by the owner */
	unsigned close_code;   /* of the peer's close frame; 1006 without one */
	char reason[124];      /* its text; or ours, for the log */
	unsigned http_status;  /* of a refused upgrade; 0 otherwise */
	unsigned retry_after;  /* seconds, from a refused upgrade; 0 otherwise */
};

struct websocket_callbacks {
	/* Client: the upgrade succeeded. Not called for a server. May be NULL. */
	void (*open)(struct websocket *websocket, void *arg);
	/* One whole message: text, valid UTF-8, at most max_message_bytes. Borrowed. */
	void (*message)(struct websocket *websocket, struct bytes message, void *arg);
	/* The peer has closed, or is being closed for what it did: nothing passes any more, either way, and `closed` comes when the closing handshake is over, seconds later perhaps; `closed` here is what is known so far.
	 * Not where the owner closes, nor where there is no handshake. The websocket is not to be freed in it. May be NULL. */
	void (*closing)(struct websocket *websocket, const struct websocket_closed *closed, void *arg);
	/* Exactly once, whichever way it ended; nothing is called afterwards. The owner frees it. */
	void (*closed)(struct websocket *websocket, const struct websocket_closed *closed, void *arg);
	void *arg;
};

struct websocket_options {
	size_t max_message_bytes;    /* 65,536 */
	unsigned max_fragments;      /* 64 */
	unsigned ping_interval_ms;   /* 25,000 */
	unsigned silence_limit_ms;   /* 60,000: nothing at all received for so long: dead */
	unsigned handshake_ms;       /* 10,000: the upgrade (client) */
	unsigned message_ms;         /* 30,000: one message from its first byte to its last */
	size_t max_output_bytes;     /* 4 MiB waiting to be sent: more is channel.protocol, closed with 1008 */
	unsigned max_control_rate;   /* 20 pings and pongs a second */
};
extern const struct websocket_options websocket_defaults;

/* Client: takes a connected bufferevent (TLS done) and sends the upgrade for `path` at `host` (with ":port" where it is not 443), subprotocol writeback.v1. */
enum status websocket_client_new(struct bufferevent *take_bev, const char *host, const char *path, const struct websocket_options *options,
                                 const struct websocket_callbacks *callbacks, struct websocket **ret_websocket) MUST_USE;
/* Server: after the 101 has been written to the bufferevent. `own_bev` false: the HTTP layer frees it after `closed` and websocket_free. */
enum status websocket_server_new(struct bufferevent *bev, bool own_bev, const struct websocket_options *options,
                                 const struct websocket_callbacks *callbacks, struct websocket **ret_websocket) MUST_USE;

/* STATUS_AGENT_OVERLOADED where max_output_bytes is reached, STATUS_CHANNEL_CLOSED once it is closing. */
enum status websocket_send(struct websocket *websocket, struct bytes text) MUST_USE;
/* Nothing more is read, or it goes on; what was read already may still come. Silence is counted all the same. A close ends it. */
void websocket_hold(struct websocket *websocket, bool hold);
/* Sends a close frame after what is queued, waits at most 5 s for the peer's, then `closed` fires. */
void websocket_close(struct websocket *websocket, unsigned close_code, const char *reason);
void websocket_free(struct websocket *websocket);
/* Microseconds of the last ping's round trip; -1: none yet. */
int64_t websocket_round_trip_us(const struct websocket *websocket);

/* base64(SHA-1(key + GUID)), RFC 6455 4.2.2: 28 characters and a NUL. False where `key` is not base64 of 16 bytes. */
bool websocket_accept_key(const char *key, char out[29]);

#endif
