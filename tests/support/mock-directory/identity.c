#include "identity.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool octets_from_hex(const char *in, size_t count, uint8_t *out)
{
	for (size_t i = 0; i < count; i++) {
		char pair[3] = { in[2 * i], in[2 * i + 1], 0 }, *end;
		if (strspn(pair, "0123456789abcdefABCDEF") != 2)
			return false;
		out[i] = (uint8_t)strtoul(pair, &end, 16);
	}
	return true;
}

/* "0f8fad5b-d9cb-469f-a165-70867728950e": the first three fields are little-endian in the octets (MS-DTYP 2.3.4). */
static bool read_dashed_guid(struct value text, uint8_t guid[16])
{
	static const uint8_t places[16] = { 6, 4, 2, 0, 11, 9, 16, 14, 19, 21, 24, 26, 28, 30, 32, 34 };
	if (text.size != 36 || text.data[8] != '-' || text.data[13] != '-' || text.data[18] != '-' || text.data[23] != '-')
		return false;
	for (unsigned i = 0; i < 16; i++)
		if (!octets_from_hex(text.data + places[i], 1, guid + i))
			return false;
	return true;
}

bool guid_from_text(struct value text, uint8_t guid[16])
{
	return text.size == 32 ? octets_from_hex(text.data, 16, guid) : read_dashed_guid(text, guid);
}

/* "S-1-5-21-…": revision 1, authority 5. 0: not one. */
size_t sid_from_text(struct value text, uint8_t sid[28])
{
	char copy[128];
	if (text.size < 7 || text.size >= sizeof copy || strncasecmp(text.data, "S-1-5-", 6))
		return 0;
	memcpy(copy, text.data, text.size);
	copy[text.size] = 0;
	memset(sid, 0, 28);
	sid[0] = 1;
	sid[7] = 5;
	char *at = copy + 6;
	for (unsigned count = 0; count < 5; count++) {
		char *end;
		unsigned long part = strtoul(at, &end, 10);
		if (end == at || part > UINT32_MAX)
			return 0;
		for (unsigned i = 0; i < 4; i++)
			sid[8 + count * 4 + i] = (uint8_t)(part >> 8 * i);
		sid[1] = (uint8_t)(count + 1);
		if (!*end)
			return 8 + (count + 1) * 4u;
		if (*end != '-')
			return 0;
		at = end + 1;
	}
	return 0;
}
