#include "base/resolve.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SOCKETS_MAX = 16, QUERY_TIMEOUT_MS = 1500, QUERY_TRIES = 3 };

struct watch {
	ares_socket_t fd;
	struct event *event; /* NULL: free */
};
struct resolve {
	struct event_base *base;
	ares_channel channel;
	struct watch watches[SOCKETS_MAX];
	struct event *timer;  /* c-ares' own time-outs */
	struct event *finish; /* the answer, from the loop's top level */
	struct addresses addresses;
	struct srv_answer *srv;   /* NULL: it is addresses that are asked for */
	int result;
	bool finished;
	resolve_done done;
	resolve_srv_done srv_done;
	void *arg;
};

static void arm_timer(struct resolve *resolve)
{
	struct timeval longest = { 1, 0 }, left;
	if (!resolve->finished) {
		evtimer_add(resolve->timer, ares_timeout(resolve->channel, &longest, &left));
	}
}

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
	struct resolve *resolve = arg;
	ares_process_fd(resolve->channel, what & EV_READ ? fd : ARES_SOCKET_BAD, what & EV_WRITE ? fd : ARES_SOCKET_BAD);
	arm_timer(resolve);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct resolve *resolve = arg;
	ares_process_fd(resolve->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	arm_timer(resolve);
}

static struct watch *find_watch(struct resolve *resolve, ares_socket_t fd)
{
	struct watch *vacant = NULL;
	for (size_t i = 0; i < SOCKETS_MAX; i++) {
		struct watch *watch = &resolve->watches[i];
		if (watch->event != NULL && watch->fd == fd) {
			return watch;
		}
		if (watch->event == NULL && vacant == NULL) {
			vacant = watch;
		}
	}
	return vacant;
}

/* c-ares opens, changes or closes a socket. */
static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
	struct resolve *resolve = arg;
	struct watch *watch = find_watch(resolve, fd);
	if (watch == NULL) {
		return;
	}
	if (watch->event != NULL) {
		event_free(watch->event);
		watch->event = NULL;
	}
	if (readable || writable) {
		watch->fd = fd;
		watch->event = event_new(resolve->base, fd, EV_PERSIST | (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0), on_socket, resolve);
		if (watch->event != NULL) {
			event_add(watch->event, NULL);
		}
	}
}

static void on_addresses(void *arg, int status, int timeouts, struct ares_addrinfo *found)
{
	struct resolve *resolve = arg;
	resolve->result = status;
	resolve->finished = true;
	if (status == ARES_EDESTRUCTION) {
		return;
	}
	for (struct ares_addrinfo_node *node = found != NULL ? found->nodes : NULL; node != NULL && resolve->addresses.count < RESOLVE_MAX; node = node->ai_next) {
		size_t n = resolve->addresses.count++;
		memcpy(&resolve->addresses.items[n], node->ai_addr, node->ai_addrlen);
		resolve->addresses.sizes[n] = node->ai_addrlen;
	}
	ares_freeaddrinfo(found);
	event_active(resolve->finish, 0, 0); /* not from in here: c-ares forbids to destroy its channel now */
}

static void on_records(void *arg, int status, int timeouts, unsigned char *message, int size)
{
	struct resolve *resolve = arg;
	resolve->result = status;
	resolve->finished = true;
	if (status == ARES_EDESTRUCTION) {
		return;
	}
	if (status == ARES_SUCCESS && srv_parse(bytes_of(message, (size_t)size), resolve->srv) != STATUS_OK) {
		resolve->result = ARES_EBADRESP;
	}
	event_active(resolve->finish, 0, 0);
}

static void finish_srv(struct resolve *resolve)
{
	bool none = resolve->result == ARES_ENODATA || resolve->result == ARES_ENOTFOUND || (resolve->result == ARES_SUCCESS && resolve->srv->count == 0);
	const char *why = none ? "there is no such record" : resolve->result != ARES_SUCCESS ? ares_strerror(resolve->result) : NULL;
	resolve->srv_done(why == NULL || none ? resolve->srv : NULL, why, resolve->arg);
}

static void on_finish(evutil_socket_t fd, short what, void *arg)
{
	struct resolve *resolve = arg;
	if (resolve->srv != NULL) {
		finish_srv(resolve);
		return;
	}
	const char *why = resolve->result != ARES_SUCCESS ? ares_strerror(resolve->result) : resolve->addresses.count == 0 ? "it has no address" : NULL;
	resolve->done(why == NULL ? &resolve->addresses : NULL, why, resolve->arg);
}

static enum status open_channel(struct resolve *resolve)
{
	char lookups[] = "fb"; /* files before DNS, whatever nsswitch.conf says */
	struct ares_options options = {
		.flags = ARES_FLAG_NOSEARCH, .timeout = QUERY_TIMEOUT_MS, .tries = QUERY_TRIES, .lookups = lookups, .sock_state_cb = on_socket_state, .sock_state_cb_data = resolve
	};
	int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB;
	return ares_init_options(&resolve->channel, &options, mask) == ARES_SUCCESS ? STATUS_OK : STATUS_AGENT_INTERNAL;
}

/* A channel that has asked nothing yet; NULL: memory is out. */
static struct resolve *resolve_new(struct event_base *base, void *arg)
{
	struct resolve *resolve = calloc(1, sizeof *resolve);
	if (resolve == NULL) {
		return NULL;
	}
	resolve->base = base;
	resolve->arg = arg;
	resolve->timer = evtimer_new(base, on_timer, resolve);
	resolve->finish = evtimer_new(base, on_finish, resolve);
	if (resolve->timer == NULL || resolve->finish == NULL || open_channel(resolve) != STATUS_OK) {
		resolve_free(resolve);
		return NULL;
	}
	return resolve;
}

enum status resolve_start(struct event_base *base, const char *host, unsigned port, resolve_done done, void *arg, struct resolve **ret_resolve)
{
	struct ares_addrinfo_hints hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = ARES_AI_NUMERICSERV | ARES_AI_NOSORT };
	char service[16];
	struct resolve *resolve = resolve_new(base, arg);
	if (resolve == NULL) {
		return STATUS_AGENT_INTERNAL;
	}
	resolve->done = done;
	snprintf(service, sizeof service, "%u", port);
	ares_getaddrinfo(resolve->channel, host, service, &hints, on_addresses, resolve);
	arm_timer(resolve);
	*ret_resolve = resolve;
	return STATUS_OK;
}

enum status resolve_srv_start(struct event_base *base, const char *name, resolve_srv_done done, void *arg, struct resolve **ret_resolve)
{
	struct resolve *resolve = resolve_new(base, arg);
	if (resolve == NULL || (resolve->srv = calloc(1, sizeof *resolve->srv)) == NULL) {
		resolve_free(resolve);
		return STATUS_AGENT_INTERNAL;
	}
	resolve->srv_done = done;
	ares_query(resolve->channel, name, ns_c_in, ns_t_srv, on_records, resolve);
	arm_timer(resolve);
	*ret_resolve = resolve;
	return STATUS_OK;
}

void resolve_free(struct resolve *resolve)
{
	if (resolve == NULL) {
		return;
	}
	if (resolve->channel != NULL) {
		ares_destroy(resolve->channel);
	}
	for (size_t i = 0; i < SOCKETS_MAX; i++) {
		if (resolve->watches[i].event != NULL) {
			event_free(resolve->watches[i].event);
		}
	}
	if (resolve->timer != NULL) {
		event_free(resolve->timer);
	}
	if (resolve->finish != NULL) {
		event_free(resolve->finish);
	}
	free(resolve->srv);
	free(resolve);
}
