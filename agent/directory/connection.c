#include "agent/directory/connection.h"

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/tls.h"

enum { PAUSE_MIN_MS = 200, PAUSE_MAX_MS = 30000, PAUSE_READ_ONLY_MS = 600000, RESOLVE_AGAIN_MS = 300 };
/* A peer whose cable is cut is known to be gone after half a minute, whatever the directory is asked meanwhile. */
enum { KEEPALIVE_IDLE_S = 15, KEEPALIVE_INTERVAL_S = 5, KEEPALIVE_PROBES = 3, UNACKNOWLEDGED_MS = 15000 };

static void enter_resolve(struct connection *connection);
static void enter_connect(struct connection *connection);
static void enter_bind_turn(struct connection *connection);
static void on_resolve_timeout(struct connection *connection);
static void on_state_timeout(struct connection *connection);
static void on_idle(struct connection *connection);

/* A state: how long it may last, what is done on entering it, and when its time is over. */
enum limit { LIMIT_RESOLVE, LIMIT_CONNECT, LIMIT_IDLE, LIMIT_PAUSE };
static const struct state_row {
	const char *name;
	enum limit limit;
	void (*enter)(struct connection *connection);
	void (*timeout)(struct connection *connection);
} STATES[] = {
	[CONNECTION_DOWN] = { "down", LIMIT_PAUSE, NULL, connection_start },
	[CONNECTION_RESOLVE] = { "resolve", LIMIT_RESOLVE, enter_resolve, on_resolve_timeout },
	[CONNECTION_CONNECT] = { "connect", LIMIT_CONNECT, enter_connect, on_state_timeout },
	[CONNECTION_BIND_TURN] = { "bind turn", LIMIT_CONNECT, enter_bind_turn, on_state_timeout },
	[CONNECTION_BIND] = { "bind", LIMIT_CONNECT, bind_begin, on_state_timeout },
	[CONNECTION_EXPLORE] = { "look at the server", LIMIT_CONNECT, explore_begin, on_state_timeout },
	[CONNECTION_READY] = { "ready", LIMIT_IDLE, NULL, on_idle },
};

/* 200 ms, doubled with every failure up to 30 s, plus or less a quarter. A refused credential waits for its minute. */
static int64_t pause_ms(const struct connection *connection)
{
	uint16_t jitter;
	int64_t pause = PAUSE_MIN_MS, blocked = (connection->setup.credential->blocked_until_us - clock_monotonic_us()) / 1000;
	for (unsigned i = 1; i < connection->attempts && pause < PAUSE_MAX_MS; i++) {
		pause *= 2;
	}
	pause = pause > PAUSE_MAX_MS ? PAUSE_MAX_MS : pause;
	if (connection->failure == STATUS_DIRECTORY_REFERRAL) {
		pause = PAUSE_READ_ONLY_MS; /* it will hardly become a writable one */
	}
	random_bytes(&jitter, sizeof jitter);
	pause = pause * 3 / 4 + pause / 2 * jitter / UINT16_MAX;
	return connection->failure == STATUS_DIRECTORY_CREDENTIAL && blocked > pause ? blocked : pause;
}

static void arm_timer(struct connection *connection)
{
	const struct directory_settings *settings = connection->setup.settings;
	enum limit limit = STATES[connection->state].limit;
	int64_t ms = limit == LIMIT_IDLE ? settings->idle_probe_ms : limit == LIMIT_PAUSE ? pause_ms(connection) : settings->connect_timeout_ms;
	if (limit == LIMIT_RESOLVE && connection->addresses.count > 0 && ms > RESOLVE_AGAIN_MS) {
		ms = RESOLVE_AGAIN_MS;
	}
	struct timeval tv = { ms / 1000, ms % 1000 * 1000 };
	if (limit == LIMIT_PAUSE && !connection->setup.retry) {
		evtimer_del(connection->timer);
		return;
	}
	evtimer_add(connection->timer, &tv);
}

static void set_state(struct connection *connection, enum connection_state state)
{
	connection->state = state;
	if (state != CONNECTION_DOWN) {
		connection->reached = state;
	}
	arm_timer(connection);
	if (STATES[state].enter != NULL) {
		STATES[state].enter(connection);
	}
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct connection *connection = connection_ref(arg);
	STATES[connection->state].timeout(connection);
	connection_unref(connection);
}

/* Whether the handshake has put anything on the wire: before that, what failed is TCP. */
static bool handshake_began(SSL *ssl)
{
	BIO *bio = SSL_get_wbio(ssl);
	return bio != NULL && BIO_number_written(bio) > 0;
}

static void on_state_timeout(struct connection *connection)
{
	SSL *ssl = connection->bufferevent != NULL ? bufferevent_openssl_get_ssl(connection->bufferevent) : NULL;
	const char *step = connection->state == CONNECTION_BIND_TURN ? "the bind to another server, which this one waits for" : connection->state != CONNECTION_CONNECT || ssl == NULL ? STATES[connection->state].name : handshake_began(ssl) ? "TLS handshake" : "TCP connect";
	if ((connection->state == CONNECTION_BIND || connection->state == CONNECTION_BIND_TURN) && bind_waits_for_kdc(connection)) {
		char realm[128];
		bind_realm(connection, realm, sizeof realm);
		connection_fail(connection, STATUS_DIRECTORY_TIMEOUT, "the KDC of %s does not answer in time", realm);
		return;
	}
	connection_fail(connection, STATUS_DIRECTORY_TIMEOUT, "no answer in time: %s", step);
}

/* A busy one too: it may have lost its role, or its partners. */
static void on_idle(struct connection *connection)
{
	if (connection_is_over(connection)) {
		connection_retire(connection);
		return;
	}
	arm_timer(connection);
	explore_probe(connection, connection->setup.settings->connect_timeout_ms);
}

static void close_transport(struct connection *connection)
{
	resolve_free(connection->resolve);
	connection->resolve = NULL;
	bind_abandon(connection);
	ldap_io_close(&connection->io);
	if (connection->ldap != NULL) {
		LDAP *ldap = connection->ldap;
		connection->ldap = NULL;
		ldap_destroy(ldap);
	}
	if (connection->bufferevent != NULL) {
		bufferevent_free(connection->bufferevent);
		connection->bufferevent = NULL;
	}
	connection->exploring = 0;
	connection->retiring = false;
}

static void release_turn(struct connection *connection, enum status status)
{
	if (connection->has_turn) {
		connection->has_turn = false;
		credential_report(connection->setup.credential, status, clock_monotonic_us());
		if (!connection->stopped && connection->setup.turn != NULL) {
			connection->setup.turn(connection->setup.arg);
		}
	}
}

void connection_fail(struct connection *connection, enum status status, const char *format, ...)
{
	va_list arguments;
	connection_ref(connection);
	va_start(arguments, format);
	vsnprintf(connection->why, sizeof connection->why, format, arguments);
	va_end(arguments);
	connection->failure = status;
	connection->attempts++;
	operations_judge(connection);
	close_transport(connection);
	connection->state = CONNECTION_DOWN;
	release_turn(connection, status);
	operations_fail_all(connection);
	if (!connection->stopped && connection->state == CONNECTION_DOWN) {
		arm_timer(connection);
		if (connection->setup.changed != NULL) {
			connection->setup.changed(connection, connection->setup.arg);
		}
	}
	connection_unref(connection);
}

void connection_retire(struct connection *connection)
{
	connection_fail(connection, STATUS_DIRECTORY_TIMEOUT, "it did not answer a write in time");
}

void connection_start(struct connection *connection)
{
	if (connection->state == CONNECTION_DOWN && !connection->stopped) {
		connection->started_us = clock_monotonic_us();
		connection->reached = CONNECTION_DOWN;
		set_state(connection, CONNECTION_RESOLVE);
	}
}

static void connect_to_addresses(struct connection *connection)
{
	connection->address = 0;
	resolve_free(connection->resolve);
	connection->resolve = NULL;
	set_state(connection, CONNECTION_CONNECT);
}

/* DNS that fails or is silent does not keep the agent from a server whose addresses it knows: the certificate decides. */
static void on_resolved(const struct addresses *addresses, const char *why, void *arg)
{
	struct connection *connection = arg;
	if (why != NULL && connection->addresses.count == 0) {
		connection_fail(connection, STATUS_DIRECTORY_UNAVAILABLE, "its name could not be resolved: %s", why);
		return;
	}
	if (why == NULL) {
		connection->addresses = *addresses;
	}
	connect_to_addresses(connection);
}

static void on_resolve_timeout(struct connection *connection)
{
	if (connection->addresses.count > 0) {
		connect_to_addresses(connection);
	} else {
		connection_fail(connection, STATUS_DIRECTORY_TIMEOUT, "its name could not be resolved: no answer from DNS in time");
	}
}

static void enter_resolve(struct connection *connection)
{
	enum status status = resolve_start(connection->setup.base, connection->host, connection->port, on_resolved, connection, &connection->resolve);
	if (status != STATUS_OK) {
		connection_fail(connection, status, "its name could not be looked up");
	}
}

static void on_read(struct bufferevent *bufferevent, void *arg)
{
	struct connection *connection = connection_ref(arg);
	operations_receive(connection);
	connection_unref(connection);
}

#ifdef WRITEBACK_CRASH_POINTS
static void on_flushed(struct bufferevent *bufferevent, void *arg)
{
	operations_pass_sent(arg);
}
#else
#define on_flushed NULL
#endif

static void on_connected(struct connection *connection)
{
	SSL *ssl = bufferevent_openssl_get_ssl(connection->bufferevent);
	free(connection->peer);
	connection->peer = malloc(sizeof *connection->peer);
	if (connection->peer != NULL) {
		tls_describe(ssl, connection->peer);
	}
	connection->io = (struct ldap_io){ .bufferevent = connection->bufferevent };
	connection->last_read_us = clock_monotonic_us();
	if (ldap_io_open(&connection->io, &connection->ldap) != STATUS_OK) {
		connection_fail(connection, STATUS_AGENT_INTERNAL, "libldap took no connection");
		return;
	}
	set_state(connection, CONNECTION_BIND_TURN);
}

/* Before it is connected: the next address, if there is one, else the reason. */
static void on_connect_error(struct connection *connection, int error)
{
	SSL *ssl = bufferevent_openssl_get_ssl(connection->bufferevent);
	char why[200];
	enum status status;
	if (!handshake_began(ssl)) {
		status = STATUS_DIRECTORY_UNAVAILABLE;
		/* EPERM is what a cgroup's address filter answers, and nothing else does on the way to connect. */
		snprintf(why, sizeof why, "TCP connect: %s", error == EPERM ? "not permitted: the unit's IPAddressDeny= forbids this address; allow it in a drop-in (IPAddressAllow=)"
		                                             : error != 0   ? evutil_socket_error_to_string(error) : "closed");
	} else {
		status = tls_failure(ssl, bufferevent_get_openssl_error(connection->bufferevent), why, sizeof why);
	}
	if (connection->address + 1 < connection->addresses.count) {
		connection->address++;
		close_transport(connection);
		set_state(connection, CONNECTION_CONNECT);
		return;
	}
	const char *crl_file = connection->setup.settings->crl_file;
	bool by_crl = status == STATUS_TLS_REVOKED && crl_file != NULL;
	connection_fail(connection, status, "%s%s%.80s%s", why, by_crl ? " (crl_file: " : "", by_crl ? crl_file : "", by_crl ? ")" : "");
}

static void on_event(struct bufferevent *bufferevent, short what, void *arg)
{
	struct connection *connection = connection_ref(arg);
	int error = EVUTIL_SOCKET_ERROR();
	if ((what & BEV_EVENT_CONNECTED) != 0) {
		on_connected(connection);
	} else if (connection->state == CONNECTION_CONNECT) {
		on_connect_error(connection, error);
	} else if ((what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) != 0) {
		operations_receive(connection); /* answers that came before the end */
		if (connection->bufferevent == bufferevent) {
			/* TLS 1.3 tells only now that the server does not take a client's certificate. */
			bool by_certificate = connection->state <= CONNECTION_BIND && connection->setup.settings->bind_mechanism == BIND_EXTERNAL;
			const char *notice = connection->io.notice;
			connection_fail(connection, STATUS_DIRECTORY_UNAVAILABLE, "it closed the connection%s%.120s%s%s", by_certificate ? " during the bind: it may not trust the certificate in " : "",
			                by_certificate ? connection->setup.settings->bind_certificate_file : "", notice[0] != '\0' ? ", saying: " : "", notice);
		}
	}
	connection_unref(connection);
}

static void set_socket_options(int fd)
{
	static const struct {
		int level, name, value;
	} OPTIONS[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 }, { SOL_SOCKET, SO_KEEPALIVE, 1 }, { IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S }, { IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S },
		{ IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES }, { IPPROTO_TCP, TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS },
	};
	for (size_t i = 0; i < sizeof OPTIONS / sizeof OPTIONS[0]; i++) {
		setsockopt(fd, OPTIONS[i].level, OPTIONS[i].name, &OPTIONS[i].value, sizeof OPTIONS[i].value);
	}
}

static void enter_connect(struct connection *connection)
{
	const struct sockaddr *address = (const struct sockaddr *)&connection->addresses.items[connection->address];
	SSL *ssl = NULL;
	if (tls_client_new(*connection->setup.tls, connection->host, &ssl) != STATUS_OK) {
		connection_fail(connection, STATUS_AGENT_INTERNAL, "TLS could not be set up");
		return;
	}
	connection->bufferevent =
		bufferevent_openssl_socket_new(connection->setup.base, -1, ssl, BUFFEREVENT_SSL_CONNECTING, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
	if (connection->bufferevent == NULL) {
		SSL_free(ssl);
		connection_fail(connection, STATUS_AGENT_INTERNAL, "no memory for a connection");
		return;
	}
	bufferevent_setcb(connection->bufferevent, on_read, on_flushed, on_event, connection);
	bufferevent_enable(connection->bufferevent, EV_READ | EV_WRITE);
	if (bufferevent_socket_connect(connection->bufferevent, (struct sockaddr *)address, connection->addresses.sizes[connection->address]) != 0) {
		if (connection->state == CONNECTION_CONNECT && connection->bufferevent != NULL) {
			on_connect_error(connection, EVUTIL_SOCKET_ERROR());
		}
		return;
	}
	set_socket_options(bufferevent_getfd(connection->bufferevent));
}

void connection_bound(struct connection *connection)
{
	bind_abandon(connection);
	release_turn(connection, STATUS_OK);
	set_state(connection, CONNECTION_EXPLORE);
}

static void enter_bind_turn(struct connection *connection)
{
	connection_try_bind(connection);
}

void connection_try_bind(struct connection *connection)
{
	if (connection->state != CONNECTION_BIND_TURN) {
		return;
	}
	switch (credential_take(connection->setup.credential, clock_monotonic_us())) {
	case CREDENTIAL_GO:
		connection->has_turn = true;
		set_state(connection, CONNECTION_BIND);
		break;
	case CREDENTIAL_BLOCKED:
		/* The reason still stands; it must not be hidden by the wait. */
		connection_fail(connection, STATUS_DIRECTORY_CREDENTIAL, "%s", connection->setup.credential->reason);
		break;
	case CREDENTIAL_WAIT:
		break;
	}
}

void connection_become_ready(struct connection *connection)
{
	connection->generation++;
	connection->attempts = 0;
	connection->failure = STATUS_OK;
	connection->why[0] = 0;
	set_state(connection, CONNECTION_READY);
	if (connection->setup.changed != NULL) {
		connection->setup.changed(connection, connection->setup.arg);
	}
}

static const char *base_dn(const struct connection *connection)
{
	return connection->setup.settings->base_dn != NULL ? connection->setup.settings->base_dn : connection->root.naming_context;
}

struct view connection_view(const struct connection *connection)
{
	return (struct view){ .settings = connection->setup.settings, .root = &connection->root, .base_dn = base_dn(connection), .token = &connection->token, .self = connection->self_name };
}

/* "host", "host:port", "[address]:port" or a bare IPv6 address. */
static bool parse_server(const char *server, char **ret_host, unsigned *ret_port)
{
	const char *colon = strrchr(server, ':'), *begin = server, *end;
	struct in6_addr address;
	bool bare = inet_pton(AF_INET6, server, &address) == 1;
	*ret_port = LDAPS_PORT;
	if (*server == '[') {
		begin = server + 1;
		end = strchr(server, ']');
		colon = end != NULL && end[1] == ':' ? end + 1 : NULL;
	} else {
		colon = bare ? NULL : colon;
		end = colon != NULL ? colon : server + strlen(server);
	}
	if (end == NULL || end == begin) {
		return false;
	}
	if (colon != NULL) {
		char *rest;
		unsigned long port = strtoul(colon + 1, &rest, 10);
		if (port == 0 || port > UINT16_MAX || *rest != 0) {
			return false;
		}
		*ret_port = port;
	}
	*ret_host = strndup(begin, end - begin);
	return *ret_host != NULL;
}

enum status connection_new(const struct connection_setup *setup, const char *server, struct directory *owner, struct connection **ret_connection)
{
	struct connection *connection = calloc(1, sizeof *connection);
	if (connection == NULL) {
		return STATUS_AGENT_INTERNAL;
	}
	connection->references = 1;
	connection->setup = *setup;
	connection->owner = owner;
	connection->clock_skew_ms = INT64_MIN;
	TAILQ_INIT(&connection->waiting);
	TAILQ_INIT(&connection->outstanding);
	connection->timer = evtimer_new(setup->base, on_timer, connection);
	if (connection->timer == NULL || !parse_server(server, &connection->host, &connection->port)) {
		enum status status = connection->timer == NULL ? STATUS_AGENT_INTERNAL : STATUS_LOCAL_INPUT;
		connection_unref(connection);
		return status;
	}
	snprintf(connection->name, sizeof connection->name, connection->port == LDAPS_PORT ? "%s" : "%s:%u", connection->host, connection->port);
	*ret_connection = connection;
	return STATUS_OK;
}

struct connection *connection_ref(struct connection *connection)
{
	connection->references++;
	return connection;
}

void connection_unref(struct connection *connection)
{
	if (connection == NULL || --connection->references > 0) {
		return;
	}
	close_transport(connection);
	if (connection->timer != NULL) {
		event_free(connection->timer);
	}
	root_facts_clear(&connection->root);
	token_clear(&connection->token);
	free(connection->peer);
	free(connection->host);
	free(connection);
}

/* What it borrowed may be gone from now on. */
void connection_stop(struct connection *connection)
{
	connection_ref(connection);
	connection->stopped = true;
	evtimer_del(connection->timer);
	connection_fail(connection, STATUS_DIRECTORY_UNAVAILABLE, "it was closed");
	connection->owner = NULL;
	connection_unref(connection);
}
