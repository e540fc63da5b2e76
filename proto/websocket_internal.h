/* websocket_internal: what the three sources of websocket.h share: the connection (websocket.c), its frames by wslay (websocket_frames.c) and the client's
 * opening handshake (websocket_upgrade.c). */
#ifndef PROTO_WEBSOCKET_INTERNAL_H
#define PROTO_WEBSOCKET_INTERNAL_H

#include <event2/event.h>
#include <wslay/wslay.h>

#include "proto/websocket.h"

enum state {
	UPGRADING,  /* client: the answer to the upgrade is awaited */
	OPEN,
	CLOSING,    /* our close frame is queued; the peer's, and the end of our output, are awaited */
	LINGERING,  /* both have passed (or nothing more is wanted): the peer's FIN is awaited */
	ENDED       /* `closed` comes or has come */
};

struct websocket {
	struct bufferevent *bev;
	bool own_bev, server;
	struct websocket_options options;
	struct websocket_callbacks callbacks;
	wslay_event_context_ptr wslay;
	enum state state;
	struct websocket_closed closed;
	struct event *timer, *ended;
	int64_t timer_at;            /* when it fires; NEVER: not pending */
	unsigned depth;              /* how many of our callbacks are on the stack: freed memory waits for them */
	bool freed;
	bool in_wslay;               /* wslay is receiving: it must neither send nor be replaced before it returns */

	char accept[29];             /* what the answer to our upgrade must hold */
	size_t scanned;
	int64_t started_at, received_at, pinged_at, closing_at, lingering_at;

	/* The message and the frame that are being received. */
	unsigned fragments;
	int64_t message_at;          /* its first byte; 0: between messages */
	uint64_t bytes_in, bytes_of_frames; /* received; of these, in complete frames */
	uint64_t frame_size;
	uint8_t frame_opcode;
	bool message_open;           /* fragments came, the last one not yet */
	uint8_t close_payload[125];
	size_t close_size;
	bool close_seen;             /* the peer's close frame is complete in close_payload */
	unsigned fail_code;          /* a rule of ours was broken while wslay was at work: fail when it returns */
	const char *fail_why;
	unsigned asked_code;         /* the owner asked to close while wslay was at work: likewise */
	char asked_reason[124];

	int64_t window_at;
	unsigned window_count;
	uint8_t ping_payload[8];
	bool ping_waits;
	int64_t round_trip_us;
};

/* websocket.c: `closed` comes on the next turn, for the owner may be inside websocket_send or a callback. The first reason stands. */
void websocket_end(struct websocket *ws, enum status status, const char *reason);
enum status websocket_new(struct bufferevent *bev, bool own_bev, bool server, const struct websocket_options *options,
                          const struct websocket_callbacks *callbacks, struct websocket **ret_websocket) MUST_USE;

/* websocket_frames.c: a wslay context with nothing queued, in place of the one there is. */
bool websocket_frames_new(struct websocket *ws);
/* wslay goes on with what it has buffered; nothing of that reaches the owner, and the close frame is sent when it returns. */
void websocket_fail_later(struct websocket *ws, unsigned code, const char *why);
/* Of the peer's close frame; 1005 where it has none. */
unsigned websocket_close_code(const struct websocket *ws);

/* websocket_upgrade.c: reads the answer as far as it has come; then the state is OPEN, or ENDED. */
void websocket_read_answer(struct websocket *ws);

#endif
