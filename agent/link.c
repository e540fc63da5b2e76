#include "agent/link.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/loop.h"

#define PING_S 5
#define SILENCE_US 15000000

struct link {
	struct event_base *base;
	struct link_callbacks callbacks;
	int fd, reserve_fd;
	struct event *accepting;
	struct event *ping;
	struct packet_socket *socket;
	int64_t heard_us;
	enum status hold_code;
	const char *hold_reason;       /* NULL: channels are wanted */
	bool refusal_told;
	struct log_budget lines;
};

static void detach(struct link *link, const char *why)
{
	if (!link->socket)
		return;
	packet_socket_free(link->socket);
	link->socket = NULL;
	event_del(link->ping);
	link->callbacks.detached(why, link->callbacks.arg);
}

static void handle_up(struct link *link, const struct packet *packet)
{
	struct packet_up up;
	if (packet_parse_up(packet->payload, &up) == STATUS_OK)
		link->callbacks.up(packet->endpoint, &up, link->callbacks.arg);
	else
		detach(link, "a packet's JSON is malformed");
}

static void handle_down(struct link *link, const struct packet *packet)
{
	struct packet_down down;
	if (packet_parse_down(packet->payload, &down) == STATUS_OK)
		link->callbacks.down(packet->endpoint, &down, link->callbacks.arg);
	else
		detach(link, "a packet's JSON is malformed");
}

static void handle_packet(struct packet_socket *socket, const struct packet *packet, void *arg)
{
	struct link *link = arg;
	link->heard_us = clock_monotonic_us();
	switch (packet->kind) {
	case PACKET_FRAME:
		link->callbacks.frame(packet->endpoint, packet->payload, link->callbacks.arg);
		break;
	case PACKET_UP:
		handle_up(link, packet);
		break;
	case PACKET_DOWN:
		handle_down(link, packet);
		break;
	case PACKET_PING:
		break;
	case PACKET_CLOSE:
		detach(link, "a packet of a kind that only the agent sends");
		break;
	}
}

static void handle_closed(struct packet_socket *socket, enum status status, const char *why, void *arg)
{
	detach(arg, why ? why : status_code(status));
}

static void ping(evutil_socket_t fd, short what, void *arg)
{
	struct link *link = arg;
	if (clock_monotonic_us() - link->heard_us > SILENCE_US)
		detach(link, "15 s of silence");
	else if (link->socket && packet_socket_send(link->socket, PACKET_PING, 0, bytes_of(NULL, 0)) != STATUS_OK)
		detach(link, "it takes no more packets");
}

/* {"code","reason"}, malloc'ed. */
static char *hold_text(enum status code, const char *reason)
{
	json_t *json = json_pack("{s:s,s:s}", "code", status_code(code), "reason", reason);
	char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	json_decref(json);
	return text;
}

/* Once until the first has gone; it comes back and back. */
static void refuse_second(struct link *link, int take_fd)
{
	static const char reason[] = "another writebackd-channel is connected to this writebackd";
	AUTO_FREE char *text = hold_text(STATUS_LOCAL_SYSTEM, reason);
	char packet[512];
	int size = snprintf(packet, sizeof packet, "%c%c%s", PACKET_DOWN, 0, text ? text : "{}");
	if (send(take_fd, packet, size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_event(LOG_DEBUG, "link.refused", NULL, "the second connection could not be told why");
	close(take_fd);
	if (log_allowed(&link->lines))
		log_event(link->refusal_told ? LOG_DEBUG : LOG_WARNING, "link.refused", NULL, "a second connection to the channel socket is refused while the first is alive: a second writebackd-channel?");
	link->refusal_told = true;
}

/* The first packet says what is to be done. */
static void greet(struct link *link)
{
	AUTO_FREE char *text = link->hold_reason ? hold_text(link->hold_code, link->hold_reason) : NULL;
	enum status status = text ? packet_socket_send(link->socket, PACKET_DOWN, 0, bytes_of_string(text)) : packet_socket_send(link->socket, PACKET_PING, 0, bytes_of(NULL, 0));
	if (status != STATUS_OK && log_allowed(&link->lines))
		log_event(LOG_WARNING, "link.full", NULL, "the channel's program takes no packet");
}

static void accept_one(evutil_socket_t listening, short what, void *arg)
{
	struct link *link = arg;
	int fd = loop_accept(listening, &link->reserve_fd);
	if (fd < 0)
		return;
	if (link->socket) {
		refuse_second(link, fd);
		return;
	}
	struct packet_socket_callbacks callbacks = { handle_packet, handle_closed, link };
	if (packet_socket_new(link->base, fd, &callbacks, &link->socket) != STATUS_OK)
		return;
	link->heard_us = clock_monotonic_us();
	link->refusal_told = false;
	event_add(link->ping, &(struct timeval){ PING_S, 0 });
	greet(link);
	link->callbacks.attached(link->callbacks.arg);
}

enum status link_new(struct event_base *base, int take_fd, const struct link_callbacks *callbacks, struct link **ret_link)
{
	struct link *link = calloc(1, sizeof *link);
	if (!link)
		return STATUS_AGENT_INTERNAL;
	*link = (struct link){ .base = base, .callbacks = *callbacks, .fd = take_fd, .reserve_fd = loop_reserve_fd() };
	evutil_make_socket_nonblocking(take_fd);
	link->accepting = event_new(base, take_fd, EV_READ | EV_PERSIST, accept_one, link);
	link->ping = event_new(base, -1, EV_PERSIST, ping, link);
	if (!link->accepting || !link->ping || event_add(link->accepting, NULL) != 0) {
		link_free(link);
		return STATUS_AGENT_INTERNAL;
	}
	*ret_link = link;
	return STATUS_OK;
}

void link_free(struct link *link)
{
	if (!link)
		return;
	packet_socket_free(link->socket);
	if (link->accepting)
		event_free(link->accepting);
	if (link->ping)
		event_free(link->ping);
	close(link->fd);
	if (link->reserve_fd >= 0)
		close(link->reserve_fd);
	free(link);
}

void link_hold(struct link *link, enum status code, const char *reason)
{
	link->hold_code = code;
	link->hold_reason = reason;
}

void link_drop(struct link *link)
{
	packet_socket_free(link->socket);
	link->socket = NULL;
	event_del(link->ping);
}

bool link_attached(const struct link *link)
{
	return link->socket != NULL;
}

enum status link_send_frame(struct link *link, uint8_t endpoint, struct bytes frame)
{
	return link->socket ? packet_socket_send(link->socket, PACKET_FRAME, endpoint, frame) : STATUS_CHANNEL_CLOSED;
}

void link_close_endpoint(struct link *link, uint8_t endpoint, unsigned close_code, const char *reason)
{
	if (!link->socket)
		return;
	json_t *json = json_pack("{s:i,s:s}", "close_code", (int)close_code, "reason", reason);
	AUTO_FREE char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	json_decref(json);
	if (text && packet_socket_send(link->socket, PACKET_CLOSE, endpoint, bytes_of_string(text)) != STATUS_OK && log_allowed(&link->lines))
		log_event(LOG_WARNING, "link.full", NULL, "the channel's program takes no more packets");
}

static bool is_alive(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool alive = fd >= 0 && (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 || errno == EAGAIN);
	if (fd >= 0)
		close(fd);
	return alive;
}

enum status link_listen(const char *path, unsigned mode, int *ret_fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof address.sun_path) {
		errno = ENAMETOOLONG;
		return STATUS_LOCAL_SYSTEM;
	}
	strcpy(address.sun_path, path);
	if (is_alive(&address)) {
		errno = EADDRINUSE;
		return STATUS_LOCAL_SYSTEM;
	}
	unlink(path);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* The mode is narrow from the first moment: nobody connects between bind and chmod. */
	mode_t before = umask(0777 & ~mode);
	bool good = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
	umask(before);
	if (good && listen(fd, 16) == 0) {
		*ret_fd = fd;
		return STATUS_OK;
	}
	int error = errno;
	if (fd >= 0)
		close(fd);
	errno = error;
	return STATUS_LOCAL_SYSTEM;
}
