#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <sys/socket.h>
#include <unistd.h>

#include "agent/channel/packet.h"

static void parses(void **state)
{
	static const struct {
		const char *bytes;
		size_t size;
		enum status status;
	} rows[] = {
		{ "F\0x", 3, STATUS_OK }, { "F\0", 2, STATUS_OK }, { "U\7{}", 4, STATUS_OK }, { "D\1{}", 4, STATUS_OK }, { "C\0{}", 4, STATUS_OK }, { "P\0", 2, STATUS_OK },
		{ "", 0, STATUS_LOCAL_INPUT }, { "F", 1, STATUS_LOCAL_INPUT }, { "F\10x", 3, STATUS_LOCAL_INPUT }, { "F\377x", 3, STATUS_LOCAL_INPUT },
		{ "X\0x", 3, STATUS_LOCAL_INPUT }, { "f\0x", 3, STATUS_LOCAL_INPUT }, { "\0\0x", 3, STATUS_LOCAL_INPUT }, { "P\0x", 3, STATUS_LOCAL_INPUT },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct packet packet;
		enum status status = packet_parse(bytes_of(rows[i].bytes, rows[i].size), &packet);
		if (status != rows[i].status)
			fail_msg("row %zu: %s", i, status_code(status));
		if (status != STATUS_OK)
			continue;
		assert_int_equal(packet.kind, rows[i].bytes[0]);
		assert_int_equal(packet.endpoint, rows[i].bytes[1]);
		assert_int_equal(packet.payload.size, rows[i].size - 2);
	}
	static uint8_t big[PACKET_MAX + 1] = { 'F' };
	struct packet packet;
	assert_int_equal(packet_parse(bytes_of(big, PACKET_MAX), &packet), STATUS_OK);
	assert_int_equal(packet_parse(bytes_of(big, PACKET_MAX + 1), &packet), STATUS_LOCAL_INPUT);
}

struct rig {
	struct event_base *base;
	struct packet_socket *socket;
	int fd;
	unsigned packets, closes, behind;
	enum packet_kind kind;
	uint8_t endpoint;
	size_t size;
	enum status status;
	bool free_at_once;
};

static void on_packet(struct packet_socket *socket, const struct packet *packet, void *arg)
{
	struct rig *rig = arg;
	rig->packets++;
	rig->kind = packet->kind;
	rig->endpoint = packet->endpoint;
	rig->size = packet->payload.size;
	if (rig->free_at_once) {
		packet_socket_free(rig->socket);
		rig->socket = NULL;
	}
}

static void on_closed(struct packet_socket *socket, enum status status, const char *why, void *arg)
{
	struct rig *rig = arg;
	rig->closes++;
	rig->status = status;
	packet_socket_free(rig->socket);
	rig->socket = NULL;
}

static struct rig *rig_new(void)
{
	struct rig *rig = calloc(1, sizeof *rig);
	struct packet_socket_callbacks callbacks = { on_packet, on_closed, rig };
	int fds[2];
	rig->base = event_base_new();
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
	rig->fd = fds[1];
	assert_int_equal(packet_socket_new(rig->base, fds[0], &callbacks, &rig->socket), STATUS_OK);
	return rig;
}

static void rig_free(struct rig *rig)
{
	packet_socket_free(rig->socket);
	close(rig->fd);
	event_base_free(rig->base);
	free(rig);
}

static void turns(struct rig *rig)
{
	for (int i = 0; i < 10; i++)
		event_base_loop(rig->base, EVLOOP_NONBLOCK);
}

static void packets_pass(void **state)
{
	static uint8_t big[PACKET_MAX], back[PACKET_MAX + 8];
	struct rig *rig = rig_new();
	memset(big, 'x', sizeof big);
	big[0] = 'F';
	big[1] = 7;
	assert_int_equal(send(rig->fd, big, sizeof big, 0), sizeof big);
	turns(rig);
	assert_int_equal(rig->packets, 1);
	assert_int_equal(rig->kind, PACKET_FRAME);
	assert_int_equal(rig->endpoint, 7);
	assert_int_equal(rig->size, 65536);
	assert_int_equal(packet_socket_send(rig->socket, PACKET_FRAME, 7, bytes_of(big + 2, 65536)), STATUS_OK);
	assert_int_equal(packet_socket_send(rig->socket, PACKET_PING, 0, bytes_of(NULL, 0)), STATUS_OK);
	turns(rig);
	assert_int_equal(recv(rig->fd, back, sizeof back, 0), PACKET_MAX);
	assert_memory_equal(back, big, PACKET_MAX);
	assert_int_equal(recv(rig->fd, back, sizeof back, 0), 2);
	assert_memory_equal(back, "P\0", 2);
	assert_int_equal(packet_socket_send(rig->socket, PACKET_FRAME, 0, bytes_of(back, 65537)), STATUS_LOCAL_INPUT);
	assert_int_equal(packet_socket_send(rig->socket, PACKET_FRAME, 8, bytes_of(back, 1)), STATUS_LOCAL_INPUT);
	rig_free(rig);
}

static void malformed_packets_end_it(void **state)
{
	static uint8_t big[PACKET_MAX + 1] = { 'F' };
	static const struct {
		const void *bytes;
		size_t size;
	} rows[] = { { "F", 1 }, { "Q\0", 2 }, { "F\10", 2 }, { big, sizeof big } };
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct rig *rig = rig_new();
		assert_int_equal(send(rig->fd, rows[i].bytes, rows[i].size, 0), rows[i].size);
		assert_int_equal(send(rig->fd, "P\0", 2, 0), 2);
		turns(rig);
		assert_int_equal(rig->packets, 0);
		assert_int_equal(rig->closes, 1);
		assert_int_equal(rig->status, STATUS_LOCAL_INPUT);
		rig_free(rig);
	}
}

static void the_peers_end(void **state)
{
	struct rig *rig = rig_new();
	assert_int_equal(send(rig->fd, "P\0", 2, 0), 2);
	shutdown(rig->fd, SHUT_RDWR);
	turns(rig);
	assert_int_equal(rig->packets, 1);
	assert_int_equal(rig->closes, 1);
	assert_int_equal(rig->status, STATUS_CHANNEL_CLOSED);
	rig_free(rig);

	rig = rig_new();
	shutdown(rig->fd, SHUT_RDWR);
	/* Never from inside send, whose caller may hold the socket. */
	assert_int_equal(packet_socket_send(rig->socket, PACKET_PING, 0, bytes_of(NULL, 0)), STATUS_CHANNEL_CLOSED);
	assert_int_equal(rig->closes, 0);
	turns(rig);
	assert_int_equal(rig->closes, 1);
	rig_free(rig);
}

static void what_waits_goes_out_in_order(void **state)
{
	static uint8_t payload[60000], back[PACKET_MAX];
	struct rig *rig = rig_new();
	unsigned sent = 0, received = 0;
	for (; sent < 100; sent++) {
		memcpy(payload, &sent, sizeof sent);
		assert_int_equal(packet_socket_send(rig->socket, PACKET_FRAME, 0, bytes_of(payload, sizeof payload)), STATUS_OK);
	}
	/* The kernel has room again, but what waits goes first. */
	assert_int_equal(recv(rig->fd, back, sizeof back, MSG_DONTWAIT), 60002);
	received++;
	memcpy(payload, &sent, sizeof sent);
	assert_int_equal(packet_socket_send(rig->socket, PACKET_FRAME, 0, bytes_of(payload, sizeof payload)), STATUS_OK);
	sent++;
	for (int i = 0; i < 10000 && received < sent; i++) {
		event_base_loop(rig->base, EVLOOP_NONBLOCK);
		if (recv(rig->fd, back, sizeof back, MSG_DONTWAIT) != 60002)
			continue;
		unsigned number;
		memcpy(&number, back + 2, sizeof number);
		assert_int_equal(number, received++);
	}
	assert_int_equal(received, sent);
	assert_int_equal(rig->closes, 0);
	rig_free(rig);
}

static void on_behind(bool is_behind, void *arg)
{
	struct rig *rig = arg;
	rig->behind += is_behind ? 1 : 100;
}

static void a_queue_that_grows_is_told(void **state)
{
	static uint8_t back[PACKET_MAX];
	struct rig *rig = rig_new();
	unsigned sent = 0, received = 0;
	packet_socket_on_behind(rig->socket, on_behind);
	while (rig->behind == 0 && sent < 100000)
		sent += packet_socket_send(rig->socket, PACKET_FRAME, 0, bytes_of("x", 1)) == STATUS_OK;
	assert_true(sent >= 256 && sent < 100000);
	assert_int_equal(packet_socket_send(rig->socket, PACKET_FRAME, 0, bytes_of("x", 1)), STATUS_OK);
	assert_int_equal(rig->behind, 1);
	for (sent++; received < sent; turns(rig))
		while (recv(rig->fd, back, sizeof back, MSG_DONTWAIT) > 0)
			received++;
	assert_int_equal(rig->behind, 101);
	assert_int_equal(rig->closes, 0);
	rig_free(rig);
}

static void a_full_queue_ends_it(void **state)
{
	static uint8_t payload[65536];
	for (size_t size = 1; size <= sizeof payload; size += sizeof payload - 1) {
		struct rig *rig = rig_new();
		enum status status = STATUS_OK;
		unsigned sent = 0;
		/* The kernel takes some; beyond that 1,024 packets, or 16 MiB. */
		while (status == STATUS_OK && sent < 20000) {
			status = packet_socket_send(rig->socket, PACKET_FRAME, 0, bytes_of(payload, size));
			sent++;
		}
		assert_int_equal(status, STATUS_AGENT_OVERLOADED);
		assert_true(size == 1 ? sent > 1024 : sent > 255 && sent < 600);
		assert_int_equal(packet_socket_send(rig->socket, PACKET_PING, 0, bytes_of(NULL, 0)), STATUS_CHANNEL_CLOSED);
		turns(rig);
		assert_int_equal(rig->closes, 1);
		assert_int_equal(rig->status, STATUS_AGENT_OVERLOADED);
		rig_free(rig);
	}
}

static void freed_in_a_callback(void **state)
{
	struct rig *rig = rig_new();
	rig->free_at_once = true;
	assert_int_equal(send(rig->fd, "P\0", 2, 0), 2);
	assert_int_equal(send(rig->fd, "P\0", 2, 0), 2);
	turns(rig);
	assert_int_equal(rig->packets, 1);
	assert_int_equal(rig->closes, 0);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parses),
		cmocka_unit_test(packets_pass),
		cmocka_unit_test(malformed_packets_end_it),
		cmocka_unit_test(the_peers_end),
		cmocka_unit_test(what_waits_goes_out_in_order),
		cmocka_unit_test(a_queue_that_grows_is_told),
		cmocka_unit_test(a_full_queue_ends_it),
		cmocka_unit_test(freed_in_a_callback),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
