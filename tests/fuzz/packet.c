/* A packet from the other process. */
#include <stdlib.h>

#include "agent/channel/packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct packet packet;
	if (packet_parse(bytes_of(data, size), &packet) != STATUS_OK)
		return 0;
	if (packet.endpoint >= PACKET_ENDPOINTS || packet.payload.size + 2 != size || packet.payload.size > PACKET_MAX - 2)
		abort();
	volatile uint8_t sum = 0;
	for (size_t i = 0; i < packet.payload.size; i++)
		sum = (uint8_t)(sum + packet.payload.data[i]);
	return 0;
}
