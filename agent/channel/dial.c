#include "agent/channel/dial.h"

#include <ares.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define RESOLVE_MS 10000
#define CONNECT_MS 10000
#define TICK_MS 100            /* how often c-ares may look at its own time-outs */
#define ADDRESSES 16
#define RESOLVER_SOCKETS 16    /* what c-ares keeps open to name servers */

struct resolver_socket {
	ares_socket_t fd;
	struct event *event;
};

struct dial {
	struct event_base *base;
	char host[256];
	uint16_t port;
	dial_done done;
	void *arg;

	ares_channel ares;
	struct resolver_socket sockets[RESOLVER_SOCKETS];
	struct event *tick;            /* while names are being resolved */
	int64_t ticks_left;
	bool resolving;
	int resolved;                  /* c-ares's status, once `resolving` is over */

	struct sockaddr_storage addresses[ADDRESSES];
	socklen_t address_sizes[ADDRESSES];
	unsigned address_count, next;
	int fd;
	struct event *connecting;      /* the connect under way, with its deadline */
	struct event *step;            /* goes on outside the callbacks of c-ares */
	enum status status;            /* of the last address */
	char why[200];
};

/* Names ----------------------------------------------------------------------------------------------------------------------------- */

static void on_resolver_socket(evutil_socket_t fd, short what, void *arg)
{
	struct dial *dial = arg;
	ares_process_fd(dial->ares, what & EV_READ ? fd : ARES_SOCKET_BAD, what & EV_WRITE ? fd : ARES_SOCKET_BAD);
}

static void drop_resolver_socket(struct resolver_socket *slot)
{
	if (slot->event)
		event_free(slot->event);
	slot->event = NULL;
}

/* c-ares says which of its sockets it waits for; 0, 0: it closes it. */
static void on_resolver_wish(void *arg, ares_socket_t fd, int readable, int writable)
{
	struct dial *dial = arg;
	struct resolver_socket *slot = NULL;
	for (size_t i = 0; i < RESOLVER_SOCKETS; i++)
		if (dial->sockets[i].event && dial->sockets[i].fd == fd)
			slot = &dial->sockets[i];
		else if (!slot && !dial->sockets[i].event)
			slot = &dial->sockets[i];
	if (!slot)
		return; /* the query then ends by its time-out */
	drop_resolver_socket(slot);
	if (!readable && !writable)
		return;
	slot->fd = fd;
	slot->event = event_new(dial->base, fd, (short)(EV_PERSIST | (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0)), on_resolver_socket, dial);
	if (slot->event)
		event_add(slot->event, NULL);
}

static void add_address(struct dial *dial, const struct sockaddr *address, socklen_t size)
{
	if (dial->address_count == ADDRESSES || size > sizeof *dial->addresses)
		return;
	memcpy(&dial->addresses[dial->address_count], address, size);
	dial->address_sizes[dial->address_count++] = size;
}

static void on_resolved(void *arg, int status, int timeouts, struct ares_addrinfo *result)
{
	struct dial *dial = arg;
	if (status != ARES_EDESTRUCTION) {
		for (struct ares_addrinfo_node *node = result ? result->nodes : NULL; node; node = node->ai_next)
			add_address(dial, node->ai_addr, node->ai_addrlen);
		dial->resolving = false;
		dial->resolved = status;
		/* The channel may not be destroyed from inside its own callback. */
		event_active(dial->step, EV_TIMEOUT, 0);
	}
	if (result)
		ares_freeaddrinfo(result);
}

static void stop_resolving(struct dial *dial)
{
	dial->resolving = false;
	event_del(dial->tick);
	if (dial->ares)
		ares_destroy(dial->ares);
	dial->ares = NULL;
	for (size_t i = 0; i < RESOLVER_SOCKETS; i++)
		drop_resolver_socket(&dial->sockets[i]);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct dial *dial = arg;
	if (!dial->resolving)
		return;
	if (--dial->ticks_left > 0) {
		ares_process_fd(dial->ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
		return;
	}
	dial->resolving = false;
	dial->resolved = ARES_ETIMEOUT;
	event_active(dial->step, EV_TIMEOUT, 0);
}

static bool take_literal(struct dial *dial)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(dial->port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(dial->port) };
	if (inet_pton(AF_INET, dial->host, &v4.sin_addr) == 1)
		add_address(dial, (struct sockaddr *)&v4, sizeof v4);
	else if (inet_pton(AF_INET6, dial->host, &v6.sin6_addr) == 1)
		add_address(dial, (struct sockaddr *)&v6, sizeof v6);
	return dial->address_count > 0;
}

static enum status begin_resolving(struct dial *dial)
{
	struct ares_options options = { .timeout = 2500, .tries = 2, .sock_state_cb = on_resolver_wish, .sock_state_cb_data = dial };
	struct ares_addrinfo_hints hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = ARES_AI_NUMERICSERV };
	struct timeval tick = { 0, TICK_MS * 1000 };
	char service[8];
	if (ares_init_options(&dial->ares, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB) != ARES_SUCCESS) {
		dial->ares = NULL;
		return STATUS_AGENT_INTERNAL;
	}
	dial->resolving = true;
	dial->ticks_left = RESOLVE_MS / TICK_MS;
	event_add(dial->tick, &tick);
	snprintf(service, sizeof service, "%u", dial->port);
	ares_getaddrinfo(dial->ares, dial->host, service, &hints, on_resolved, dial);
	return STATUS_OK;
}

/* Addresses ------------------------------------------------------------------------------------------------------------------------- */

static void try_next(struct dial *dial);

static const char *address_text(const struct sockaddr_storage *address, char *out, size_t capacity)
{
	const void *raw = address->ss_family == AF_INET6 ? (const void *)&((const struct sockaddr_in6 *)address)->sin6_addr
	                                                 : (const void *)&((const struct sockaddr_in *)address)->sin_addr;
	return inet_ntop(address->ss_family, raw, out, (socklen_t)capacity) ? out : "?";
}

static void address_failed(struct dial *dial, int number)
{
	char text[INET6_ADDRSTRLEN];
	address_text(&dial->addresses[dial->next - 1], text, sizeof text);
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
	struct timeval limit = { CONNECT_MS / 1000, 0 };
	int yes = 1;
	dial->fd = socket(dial->addresses[index].ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (dial->fd < 0)
		return errno;
	(void)setsockopt(dial->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
	if (connect(dial->fd, (struct sockaddr *)&dial->addresses[index], dial->address_sizes[index]) < 0 && errno != EINPROGRESS)
		return errno;
	dial->connecting = event_new(dial->base, dial->fd, EV_WRITE, on_connected, dial);
	return dial->connecting && event_add(dial->connecting, &limit) == 0 ? 0 : ENOMEM;
}

static void try_next(struct dial *dial)
{
	if (dial->next == dial->address_count) {
		dial->done(-1, dial->status, dial->why, dial->arg);
		return;
	}
	int number = begin_connect(dial, dial->next++);
	if (number)
		address_failed(dial, number);
}

static void on_step(evutil_socket_t fd, short what, void *arg)
{
	struct dial *dial = arg;
	stop_resolving(dial);
	if (!dial->address_count) {
		snprintf(dial->why, sizeof dial->why, "%.150s: %s", dial->host, dial->resolved ? ares_strerror(dial->resolved) : "no address");
		dial->done(-1, STATUS_CHANNEL_NAME, dial->why, dial->arg);
		return;
	}
	try_next(dial);
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
	dial->tick = event_new(base, -1, EV_PERSIST, on_tick, dial);
	dial->step = event_new(base, -1, 0, on_step, dial);
	enum status status = dial->tick && dial->step ? STATUS_OK : STATUS_AGENT_INTERNAL;
	if (status == STATUS_OK && take_literal(dial))
		event_active(dial->step, EV_TIMEOUT, 0);
	else if (status == STATUS_OK)
		status = begin_resolving(dial);
	if (status != STATUS_OK) {
		dial_free(dial);
		return status;
	}
	*ret_dial = dial;
	return STATUS_OK;
}

void dial_free(struct dial *dial)
{
	if (!dial)
		return;
	if (dial->tick)
		stop_resolving(dial);
	if (dial->tick)
		event_free(dial->tick);
	if (dial->step)
		event_free(dial->step);
	if (dial->connecting)
		event_free(dial->connecting);
	if (dial->fd >= 0)
		close(dial->fd);
	free(dial);
}
