#include "agent/channel/dial.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/resolve.h"

#define RESOLVE_S 10
#define CONNECT_S 10

struct dial {
	struct event_base *base;
	char host[256];
	uint16_t port;
	dial_done done;
	void *arg;
	struct resolve *resolving;
	struct event *late;            /* the deadline of resolving */
	struct addresses addresses;
	unsigned next;
	int fd;
	struct event *connecting;      /* the connect under way, with its deadline */
	enum status status;            /* of the last address */
	char why[200];
};

/* Names ----------------------------------------------------------------------------------------------------------------------------- */

static void try_next(struct dial *dial);

static void stop_resolving(struct dial *dial)
{
	resolve_free(dial->resolving);
	dial->resolving = NULL;
	event_del(dial->late);
}

static void name_failed(struct dial *dial, const char *why)
{
	snprintf(dial->why, sizeof dial->why, "%.150s: %s", dial->host, why);
	dial->done(-1, STATUS_CHANNEL_NAME, dial->why, dial->arg);
}

static void on_resolved(const struct addresses *addresses, const char *why, void *arg)
{
	struct dial *dial = arg;
	if (addresses)
		dial->addresses = *addresses;
	stop_resolving(dial);
	if (addresses)
		try_next(dial);
	else
		name_failed(dial, why);
}

static void on_late(evutil_socket_t fd, short what, void *arg)
{
	struct dial *dial = arg;
	stop_resolving(dial);
	name_failed(dial, "no answer in time");
}

/* Addresses ------------------------------------------------------------------------------------------------------------------------- */

static const char *address_text(const struct sockaddr_storage *address, char *out, size_t capacity)
{
	const void *raw = address->ss_family == AF_INET6 ? (const void *)&((const struct sockaddr_in6 *)address)->sin6_addr
	                                                 : (const void *)&((const struct sockaddr_in *)address)->sin_addr;
	return inet_ntop(address->ss_family, raw, out, (socklen_t)capacity) ? out : "?";
}

static void address_failed(struct dial *dial, int number)
{
	char text[INET6_ADDRSTRLEN];
	address_text(&dial->addresses.items[dial->next - 1], text, sizeof text);
	dial->status = number == ETIMEDOUT ? STATUS_CHANNEL_TIMEOUT : STATUS_CHANNEL_REFUSED;
	snprintf(dial->why, sizeof dial->why, "%s port %u: %s", text, dial->port, strerror(number));
	if (dial->fd >= 0)
		close(dial->fd);
	dial->fd = -1;
	try_next(dial);
}

static void succeed(struct dial *dial)
{
	int fd = dial->fd;
	dial->fd = -1;
	dial->done(fd, STATUS_OK, "", dial->arg);
}

static void on_connected(evutil_socket_t fd, short what, void *arg)
{
	struct dial *dial = arg;
	int number = 0;
	socklen_t size = sizeof number;
	event_free(dial->connecting);
	dial->connecting = NULL;
	if (what & EV_TIMEOUT)
		number = ETIMEDOUT;
	else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &size) < 0)
		number = errno;
	if (number)
		address_failed(dial, number);
	else
		succeed(dial);
}

static int begin_connect(struct dial *dial, unsigned index)
{
	struct timeval limit = { CONNECT_S, 0 };
	int yes = 1;
	dial->fd = socket(dial->addresses.items[index].ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (dial->fd < 0)
		return errno;
	(void)setsockopt(dial->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
	if (connect(dial->fd, (struct sockaddr *)&dial->addresses.items[index], dial->addresses.sizes[index]) < 0 && errno != EINPROGRESS)
		return errno;
	dial->connecting = event_new(dial->base, dial->fd, EV_WRITE, on_connected, dial);
	return dial->connecting && event_add(dial->connecting, &limit) == 0 ? 0 : ENOMEM;
}

static void try_next(struct dial *dial)
{
	if (dial->next == dial->addresses.count) {
		dial->done(-1, dial->status, dial->why, dial->arg);
		return;
	}
	int number = begin_connect(dial, dial->next++);
	if (number)
		address_failed(dial, number);
}

/* ----------------------------------------------------------------------------------------------------------------------------------- */

enum status dial_new(struct event_base *base, const char *host, uint16_t port, dial_done done, void *arg, struct dial **ret_dial)
{
	struct dial *dial = calloc(1, sizeof *dial);
	*ret_dial = NULL;
	if (!dial)
		return STATUS_AGENT_INTERNAL;
	*dial = (struct dial){ .base = base, .port = port, .done = done, .arg = arg, .fd = -1, .status = STATUS_CHANNEL_REFUSED };
	snprintf(dial->host, sizeof dial->host, "%s", host);
	dial->late = evtimer_new(base, on_late, dial);
	struct timeval limit = { RESOLVE_S, 0 };
	if (!dial->late || evtimer_add(dial->late, &limit) < 0 || resolve_start(base, host, port, on_resolved, dial, &dial->resolving) != STATUS_OK) {
		dial_free(dial);
		return STATUS_AGENT_INTERNAL;
	}
	*ret_dial = dial;
	return STATUS_OK;
}

void dial_free(struct dial *dial)
{
	if (!dial)
		return;
	resolve_free(dial->resolving);
	if (dial->late)
		event_free(dial->late);
	if (dial->connecting)
		event_free(dial->connecting);
	if (dial->fd >= 0)
		close(dial->fd);
	free(dial);
}
