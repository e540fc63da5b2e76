#include "agent/channel/relay.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/channel/backoff.h"
#include "agent/channel/endpoint.h"
#include "base/clock.h"
#include "base/crash.h"
#include "base/log.h"

#define SILENCE_US 15000000   /* writebackd pings every 5 s */
#define STOP_MS 2000
#define TEXT_SIZE 24

struct relay {
	struct event_base *base;
	const struct settings *settings;
	struct relay_callbacks callbacks;
	struct packet_socket *socket;           /* NULL: not connected */
	int64_t heard_us;                       /* when a packet came last */
	unsigned failures;                      /* tries since writebackd greeted */
	bool greeted;                           /* it wants channels */
	char held[200];                         /* why it wants none; "": it has not said so on this socket */
	char told[200];                         /* what was logged last of what keeps us from it */
	struct endpoint *endpoints[PACKET_ENDPOINTS];
	unsigned closing;                       /* endpoints that are gone from the settings, not yet closed */
	struct event *retry, *watch, *stop;
	bool stopping;
};

static void changed(struct relay *relay)
{
	relay->callbacks.changed(relay, relay->callbacks.arg);
}

/* To writebackd --------------------------------------------------------------------------------------------------------------------- */

static void send_packet(struct relay *relay, enum packet_kind kind, uint8_t endpoint, struct bytes payload)
{
	/* A socket that fails tells so by its `closed`. */
	if (relay->socket && packet_socket_send(relay->socket, kind, endpoint, payload) != STATUS_OK)
		log_event(LOG_DEBUG, "agent.dropped", NULL, "a packet could not be given to writebackd");
}

/* Peer text may be anything; what is not UTF-8 is not repeated. */
static json_t *text(const char *value)
{
	return json_string(utf8_valid(bytes_of_string(value)) ? value : "(not UTF-8)");
}

static void send_json(struct relay *relay, enum packet_kind kind, uint8_t endpoint, json_t *take_json)
{
	char *dump = take_json ? json_dumps(take_json, JSON_COMPACT) : NULL;
	if (dump)
		send_packet(relay, kind, endpoint, bytes_of_string(dump));
	else
		log_event(LOG_ERR, "agent.dropped", NULL, "out of memory");
	free(dump);
	json_decref(take_json);
}

static void log_up(const struct endpoint *endpoint, const struct tls_peer *peer, int level, const struct relay *relay)
{
	log_event(level, "channel.up", LOG_FIELDS({ "endpoint", endpoint_url(endpoint) }, { "tls", peer->version }, { "cipher", peer->cipher },
	          { "peer_sha256", peer->sha256 }, { "proxy", relay->settings->proxy_address }), "the channel to %s is up", endpoint_url(endpoint));
}

static void on_let_in(struct endpoint *endpoint, const struct tls_peer *peer, void *arg)
{
	log_up(endpoint, peer, LOG_NOTICE, arg);
}

static void on_up(struct endpoint *endpoint, const struct tls_peer *peer, bool news, void *arg)
{
	struct relay *relay = arg;
	const char *proxy = relay->settings->proxy_address;
	log_up(endpoint, peer, news ? LOG_NOTICE : LOG_DEBUG, relay);
	send_json(relay, PACKET_UP, endpoint_number(endpoint),
	          json_pack("{so ss so ss sI so so ss?}", "url", text(endpoint_url(endpoint)), "tls", peer->version, "cipher", text(peer->cipher), "peer_sha256", peer->sha256,
	                    "peer_not_after", (json_int_t)peer->not_after, "peer_names", text(peer->subject_alt_name), "peer_issuer", text(peer->issuer), "proxy", proxy));
	changed(relay);
}

static void on_message(struct endpoint *endpoint, struct bytes message, void *arg)
{
	CRASH_POINT(FRAME_RECEIVED);
	send_packet(arg, PACKET_FRAME, endpoint_number(endpoint), message);
	CRASH_POINT(FRAME_HANDED_OVER);
}

static void log_down(const struct endpoint *endpoint, const struct endpoint_down *down)
{
	char close_code[TEXT_SIZE] = "", http[TEXT_SIZE] = "", next[TEXT_SIZE];
	if (down->close_code)
		snprintf(close_code, sizeof close_code, "%u", down->close_code);
	if (down->http_status)
		snprintf(http, sizeof http, "%u", down->http_status);
	snprintf(next, sizeof next, "%lld", (long long)down->next_try_ms);
	log_event(down->changed ? status_level(down->status) : LOG_DEBUG, down->changed ? "channel.down" : "channel.retry",
	          LOG_FIELDS({ LOG_CODE, status_code(down->status) }, { "endpoint", endpoint_url(endpoint) }, { "close_code", *close_code ? close_code : NULL },
	                     { "http_status", *http ? http : NULL }, { "next_try_ms", next }),
	          "the channel to %s %s: %s. %s", endpoint_url(endpoint), down->was_up ? "was lost" : "cannot be had", *down->reason ? down->reason : "no reason given",
	          status_admin_text(down->status));
}

static void on_down(struct endpoint *endpoint, const struct endpoint_down *down, void *arg)
{
	struct relay *relay = arg;
	log_down(endpoint, down);
	send_json(relay, PACKET_DOWN, endpoint_number(endpoint),
	          json_pack("{so ss sI so sI sI sI}", "url", text(endpoint_url(endpoint)), "code", status_code(down->status), "close_code", (json_int_t)down->close_code, "reason", text(down->reason),
	                    "http_status", (json_int_t)down->http_status, "retry_after", (json_int_t)down->retry_after, "next_try_ms", (json_int_t)down->next_try_ms));
	if (down->changed || down->was_up)
		changed(relay);
}

static bool all_stopped(const struct relay *relay)
{
	if (relay->closing)
		return false;
	for (size_t i = 0; i < PACKET_ENDPOINTS; i++)
		if (relay->endpoints[i] && !endpoint_is_stopped(relay->endpoints[i]))
			return false;
	return true;
}

static void stop_when_closed(struct relay *relay)
{
	if (relay->stopping && all_stopped(relay))
		event_active(relay->stop, EV_TIMEOUT, 0);
}

static void on_stopped(struct endpoint *endpoint, void *arg)
{
	struct relay *relay = arg;
	if (relay->endpoints[endpoint_number(endpoint)] != endpoint) {
		endpoint_free(endpoint);
		relay->closing--;
	}
	stop_when_closed(relay);
}

/* From writebackd ------------------------------------------------------------------------------------------------------------------- */

static void schedule_retry(struct relay *relay);

static void stop_endpoints(struct relay *relay, const char *why)
{
	for (size_t i = 0; i < PACKET_ENDPOINTS; i++)
		if (relay->endpoints[i])
			endpoint_stop(relay->endpoints[i], 1001, why);
}

/* Once per reason: the tries go on. */
static void log_obstacle(struct relay *relay, int level, const char *event, const char *text)
{
	bool news = strncmp(relay->told, text, sizeof relay->told - 1) != 0;
	snprintf(relay->told, sizeof relay->told, "%s", text);
	log_event(news ? level : LOG_DEBUG, event, NULL, "%s", text);
}

static void lose_socket(struct relay *relay, const char *why)
{
	char text[200];
	packet_socket_free(relay->socket);
	relay->socket = NULL;
	if (relay->greeted)
		log_event(LOG_WARNING, "agent.lost", NULL, "the connection to writebackd is gone: %s; every channel is closed until it is back", why);
	else if (!relay->held[0]) {
		snprintf(text, sizeof text, "writebackd does not take the connection: %.120s", why);
		log_obstacle(relay, LOG_WARNING, "agent.unreachable", text);
	}
	stop_endpoints(relay, "agent restarts");
	relay->failures = relay->greeted ? 0 : relay->failures + 1;
	relay->greeted = false;
	relay->held[0] = 0;
	schedule_retry(relay);
	changed(relay);
}

/* NULL: it is gone from the settings. */
static bool close_endpoint(struct endpoint *endpoint, struct bytes payload)
{
	struct packet_close close;
	bool good = packet_parse_close(payload, &close) == STATUS_OK;
	if (good && endpoint)
		endpoint_close(endpoint, close.close_code, close.reason);
	return good;
}

/* writebackd is there and wants channels. */
static void begin(struct relay *relay)
{
	relay->greeted = true;
	relay->failures = 0;
	relay->told[0] = 0;
	log_event(LOG_NOTICE, "agent.connected", NULL, "connected to writebackd at %s", relay->settings->agent_socket);
	for (size_t i = 0; i < PACKET_ENDPOINTS; i++)
		if (relay->endpoints[i])
			endpoint_start(relay->endpoints[i]);
	changed(relay);
}

/* It wants none: it says why, keeps the socket and lets it go when that changes; or closes it. */
static bool hold(struct relay *relay, struct bytes payload)
{
	char line[200];
	struct packet_hold hold;
	if (packet_parse_hold(payload, &hold) != STATUS_OK)
		return false;
	snprintf(relay->held, sizeof relay->held, "%s", hold.reason);
	snprintf(line, sizeof line, "no channel is wanted: %.160s", hold.reason);
	log_obstacle(relay, LOG_NOTICE, "agent.waits", line);
	stop_endpoints(relay, "agent waits");
	relay->greeted = false;
	changed(relay);
	return true;
}

/* NULL, or what is wrong with the packet. */
static const char *take_packet(struct relay *relay, const struct packet *packet)
{
	struct endpoint *endpoint = relay->endpoints[packet->endpoint];
	switch (packet->kind) {
	case PACKET_PING:
		send_packet(relay, PACKET_PING, 0, bytes_of(NULL, 0));
		if (!relay->greeted && !relay->held[0])
			begin(relay);
		return NULL;
	case PACKET_DOWN:
		return hold(relay, packet->payload) ? NULL : "a malformed hold";
	case PACKET_FRAME:
		if (!utf8_valid(packet->payload))
			return "a frame that is not text";
		CRASH_POINT(FRAME_TAKEN);
		/* One that is gone from the settings: it was sent before writebackd heard of that, and is lost as with any channel that ends. */
		if (endpoint)
			endpoint_send(endpoint, packet->payload);
		CRASH_POINT(FRAME_QUEUED);
		return NULL;
	case PACKET_CLOSE:
		return close_endpoint(endpoint, packet->payload) ? NULL : "a malformed close";
	case PACKET_UP:
		break;
	}
	return "a packet that only the channel sends";
}

static void on_packet(struct packet_socket *socket, const struct packet *packet, void *arg)
{
	struct relay *relay = arg;
	relay->heard_us = clock_monotonic_us();
	const char *wrong = take_packet(relay, packet);
	if (wrong)
		lose_socket(relay, wrong);
}

static void on_socket_closed(struct packet_socket *socket, enum status status, const char *why, void *arg)
{
	lose_socket(arg, why);
}

/* Frames come faster than writebackd takes them. */
static void on_behind(bool is_behind, void *arg)
{
	struct relay *relay = arg;
	for (size_t i = 0; i < PACKET_ENDPOINTS; i++)
		if (relay->endpoints[i])
			endpoint_hold(relay->endpoints[i], is_behind);
}

static void on_watch(evutil_socket_t fd, short what, void *arg)
{
	struct relay *relay = arg;
	if (relay->socket && clock_monotonic_us() - relay->heard_us > SILENCE_US)
		lose_socket(relay, "writebackd is silent");
}

/* Connecting ------------------------------------------------------------------------------------------------------------------------ */

static int connect_socket(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
		int number = errno;
		close(fd);
		errno = number;
		return -1;
	}
	return fd;
}

static void schedule_retry(struct relay *relay)
{
	uint32_t random;
	random_bytes(&random, sizeof random);
	int64_t wait = backoff_local_ms(relay->failures, random);
	struct timeval timeout = { wait / 1000, wait % 1000 * 1000 };
	if (!relay->stopping)
		event_add(relay->retry, &timeout);
}

static void on_retry(evutil_socket_t unused, short what, void *arg)
{
	struct relay *relay = arg;
	struct packet_socket_callbacks callbacks = { on_packet, on_socket_closed, relay };
	const char *path = relay->settings->agent_socket;
	int fd = connect_socket(path);
	if (fd < 0 || packet_socket_new(relay->base, fd, &callbacks, &relay->socket) != STATUS_OK) {
		log_event(relay->failures ? LOG_DEBUG : LOG_WARNING, "agent.unreachable", NULL, "writebackd cannot be reached at %s: %s", path, strerror(errno));
		relay->failures++;
		schedule_retry(relay);
		changed(relay);
		return;
	}
	packet_socket_on_behind(relay->socket, on_behind);
	/* Its first packet says whether it wants channels: while it is not there a socket of systemd's takes us, too. */
	relay->heard_us = clock_monotonic_us();
	changed(relay);
}

/* Its owner ------------------------------------------------------------------------------------------------------------------------- */

static enum status add_endpoint(struct relay *relay, uint8_t number)
{
	struct endpoint_callbacks callbacks = { on_up, on_let_in, on_message, on_down, on_stopped, relay };
	enum status status = endpoint_new(relay->base, number, relay->settings, &callbacks, &relay->endpoints[number]);
	if (status == STATUS_OK && relay->greeted)
		endpoint_start(relay->endpoints[number]);
	return status;
}

void relay_reconfigure(struct relay *relay, const struct settings *settings)
{
	bool moved = strcmp(relay->settings->agent_socket, settings->agent_socket) != 0;
	relay->settings = settings;
	for (size_t i = 0; i < PACKET_ENDPOINTS; i++) {
		struct endpoint *endpoint = relay->endpoints[i];
		if (endpoint && i < settings->endpoint_urls.count) {
			endpoint_reconfigure(endpoint, settings);
		} else if (endpoint) {
			relay->endpoints[i] = NULL;
			relay->closing++;
			endpoint_stop(endpoint, 1001, "removed from the settings");
		} else if (i < settings->endpoint_urls.count && add_endpoint(relay, (uint8_t)i) != STATUS_OK) {
			log_event(LOG_ERR, "channel.endpoint", NULL, "out of memory: endpoint %zu is left out", i);
		}
	}
	if (relay->socket && moved)
		lose_socket(relay, "agent_socket has changed");
	changed(relay);
}

static void on_stop(evutil_socket_t fd, short what, void *arg)
{
	struct relay *relay = arg;
	event_del(relay->stop);
	relay->callbacks.stopped(relay, relay->callbacks.arg);
}

void relay_stop(struct relay *relay)
{
	struct timeval limit = { STOP_MS / 1000, 0 };
	relay->stopping = true;
	event_del(relay->retry);
	event_add(relay->stop, &limit);
	for (size_t i = 0; i < PACKET_ENDPOINTS; i++)
		if (relay->endpoints[i])
			endpoint_stop(relay->endpoints[i], 1001, "agent stops");
	stop_when_closed(relay);
}

enum status relay_new(struct event_base *base, const struct settings *settings, const struct relay_callbacks *callbacks, struct relay **ret_relay)
{
	struct relay *relay = calloc(1, sizeof *relay);
	struct timeval second = { 1, 0 };
	enum status status = STATUS_AGENT_INTERNAL;
	*ret_relay = NULL;
	if (!relay)
		return status;
	relay->base = base;
	relay->settings = settings;
	relay->callbacks = *callbacks;
	relay->retry = event_new(base, -1, 0, on_retry, relay);
	relay->watch = event_new(base, -1, EV_PERSIST, on_watch, relay);
	relay->stop = event_new(base, -1, 0, on_stop, relay);
	if (relay->retry && relay->watch && relay->stop && event_add(relay->watch, &second) == 0)
		status = STATUS_OK;
	for (size_t i = 0; i < settings->endpoint_urls.count && status == STATUS_OK; i++)
		status = add_endpoint(relay, (uint8_t)i);
	if (status != STATUS_OK) {
		relay_free(relay);
		return status;
	}
	event_active(relay->retry, EV_TIMEOUT, 0);
	*ret_relay = relay;
	return STATUS_OK;
}

void relay_free(struct relay *relay)
{
	if (!relay)
		return;
	for (size_t i = 0; i < PACKET_ENDPOINTS; i++)
		endpoint_free(relay->endpoints[i]);
	packet_socket_free(relay->socket);
	if (relay->retry)
		event_free(relay->retry);
	if (relay->watch)
		event_free(relay->watch);
	if (relay->stop)
		event_free(relay->stop);
	free(relay);
}

void relay_status(const struct relay *relay, char *out, size_t capacity)
{
	size_t size = 0;
	if (relay->held[0]) {
		snprintf(out, capacity, "Waiting: %s", relay->held);
		return;
	}
	if (!relay->greeted) {
		snprintf(out, capacity, "Waiting for writebackd at %s", relay->settings->agent_socket);
		return;
	}
	for (size_t i = 0; i < PACKET_ENDPOINTS && size < capacity; i++) {
		const struct endpoint *endpoint = relay->endpoints[i];
		char since[CLOCK_TEXT_SIZE];
		if (!endpoint)
			continue;
		clock_format(endpoint_since(endpoint), since);
		const char *separator = size ? "; endpoint" : "Endpoint";
		if (endpoint_is_up(endpoint))
			size += (size_t)snprintf(out + size, capacity - size, "%s %s: up since %s", separator, endpoint_url(endpoint), since);
		else if (endpoint_last_status(endpoint) != STATUS_OK)
			size += (size_t)snprintf(out + size, capacity - size, "%s %s: down: %s", separator, endpoint_url(endpoint), status_code(endpoint_last_status(endpoint)));
		else
			size += (size_t)snprintf(out + size, capacity - size, "%s %s: %s", separator, endpoint_url(endpoint), endpoint_state_name(endpoint));
	}
}
