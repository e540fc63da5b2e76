/* jwe: proto/jose's decryption and what stands inside, with the agent's key of the test vectors. */
#include <stdlib.h>
#include <string.h>

#include "proto/messages.h"

/* Public, like all keys of the vectors. */
static const char agent[] =
	"{\"kty\":\"EC\",\"crv\":\"P-256\",\"d\":\"61A5BGj1jtNalatYJzVNd_VMXwnTD-JD_1Csafded78\",\"x\":\"_E1StUzuISCHpfDv6xe6s14V7OVXPMyGHaeJS8aTfrk\",\"y\":\"fe9CXbUOtQDLFODVO7LUMTBKxi1fRvmnq4WyoK48nbE\",\"kid\":\"fOnm4eDXiGfOS0kqe3OY1zoO22pvZgW-Pu1osvPYhwo\",\"alg\":\"ECDH-ES\",\"use\":\"enc\"}";

static struct jose_key *key(void)
{
	static struct jose_key *loaded;

	if (loaded)
		return loaded;
	json_t *jwk = jose_json_parse(bytes_of_string(agent));
	if (jose_key_from_jwk(jwk, JOSE_DECRYPT, true, &loaded) != STATUS_OK)
		abort();
	json_decref(jwk);
	return loaded;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct request_claims request = { .operation_id = "7d444840-9dc0-41d1-b245-5ffdce74fad2", .op = OP_RESET, .subject = { SUBJECT_UPN, (char *)"anna@corp.example", NULL } };
	struct jose_key *const keys[] = { key(), NULL };
	AUTO_SECRET struct secret plaintext = SECRET_EMPTY;
	struct secret_claims claims;
	char kid[JOSE_KID_SIZE];
	const char *member;

	if ((jose_decrypt(bytes_of(data, size), keys, &plaintext) == JOSE_OK) != (plaintext.data != NULL))
		abort();
	if (plaintext.data && jose_jwe_kid(bytes_of(data, size), kid) != JOSE_OK)
		abort();
	/* the text itself too: no fuzzer finds its way through AES */
	if (!plaintext.data && secret_from(bytes_of(data, size), &plaintext) != STATUS_OK)
		abort();
	if (secret_claims_parse(&plaintext, &request, &claims, &member) != STATUS_OK && claims.new_password.data)
		abort();
	secret_claims_clear(&claims);
	return 0;
}
