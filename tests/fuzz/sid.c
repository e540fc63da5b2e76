/* SIDs as octets and as text: what is taken comes back the same. */
#include <stdlib.h>
#include <string.h>

#include "agent/account.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sid sid, again;
	char text[SID_TEXT_MAX];
	if (sid_from_octets(bytes_of(data, size), &sid) == STATUS_OK) {
		sid_format(&sid, text);
		if (sid_parse(text, &again) != STATUS_OK || !sid_equal(&sid, &again))
			abort();
	}
	AUTO_FREE char *input = strndup((const char *)data, size);
	if (!input)
		abort();
	if (sid_parse(input, &sid) == STATUS_OK) {
		if (sid_from_octets(bytes_of(sid.octets, sid.size), &again) != STATUS_OK || !sid_equal(&sid, &again))
			abort();
		sid_format(&sid, text);
		if (sid_parse(text, &again) != STATUS_OK || !sid_equal(&sid, &again))
			abort();
	}
	return 0;
}
