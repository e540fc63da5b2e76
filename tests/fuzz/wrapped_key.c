/* wrapped_key: a key file that is wrapped (jose_key_unwrap), with a wrapping key of 32 times "w". */
#include <stdlib.h>
#include <string.h>

#include "proto/jose.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t octets[JOSE_WRAP_KEY];
	AUTO_SECRET struct secret wrap_key = SECRET_EMPTY;
	struct jose_key *key = NULL;

	memset(octets, 'w', sizeof(octets));
	if (secret_from(bytes_of(octets, sizeof(octets)), &wrap_key) != STATUS_OK)
		abort();
	if ((jose_key_unwrap(bytes_of(data, size), &wrap_key, JOSE_SIGN, &key) == JOSE_OK) != (key != NULL))
		abort();
	jose_key_free(key);
	return 0;
}
