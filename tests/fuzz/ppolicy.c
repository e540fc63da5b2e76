/* The password policy control's answer: any octets; what is taken has numbers within their bounds. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "agent/directory/ppolicy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ppolicy_answer answer;
	enum status status = ppolicy_parse(bytes_of(data, size), &answer);
	if (answer.error < -1 || answer.expires_in_s < -1 || answer.grace < -1 || (status != STATUS_OK && answer.error != -1)) {
		abort();
	}
	return 0;
}
