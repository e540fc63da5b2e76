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

static void reads_up(void **state)
{
	struct packet_up up;
	assert_int_equal(packet_parse_up(bytes_of_string("{\"url\":\"wss://a/\",\"tls\":\"TLSv1.3\",\"cipher\":\"c\",\"peer_sha256\":\"00\",\"peer_not_after\":2000000000,\"peer_names\":\"a\",\"peer_issuer\":\"CN=CA\",\"proxy\":null}"), &up),
	                 STATUS_OK);
	assert_string_equal(up.url, "wss://a/");
	assert_string_equal(up.tls, "TLSv1.3");
	assert_string_equal(up.cipher, "c");
	assert_string_equal(up.peer_names, "a");
	assert_string_equal(up.peer_issuer, "CN=CA");
	assert_int_equal(up.peer_not_after, 2000000000);
	/* An older program's, and another's. */
	memset(&up, 'x', sizeof up);
	assert_int_equal(packet_parse_up(bytes_of_string("{\"url\":\"a\\n\\u001bb\",\"tls\":1,\"cipher\":[],\"peer_issuer\":null}"), &up), STATUS_OK);
	assert_string_equal(up.url, "a??b");
	assert_string_equal(up.tls, "");
	assert_string_equal(up.cipher, "");
	assert_string_equal(up.peer_names, "");
	assert_string_equal(up.peer_issuer, "");
	assert_int_equal(up.peer_not_after, 0);
}

static void what_a_cut_leaves_is_mended(void **state)
{
	struct packet_up up;
	char json[400] = "{\"tls\":\"xy";
	for (int i = 0; i < 30; i++)
		strcat(json, "\xE2\x82\xAC");
	strcat(json, "\"}");
	assert_int_equal(packet_parse_up(bytes_of_string(json), &up), STATUS_OK);
	assert_string_equal(up.tls, "xy\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC??");
}

/* Whoever owns the channel's program says what he likes: what is computed with stays in range. */
static void numbers_are_in_range(void **state)
{
	static const struct {
		const char *number;
		int64_t not_after;
		unsigned close_code;
	} rows[] = {
		{ "0", 0, 0 }, { "1008", 1008, 1008 }, { "4999", 4999, 4999 }, { "5000", 5000, 0 }, { "4294968304", 4294968304, 0 }, { "253402300799", 253402300799, 0 }, { "253402300800", 0, 0 },
		{ "9223372036854775807", 0, 0 }, { "-1", 0, 0 }, { "-9223372036854775808", 0, 0 }, { "1.5", 0, 0 }, { "\"1008\"", 0, 0 }, { "null", 0, 0 },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char json[128];
		struct packet_up up;
		struct packet_down down;
		snprintf(json, sizeof json, "{\"peer_not_after\":%s,\"close_code\":%s}", rows[i].number, rows[i].number);
		assert_int_equal(packet_parse_up(bytes_of_string(json), &up), STATUS_OK);
		assert_int_equal(packet_parse_down(bytes_of_string(json), &down), STATUS_OK);
		if (up.peer_not_after != rows[i].not_after || down.close_code != rows[i].close_code)
			fail_msg("%s: %lld, %u", rows[i].number, (long long)up.peer_not_after, down.close_code);
	}
}

static void reads_down(void **state)
{
	struct packet_down down;
	assert_int_equal(packet_parse_down(bytes_of_string("{\"url\":\"wss://a/\",\"code\":\"channel.closed\",\"close_code\":4005,\"reason\":\"1790000000\",\"next_try_ms\":200}"), &down), STATUS_OK);
	assert_string_equal(down.url, "wss://a/");
	assert_string_equal(down.code, "channel.closed");
	assert_string_equal(down.reason, "1790000000");
	assert_int_equal(down.close_code, 4005);
}

static void payloads_that_are_refused(void **state)
{
	static const char *const no_objects[] = { "", "[]", "1", "\"x\"", "null", "{", "{} {}", "{\"url\":\"a\",\"url\":\"b\"}", "{\"url\":\"\xFF\"}" };
	static const struct {
		const char *json;
		enum status status;
	} holds[] = { { "{\"code\":\"c\",\"reason\":\"r\"}", STATUS_OK }, { "{\"reason\":\"\"}", STATUS_LOCAL_INPUT }, { "{\"reason\":1}", STATUS_LOCAL_INPUT }, { "{}", STATUS_LOCAL_INPUT } };
	struct packet_up up;
	struct packet_down down;
	struct packet_hold hold;
	struct packet_close close;
	for (size_t i = 0; i < sizeof no_objects / sizeof *no_objects; i++) {
		struct bytes json = bytes_of_string(no_objects[i]);
		if (packet_parse_up(json, &up) == STATUS_OK || packet_parse_down(json, &down) == STATUS_OK || packet_parse_hold(json, &hold) == STATUS_OK || packet_parse_close(json, &close) == STATUS_OK)
			fail_msg("%s was taken", no_objects[i]);
	}
	for (size_t i = 0; i < sizeof holds / sizeof *holds; i++)
		if (packet_parse_hold(bytes_of_string(holds[i].json), &hold) != holds[i].status || (holds[i].status == STATUS_OK && strcmp(hold.reason, "r") != 0))
			fail_msg("%s", holds[i].json);
}

static void closes_with_codes_that_may_be_sent(void **state)
{
	static const struct {
		const char *members;
		unsigned code; /* 0: refused */
		const char *reason;
	} rows[] = {
		{ "\"close_code\":1000", 1000, "" }, { "\"close_code\":1008,\"reason\":\"greeting\"", 1008, "greeting" }, { "\"close_code\":1003", 1003, "" }, { "\"close_code\":1007", 1007, "" },
		{ "\"close_code\":1014", 1014, "" }, { "\"close_code\":3000", 3000, "" }, { "\"close_code\":4999", 4999, "" },
		{ "\"close_code\":999", 0, "" }, { "\"close_code\":1004", 0, "" }, { "\"close_code\":1005", 0, "" }, { "\"close_code\":1006", 0, "" }, { "\"close_code\":1015", 0, "" },
		{ "\"close_code\":2999", 0, "" }, { "\"close_code\":5000", 0, "" }, { "\"close_code\":4294968296", 0, "" }, { "\"close_code\":\"1000\"", 0, "" }, { "\"close_code\":1000.0", 0, "" },
		{ "\"reason\":\"x\"", 0, "" }, { "\"close_code\":1000,\"reason\":1", 0, "" }, { "\"close_code\":1000,\"reason\":null", 0, "" },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char json[128];
		struct packet_close close;
		snprintf(json, sizeof json, "{%s}", rows[i].members);
		enum status status = packet_parse_close(bytes_of_string(json), &close);
		if (status != (rows[i].code ? STATUS_OK : STATUS_LOCAL_INPUT))
			fail_msg("%s: %s", json, status_code(status));
		if (status == STATUS_OK && (close.close_code != rows[i].code || strcmp(close.reason, rows[i].reason) != 0))
			fail_msg("%s: %u %s", json, close.close_code, close.reason);
	}
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
		cmocka_unit_test(reads_up),
		cmocka_unit_test(what_a_cut_leaves_is_mended),
		cmocka_unit_test(numbers_are_in_range),
		cmocka_unit_test(reads_down),
		cmocka_unit_test(payloads_that_are_refused),
		cmocka_unit_test(closes_with_codes_that_may_be_sent),
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
