#include "agent/directory/ldap_filter.h"

#include <stdio.h>
#include <string.h>

char *ldap_filter_escape(struct bytes value)
{
	static const char DIGITS[] = "0123456789abcdef";
	char *text = malloc(value.size * 3 + 1), *at = text;
	if (text == NULL) {
		return NULL;
	}
	for (size_t i = 0; i < value.size; i++) {
		uint8_t c = value.data[i];
		if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')) {
			*at++ = c;
		} else {
			*at++ = '\\';
			*at++ = DIGITS[c >> 4];
			*at++ = DIGITS[c & 15];
		}
	}
	*at = 0;
	return text;
}

void ldap_guid_name(const uint8_t guid[16], char out[GUID_NAME_SIZE])
{
	char hex[33];
	hex_encode(bytes_of(guid, 16), hex);
	snprintf(out, GUID_NAME_SIZE, "<GUID=%s>", hex);
}
