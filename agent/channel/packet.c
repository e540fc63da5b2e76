#include "agent/channel/packet.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "proto/jose.h"

#define QUEUE_PACKETS 1024
#define QUEUE_BYTES (16u << 20)
#define BEHIND_PACKETS 256
#define BEHIND_BYTES (4u << 20)
#define SOCKET_BUFFER (4 << 20)
/* Packets taken or given in one turn of the loop, so that one talkative peer does not starve the rest. */
#define PACKETS_A_TURN 16
#define YEAR_9999_S 253402300799

enum status packet_parse(struct bytes bytes, struct packet *ret_packet)
{
	if (bytes.size < 2 || bytes.size > PACKET_MAX || !strchr("FUDPC", bytes.data[0]) || !bytes.data[0])
		return STATUS_LOCAL_INPUT;
	if (bytes.data[1] >= PACKET_ENDPOINTS || (bytes.data[0] == PACKET_PING && bytes.size != 2))
		return STATUS_LOCAL_INPUT;
	ret_packet->kind = bytes.data[0];
	ret_packet->endpoint = bytes.data[1];
	ret_packet->payload = bytes_of(bytes.data + 2, bytes.size - 2);
	return STATUS_OK;
}

static enum status parse_object(struct bytes payload, json_t **ret_json)
{
	*ret_json = jose_json_parse(payload);
	if (json_is_object(*ret_json))
		return STATUS_OK;
	json_decref(*ret_json);
	return STATUS_LOCAL_INPUT;
}

static void take_text(const json_t *json, const char *name, char *out, size_t capacity)
{
	const char *text = json_string_value(json_object_get(json, name));
	snprintf(out, capacity, "%s", text ? text : "");
	utf8_mend(out);
}

static int64_t take_number(const json_t *json, const char *name, int64_t highest)
{
	json_int_t number = json_integer_value(json_object_get(json, name));
	return number >= 0 && number <= highest ? number : 0;
}

enum status packet_parse_up(struct bytes payload, struct packet_up *ret_up)
{
	json_t *json;
	if (parse_object(payload, &json) != STATUS_OK)
		return STATUS_LOCAL_INPUT;
	take_text(json, "url", ret_up->url, sizeof ret_up->url);
	take_text(json, "tls", ret_up->tls, sizeof ret_up->tls);
	take_text(json, "cipher", ret_up->cipher, sizeof ret_up->cipher);
	take_text(json, "peer_names", ret_up->peer_names, sizeof ret_up->peer_names);
	take_text(json, "peer_issuer", ret_up->peer_issuer, sizeof ret_up->peer_issuer);
	ret_up->peer_not_after = take_number(json, "peer_not_after", YEAR_9999_S);
	json_decref(json);
	return STATUS_OK;
}

enum status packet_parse_down(struct bytes payload, struct packet_down *ret_down)
{
	json_t *json;
	if (parse_object(payload, &json) != STATUS_OK)
		return STATUS_LOCAL_INPUT;
	take_text(json, "url", ret_down->url, sizeof ret_down->url);
	take_text(json, "code", ret_down->code, sizeof ret_down->code);
	take_text(json, "reason", ret_down->reason, sizeof ret_down->reason);
	ret_down->close_code = (unsigned)take_number(json, "close_code", 4999);
	json_decref(json);
	return STATUS_OK;
}

enum status packet_parse_hold(struct bytes payload, struct packet_hold *ret_hold)
{
	json_t *json;
	if (parse_object(payload, &json) != STATUS_OK)
		return STATUS_LOCAL_INPUT;
	take_text(json, "reason", ret_hold->reason, sizeof ret_hold->reason);
	json_decref(json);
	return ret_hold->reason[0] ? STATUS_OK : STATUS_LOCAL_INPUT;
}

enum status packet_parse_close(struct bytes payload, struct packet_close *ret_close)
{
	json_t *json;
	if (parse_object(payload, &json) != STATUS_OK)
		return STATUS_LOCAL_INPUT;
	const json_t *reason = json_object_get(json, "reason");
	bool good = !reason || json_is_string(reason);
	unsigned code = (unsigned)take_number(json, "close_code", 4999);
	take_text(json, "reason", ret_close->reason, sizeof ret_close->reason);
	ret_close->close_code = code;
	json_decref(json);
	return good && ((code >= 1000 && code <= 1014 && (code < 1004 || code > 1006)) || code >= 3000) ? STATUS_OK : STATUS_LOCAL_INPUT;
}

struct queued_packet {
	STAILQ_ENTRY(queued_packet) link;
	size_t size;
	uint8_t data[];
};

struct packet_socket {
	int fd;
	struct event *readable, *writable, *ended;
	struct packet_socket_callbacks callbacks;
	STAILQ_HEAD(, queued_packet) queue;
	size_t queued_packets, queued_bytes;
	void (*behind)(bool is_behind, void *arg);
	bool is_behind;
	enum status status;      /* why it ended, once `over` */
	const char *why;
	bool over;               /* nothing is read or written any more; `closed` comes or has come */
	bool in_callback, freed;
	uint8_t buffer[PACKET_MAX];
};

static void release(struct packet_socket *socket)
{
	struct queued_packet *packet;
	while ((packet = STAILQ_FIRST(&socket->queue))) {
		STAILQ_REMOVE_HEAD(&socket->queue, link);
		free(packet);
	}
	if (socket->readable)
		event_free(socket->readable);
	if (socket->writable)
		event_free(socket->writable);
	if (socket->ended)
		event_free(socket->ended);
	close(socket->fd);
	free(socket);
}

/* `closed` comes on the next turn: the owner may be inside packet_socket_send. */
static void end(struct packet_socket *socket, enum status status, const char *why)
{
	if (socket->over)
		return;
	socket->over = true;
	socket->status = status;
	socket->why = why;
	event_del(socket->readable);
	event_del(socket->writable);
	event_active(socket->ended, EV_TIMEOUT, 0);
}

static void on_ended(evutil_socket_t fd, short what, void *arg)
{
	struct packet_socket *socket = arg;
	socket->in_callback = true;
	socket->callbacks.closed(socket, socket->status, socket->why, socket->callbacks.arg);
	socket->in_callback = false;
	if (socket->freed)
		release(socket);
}

/* False where nothing more is to be read now. */
static bool receive_one(struct packet_socket *socket)
{
	struct packet packet;
	ssize_t size = recv(socket->fd, socket->buffer, sizeof socket->buffer, MSG_TRUNC | MSG_DONTWAIT);
	if (size < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (size < 0) {
		end(socket, STATUS_LOCAL_SYSTEM, "the socket failed");
		return false;
	}
	if (size == 0) {
		end(socket, STATUS_CHANNEL_CLOSED, "the peer closed the socket");
		return false;
	}
	/* MSG_TRUNC: the size is the packet's own, above the buffer's where the rest was cut off. */
	if ((size_t)size > sizeof socket->buffer || packet_parse(bytes_of(socket->buffer, (size_t)size), &packet) != STATUS_OK) {
		end(socket, STATUS_LOCAL_INPUT, "the peer sent a malformed packet");
		return false;
	}
	socket->callbacks.packet(socket, &packet, socket->callbacks.arg);
	return !socket->over && !socket->freed;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct packet_socket *socket = arg;
	socket->in_callback = true;
	for (unsigned i = 0; i < PACKETS_A_TURN && receive_one(socket); i++)
		;
	socket->in_callback = false;
	if (socket->freed)
		release(socket);
}

/* One packet to the kernel; a SEQPACKET is taken whole or not at all. False: not now (errno EAGAIN) or not ever. */
static bool give(struct packet_socket *socket, struct iovec *parts, size_t count)
{
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = count };
	while (sendmsg(socket->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
		if (errno == EINTR)
			continue;
		/* ENOBUFS: the system is short of socket memory, which passes. */
		if (errno == ENOBUFS)
			errno = EAGAIN;
		return false;
	}
	return true;
}

static void set_behind(struct packet_socket *socket, bool is_behind)
{
	if (socket->is_behind == is_behind)
		return;
	socket->is_behind = is_behind;
	if (socket->behind)
		socket->behind(is_behind, socket->callbacks.arg);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct packet_socket *socket = arg;
	struct queued_packet *packet;
	for (unsigned i = 0; i < PACKETS_A_TURN && (packet = STAILQ_FIRST(&socket->queue)); i++) {
		struct iovec part = { packet->data, packet->size };
		if (!give(socket, &part, 1)) {
			if (errno != EAGAIN) {
				end(socket, STATUS_CHANNEL_CLOSED, "the peer closed the socket");
				return;
			}
			break;
		}
		STAILQ_REMOVE_HEAD(&socket->queue, link);
		socket->queued_packets--;
		socket->queued_bytes -= packet->size;
		free(packet);
	}
	if (!STAILQ_EMPTY(&socket->queue))
		event_add(socket->writable, NULL);
	else
		set_behind(socket, false);
}

static enum status enqueue(struct packet_socket *socket, const uint8_t head[2], struct bytes payload)
{
	struct queued_packet *packet = malloc(sizeof *packet + 2 + payload.size);
	if (!packet)
		return STATUS_AGENT_INTERNAL;
	packet->size = 2 + payload.size;
	memcpy(packet->data, head, 2);
	if (payload.size)
		memcpy(packet->data + 2, payload.data, payload.size);
	STAILQ_INSERT_TAIL(&socket->queue, packet, link);
	socket->queued_packets++;
	socket->queued_bytes += packet->size;
	event_add(socket->writable, NULL);
	if (socket->queued_packets >= BEHIND_PACKETS || socket->queued_bytes >= BEHIND_BYTES)
		set_behind(socket, true);
	return STATUS_OK;
}

enum status packet_socket_send(struct packet_socket *socket, enum packet_kind kind, uint8_t endpoint, struct bytes payload)
{
	uint8_t head[2] = { (uint8_t)kind, endpoint };
	struct iovec parts[2] = { { head, 2 }, { (void *)(uintptr_t)payload.data, payload.size } };
	if (socket->over)
		return STATUS_CHANNEL_CLOSED;
	if (payload.size > PACKET_MAX - 2 || endpoint >= PACKET_ENDPOINTS)
		return STATUS_LOCAL_INPUT;
	if (STAILQ_EMPTY(&socket->queue)) {
		if (give(socket, parts, payload.size ? 2 : 1))
			return STATUS_OK;
		if (errno != EAGAIN) {
			end(socket, STATUS_CHANNEL_CLOSED, "the peer closed the socket");
			return STATUS_CHANNEL_CLOSED;
		}
	}
	if (socket->queued_packets >= QUEUE_PACKETS || socket->queued_bytes + 2 + payload.size > QUEUE_BYTES) {
		end(socket, STATUS_AGENT_OVERLOADED, "the peer does not take its packets");
		return STATUS_AGENT_OVERLOADED;
	}
	return enqueue(socket, head, payload);
}

enum status packet_socket_new(struct event_base *base, int take_fd, const struct packet_socket_callbacks *callbacks, struct packet_socket **ret_socket)
{
	struct packet_socket *socket = calloc(1, sizeof *socket);
	int buffer = SOCKET_BUFFER;
	*ret_socket = NULL;
	if (!socket) {
		close(take_fd);
		return STATUS_AGENT_INTERNAL;
	}
	socket->fd = take_fd;
	socket->callbacks = *callbacks;
	STAILQ_INIT(&socket->queue);
	/* Best effort: the system's limits (net.core.wmem_max) decide, and the queue here takes what the kernel does not. */
	(void)setsockopt(take_fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
	(void)setsockopt(take_fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
	socket->readable = event_new(base, take_fd, EV_READ | EV_PERSIST, on_readable, socket);
	socket->writable = event_new(base, take_fd, EV_WRITE, on_writable, socket);
	socket->ended = event_new(base, -1, 0, on_ended, socket);
	if (evutil_make_socket_nonblocking(take_fd) < 0 || !socket->readable || !socket->writable || !socket->ended || event_add(socket->readable, NULL) < 0) {
		release(socket);
		return STATUS_AGENT_INTERNAL;
	}
	*ret_socket = socket;
	return STATUS_OK;
}

void packet_socket_on_behind(struct packet_socket *socket, void (*behind)(bool is_behind, void *arg))
{
	socket->behind = behind;
}

void packet_socket_free(struct packet_socket *socket)
{
	if (!socket)
		return;
	socket->over = true;
	if (!socket->in_callback) {
		release(socket);
		return;
	}
	event_del(socket->readable);
	event_del(socket->writable);
	event_del(socket->ended);
	socket->freed = true;
}
