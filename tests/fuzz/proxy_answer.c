/* A proxy's answer to CONNECT, over a socket: in two pieces, cut where the first byte says. A tunnel is there only after a 2xx with nothing behind it, and done fires once at most. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/channel/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_done(const struct proxy_result *result, void *arg)
{
	unsigned *count = arg;
	if (++*count > 1 || (result->status == STATUS_OK) != (result->fd >= 0) || (result->status == STATUS_OK && result->http_status / 100 != 2) || memchr(result->why, 0, sizeof result->why) == NULL)
		abort();
	if (result->fd >= 0)
		close(result->fd);
}

/* False where the other end has gone. */
static bool send_piece(struct event_base *base, int fd, const uint8_t *data, size_t size)
{
	bool sent = size == 0 || send(fd, data, size, MSG_NOSIGNAL) == (ssize_t)size;
	event_base_loop(base, EVLOOP_NONBLOCK);
	return sent;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct event_base *base;
	static char said[4096];
	AUTO_SECRET struct secret password = SECRET_EMPTY;
	struct proxy *proxy;
	unsigned count = 0;
	int fds[2];
	if (base == NULL)
		base = event_base_new();
	if (size < 2 || size > 1 << 15 || secret_from(bytes_of_string("geheim"), &password) != STATUS_OK || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) < 0)
		return 0;
	if (proxy_new(base, fds[0], "reset.example:443", data[0] & 1 ? "agent" : NULL, &password, on_done, &count, &proxy) != STATUS_OK)
		abort();
	event_base_loop(base, EVLOOP_NONBLOCK);
	if (recv(fds[1], said, sizeof said, 0) <= 0)
		abort();
	size_t cut = data[0] % size;
	if (send_piece(base, fds[1], data + 1, cut) && count == 0)
		send_piece(base, fds[1], data + 1 + cut, size - 1 - cut);
	close(fds[1]);
	/* What the kernel hands out in one piece may be less than what was sent. */
	for (unsigned i = 0; count == 0 && i < 16; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
	if (count != 1)
		abort();
	proxy_free(proxy);
	return 0;
}
