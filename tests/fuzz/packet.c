/* A packet from the other process, and what stands in it. */
#include <stdlib.h>
#include <string.h>

#include "agent/channel/packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *text, size_t capacity)
{
	if (!memchr(text, 0, capacity) || !utf8_valid(bytes_of_string(text)))
		abort();
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7F)
			abort();
}

static void read_up(struct bytes payload)
{
	struct packet_up up;
	if (packet_parse_up(payload, &up) != STATUS_OK)
		return;
	check_text(up.url, sizeof up.url);
	check_text(up.tls, sizeof up.tls);
	check_text(up.cipher, sizeof up.cipher);
	check_text(up.peer_names, sizeof up.peer_names);
	check_text(up.peer_issuer, sizeof up.peer_issuer);
	if (up.peer_not_after < 0 || up.peer_not_after > INT64_MAX / 1000)
		abort();
}

static void read_down(struct bytes payload)
{
	struct packet_down down;
	if (packet_parse_down(payload, &down) != STATUS_OK)
		return;
	check_text(down.url, sizeof down.url);
	check_text(down.code, sizeof down.code);
	check_text(down.reason, sizeof down.reason);
	if (down.close_code > 4999)
		abort();
}

static void read_hold(struct bytes payload)
{
	struct packet_hold hold;
	if (packet_parse_hold(payload, &hold) != STATUS_OK)
		return;
	check_text(hold.reason, sizeof hold.reason);
	if (!hold.reason[0])
		abort();
}

static void read_close(struct bytes payload)
{
	struct packet_close close;
	if (packet_parse_close(payload, &close) != STATUS_OK)
		return;
	check_text(close.reason, sizeof close.reason);
	if (close.close_code < 1000 || (close.close_code >= 1004 && close.close_code <= 1006) || (close.close_code > 1014 && close.close_code < 3000) || close.close_code > 4999)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct packet packet;
	if (packet_parse(bytes_of(data, size), &packet) != STATUS_OK)
		return 0;
	if (packet.endpoint >= PACKET_ENDPOINTS || packet.payload.size + 2 != size || packet.payload.size > PACKET_MAX - 2)
		abort();
	if (packet.kind == PACKET_UP)
		read_up(packet.payload);
	if (packet.kind == PACKET_CLOSE)
		read_close(packet.payload);
	if (packet.kind == PACKET_DOWN) {
		read_down(packet.payload);
		read_hold(packet.payload);
	}
	volatile uint8_t sum = 0;
	for (size_t i = 0; i < packet.payload.size; i++)
		sum = (uint8_t)(sum + packet.payload.data[i]);
	return 0;
}
