/* jws: proto/jose's verification, with the service's key of the test vectors. */
#include <stdlib.h>
#include <string.h>

#include "proto/messages.h"

static const char service[] =
	"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"n-oGnXBE0k0PeXrSqBCs06Ae2NQmAZdsys6W-TdPBaM\",\"y\":\"VG-MFrOo8sNFEK8IxZZaa3qWVyVL2M3HN_XDcGGJGwA\",\"kid\":\"pfQMdNqczWDrXuMpx60NFTWHjeooY9or4WO_q0WOax0\",\"alg\":\"ES256\",\"use\":\"sig\"}";

static struct jose_keys *trusted(void)
{
	static struct jose_keys *keys;
	struct jose_key *key;

	if (keys)
		return keys;
	json_t *jwk = jose_json_parse(bytes_of_string(service));
	keys = jose_keys_new();
	if (!keys || jose_key_from_jwk(jwk, JOSE_SIGN, false, &key) != STATUS_OK || jose_keys_add(keys, key) != STATUS_OK)
		abort();
	json_decref(jwk);
	return keys;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const typs[] = { TYP_REQUEST, TYP_ACK, TYP_CHALLENGE, TYP_WELCOME, TYP_DRAIN, NULL };
	AUTO_FREE char *payload = NULL;
	char kid[JOSE_KID_SIZE], peeked[JOSE_TYP_SIZE] = "";
	const char *typ = NULL;
	json_t *json;
	size_t payload_size;

	if ((jose_verify(bytes_of(data, size), typs, trusted(), &payload, &payload_size, &typ, NULL) == JOSE_OK) != (payload != NULL))
		abort();
	if (payload && !typ)
		abort();
	if (jose_peek_typ(trusted(), bytes_of(data, size), peeked) == JOSE_OK ? payload && strcmp(peeked, typ) != 0 : payload != NULL)
		abort();
	if (payload && payload[payload_size] != '\0')
		abort();
	if ((jose_peek_unverified(bytes_of(data, size), TYP_HELLO, kid, &json) == JOSE_OK) != (json != NULL))
		abort();
	json_decref(json);
	return 0;
}
