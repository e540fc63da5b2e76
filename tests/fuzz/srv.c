/* SRV records in DNS messages: what is taken is a host name and within the limits. */
#include <stdlib.h>
#include <string.h>

#include "base/srv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct srv_answer answer;
	if (srv_parse(bytes_of(data, size), &answer) != STATUS_OK)
		return 0;
	if (answer.count > SRV_MAX)
		abort();
	for (size_t i = 0; i < answer.count; i++)
		if (!answer.items[i].target[0] || strlen(answer.items[i].target) >= sizeof answer.items[i].target || answer.items[i].port == 0)
			abort();
	return 0;
}
