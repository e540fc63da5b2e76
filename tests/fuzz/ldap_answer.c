/* The answer of an OpenLDAP or 389 Directory Server: a byte of operation, a byte of result code, one of the password policy control's error, then the diagnostic text. */
#include <stdlib.h>
#include <string.h>

#include "agent/directory/ldap_answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 3)
		return 0;
	struct ppolicy_answer ppolicy = { .error = (data[2] & 15) - 1, .expires_in_s = -1, .grace = -1 };
	enum ad_operation operation = data[0] % (AD_VERIFY + 1);
	AUTO_FREE char *text = strndup((const char *)data + 3, size - 3);
	if (text == NULL)
		return 0;
	enum status status = ldap_answer_status(operation, data[1], text, data[2] & 16 ? &ppolicy : NULL);
	/* Nothing but a success is one, and a success is nothing else. */
	if (status >= STATUS_COUNT || (data[1] != 0 && (status == STATUS_OK || status == STATUS_VERIFIED)) || (data[1] == 0 && operation != AD_VERIFY && status != STATUS_OK))
		abort();
	return 0;
}
