#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "proto/http_upgrade.h"
#include "proto/websocket.h"

/* A websocket at one end of a socketpair, a test that writes and reads bytes at the other. */
struct rig {
	struct event_base *base;
	struct websocket *ws;
	int fd;
	unsigned opened, messages, closings, closes;
	char last[65536 + 1];
	size_t last_size;
	struct websocket_closed closed;
	void (*on_message)(struct rig *rig);
	uint8_t got[1 << 18];
	size_t got_size;
	bool eof;
};

static void on_open(struct websocket *ws, void *arg)
{
	((struct rig *)arg)->opened++;
}

static void on_message(struct websocket *ws, struct bytes message, void *arg)
{
	struct rig *rig = arg;
	rig->messages++;
	rig->last_size = message.size;
	assert_true(message.size <= 65536);
	if (message.size)
		memcpy(rig->last, message.data, message.size);
	rig->last[message.size] = 0;
	if (rig->on_message)
		rig->on_message(rig);
}

static void on_closing(struct websocket *ws, const struct websocket_closed *closed, void *arg)
{
	struct rig *rig = arg;
	assert_int_equal(rig->closes, 0);
	rig->closings++;
	rig->closed = *closed;
	assert_int_equal(websocket_send(ws, bytes_of_string("late")), STATUS_CHANNEL_CLOSED);
}

static void on_closed(struct websocket *ws, const struct websocket_closed *closed, void *arg)
{
	struct rig *rig = arg;
	rig->closes++;
	rig->closed = *closed;
}

static struct rig *rig_new(bool server, const struct websocket_options *options)
{
	struct rig *rig = calloc(1, sizeof *rig);
	struct websocket_callbacks callbacks = { on_open, on_message, on_closing, on_closed, rig };
	int fds[2];
	rig->base = event_base_new();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	rig->fd = fds[1];
	struct bufferevent *bev = bufferevent_socket_new(rig->base, fds[0], BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
	if (server)
		assert_int_equal(websocket_server_new(bev, true, options, &callbacks, &rig->ws), STATUS_OK);
	else
		assert_int_equal(websocket_client_new(bev, "reset.example.org", "/v1/channel?x=1", options, &callbacks, &rig->ws), STATUS_OK);
	return rig;
}

static void rig_free(struct rig *rig)
{
	websocket_free(rig->ws);
	if (rig->fd >= 0)
		close(rig->fd);
	event_base_free(rig->base);
	free(rig);
}

static void drain_peer(struct rig *rig)
{
	ssize_t size;
	while (rig->fd >= 0 && (size = read(rig->fd, rig->got + rig->got_size, sizeof rig->got - rig->got_size)) >= 0) {
		if (size == 0) {
			rig->eof = true;
			break;
		}
		rig->got_size += (size_t)size;
	}
}

static void turn(struct rig *rig)
{
	event_base_loop(rig->base, EVLOOP_NONBLOCK);
	drain_peer(rig);
}

static void turns(struct rig *rig)
{
	for (int i = 0; i < 20; i++)
		turn(rig);
}

/* Until `closed`, at most `limit_ms`; the peer closes TCP once it has seen a close frame and the socket's end where it is a client. */
static void until_closed(struct rig *rig, int limit_ms)
{
	int64_t end = clock_monotonic_us() + limit_ms * INT64_C(1000);
	while (!rig->closes && clock_monotonic_us() < end) {
		turn(rig);
		usleep(1000);
	}
}

static void put(struct rig *rig, const void *data, size_t size)
{
	const uint8_t *p = data;
	while (size) {
		ssize_t written = write(rig->fd, p, size);
		if (written > 0) {
			p += written;
			size -= (size_t)written;
		}
		turn(rig);
	}
}

static size_t make_frame(uint8_t *out, uint8_t first, bool masked, const void *payload, size_t size)
{
	static const uint8_t mask[4] = { 0x11, 0x92, 0x3a, 0xf4 };
	size_t n = 0;
	out[n++] = first;
	if (size < 126) {
		out[n++] = (uint8_t)((masked ? 0x80 : 0) | size);
	} else if (size < 65536) {
		out[n++] = masked ? 0xfe : 126;
		out[n++] = (uint8_t)(size >> 8);
		out[n++] = (uint8_t)size;
	} else {
		out[n++] = masked ? 0xff : 127;
		for (int i = 7; i >= 0; i--)
			out[n++] = (uint8_t)((uint64_t)size >> (8 * i));
	}
	if (masked) {
		memcpy(out + n, mask, 4);
		n += 4;
	}
	for (size_t i = 0; i < size; i++)
		out[n++] = ((const uint8_t *)payload)[i] ^ (masked ? mask[i % 4] : 0);
	return n;
}

static void put_frame(struct rig *rig, uint8_t first, bool masked, const void *payload, size_t size)
{
	uint8_t *frame = malloc(size + 16);
	put(rig, frame, make_frame(frame, first, masked, payload, size));
	free(frame);
}

/* The next frame from the websocket, unmasked in place; its first byte, or -1. */
static int take_frame(struct rig *rig, uint8_t **ret_payload, size_t *ret_size, bool *ret_masked)
{
	uint8_t *p = rig->got;
	size_t need = 2, size;
	drain_peer(rig);
	if (rig->got_size < need)
		return -1;
	int first = p[0];
	bool masked = p[1] & 0x80;
	size = p[1] & 0x7f;
	if (size == 126) {
		size = p[2] * 256u + p[3];
		need += 2;
	} else if (size == 127) {
		size = 0;
		for (int i = 0; i < 8; i++)
			size = size * 256 + p[2 + i];
		need += 8;
	}
	uint8_t *mask = p + need;
	need += masked ? 4 : 0;
	if (rig->got_size < need + size)
		return -1;
	static uint8_t payload[1 << 17];
	for (size_t i = 0; i < size; i++)
		payload[i] = p[need + i] ^ (masked ? mask[i % 4] : 0);
	memmove(rig->got, rig->got + need + size, rig->got_size - need - size);
	rig->got_size -= need + size;
	*ret_payload = payload;
	*ret_size = size;
	if (ret_masked)
		*ret_masked = masked;
	return first;
}

/* The code of the close frame that came, skipping others; 0: none. */
static unsigned take_close(struct rig *rig)
{
	uint8_t *payload;
	size_t size;
	int first;
	turns(rig);
	while ((first = take_frame(rig, &payload, &size, NULL)) >= 0)
		if (first == 0x88)
			return size >= 2 ? payload[0] * 256u + payload[1] : 1005;
	return 0;
}

/* Accept keys ----------------------------------------------------------------------------------------------------------------------- */

static void accept_key(void **state)
{
	char out[29];
	assert_true(websocket_accept_key("dGhlIHNhbXBsZSBub25jZQ==", out)); /* RFC 6455 section 1.3 */
	assert_string_equal(out, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
	static const char *const bad[] = { "", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZR==", "dGhlIHNhbXBsZSBub25jZ!==", "dGhlIHNhbXBsZSBub25jZQ==x",
	                                   " GhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQAA", "dGhlIHNhbXBsZSBub25j====", "dGhlIHNhbXBsZSBub2\n=ZQ==" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_false(websocket_accept_key(bad[i], out));
}

/* The answer's head ----------------------------------------------------------------------------------------------------------------- */

#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define GOOD "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " ACCEPT "\r\nSec-WebSocket-Protocol: writeback.v1\r\n"

static const struct {
	const char *head;
	enum status status;
	unsigned http_status, retry_after;
} answers[] = {
	{ GOOD "\r\n", STATUS_OK, 101, 0 },
	{ GOOD "Server: x\r\nX-Odd: \xc3\xa4\t \r\n\r\n", STATUS_OK, 101, 0 },
	{ "HTTP/1.1 101\r\nupgrade:WebSocket\r\nCONNECTION: keep-alive , uPgrade\r\nSec-WebSocket-Accept:" ACCEPT " \r\nsec-websocket-protocol: writeback.v1\r\n\r\n", STATUS_OK, 101, 0 },
	{ "HTTP/1.1 401 Unauthorized\r\n\r\n", STATUS_CHANNEL_REJECTED, 401, 0 },
	{ "HTTP/1.1 403 Forbidden\r\nRetry-After: 7\r\n\r\n", STATUS_CHANNEL_REJECTED, 403, 7 },
	{ "HTTP/1.1 503 Busy\r\nRetry-After: 120\r\n\r\n", STATUS_CHANNEL_HTTP, 503, 120 },
	{ "HTTP/1.1 503 Busy\r\nRetry-After: 99999999999999999999\r\n\r\n", STATUS_CHANNEL_HTTP, 503, 3600 },
	{ "HTTP/1.1 503 Busy\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n\r\n", STATUS_CHANNEL_HTTP, 503, 0 },
	{ "HTTP/1.1 503 Busy\r\nRetry-After: -1\r\n\r\n", STATUS_CHANNEL_HTTP, 503, 0 },
	{ "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nRetry-After: 2\r\n\r\n", STATUS_CHANNEL_HTTP, 503, 0 },
	{ "HTTP/1.1 301 Moved\r\nLocation: wss://elsewhere/\r\n\r\n", STATUS_CHANNEL_HTTP, 301, 0 },
	{ "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", STATUS_CHANNEL_HTTP, 200, 0 },
	{ "HTTP/1.1 100 Continue\r\n\r\n", STATUS_CHANNEL_HTTP, 100, 0 },
	{ "HTTP/1.0 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " ACCEPT "\r\nSec-WebSocket-Protocol: writeback.v1\r\n\r\n", STATUS_CHANNEL_HTTP, 101, 0 },
	{ GOOD "Upgrade: websocket\r\n\r\n", STATUS_CHANNEL_HTTP, 101, 0 },
	{ GOOD "Sec-WebSocket-Accept: " ACCEPT "\r\n\r\n", STATUS_CHANNEL_HTTP, 101, 0 },
	{ GOOD "Sec-WebSocket-Protocol: writeback.v1\r\n\r\n", STATUS_CHANNEL_HTTP, 101, 0 },
	{ GOOD "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n", STATUS_CHANNEL_HTTP, 101, 0 },
	{ GOOD "Content-Length: 0\r\n\r\n", STATUS_CHANNEL_HTTP, 101, 0 },
	{ GOOD "Transfer-Encoding: chunked\r\n\r\n", STATUS_CHANNEL_HTTP, 101, 0 },
	{ "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " ACCEPT "\r\nSec-WebSocket-Protocol: writeback.v1\r\n\r\n", STATUS_CHANNEL_HTTP, 101, 0 },
	{ "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " ACCEPT "\r\nSec-WebSocket-Protocol: writeback.v1\r\n\r\n", STATUS_CHANNEL_HTTP, 101, 0 },
	{ "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgraded\r\nSec-WebSocket-Accept: " ACCEPT "\r\nSec-WebSocket-Protocol: writeback.v1\r\n\r\n", STATUS_CHANNEL_HTTP, 101, 0 },
	{ "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: writeback.v1\r\n\r\n", STATUS_CHANNEL_HTTP, 101, 0 },
	{ "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " ACCEPT "\r\n\r\n", STATUS_CHANNEL_HTTP, 101, 0 },
	{ "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " ACCEPT "\r\nSec-WebSocket-Protocol: writeback.v2\r\n\r\n", STATUS_CHANNEL_HTTP, 101, 0 },
	{ "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " ACCEPT "\r\nSec-WebSocket-Protocol: WRITEBACK.V1\r\n\r\n", STATUS_CHANNEL_HTTP, 101, 0 },
	/* Malformed: no HTTP status is believed. */
	{ "HTTP/2 101 S\r\n\r\n", STATUS_CHANNEL_HTTP, 0, 0 },
	{ "HTTP/1.1  101 S\r\n\r\n", STATUS_CHANNEL_HTTP, 0, 0 },
	{ "HTTP/1.1 1010 S\r\n\r\n", STATUS_CHANNEL_HTTP, 0, 0 },
	{ "HTTP/1.1 099 S\r\n\r\n", STATUS_CHANNEL_HTTP, 0, 0 },
	{ "HTTP/1.1 +10 S\r\n\r\n", STATUS_CHANNEL_HTTP, 0, 0 },
	{ "\r\n\r\n", STATUS_CHANNEL_HTTP, 0, 0 },
	{ "SSH-2.0-OpenSSH_9\r\n\r\n", STATUS_CHANNEL_HTTP, 0, 0 },
	{ "HTTP/1.1 503 B\r\nA: b\r\n c\r\n\r\n", STATUS_CHANNEL_HTTP, 0, 0 },
	{ "HTTP/1.1 503 B\r\nA : b\r\n\r\n", STATUS_CHANNEL_HTTP, 0, 0 },
	{ "HTTP/1.1 503 B\r\n: b\r\n\r\n", STATUS_CHANNEL_HTTP, 0, 0 },
	{ "HTTP/1.1 503 B\r\nA\r\n\r\n", STATUS_CHANNEL_HTTP, 0, 0 },
	{ "HTTP/1.1 503 B\nA: b\r\n\r\n", STATUS_CHANNEL_HTTP, 0, 0 },
	{ "HTTP/1.1 503 B\r\nA: b\rc\r\n\r\n", STATUS_CHANNEL_HTTP, 0, 0 },
	{ "HTTP/1.1 503 B\r\nA: b\x01\r\n\r\n", STATUS_CHANNEL_HTTP, 0, 0 },
	{ "HTTP/1.1 503 B\r\nA: b\n\n", STATUS_CHANNEL_HTTP, 0, 0 },
};

/* One byte at a time, as a stream comes. */
static enum status judge(const char *text, size_t size, struct http_answer *answer)
{
	size_t scanned = 0, head = 0;
	const char *why;
	memset(answer, 0, sizeof *answer);
	for (size_t i = 1; i <= size; i++) {
		switch (http_answer_scan(bytes_of(text, i), &scanned, &head)) {
		case HTTP_SCAN_MORE:
			assert_true(i < size);
			continue;
		case HTTP_SCAN_BAD:
			return STATUS_CHANNEL_HTTP;
		case HTTP_SCAN_WHOLE:
			assert_int_equal(head, i);
		}
		enum status status = http_answer_parse(bytes_of(text, head), answer, &why);
		if (status != STATUS_OK) {
			answer->status = 0;
			return status;
		}
		return http_upgrade_judge(answer, ACCEPT, "writeback.v1", &why);
	}
	fail();
	return STATUS_AGENT_INTERNAL;
}

static void heads_are_judged(void **state)
{
	static struct http_answer answer;
	for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
		enum status status = judge(answers[i].head, strlen(answers[i].head), &answer);
		if (status != answers[i].status || answer.status != answers[i].http_status || answer.retry_after != answers[i].retry_after)
			fail_msg("row %zu: %s, HTTP %u, retry %u\n%s", i, status_code(status), answer.status, answer.retry_after, answers[i].head);
	}
	assert_int_equal(judge("HTTP/1.1 503 B\0\r\n\r\n", 19, &answer), STATUS_CHANNEL_HTTP);
	assert_int_equal(answer.status, 0);
}

static void heads_are_bounded(void **state)
{
	static char text[HTTP_HEAD_MAX + 16];
	static struct http_answer answer;
	int size = snprintf(text, sizeof text, "HTTP/1.1 503 B\r\nA: ");
	memset(text + size, 'x', sizeof text - (size_t)size);
	memcpy(text + HTTP_HEAD_MAX - 4, "\r\n\r\n", 4);
	assert_int_equal(judge(text, HTTP_HEAD_MAX, &answer), STATUS_CHANNEL_HTTP);
	assert_int_equal(answer.status, 503); /* exactly the limit passes */
	memcpy(text + HTTP_HEAD_MAX - 4, "xxxxx\r\n\r\n", 9);
	assert_int_equal(judge(text, HTTP_HEAD_MAX + 5, &answer), STATUS_CHANNEL_HTTP);
	assert_int_equal(answer.status, 0);
	for (unsigned count = HTTP_FIELDS_MAX; count <= HTTP_FIELDS_MAX + 1; count++) {
		size = snprintf(text, sizeof text, "HTTP/1.1 503 B\r\n");
		for (unsigned i = 0; i < count; i++)
			size += snprintf(text + size, sizeof text - (size_t)size, "A: b\r\n");
		size += snprintf(text + size, sizeof text - (size_t)size, "\r\n");
		(void)judge(text, (size_t)size, &answer);
		assert_int_equal(answer.status, count == HTTP_FIELDS_MAX ? 503 : 0);
	}
}

/* A client's beginning -------------------------------------------------------------------------------------------------------------- */

/* Reads the request and gives the accept value that answers it. */
static void take_request(struct rig *rig, char accept[29])
{
	char key[25] = "";
	turns(rig);
	rig->got[rig->got_size] = 0;
	char *request = (char *)rig->got, *at = strstr(request, "Sec-WebSocket-Key: ");
	assert_ptr_equal(strstr(request, "GET /v1/channel?x=1 HTTP/1.1\r\nHost: reset.example.org\r\n"), request);
	assert_non_null(strstr(request, "\r\nSec-WebSocket-Protocol: writeback.v1\r\n"));
	assert_non_null(strstr(request, "\r\nSec-WebSocket-Version: 13\r\n"));
	assert_null(strstr(request, "Sec-WebSocket-Extensions"));
	assert_non_null(at);
	memcpy(key, at + strlen("Sec-WebSocket-Key: "), 24);
	assert_true(websocket_accept_key(key, accept));
	rig->got_size = 0;
}

static size_t make_answer(const char *accept, char *out, size_t capacity)
{
	return (size_t)snprintf(out, capacity, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n"
	                                       "Sec-WebSocket-Protocol: writeback.v1\r\n\r\n", accept);
}

static struct rig *open_client(const struct websocket_options *options)
{
	struct rig *rig = rig_new(false, options);
	char accept[29], answer[512];
	take_request(rig, accept);
	put(rig, answer, make_answer(accept, answer, sizeof answer));
	turns(rig);
	assert_int_equal(rig->opened, 1);
	return rig;
}

static void client_opens(void **state)
{
	for (int piecemeal = 0; piecemeal < 2; piecemeal++) {
		struct rig *rig = rig_new(false, NULL);
		char accept[29];
		uint8_t bytes[600];
		take_request(rig, accept);
		size_t size = make_answer(accept, (char *)bytes, 512);
		/* Frames right behind the header belong to the WebSocket. */
		size += make_frame(bytes + size, 0x81, false, "first", 5);
		size += make_frame(bytes + size, 0x81, false, "second", 6);
		if (piecemeal)
			for (size_t i = 0; i < size; i++)
				put(rig, bytes + i, 1);
		else
			put(rig, bytes, size);
		turns(rig);
		assert_int_equal(rig->opened, 1);
		assert_int_equal(rig->messages, 2);
		assert_string_equal(rig->last, "second");
		rig_free(rig);
	}
}

static void client_is_refused(void **state)
{
	static const struct {
		const char *answer;
		enum status status;
		unsigned http_status, retry_after;
	} rows[] = {
		{ "HTTP/1.1 403 No\r\n\r\n", STATUS_CHANNEL_REJECTED, 403, 0 },
		{ "HTTP/1.1 503 Later\r\nRetry-After: 9\r\n\r\n", STATUS_CHANNEL_HTTP, 503, 9 },
		{ "HTTP/1.1 301 There\r\nLocation: https://elsewhere/\r\n\r\n", STATUS_CHANNEL_HTTP, 301, 0 },
		{ GOOD "\r\n", STATUS_CHANNEL_HTTP, 101, 0 }, /* the accept value of another key */
		{ "220 mail.example.org\r\n", STATUS_CHANNEL_HTTP, 0, 0 },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct rig *rig = rig_new(false, NULL);
		char accept[29];
		take_request(rig, accept);
		put(rig, rows[i].answer, strlen(rows[i].answer));
		if (i == 4) /* not HTTP, but only its end shows */
			put(rig, "\n", 1);
		until_closed(rig, 1000);
		assert_int_equal(rig->opened, 0);
		assert_int_equal(rig->closes, 1);
		assert_int_equal(rig->closed.status, rows[i].status);
		assert_int_equal(rig->closed.http_status, rows[i].http_status);
		assert_int_equal(rig->closed.retry_after, rows[i].retry_after);
		rig_free(rig);
	}
}

static void client_is_not_answered(void **state)
{
	struct websocket_options options = websocket_defaults;
	options.handshake_ms = 30;
	struct rig *rig = rig_new(false, &options);
	put(rig, "HTTP/1.1 ", 9);
	until_closed(rig, 1000);
	assert_int_equal(rig->closed.status, STATUS_CHANNEL_TIMEOUT);
	rig_free(rig);

	rig = rig_new(false, NULL);
	turns(rig);
	close(rig->fd);
	rig->fd = -1;
	until_closed(rig, 1000);
	assert_int_equal(rig->closes, 1);
	assert_int_equal(rig->closed.status, STATUS_CHANNEL_REFUSED);
	rig_free(rig);
}

/* Messages -------------------------------------------------------------------------------------------------------------------------- */

static void messages_pass(void **state)
{
	static uint8_t big[65537 + 16];
	static char text[65537];
	memset(text, 'a', sizeof text);
	for (int server = 0; server < 2; server++) {
		struct rig *rig = server ? rig_new(true, NULL) : open_client(NULL);
		uint8_t *payload;
		size_t size;
		bool masked;
		put_frame(rig, 0x81, server, text, 65536);
		turns(rig);
		assert_int_equal(rig->last_size, 65536);
		put_frame(rig, 0x81, server, "", 0);
		turns(rig);
		assert_int_equal(rig->messages, 2);
		assert_int_equal(rig->last_size, 0);
		size = make_frame(big, 0x81, server, "one at a time \xe2\x82\xac", 17);
		for (size_t i = 0; i < size; i++)
			put(rig, big + i, 1);
		turns(rig);
		assert_string_equal(rig->last, "one at a time \xe2\x82\xac");

		assert_int_equal(websocket_send(rig->ws, bytes_of(text, 65536)), STATUS_OK);
		assert_int_equal(websocket_send(rig->ws, bytes_of_string("next")), STATUS_OK);
		turns(rig);
		assert_int_equal(take_frame(rig, &payload, &size, &masked), 0x81);
		assert_int_equal(size, 65536);
		assert_int_equal(masked, !server);
		assert_memory_equal(payload, text, size);
		assert_int_equal(take_frame(rig, &payload, &size, &masked), 0x81);
		assert_memory_equal(payload, "next", 4);
		assert_int_equal(rig->closes, 0);
		rig_free(rig);
	}
}

static void masks_are_fresh(void **state)
{
	struct rig *rig = open_client(NULL);
	uint8_t masks[8][4];
	for (int i = 0; i < 8; i++) {
		assert_int_equal(websocket_send(rig->ws, bytes_of_string("same")), STATUS_OK);
		turns(rig);
		assert_int_equal(rig->got_size, 10);
		memcpy(masks[i], rig->got + 2, 4);
		for (int j = 0; j < i; j++)
			assert_memory_not_equal(masks[i], masks[j], 4);
		rig->got_size = 0;
	}
	rig_free(rig);
}

static void fragments(void **state)
{
	for (unsigned count = 64; count <= 65; count++) {
		struct rig *rig = rig_new(true, NULL);
		put_frame(rig, 0x01, true, "x", 1);
		for (unsigned i = 1; i + 1 < count; i++) {
			put_frame(rig, 0x00, true, "x", 1);
			if (i == 10)
				put_frame(rig, 0x89, true, "between", 7); /* a ping may stand between fragments */
		}
		put_frame(rig, 0x80, true, "y", 1);
		if (count == 64) {
			turns(rig);
			assert_int_equal(rig->messages, 1);
			assert_int_equal(rig->last_size, 64);
		} else {
			assert_int_equal(take_close(rig), 1008);
			assert_int_equal(rig->messages, 0);
		}
		rig_free(rig);
	}
}

/* Violations: what is sent, the close code that answers, and the status. `server`: the websocket is a server, so frames to it are masked. */
static void violations(void **state)
{
	static const struct {
		const char *what;
		uint8_t first;
		bool server, masked;
		const char *payload;
		size_t size;
		unsigned code;
		enum status status;
	} rows[] = {
		{ "binary", 0x82, true, true, "x", 1, 1003, STATUS_CHANNEL_PROTOCOL },
		{ "empty binary", 0x82, true, true, "", 0, 1003, STATUS_CHANNEL_PROTOCOL },
		{ "binary to a client", 0x82, false, false, "x", 1, 1003, STATUS_CHANNEL_PROTOCOL },
		{ "unmasked to a server", 0x81, true, false, "x", 1, 1002, STATUS_CHANNEL_PROTOCOL },
		{ "masked to a client", 0x81, false, true, "x", 1, 1002, STATUS_CHANNEL_PROTOCOL },
		{ "reserved bit", 0xc1, true, true, "x", 1, 1002, STATUS_CHANNEL_PROTOCOL },
		{ "reserved opcode", 0x83, true, true, "x", 1, 1002, STATUS_CHANNEL_PROTOCOL },
		{ "reserved control opcode", 0x8b, true, true, "x", 1, 1002, STATUS_CHANNEL_PROTOCOL },
		{ "continuation of nothing", 0x80, true, true, "x", 1, 1002, STATUS_CHANNEL_PROTOCOL },
		{ "fragmented ping", 0x09, true, true, "x", 1, 1002, STATUS_CHANNEL_PROTOCOL },
		{ "not UTF-8", 0x81, true, true, "\xff", 1, 1007, STATUS_CHANNEL_PROTOCOL },
		{ "half a character", 0x81, true, true, "\xe2\x82", 2, 1007, STATUS_CHANNEL_PROTOCOL },
		{ "surrogate", 0x81, true, true, "\xed\xa0\x80", 3, 1007, STATUS_CHANNEL_PROTOCOL },
		{ "close with half a code", 0x88, true, true, "\x03", 1, 1002, STATUS_CHANNEL_PROTOCOL },
		{ "close with 1005", 0x88, true, true, "\x03\xed", 2, 1002, STATUS_CHANNEL_PROTOCOL },
		{ "close with 1006", 0x88, true, true, "\x03\xee", 2, 1002, STATUS_CHANNEL_PROTOCOL },
		{ "close with 999", 0x88, true, true, "\x03\xe7", 2, 1002, STATUS_CHANNEL_PROTOCOL },
		{ "close with 2000", 0x88, true, true, "\x07\xd0", 2, 1002, STATUS_CHANNEL_PROTOCOL },
		{ "close with 5000", 0x88, true, true, "\x13\x88", 2, 1002, STATUS_CHANNEL_PROTOCOL },
		{ "close with a reason that is not UTF-8", 0x88, true, true, "\x03\xe8\xff", 3, 1007, STATUS_CHANNEL_PROTOCOL },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct rig *rig = rows[i].server ? rig_new(true, NULL) : open_client(NULL);
		put_frame(rig, rows[i].first, rows[i].masked, rows[i].payload, rows[i].size);
		unsigned code = take_close(rig);
		close(rig->fd);
		rig->fd = -1;
		until_closed(rig, 1000);
		if (code != rows[i].code || rig->closes != 1 || rig->closed.status != rows[i].status || rig->messages || rig->closed.close_code != 1006)
			fail_msg("%s: code %u, %u closes, %s, %u messages", rows[i].what, code, rig->closes, status_code(rig->closed.status), rig->messages);
		rig_free(rig);
	}
}

static void too_big(void **state)
{
	static char text[65537];
	memset(text, 'a', sizeof text);
	for (int server = 0; server < 2; server++) {
		struct rig *rig = server ? rig_new(true, NULL) : open_client(NULL);
		put_frame(rig, 0x81, server, text, 65537);
		assert_int_equal(take_close(rig), 1009);
		assert_int_equal(rig->closings, 1);
		assert_int_equal(rig->closed.status, STATUS_CHANNEL_TOO_BIG);
		close(rig->fd);
		rig->fd = -1;
		until_closed(rig, 1000);
		assert_int_equal(rig->closed.status, STATUS_CHANNEL_TOO_BIG);
		assert_int_equal(rig->messages, 0);
		rig_free(rig);
	}
	/* In fragments too, and where only the header says so. */
	struct rig *rig = rig_new(true, NULL);
	put_frame(rig, 0x01, true, text, 65536);
	put_frame(rig, 0x80, true, text, 1);
	assert_int_equal(take_close(rig), 1009);
	rig_free(rig);
	rig = rig_new(true, NULL);
	put(rig, "\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0x", 15);
	assert_int_equal(take_close(rig), 1009);
	rig_free(rig);
	/* RFC 6455 section 5.2: the most significant bit is 0, and lengths are minimal. */
	rig = rig_new(true, NULL);
	put(rig, "\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0x", 15);
	assert_int_equal(take_close(rig), 1002);
	rig_free(rig);
	rig = rig_new(true, NULL);
	put(rig, "\x81\xfe\x00\x01\0\0\0\0x", 9);
	assert_int_equal(take_close(rig), 1002);
	rig_free(rig);
	rig = rig_new(true, NULL);
	put_frame(rig, 0x89, true, text, 126);
	assert_int_equal(take_close(rig), 1002);
	rig_free(rig);
}

/* Control frames -------------------------------------------------------------------------------------------------------------------- */

static void pings_are_answered_and_bounded(void **state)
{
	struct rig *rig = rig_new(true, NULL);
	uint8_t *payload;
	size_t size;
	for (unsigned i = 0; i < 20; i++) {
		put_frame(rig, 0x89, true, "echo", 4);
		turns(rig);
		assert_int_equal(take_frame(rig, &payload, &size, NULL), 0x8a);
		assert_int_equal(size, 4);
		assert_memory_equal(payload, "echo", 4);
	}
	for (unsigned i = 0; i < 2; i++)
		put_frame(rig, 0x8a, true, "", 0);
	assert_int_equal(take_close(rig), 1008);
	rig_free(rig);
}

static void pings_are_sent(void **state)
{
	struct websocket_options options = websocket_defaults;
	options.ping_interval_ms = 20;
	struct rig *rig = open_client(&options);
	uint8_t *payload;
	size_t size;
	int first = -1;
	assert_int_equal(websocket_round_trip_us(rig->ws), -1);
	for (int i = 0; i < 1000 && first < 0; i++) {
		turn(rig);
		first = take_frame(rig, &payload, &size, NULL);
		usleep(1000);
	}
	assert_int_equal(first, 0x89);
	assert_int_equal(size, 8);
	put_frame(rig, 0x8a, false, "another!", 8);
	turns(rig);
	assert_int_equal(websocket_round_trip_us(rig->ws), -1);
	put_frame(rig, 0x8a, false, payload, size);
	turns(rig);
	int64_t round_trip = websocket_round_trip_us(rig->ws);
	assert_true(round_trip >= 0);
	usleep(2000);
	put_frame(rig, 0x8a, false, payload, size); /* the same again answers nothing */
	turns(rig);
	assert_int_equal(websocket_round_trip_us(rig->ws), round_trip);
	assert_int_equal(rig->closes, 0);
	rig_free(rig);
}

static void silence_ends(void **state)
{
	struct websocket_options options = websocket_defaults;
	options.silence_limit_ms = 60;
	options.ping_interval_ms = 20;
	struct rig *rig = rig_new(true, &options);
	int64_t began = clock_monotonic_us();
	usleep(30000);
	put_frame(rig, 0x8a, true, "", 0); /* anything at all counts */
	until_closed(rig, 1000);
	assert_true(clock_monotonic_us() - began >= 90000);
	assert_int_equal(rig->closes, 1);
	assert_int_equal(rig->closed.status, STATUS_CHANNEL_TIMEOUT);
	rig_free(rig);
}

static void slow_messages_end(void **state)
{
	struct websocket_options options = websocket_defaults;
	uint8_t frame[64];
	options.message_ms = 200;
	for (int fragmented = 0; fragmented < 2; fragmented++) {
		struct rig *slow = rig_new(true, &options);
		int64_t start = clock_monotonic_us();
		unsigned code = 0;
		put(slow, frame, fragmented ? make_frame(frame, 0x01, true, "begun", 5) : make_frame(frame, 0x81, true, "slow", 4) - 1);
		while (!code && clock_monotonic_us() - start < 2000000) {
			code = take_close(slow);
			if (fragmented && slow->got_size == 0 && clock_monotonic_us() - start < 170000)
				put_frame(slow, 0x8a, true, "", 0); /* a control frame between fragments does not start the message anew */
			usleep(15000);
		}
		assert_int_equal(code, 1008);
		assert_true(clock_monotonic_us() - start < 365000);
		close(slow->fd);
		slow->fd = -1;
		until_closed(slow, 500);
		assert_int_equal(slow->closed.status, STATUS_CHANNEL_TIMEOUT);
		rig_free(slow);
	}
	struct rig *rig = rig_new(true, &options);
	put(rig, frame, make_frame(frame, 0x81, true, "whole", 5));
	int64_t began = clock_monotonic_us();
	while (clock_monotonic_us() - began < 300000) {
		turn(rig);
		usleep(1000);
	}
	assert_int_equal(rig->messages, 1);
	assert_int_equal(rig->closes, 0);
	put(rig, "\x81", 1); /* one byte of a header starts the clock again */
	until_closed(rig, 1000);
	assert_int_equal(take_close(rig), 1008);
	rig_free(rig);
}

/* The end --------------------------------------------------------------------------------------------------------------------------- */

static void peer_closes(void **state)
{
	static const struct {
		const char *payload;
		size_t size;
		unsigned code, answered;
		const char *reason;
	} rows[] = {
		{ "", 0, 1005, 1005, "" },
		{ "\x03\xe8", 2, 1000, 1000, "" },
		{ "\x03\xe9" "draining", 10, 1001, 1001, "draining" },
		{ "\x03\xf4", 2, 1012, 1012, "" }, /* wslay takes these two for errors */
		{ "\x03\xf5later \xc3\xa4", 10, 1013, 1013, "later \xc3\xa4" },
		{ "\x0f\xa5" "1790000000", 12, 4005, 4005, "1790000000" },
	};
	for (int server = 0; server < 2; server++) {
		for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
			struct rig *rig = server ? rig_new(true, NULL) : open_client(NULL);
			put_frame(rig, 0x88, server, rows[i].payload, rows[i].size);
			put_frame(rig, 0x81, server, "behind", 6);
			assert_int_equal(take_close(rig), rows[i].answered);
			/* At once, while TCP stands. */
			assert_int_equal(rig->closings, 1);
			assert_int_equal(rig->closes, 0);
			assert_int_equal(rig->closed.close_code, rows[i].code);
			assert_string_equal(rig->closed.reason, rows[i].reason);
			assert_int_equal(websocket_send(rig->ws, bytes_of_string("x")), STATUS_CHANNEL_CLOSED);
			assert_int_equal(rig->eof, server); /* the server ends TCP, the client waits for it */
			close(rig->fd);
			rig->fd = -1;
			until_closed(rig, 500);
			assert_int_equal(rig->closes, 1);
			assert_int_equal(rig->closings, 1);
			assert_int_equal(rig->messages, 0);
			assert_int_equal(rig->closed.status, STATUS_CHANNEL_CLOSED);
			assert_int_equal(rig->closed.close_code, rows[i].code);
			assert_string_equal(rig->closed.reason, rows[i].reason);
			rig_free(rig);
		}
	}
}

static void owner_closes(void **state)
{
	for (int server = 0; server < 2; server++) {
		struct rig *rig = server ? rig_new(true, NULL) : open_client(NULL);
		uint8_t *payload;
		size_t size;
		assert_int_equal(websocket_send(rig->ws, bytes_of_string("last")), STATUS_OK);
		websocket_close(rig->ws, 1001, "draining");
		websocket_close(rig->ws, 1002, "twice");
		assert_int_equal(websocket_send(rig->ws, bytes_of_string("late")), STATUS_CHANNEL_CLOSED);
		turns(rig);
		assert_int_equal(take_frame(rig, &payload, &size, NULL), 0x81);
		assert_int_equal(take_frame(rig, &payload, &size, NULL), 0x88);
		assert_int_equal(size, 10);
		assert_memory_equal(payload, "\x03\xe9" "draining", 10);
		assert_int_equal(take_frame(rig, &payload, &size, NULL), -1);
		put_frame(rig, 0x81, server, "still", 5); /* what the peer had sent before it saw our close frame */
		put_frame(rig, 0x88, server, "\x03\xe9", 2);
		turns(rig);
		assert_int_equal(rig->messages, 1);
		close(rig->fd);
		rig->fd = -1;
		until_closed(rig, 500);
		assert_int_equal(rig->closes, 1);
		assert_int_equal(rig->closings, 0); /* who closes knows */
		assert_int_equal(rig->closed.status, STATUS_CHANNEL_CLOSED);
		assert_int_equal(rig->closed.close_code, 1001);
		rig_free(rig);
	}
}

static void cut(void **state)
{
	struct rig *rig = open_client(NULL);
	put_frame(rig, 0x81, false, "before", 6);
	close(rig->fd);
	rig->fd = -1;
	until_closed(rig, 500);
	assert_int_equal(rig->messages, 1);
	assert_int_equal(rig->closes, 1);
	assert_int_equal(rig->closings, 0);
	assert_int_equal(rig->closed.status, STATUS_CHANNEL_REFUSED);
	assert_int_equal(rig->closed.close_code, 1006);
	rig_free(rig);
}

static void output_is_bounded(void **state)
{
	struct websocket_options options = websocket_defaults;
	static char text[65536];
	options.max_output_bytes = 1 << 20;
	memset(text, 'a', sizeof text);
	struct rig *rig = rig_new(true, &options);
	enum status status = STATUS_OK;
	unsigned sent = 0;
	while (status == STATUS_OK && sent < 100) {
		status = websocket_send(rig->ws, bytes_of(text, sizeof text));
		event_base_loop(rig->base, EVLOOP_NONBLOCK);
		sent += status == STATUS_OK;
	}
	assert_int_equal(status, STATUS_AGENT_OVERLOADED);
	assert_true(sent >= 15 && sent < 30);
	assert_int_equal(websocket_send(rig->ws, bytes_of(text, 1)), STATUS_CHANNEL_CLOSED);
	uint8_t *payload;
	size_t size;
	unsigned code = 0;
	for (int i = 0; i < 2000 && !code; i++) {
		turn(rig);
		int first;
		while ((first = take_frame(rig, &payload, &size, NULL)) >= 0)
			if (first == 0x88)
				code = payload[0] * 256u + payload[1];
	}
	assert_int_equal(code, 1008);
	until_closed(rig, 2000);
	assert_int_equal(rig->closed.status, STATUS_CHANNEL_PROTOCOL);
	rig_free(rig);
}

/* From inside `message` ------------------------------------------------------------------------------------------------------------- */

static void free_now(struct rig *rig)
{
	websocket_free(rig->ws);
	rig->ws = NULL;
}

static void answer_and_close(struct rig *rig)
{
	assert_int_equal(websocket_send(rig->ws, bytes_of_string("answer")), STATUS_OK);
	websocket_close(rig->ws, 1000, "done");
	websocket_close(rig->ws, 1001, "twice");
	assert_int_equal(websocket_send(rig->ws, bytes_of_string("late")), STATUS_CHANNEL_CLOSED);
}

static void freed_in_a_callback(void **state)
{
	struct rig *rig = rig_new(true, NULL);
	uint8_t bytes[64];
	rig->on_message = free_now;
	size_t size = make_frame(bytes, 0x81, true, "one", 3);
	size += make_frame(bytes + size, 0x81, true, "two", 3);
	put(rig, bytes, size);
	turns(rig);
	assert_int_equal(rig->messages, 1);
	assert_int_equal(rig->closes, 0);
	rig_free(rig);
}

static void closed_in_a_callback(void **state)
{
	struct rig *rig = rig_new(true, NULL);
	uint8_t bytes[64], *payload;
	rig->on_message = answer_and_close;
	put(rig, bytes, make_frame(bytes, 0x81, true, "one", 3));
	rig->on_message = NULL;
	turns(rig);
	assert_int_equal(take_frame(rig, &payload, &(size_t){ 0 }, NULL), 0x81);
	assert_memory_equal(payload, "answer", 6);
	assert_int_equal(take_close(rig), 1000);
	rig_free(rig);
}

static void upgrade_with_bytes_behind_it(void **state)
{
	/* A client that sends at once: the bytes are in the bufferevent before the server's websocket exists. */
	struct event_base *base = event_base_new();
	struct rig *rig = calloc(1, sizeof *rig);
	struct websocket_callbacks callbacks = { on_open, on_message, on_closing, on_closed, rig };
	int fds[2];
	uint8_t bytes[64];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	struct bufferevent *bev = bufferevent_socket_new(base, fds[0], BEV_OPT_CLOSE_ON_FREE);
	bufferevent_enable(bev, EV_READ);
	size_t size = make_frame(bytes, 0x81, true, "early", 5);
	assert_int_equal(write(fds[1], bytes, size), size);
	event_base_loop(base, EVLOOP_NONBLOCK);
	assert_int_equal(evbuffer_get_length(bufferevent_get_input(bev)), size);
	assert_int_equal(websocket_server_new(bev, false, NULL, &callbacks, &rig->ws), STATUS_OK);
	event_base_loop(base, EVLOOP_NONBLOCK);
	assert_int_equal(rig->messages, 1);
	websocket_free(rig->ws);
	bufferevent_free(bev); /* still its owner's */
	close(fds[1]);
	event_base_free(base);
	free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accept_key),
		cmocka_unit_test(heads_are_judged),
		cmocka_unit_test(heads_are_bounded),
		cmocka_unit_test(client_opens),
		cmocka_unit_test(client_is_refused),
		cmocka_unit_test(client_is_not_answered),
		cmocka_unit_test(messages_pass),
		cmocka_unit_test(masks_are_fresh),
		cmocka_unit_test(fragments),
		cmocka_unit_test(violations),
		cmocka_unit_test(too_big),
		cmocka_unit_test(pings_are_answered_and_bounded),
		cmocka_unit_test(pings_are_sent),
		cmocka_unit_test(silence_ends),
		cmocka_unit_test(slow_messages_end),
		cmocka_unit_test(peer_closes),
		cmocka_unit_test(owner_closes),
		cmocka_unit_test(cut),
		cmocka_unit_test(output_is_bounded),
		cmocka_unit_test(freed_in_a_callback),
		cmocka_unit_test(closed_in_a_callback),
		cmocka_unit_test(upgrade_with_bytes_behind_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
