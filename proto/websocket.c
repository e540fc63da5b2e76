#include "proto/websocket_internal.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/crash.h"
#include "base/tls.h"
#include "proto/messages.h"

#define CLOSE_US 5000000   /* from our close frame to the end, whatever the peer does */
#define LINGER_US 1000000  /* of that, for the peer's end of the TCP connection once both close frames have passed */
#define NEVER INT64_MAX

const struct websocket_options websocket_defaults = {
	.max_message_bytes = MAX_FRAME_BYTES,
	.max_fragments = 64,
	.ping_interval_ms = 25000,
	.silence_limit_ms = 60000,
	.handshake_ms = 10000,
	.message_ms = 30000,
	.max_output_bytes = 4 << 20,
	.max_control_rate = 20,
};

static void arm(struct websocket *ws);

/* Memory ---------------------------------------------------------------------------------------------------------------------------- */

static void release(struct websocket *ws)
{
	if (ws->bev) {
		bufferevent_setcb(ws->bev, NULL, NULL, NULL, NULL);
		if (ws->own_bev)
			bufferevent_free(ws->bev);
	}
	if (ws->wslay)
		wslay_event_context_free(ws->wslay);
	if (ws->timer)
		event_free(ws->timer);
	if (ws->ended)
		event_free(ws->ended);
	free(ws);
}

static void leave(struct websocket *ws)
{
	if (--ws->depth == 0 && ws->freed)
		release(ws);
}

void websocket_free(struct websocket *ws)
{
	if (!ws)
		return;
	ws->state = ENDED;
	ws->freed = true;
	event_del(ws->timer);
	event_del(ws->ended);
	bufferevent_setcb(ws->bev, NULL, NULL, NULL, NULL);
	if (ws->depth == 0)
		release(ws);
}

/* The end --------------------------------------------------------------------------------------------------------------------------- */

/* The first reason stands. */
static void set_closed(struct websocket *ws, enum status status, const char *reason)
{
	if (ws->closed.status != STATUS_OK)
		return;
	ws->closed.status = status;
	snprintf(ws->closed.reason, sizeof ws->closed.reason, "%s", reason);
}

/* `closed` comes on the next turn, for the owner may be inside websocket_send or a callback. */
void websocket_end(struct websocket *ws, enum status status, const char *reason)
{
	if (ws->state == ENDED)
		return;
	set_closed(ws, status, reason);
	ws->state = ENDED;
	event_del(ws->timer);
	bufferevent_disable(ws->bev, EV_READ | EV_WRITE);
	event_active(ws->ended, EV_TIMEOUT, 0);
}

static void on_ended(evutil_socket_t fd, short what, void *arg)
{
	struct websocket *ws = arg;
	ws->depth++;
	ws->callbacks.closed(ws, &ws->closed, ws->callbacks.arg);
	leave(ws);
}

/* bufferevent_free drops what is queued and never says close_notify, so both are waited for here: only then does the peer see
 * an end and not a cut. Shutting our side down lets it close first, and what it still sends does not reset the connection under our close frame. */
static void linger(struct websocket *ws)
{
	SSL *ssl = bufferevent_openssl_get_ssl(ws->bev);
	ws->state = LINGERING;
	ws->lingering_at = clock_monotonic_us();
	if (ssl) {
		SSL_shutdown(ssl);
		ERR_clear_error();
	}
	/* RFC 6455 section 7.1.1: the server ends the TCP connection, the client waits for it. */
	if (ws->server)
		shutdown(bufferevent_getfd(ws->bev), SHUT_WR);
	arm(ws);
}

static void linger_when_flushed(struct websocket *ws)
{
	bool done = ws->close_seen || !wslay_event_get_read_enabled(ws->wslay);
	if (ws->state == CLOSING && done && evbuffer_get_length(bufferevent_get_output(ws->bev)) == 0)
		linger(ws);
}

/* Sending --------------------------------------------------------------------------------------------------------------------------- */

static void begin_closing(struct websocket *ws)
{
	/* A bufferevent whose callbacks are not deferred may have broken while it took the close frame. */
	if (ws->state == ENDED)
		return;
	ws->state = CLOSING;
	ws->closing_at = clock_monotonic_us();
	linger_when_flushed(ws);
	if (ws->state == CLOSING)
		arm(ws);
}

static void begin_closing_by_peer(struct websocket *ws)
{
	begin_closing(ws);
	if (ws->state != ENDED && ws->callbacks.closing)
		ws->callbacks.closing(ws, &ws->closed, ws->callbacks.arg);
}

/* Closes because of what the peer did (or did not): nothing more is read. */
static void fail(struct websocket *ws, enum status status, unsigned code, const char *why)
{
	if (ws->state == ENDED)
		return;
	set_closed(ws, status, why);
	if (ws->state != OPEN) {
		wslay_event_shutdown_read(ws->wslay);
		linger_when_flushed(ws);
		return;
	}
	/* A fresh context has nothing queued (pongs, a close frame of wslay's own with another code) before our close frame. All earlier output is in the bufferevent already. */
	if (!websocket_frames_new(ws) || wslay_event_queue_close(ws->wslay, (uint16_t)code, (const uint8_t *)why, strlen(why)) != 0 || wslay_event_send(ws->wslay) != 0) {
		websocket_end(ws, STATUS_AGENT_INTERNAL, "out of memory");
		return;
	}
	wslay_event_shutdown_read(ws->wslay);
	begin_closing_by_peer(ws);
}

/* Everything queued in wslay goes to the bufferevent; true while the connection stands. */
static bool pump(struct websocket *ws)
{
	if (wslay_event_send(ws->wslay) != 0) {
		websocket_end(ws, STATUS_AGENT_INTERNAL, "out of memory");
		return false;
	}
	if (ws->state == OPEN && evbuffer_get_length(bufferevent_get_output(ws->bev)) > ws->options.max_output_bytes) {
		fail(ws, STATUS_CHANNEL_PROTOCOL, 1008, "the peer does not read");
		return false;
	}
	return true;
}

enum status websocket_send(struct websocket *ws, struct bytes text)
{
	struct wslay_event_msg message = { WSLAY_TEXT_FRAME, text.data, text.size };
	if (ws->state != OPEN || ws->fail_code || ws->asked_code || !wslay_event_get_write_enabled(ws->wslay))
		return STATUS_CHANNEL_CLOSED;
	size_t waiting = evbuffer_get_length(bufferevent_get_output(ws->bev)) + wslay_event_get_queued_msg_length(ws->wslay);
	if (waiting + text.size > ws->options.max_output_bytes) {
		if (ws->in_wslay)
			websocket_fail_later(ws, 1008, "the peer does not read");
		else
			fail(ws, STATUS_CHANNEL_PROTOCOL, 1008, "the peer does not read");
		return STATUS_AGENT_OVERLOADED;
	}
	switch (wslay_event_queue_msg(ws->wslay, &message)) {
	case 0:
		break;
	case WSLAY_ERR_NO_MORE_MSG:
		return STATUS_CHANNEL_CLOSED;
	default:
		return STATUS_AGENT_INTERNAL;
	}
	/* Inside `message` it goes out when wslay's receiving function has returned. */
	if (!ws->in_wslay)
		pump(ws);
	return STATUS_OK;
}

static void close_as_asked(struct websocket *ws)
{
	unsigned code = ws->asked_code;
	ws->asked_code = 0;
	if (ws->state != OPEN || !pump(ws))
		return;
	set_closed(ws, STATUS_CHANNEL_CLOSED, ws->asked_reason);
	if (wslay_event_queue_close(ws->wslay, (uint16_t)code, (const uint8_t *)ws->asked_reason, strlen(ws->asked_reason)) == 0)
		(void)pump(ws);
	if (ws->state == OPEN)
		begin_closing(ws);
}

void websocket_hold(struct websocket *ws, bool hold)
{
	if (ws->state != OPEN || ws->asked_code)
		return;
	if (hold)
		bufferevent_disable(ws->bev, EV_READ);
	else
		bufferevent_enable(ws->bev, EV_READ);
}

void websocket_close(struct websocket *ws, unsigned code, const char *reason)
{
	websocket_hold(ws, false); /* the peer's close frame is waited for */
	if (ws->state == UPGRADING) {
		websocket_end(ws, STATUS_CHANNEL_CLOSED, "closed while it was being opened");
		return;
	}
	if (ws->state != OPEN || ws->asked_code)
		return;
	snprintf(ws->asked_reason, sizeof ws->asked_reason, "%s", reason ? reason : "");
	/* Not through the middle of a character. */
	for (size_t size = strlen(ws->asked_reason); size && !utf8_valid(bytes_of(ws->asked_reason, size)); size--)
		ws->asked_reason[size - 1] = 0;
	ws->asked_code = code;
	if (!ws->in_wslay)
		close_as_asked(ws);
}

static void send_ping(struct websocket *ws, int64_t now)
{
	struct wslay_event_msg message = { WSLAY_PING, ws->ping_payload, sizeof ws->ping_payload };
	random_bytes(ws->ping_payload, sizeof ws->ping_payload);
	ws->pinged_at = now;
	ws->ping_waits = true;
	if (wslay_event_queue_msg(ws->wslay, &message) == 0)
		pump(ws);
}

/* Receiving ------------------------------------------------------------------------------------------------------------------------- */

static void on_peer_close(struct websocket *ws)
{
	/* Ours says our own reason; the peer's stands where it began. */
	ws->closed.close_code = websocket_close_code(ws);
	if (ws->closed.status == STATUS_OK) {
		char text[124];
		size_t size = ws->close_size > 2 ? ws->close_size - 2 : 0;
		memcpy(text, ws->close_payload + 2, size);
		text[size] = 0;
		set_closed(ws, STATUS_CHANNEL_CLOSED, text);
	}
	if (ws->state == OPEN)
		begin_closing_by_peer(ws);
	else
		linger_when_flushed(ws);
}

/* What wslay refused, by the close code it chose. */
static void on_wslay_refused(struct websocket *ws)
{
	unsigned code = wslay_event_get_status_code_sent(ws->wslay);
	set_closed(ws, code == 1009 ? STATUS_CHANNEL_TOO_BIG : STATUS_CHANNEL_PROTOCOL,
	           code == 1009 ? "a message above the limit" : code == 1007 ? "a message that is not UTF-8" : "a malformed frame");
	if (ws->state == OPEN)
		begin_closing_by_peer(ws);
	else
		linger_when_flushed(ws);
}

static void track_message_time(struct websocket *ws)
{
	if (!ws->message_open && ws->bytes_in == ws->bytes_of_frames)
		ws->message_at = 0;
	else if (!ws->message_at)
		ws->message_at = ws->received_at;
}

static void read_frames(struct websocket *ws)
{
	ws->in_wslay = true;
	int result = wslay_event_recv(ws->wslay);
	ws->in_wslay = false;
	if (ws->state == ENDED)
		return;
	if (ws->fail_code)
		fail(ws, STATUS_CHANNEL_PROTOCOL, ws->fail_code, ws->fail_why);
	else if (result != 0)
		fail(ws, STATUS_CHANNEL_PROTOCOL, 1002, "a malformed frame");
	else if (!pump(ws))
		return;
	else if (ws->close_seen)
		on_peer_close(ws);
	else if (!wslay_event_get_read_enabled(ws->wslay))
		on_wslay_refused(ws);
	else
		track_message_time(ws);
	if (ws->asked_code)
		close_as_asked(ws);
}

static void process_input(struct websocket *ws)
{
	struct evbuffer *input = bufferevent_get_input(ws->bev);
	/* Likewise, reading on while wslay takes bytes; it comes to the new ones by itself. */
	if (ws->in_wslay)
		return;
	ws->received_at = clock_monotonic_us();
	ws->depth++;
	if (ws->state == UPGRADING)
		websocket_read_answer(ws);
	if ((ws->state == OPEN || ws->state == CLOSING) && wslay_event_get_read_enabled(ws->wslay))
		read_frames(ws);
	/* What comes behind a close frame is thrown away, so that the peer's end can be seen. */
	if (ws->state == CLOSING || ws->state == LINGERING)
		if (ws->close_seen || !wslay_event_get_read_enabled(ws->wslay))
			evbuffer_drain(input, evbuffer_get_length(input));
	if (ws->state != ENDED)
		arm(ws);
	leave(ws);
}

static void on_read(struct bufferevent *bev, void *arg)
{
	process_input(arg);
}

static void on_write(struct bufferevent *bev, void *arg)
{
	struct websocket *ws = arg;
	CRASH_POINT(FRAME_SENT);
	ws->depth++;
	linger_when_flushed(ws);
	leave(ws);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	struct websocket *ws = arg;
	char reason[sizeof ws->closed.reason];
	unsigned long error = bufferevent_get_openssl_error(bev);
	int number = EVUTIL_SOCKET_ERROR();
	/* SSL_ERROR_SYSCALL comes as it is (libevent 2.1): the system's error is the reason. */
	if (ERR_GET_LIB(error) == 0)
		error = 0;
	ws->depth++;
	/* A peer that closes TCP without close_notify comes as ERROR "unexpected eof" (OpenSSL 3). */
	if ((what & BEV_EVENT_EOF) || ERR_GET_REASON(error) == SSL_R_UNEXPECTED_EOF_WHILE_READING || (!error && !number))
		snprintf(reason, sizeof reason, "the connection ended without a close frame");
	else
		snprintf(reason, sizeof reason, "the connection broke: %s", error ? tls_reason(error) : evutil_socket_error_to_string(number));
	websocket_end(ws, STATUS_CHANNEL_REFUSED, reason);
	leave(ws);
}

/* Time ------------------------------------------------------------------------------------------------------------------------------ */

static int64_t earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int64_t next_deadline(const struct websocket *ws)
{
	switch (ws->state) {
	case UPGRADING:
		return ws->started_at + ws->options.handshake_ms * INT64_C(1000);
	case OPEN: {
		int64_t at = earlier(ws->pinged_at + ws->options.ping_interval_ms * INT64_C(1000), ws->received_at + ws->options.silence_limit_ms * INT64_C(1000));
		return ws->message_at ? earlier(at, ws->message_at + ws->options.message_ms * INT64_C(1000)) : at;
	}
	case CLOSING:
		return ws->closing_at + CLOSE_US;
	case LINGERING:
		return ws->lingering_at + LINGER_US;
	case ENDED:
		break;
	}
	return NEVER;
}

/* The timer is only ever brought forward; where it fires too early, on_timer sets it anew. So a busy connection costs no timers. */
static void arm(struct websocket *ws)
{
	int64_t at = next_deadline(ws), wait = at - clock_monotonic_us();
	if (at >= ws->timer_at)
		return;
	if (wait < 0)
		wait = 0;
	struct timeval timeout = { wait / 1000000, wait % 1000000 };
	ws->timer_at = at;
	event_add(ws->timer, &timeout);
}

static void on_late(struct websocket *ws, int64_t now)
{
	switch (ws->state) {
	case UPGRADING:
		websocket_end(ws, STATUS_CHANNEL_TIMEOUT, "the upgrade was not answered in time");
		break;
	case OPEN:
		if (now >= ws->received_at + ws->options.silence_limit_ms * INT64_C(1000))
			websocket_end(ws, STATUS_CHANNEL_TIMEOUT, "the peer is silent");
		else if (ws->message_at && now >= ws->message_at + ws->options.message_ms * INT64_C(1000))
			fail(ws, STATUS_CHANNEL_TIMEOUT, 1008, "a message took too long");
		else
			send_ping(ws, now);
		break;
	case CLOSING:
	case LINGERING:
		websocket_end(ws, STATUS_CHANNEL_CLOSED, "the peer did not close in time");
		break;
	case ENDED:
		break;
	}
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct websocket *ws = arg;
	int64_t now = clock_monotonic_us();
	ws->depth++;
	ws->timer_at = NEVER;
	/* Bytes that came before us: behind the upgrade's request, in the same segment. */
	if (evbuffer_get_length(bufferevent_get_input(ws->bev)) && (ws->state == OPEN || ws->state == UPGRADING))
		process_input(ws);
	if (now >= next_deadline(ws))
		on_late(ws, now);
	if (ws->state != ENDED)
		arm(ws);
	leave(ws);
}

/* The beginning --------------------------------------------------------------------------------------------------------------------- */

static void set_nodelay(struct bufferevent *bev)
{
	int yes = 1;
	/* Fails on what is no TCP socket (tests, a unix socket behind a proxy), where there is no delay either. */
	(void)setsockopt(bufferevent_getfd(bev), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

enum status websocket_new(struct bufferevent *bev, bool own_bev, bool server, const struct websocket_options *options,
                                 const struct websocket_callbacks *callbacks, struct websocket **ret_websocket)
{
	struct websocket *ws = calloc(1, sizeof *ws);
	struct event_base *base = bufferevent_get_base(bev);
	*ret_websocket = NULL;
	if (!ws) {
		if (own_bev)
			bufferevent_free(bev);
		return STATUS_AGENT_INTERNAL;
	}
	ws->bev = bev;
	ws->own_bev = own_bev;
	ws->server = server;
	ws->options = options ? *options : websocket_defaults;
	ws->callbacks = *callbacks;
	ws->closed.close_code = 1006;
	ws->round_trip_us = -1;
	ws->state = server ? OPEN : UPGRADING;
	ws->timer_at = NEVER;
	ws->started_at = ws->received_at = ws->pinged_at = clock_monotonic_us();
	ws->timer = event_new(base, -1, 0, on_timer, ws);
	ws->ended = event_new(base, -1, 0, on_ended, ws);
	if (!ws->timer || !ws->ended || !websocket_frames_new(ws)) {
		release(ws);
		return STATUS_AGENT_INTERNAL;
	}
	set_nodelay(bev);
	bufferevent_setcb(bev, on_read, on_write, on_event, ws);
	bufferevent_setwatermark(bev, EV_READ, 0, 2 * MAX_FRAME_BYTES);
	bufferevent_enable(bev, EV_READ | EV_WRITE);
	if (evbuffer_get_length(bufferevent_get_input(bev)))
		event_active(ws->timer, EV_TIMEOUT, 0);
	else
		arm(ws);
	*ret_websocket = ws;
	return STATUS_OK;
}

enum status websocket_server_new(struct bufferevent *bev, bool own_bev, const struct websocket_options *options,
                                 const struct websocket_callbacks *callbacks, struct websocket **ret_websocket)
{
	return websocket_new(bev, own_bev, true, options, callbacks, ret_websocket);
}

int64_t websocket_round_trip_us(const struct websocket *ws)
{
	return ws->round_trip_us;
}
