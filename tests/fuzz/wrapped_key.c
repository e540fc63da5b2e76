/* wrapped_key: a key file that is wrapped (jose_key_unwrap), with a wrapping key of 32 times "w"; and what stands inside, which is what a plain one holds: no fuzzer finds its way through AES. */
#include <stdlib.h>
#include <string.h>

#include "proto/jose.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A key that is taken signs, and what it signs its public half verifies. */
static void must_work(struct jose_key *key)
{
	static const char *const typs[] = { "fuzz", NULL };
	AUTO_FREE char *jws = NULL, *payload = NULL;
	struct jose_key *public_key = NULL;
	struct jose_keys *keys = jose_keys_new();
	size_t size;
	if (jose_key_public(key, &public_key) != STATUS_OK || jose_keys_add(keys, public_key) != STATUS_OK ||
	    jose_sign(key, "fuzz", bytes_of_string("{}"), &jws) != STATUS_OK || jose_verify(bytes_of_string(jws), typs, keys, &payload, &size, NULL, NULL) != JOSE_OK)
		abort();
	jose_keys_free(keys);
}

static void try_plain(struct bytes text)
{
	struct jose_key *key = NULL;
	json_t *jwk = jose_json_parse(text);
	enum status status = jwk ? jose_key_from_jwk(jwk, JOSE_SIGN, true, &key) : STATUS_LOCAL_INPUT;
	if ((status == STATUS_OK) != (key != NULL))
		abort();
	if (key)
		must_work(key);
	jose_key_free(key);
	json_decref(jwk);
}

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
	try_plain(bytes_of(data, size));
	return 0;
}
