/* Frames from a stranger, to a server (first byte even) or to a client whose upgrade was answered (odd; 3: what comes is that answer). Whatever comes, every message handed on is within
 * the limits and `closed` comes at most once. */
#include <event2/buffer.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/websocket.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { UNANSWERED = 3 };

static void on_message(struct websocket *websocket, struct bytes message, void *arg)
{
	if (message.size > 65536 || !utf8_valid(message))
		abort();
	/* Twice the same: closing in a callback is a path of its own. */
	if (message.size == 5 && memcmp(message.data, "close", 5) == 0)
		websocket_close(websocket, 1000, "asked");
	else if (websocket_send(websocket, message) == STATUS_AGENT_INTERNAL)
		abort();
}

static void on_closed(struct websocket *websocket, const struct websocket_closed *closed, void *arg)
{
	unsigned *closes = arg;
	if (++*closes > 1 || closed->status == STATUS_OK || closed->status >= STATUS_COUNT)
		abort();
}

/* The client's key is in its request; the answer is made from it, so that what follows is read as frames. */
static void answer_upgrade(struct event_base *base, int fd)
{
	char request[1024], answer[512], accept[29], key[25] = "";
	event_base_loop(base, EVLOOP_NONBLOCK);
	ssize_t size = read(fd, request, sizeof request - 1);
	if (size <= 0)
		abort();
	request[size] = 0;
	const char *at = strstr(request, "Sec-WebSocket-Key: ");
	memcpy(key, at + 19, 24);
	if (!websocket_accept_key(key, accept))
		abort();
	int length = snprintf(answer, sizeof answer, "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n"
	                                             "Sec-WebSocket-Protocol: writeback.v1\r\n\r\n", accept);
	if (write(fd, answer, (size_t)length) != length)
		abort();
	event_base_loop(base, EVLOOP_NONBLOCK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned closes = 0;
	struct websocket_callbacks callbacks = { .message = on_message, .closed = on_closed, .arg = &closes };
	struct event_base *base;
	struct websocket *websocket = NULL;
	int fds[2];
	if (size < 2 || size > 1 << 17)
		return 0;
	base = event_base_new();
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) < 0)
		abort();
	struct bufferevent *bev = bufferevent_socket_new(base, fds[0], BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
	enum status status = data[0] & 1 ? websocket_client_new(bev, "a", "/", NULL, &callbacks, &websocket)
	                                 : websocket_server_new(bev, true, NULL, &callbacks, &websocket);
	if (status != STATUS_OK)
		abort();
	if (data[0] == UNANSWERED)
		event_base_loop(base, EVLOOP_NONBLOCK); /* its request */
	else if (data[0] & 1)
		answer_upgrade(base, fds[1]);
	/* In two pieces, cut where the second byte says. */
	size_t cut = 2 + data[1] % (size - 1);
	for (size_t at = 2; at < size;) {
		size_t end = at < cut && cut < size ? cut : size;
		ssize_t written = send(fds[1], data + at, end - at, MSG_NOSIGNAL);
		if (written > 0)
			at += (size_t)written;
		event_base_loop(base, EVLOOP_NONBLOCK);
		if (closes || written <= 0)
			break;
	}
	close(fds[1]);
	for (int i = 0; i < 4; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
	websocket_free(websocket);
	event_base_free(base);
	return 0;
}
