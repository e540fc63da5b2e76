#include "agent/channel/endpoint.h"

#include <event2/bufferevent_ssl.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/channel/backoff.h"
#include "agent/channel/dial.h"
#include "agent/channel/proxy.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/secret.h"
#include "proto/websocket.h"

enum state { STOPPED, PAUSED, DIALING, TUNNELLING, HANDSHAKING, UPGRADING, UP, CLOSING };

struct endpoint {
	struct event_base *base;
	uint8_t number;
	const struct settings *settings;
	struct endpoint_callbacks callbacks;
	char *url_text;
	struct url url, proxy_url;    /* of the connection that stands or is being made */
	enum state state;
	bool wanted;                  /* between endpoint_start and endpoint_stop */
	struct event *timer;          /* the state's deadline */

	/* At most one of these stands, by state. */
	struct dial *dial;
	struct proxy *proxy;
	struct bufferevent *handshake;
	struct websocket *websocket;
	struct tls_peer peer;

	struct backoff backoff;
	int64_t up_at_us;             /* 0: it was not up, or it has been told that it is no more */
	int64_t pause_ms;             /* CLOSING: before the next try */
	enum status last_status;      /* what `down` said last */
	unsigned heard;               /* messages since it is up: a third one comes to whoever was let in (proto/README.md 5.1) */
	char refusal[160];            /* how the last channel was refused by the service behind its opening; "": it was not */
	int64_t since_ms;
};

static void on_pause_over(struct endpoint *endpoint);
static void on_late(struct endpoint *endpoint);
static void on_close_late(struct endpoint *endpoint);

/* A state's deadline guards what the part at work guards itself; 0: none. PAUSED has the back-off's. */
static const struct {
	const char *name;
	int64_t deadline_ms;
	void (*late)(struct endpoint *endpoint);
} states[] = {
	[STOPPED] = { "stopped", 0, NULL },
	[PAUSED] = { "waiting for the next try", 0, on_pause_over },
	[DIALING] = { "resolving and connecting", 60000, on_late },
	[TUNNELLING] = { "asking the proxy", 15000, on_late },
	[HANDSHAKING] = { "TLS handshake", 10000, on_late },
	[UPGRADING] = { "WebSocket upgrade", 15000, on_late },
	[UP] = { "up", 0, NULL },
	[CLOSING] = { "closing", 8000, on_close_late },
};

static void set_deadline(struct endpoint *endpoint, int64_t ms)
{
	struct timeval limit = { ms / 1000, ms % 1000 * 1000 };
	event_add(endpoint->timer, &limit);
}

static void set_state(struct endpoint *endpoint, enum state state)
{
	if (state != endpoint->state)
		log_event(LOG_DEBUG, "channel.state", LOG_FIELDS({ "endpoint", endpoint->url_text }), "%s", states[state].name);
	endpoint->state = state;
	event_del(endpoint->timer);
	if (states[state].deadline_ms)
		set_deadline(endpoint, states[state].deadline_ms);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct endpoint *endpoint = arg;
	if (states[endpoint->state].late)
		states[endpoint->state].late(endpoint);
}

static void drop_parts(struct endpoint *endpoint)
{
	dial_free(endpoint->dial);
	proxy_free(endpoint->proxy);
	if (endpoint->handshake)
		bufferevent_free(endpoint->handshake);
	websocket_free(endpoint->websocket);
	endpoint->dial = NULL;
	endpoint->proxy = NULL;
	endpoint->handshake = NULL;
	endpoint->websocket = NULL;
}

/* Losing it ------------------------------------------------------------------------------------------------------------------------- */

static enum status effective_status(const struct websocket_closed *closed)
{
	/* The service's words for "not you": an administrator must act, as after 401 and 403. */
	if (closed->status == STATUS_CHANNEL_CLOSED && (closed->close_code == 4001 || closed->close_code == 4003))
		return STATUS_CHANNEL_REJECTED;
	return closed->status;
}

/* That it is down was told when the closing began. */
static void finish_closing(struct endpoint *endpoint)
{
	drop_parts(endpoint);
	if (!endpoint->wanted) {
		set_state(endpoint, STOPPED);
		endpoint->callbacks.stopped(endpoint, endpoint->callbacks.arg);
		return;
	}
	set_state(endpoint, PAUSED);
	set_deadline(endpoint, endpoint->pause_ms);
}

#define MESSAGES_BEFORE_WELCOME 2

/* An agent that is revoked or taken for a clone opens its channel every few minutes and is refused each time: that is said once, until it is something else. */
static bool is_news(struct endpoint *endpoint, const struct websocket_closed *closed, enum status status)
{
	bool was_up = endpoint->up_at_us != 0;
	char refusal[sizeof endpoint->refusal] = "";
	if (was_up && endpoint->heard <= MESSAGES_BEFORE_WELCOME && backoff_pace_of(closed->close_code, 0) == BACKOFF_SLOW)
		snprintf(refusal, sizeof refusal, "%u %.140s", closed->close_code, closed->close_code == 4005 ? "" : closed->reason); /* 4005: the time */
	bool same = *refusal ? strcmp(refusal, endpoint->refusal) == 0 : !was_up && status == endpoint->last_status;
	strcpy(endpoint->refusal, refusal);
	return !same;
}

static struct endpoint_down note_loss(struct endpoint *endpoint, const struct websocket_closed *closed, enum status status)
{
	uint32_t random;
	bool was_up = endpoint->up_at_us != 0;
	int64_t up_ms = was_up ? (clock_monotonic_us() - endpoint->up_at_us) / 1000 : 0;
	struct endpoint_down down = { .status = status, .close_code = was_up ? closed->close_code : 0, .reason = closed->reason, .http_status = closed->http_status,
		                      .retry_after = closed->retry_after, .was_up = was_up };
	down.changed = is_news(endpoint, closed, status);
	random_bytes(&random, sizeof random);
	down.next_try_ms = backoff_next_ms(&endpoint->backoff, backoff_pace_of(closed->close_code, closed->http_status), up_ms, closed->retry_after, random);
	if (was_up || !endpoint->since_ms)
		endpoint->since_ms = clock_now_ms();
	endpoint->up_at_us = 0;
	endpoint->last_status = status;
	return down;
}

/* Every way a connection or a try ends comes by here. */
static void lose(struct endpoint *endpoint, const struct websocket_closed *closed, enum status status)
{
	if (endpoint->state == CLOSING) {
		finish_closing(endpoint);
		return;
	}
	struct endpoint_down down = note_loss(endpoint, closed, status);
	drop_parts(endpoint);
	set_state(endpoint, PAUSED);
	set_deadline(endpoint, down.next_try_ms);
	endpoint->callbacks.down(endpoint, &down, endpoint->callbacks.arg);
}

static void lose_because(struct endpoint *endpoint, enum status status, const char *why)
{
	struct websocket_closed closed = { .status = status };
	snprintf(closed.reason, sizeof closed.reason, "%s", why);
	lose(endpoint, &closed, status);
}

static void on_late(struct endpoint *endpoint)
{
	char why[80];
	snprintf(why, sizeof why, "no progress in time: %s", states[endpoint->state].name);
	lose_because(endpoint, STATUS_CHANNEL_TIMEOUT, why);
}

static void on_close_late(struct endpoint *endpoint)
{
	finish_closing(endpoint);
}

/* Up -------------------------------------------------------------------------------------------------------------------------------- */

static void on_websocket_open(struct websocket *websocket, void *arg)
{
	struct endpoint *endpoint = arg;
	if (endpoint->state != UPGRADING)
		return;
	endpoint->up_at_us = clock_monotonic_us();
	endpoint->since_ms = clock_now_ms();
	endpoint->last_status = STATUS_OK;
	endpoint->heard = 0;
	set_state(endpoint, UP);
	endpoint->callbacks.up(endpoint, &endpoint->peer, !*endpoint->refusal, endpoint->callbacks.arg);
}

static void on_websocket_message(struct websocket *websocket, struct bytes message, void *arg)
{
	struct endpoint *endpoint = arg;
	if (endpoint->state != UP)
		return;
	if (++endpoint->heard == MESSAGES_BEFORE_WELCOME + 1 && *endpoint->refusal) {
		*endpoint->refusal = 0;
		endpoint->callbacks.let_in(endpoint, &endpoint->peer, endpoint->callbacks.arg);
	}
	endpoint->callbacks.message(endpoint, message, endpoint->callbacks.arg);
}

/* The service counts from its close frame, and may ask another agent a second later: it is told now. */
static void on_websocket_closing(struct websocket *websocket, const struct websocket_closed *closed, void *arg)
{
	struct endpoint *endpoint = arg;
	if (endpoint->state != UP)
		return;
	struct endpoint_down down = note_loss(endpoint, closed, effective_status(closed));
	endpoint->pause_ms = down.next_try_ms;
	set_state(endpoint, CLOSING);
	endpoint->callbacks.down(endpoint, &down, endpoint->callbacks.arg);
}

static void on_websocket_closed(struct websocket *websocket, const struct websocket_closed *closed, void *arg)
{
	struct websocket_closed copy = *closed; /* it goes with the websocket */
	lose(arg, &copy, effective_status(&copy));
}

static void begin_upgrade(struct endpoint *endpoint)
{
	struct websocket_callbacks callbacks = { on_websocket_open, on_websocket_message, on_websocket_closing, on_websocket_closed, endpoint };
	struct websocket_options options = websocket_defaults;
	struct bufferevent *bev = endpoint->handshake;
	options.ping_interval_ms = (unsigned)endpoint->settings->ping_interval_ms;
	options.silence_limit_ms = (unsigned)endpoint->settings->silence_limit_ms;
	endpoint->handshake = NULL;
	tls_describe(bufferevent_openssl_get_ssl(bev), &endpoint->peer);
	set_state(endpoint, UPGRADING);
	if (websocket_client_new(bev, endpoint->url.authority, endpoint->url.path, &options, &callbacks, &endpoint->websocket) != STATUS_OK)
		lose_because(endpoint, STATUS_AGENT_INTERNAL, "out of memory");
}

/* TLS ------------------------------------------------------------------------------------------------------------------------------- */

static void on_handshake(struct bufferevent *bev, short what, void *arg)
{
	struct endpoint *endpoint = arg;
	char why[200] = "";
	if (what & BEV_EVENT_CONNECTED) {
		begin_upgrade(endpoint);
		return;
	}
	enum status status = tls_failure(bufferevent_openssl_get_ssl(bev), bufferevent_get_openssl_error(bev), why, sizeof why);
	lose_because(endpoint, status, why);
}

static void begin_handshake(struct endpoint *endpoint, int take_fd)
{
	SSL *ssl = NULL;
	set_state(endpoint, HANDSHAKING);
	if (tls_client_new(endpoint->settings->tls, endpoint->url.host, &ssl) == STATUS_OK)
		endpoint->handshake = bufferevent_openssl_socket_new(endpoint->base, take_fd, ssl, BUFFEREVENT_SSL_CONNECTING, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
	if (!endpoint->handshake) {
		SSL_free(ssl);
		close(take_fd);
		lose_because(endpoint, STATUS_AGENT_INTERNAL, "the TLS connection cannot be made");
		return;
	}
	bufferevent_setcb(endpoint->handshake, NULL, NULL, on_handshake, endpoint);
	bufferevent_enable(endpoint->handshake, EV_READ | EV_WRITE);
}

/* The proxy ------------------------------------------------------------------------------------------------------------------------- */

static void on_tunnel(const struct proxy_result *result, void *arg)
{
	struct endpoint *endpoint = arg;
	if (result->status == STATUS_OK) {
		int fd = result->fd;
		proxy_free(endpoint->proxy);
		endpoint->proxy = NULL;
		begin_handshake(endpoint, fd);
		return;
	}
	struct websocket_closed closed = { .http_status = result->http_status, .retry_after = result->retry_after };
	snprintf(closed.reason, sizeof closed.reason, "%.*s", (int)sizeof closed.reason - 1, result->why);
	lose(endpoint, &closed, result->status);
}

static void begin_tunnel(struct endpoint *endpoint, int take_fd)
{
	AUTO_SECRET struct secret password = SECRET_EMPTY;
	const struct settings *settings = endpoint->settings;
	char authority[300];
	snprintf(authority, sizeof authority, strchr(endpoint->url.host, ':') ? "[%s]:%u" : "%s:%u", endpoint->url.host, endpoint->url.port);
	set_state(endpoint, TUNNELLING);
	if (settings->proxy_username) {
		enum status status = secret_read_file(settings->proxy_password_file, &password);
		if (status != STATUS_OK) {
			close(take_fd);
			lose_because(endpoint, status, "the proxy's password file cannot be read");
			return;
		}
	}
	if (proxy_new(endpoint->base, take_fd, authority, settings->proxy_username, &password, on_tunnel, endpoint, &endpoint->proxy) != STATUS_OK)
		lose_because(endpoint, STATUS_AGENT_INTERNAL, "out of memory");
}

/* Connecting ------------------------------------------------------------------------------------------------------------------------ */

static void on_dialed(int take_fd, enum status status, const char *why, void *arg)
{
	struct endpoint *endpoint = arg;
	if (status != STATUS_OK) {
		lose_because(endpoint, status, why);
		return;
	}
	dial_free(endpoint->dial);
	endpoint->dial = NULL;
	if (endpoint->proxy_url.port)
		begin_tunnel(endpoint, take_fd);
	else
		begin_handshake(endpoint, take_fd);
}

static void on_pause_over(struct endpoint *endpoint)
{
	const struct settings *settings = endpoint->settings;
	endpoint->url = settings->endpoints[endpoint->number];
	endpoint->proxy_url = settings->proxy;
	const struct url *next = endpoint->proxy_url.port ? &endpoint->proxy_url : &endpoint->url;
	set_state(endpoint, DIALING);
	if (dial_new(endpoint->base, next->host, next->port, on_dialed, endpoint, &endpoint->dial) != STATUS_OK)
		lose_because(endpoint, STATUS_AGENT_INTERNAL, "the resolver cannot be started");
}

/* Its owner ------------------------------------------------------------------------------------------------------------------------- */

void endpoint_start(struct endpoint *endpoint)
{
	endpoint->wanted = true;
	if (endpoint->state != STOPPED)
		return;
	/* At once: machines do not start in the same instant, and what fails is tried again with jitter. */
	set_state(endpoint, PAUSED);
	set_deadline(endpoint, 0);
}

/* What is queued goes out; nothing else passes from now on. */
static void close_websocket(struct endpoint *endpoint, unsigned close_code, const char *reason)
{
	struct endpoint_down down = { .status = STATUS_CHANNEL_CLOSED, .close_code = 1006, .reason = reason, .was_up = true, .changed = endpoint->wanted };
	endpoint->since_ms = clock_now_ms();
	endpoint->up_at_us = endpoint->pause_ms = 0;
	set_state(endpoint, CLOSING);
	websocket_close(endpoint->websocket, close_code, reason);
	endpoint->callbacks.down(endpoint, &down, endpoint->callbacks.arg);
}

void endpoint_stop(struct endpoint *endpoint, unsigned close_code, const char *reason)
{
	endpoint->wanted = false;
	endpoint->pause_ms = 0;
	if (endpoint->state == UP)
		close_websocket(endpoint, close_code, reason);
	else if (endpoint->state != CLOSING)
		finish_closing(endpoint);
}

static bool same_way(const struct endpoint *endpoint, const struct settings *settings)
{
	return strcmp(endpoint->url_text, settings->endpoint_urls.items[endpoint->number]) == 0 &&
	       strcmp(endpoint->proxy_url.host, settings->proxy.host) == 0 && endpoint->proxy_url.port == settings->proxy.port;
}

void endpoint_reconfigure(struct endpoint *endpoint, const struct settings *settings)
{
	bool same = same_way(endpoint, settings);
	endpoint->settings = settings;
	endpoint->pause_ms = 0;
	if (endpoint->state == UP && !same)
		close_websocket(endpoint, 1001, "reconfigured");
	if (strcmp(endpoint->url_text, settings->endpoint_urls.items[endpoint->number]) != 0) {
		char *copy = strdup(settings->endpoint_urls.items[endpoint->number]);
		if (copy) {
			free(endpoint->url_text);
			endpoint->url_text = copy;
		}
	}
	switch (endpoint->state) {
	case STOPPED:
	case CLOSING:
	case UP:
		return;
	default:
		/* A try with the old settings says nothing about the new ones, and an administrator is waiting. */
		endpoint->backoff.failures = 0;
		finish_closing(endpoint);
	}
}

void endpoint_send(struct endpoint *endpoint, struct bytes message)
{
	if (endpoint->state == UP && websocket_send(endpoint->websocket, message) != STATUS_OK)
		log_event(LOG_DEBUG, "channel.dropped", LOG_FIELDS({ "endpoint", endpoint->url_text }), "a message that could not be sent was dropped");
}

void endpoint_hold(struct endpoint *endpoint, bool hold)
{
	if (endpoint->state == UP)
		websocket_hold(endpoint->websocket, hold);
}

void endpoint_close(struct endpoint *endpoint, unsigned close_code, const char *reason)
{
	if (endpoint->state == UP)
		websocket_close(endpoint->websocket, close_code, reason);
}

enum status endpoint_new(struct event_base *base, uint8_t number, const struct settings *settings, const struct endpoint_callbacks *callbacks,
                         struct endpoint **ret_endpoint)
{
	struct endpoint *endpoint = calloc(1, sizeof *endpoint);
	*ret_endpoint = NULL;
	if (!endpoint)
		return STATUS_AGENT_INTERNAL;
	endpoint->base = base;
	endpoint->number = number;
	endpoint->settings = settings;
	endpoint->callbacks = *callbacks;
	endpoint->url_text = strdup(settings->endpoint_urls.items[number]);
	endpoint->timer = event_new(base, -1, 0, on_timer, endpoint);
	if (!endpoint->url_text || !endpoint->timer) {
		endpoint_free(endpoint);
		return STATUS_AGENT_INTERNAL;
	}
	*ret_endpoint = endpoint;
	return STATUS_OK;
}

void endpoint_free(struct endpoint *endpoint)
{
	if (!endpoint)
		return;
	drop_parts(endpoint);
	if (endpoint->timer)
		event_free(endpoint->timer);
	free(endpoint->url_text);
	free(endpoint);
}

bool endpoint_is_up(const struct endpoint *endpoint)
{
	return endpoint->state == UP;
}

bool endpoint_is_stopped(const struct endpoint *endpoint)
{
	return endpoint->state == STOPPED;
}

uint8_t endpoint_number(const struct endpoint *endpoint)
{
	return endpoint->number;
}

const char *endpoint_url(const struct endpoint *endpoint)
{
	return endpoint->url_text;
}

const char *endpoint_state_name(const struct endpoint *endpoint)
{
	return states[endpoint->state].name;
}

enum status endpoint_last_status(const struct endpoint *endpoint)
{
	return endpoint->last_status;
}

int64_t endpoint_since(const struct endpoint *endpoint)
{
	return endpoint->since_ms;
}
