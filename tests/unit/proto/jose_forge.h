/* jose_forge: what proto/jose refuses to make: messages with any header, signature or part. For tests. */
#ifndef TESTS_JOSE_FORGE_H
#define TESTS_JOSE_FORGE_H

#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "proto/jose_internal.h"

/* r‖s over any text, by a way of its own. */
static inline void forge_signature(const struct jose_key *key, const char *input, uint8_t ret_raw[64])
{
	uint8_t der[128];
	const uint8_t *at = der;
	size_t size = sizeof(der);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();

	assert_int_equal(EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key->pkey), 1);
	assert_int_equal(EVP_DigestSign(ctx, der, &size, (const uint8_t *)input, strlen(input)), 1);
	EVP_MD_CTX_free(ctx);
	ECDSA_SIG *signature = d2i_ECDSA_SIG(NULL, &at, (long)size);
	assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_r(signature), ret_raw, 32), 32);
	assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_s(signature), ret_raw + 32, 32), 32);
	ECDSA_SIG_free(signature);
}

/* header.payload.signature with a signature of any bytes. */
static inline char *forge_join(const char *header, const char *payload, struct bytes signature)
{
	AUTO_FREE char *h = base64url_encode_new(bytes_of_string(header)), *p = base64url_encode_new(bytes_of_string(payload)), *s = base64url_encode_new(signature);
	char *jws = NULL;

	assert_true(asprintf(&jws, "%s.%s.%s", h, p, s) > 0);
	return jws;
}

/* A right signature over any header. */
static inline char *forge_jws(const struct jose_key *key, const char *header, const char *payload)
{
	AUTO_FREE char *unsigned_jws = forge_join(header, payload, bytes_of(NULL, 0));
	uint8_t raw[64];

	unsigned_jws[strlen(unsigned_jws) - 1] = '\0';
	forge_signature(key, unsigned_jws, raw);
	return forge_join(header, payload, bytes_of(raw, sizeof(raw)));
}

/* The same message with the other good signature, which takes no key: (r, n - s). */
static inline char *forge_twin(const char *jws)
{
	const char *signature = strrchr(jws, '.') + 1;
	uint8_t raw[64];
	size_t size;
	BIGNUM *n = NULL, *s = NULL;
	char *twin = NULL;

	assert_int_equal(base64url_decode(bytes_of_string(signature), raw, sizeof(raw), &size), STATUS_OK);
	assert_int_equal(size, sizeof(raw));
	assert_true(BN_hex2bn(&n, "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551") > 0);
	assert_non_null(s = BN_bin2bn(raw + 32, 32, NULL));
	assert_int_equal(BN_sub(s, n, s), 1);
	assert_int_equal(BN_bn2binpad(s, raw + 32, 32), 32);
	BN_free(n);
	BN_free(s);
	AUTO_FREE char *text = base64url_encode_new(bytes_of(raw, sizeof(raw)));
	assert_true(asprintf(&twin, "%.*s%s", (int)(signature - jws), jws, text) > 0);
	assert_string_not_equal(twin, jws);
	return twin;
}

/* Where part `index` begins. */
static inline const char *part_of(const char *compact, unsigned index)
{
	while (index-- > 0)
		compact = strchr(compact, '.') + 1;
	return compact;
}

/* A copy of a compact serialization with another part `index`. */
static inline char *forge_part(const char *compact, unsigned index, const char *part)
{
	const char *from = part_of(compact, index);
	char *out = NULL;

	assert_true(asprintf(&out, "%.*s%s%s", (int)(from - compact), compact, part, from + strcspn(from, ".")) >= 0);
	return out;
}

static inline char *forge_part_bytes(const char *compact, unsigned index, struct bytes part)
{
	AUTO_FREE char *text = base64url_encode_new(part);

	return forge_part(compact, index, text);
}

#endif
