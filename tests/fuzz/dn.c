/* Names: two of them, split at the first newline. Whatever is valid is below itself and below its own tail of one RDN less. */
#include <stdlib.h>
#include <string.h>

#include "agent/gate/scope.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTO_FREE char *dn = strndup((const char *)data, size);
	if (!dn)
		abort();
	char *newline = strchr(dn, '\n');
	if (newline)
		*newline++ = '\0';
	if (dn_valid(dn) != dn_is_below(dn, dn))
		abort();
	if (newline && dn_is_below(dn, newline) && (!dn_valid(dn) || !dn_valid(newline)))
		abort();
	AUTO_FREE char *longer = malloc(strlen(dn) + 6);
	if (!longer)
		abort();
	strcat(strcpy(longer, "CN=x,"), dn);
	if (dn_valid(dn) && (!dn_is_below(longer, dn) || dn_is_below(dn, longer)))
		abort();
	return 0;
}
