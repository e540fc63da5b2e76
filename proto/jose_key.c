#include "proto/jose_internal.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <stdio.h>
#include <string.h>

static const struct jose_algorithm algorithms[] = { [JOSE_SIGN] = { "ES256", "sig" }, [JOSE_DECRYPT] = { "ECDH-ES", "enc" } };

const struct jose_algorithm *jose_algorithm(enum jose_use use)
{
	return &algorithms[use];
}

bool jose_digest(const struct jose_key *key, const struct bytes *parts, unsigned count, uint8_t ret_digest[32])
{
	bool good = EVP_DigestInit_ex2(key->digest, key->sha256, NULL) == 1;

	for (unsigned i = 0; i < count && good; i++)
		good = EVP_DigestUpdate(key->digest, parts[i].data, parts[i].size) == 1;
	good = good && EVP_DigestFinal_ex(key->digest, ret_digest, NULL) == 1;
	/* The state holds the digest, which may be a content key: a new start overwrites it. */
	return EVP_DigestInit_ex2(key->digest, key->sha256, NULL) == 1 && good;
}

void jose_key_free(struct jose_key *key)
{
	if (!key)
		return;
	EVP_PKEY_CTX_free(key->sign);
	EVP_PKEY_CTX_free(key->verify);
	EVP_PKEY_CTX_free(key->derive);
	EVP_PKEY_free(key->peer);
	EVP_PKEY_free(key->pkey);
	EVP_CIPHER_CTX_free(key->gcm);
	EVP_CIPHER_free(key->aes);
	EVP_MD_CTX_free(key->digest);
	EVP_MD_free(key->sha256);
	free(key);
}

/* Making keys ------------------------------------------------------------------------------------------------------------------------ */

static EVP_PKEY_CTX *context(EVP_PKEY *pkey, int (*init)(EVP_PKEY_CTX *))
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);

	if (ctx && init(ctx) == 1)
		return ctx;
	EVP_PKEY_CTX_free(ctx);
	return NULL;
}

/* Fails for a point off the curve. `d` may be NULL. */
static EVP_PKEY *pkey_from(const uint8_t point[JOSE_POINT], const BIGNUM *d)
{
	OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
	OSSL_PARAM *params = NULL;
	EVP_PKEY *pkey = NULL;

	if (builder && ctx && OSSL_PARAM_BLD_push_utf8_string(builder, OSSL_PKEY_PARAM_GROUP_NAME, "P-256", 0) == 1 &&
	    OSSL_PARAM_BLD_push_octet_string(builder, OSSL_PKEY_PARAM_PUB_KEY, point, JOSE_POINT) == 1 &&
	    (!d || OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_PRIV_KEY, d) == 1))
		params = OSSL_PARAM_BLD_to_param(builder);
	if (!params || EVP_PKEY_fromdata_init(ctx) != 1 || EVP_PKEY_fromdata(ctx, &pkey, d ? EVP_PKEY_KEYPAIR : EVP_PKEY_PUBLIC_KEY, params) != 1)
		pkey = NULL;
	OSSL_PARAM_free(params);
	OSSL_PARAM_BLD_free(builder);
	EVP_PKEY_CTX_free(ctx);
	return pkey;
}

static bool prepare_contexts(struct jose_key *key)
{
	if (!(key->sha256 = EVP_MD_fetch(NULL, "SHA2-256", NULL)) || !(key->digest = EVP_MD_CTX_new()))
		return false;
	if (key->use == JOSE_SIGN)
		return (key->verify = context(key->pkey, EVP_PKEY_verify_init)) && (!key->is_private || (key->sign = context(key->pkey, EVP_PKEY_sign_init)));
	return (key->aes = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL)) && (key->gcm = EVP_CIPHER_CTX_new()) &&
	       (!key->is_private || ((key->derive = context(key->pkey, EVP_PKEY_derive_init)) && (key->peer = pkey_from(key->point, NULL))));
}

/* RFC 7638 section 3: the required members in lexicographic order, without white space. */
static bool name_key(struct jose_key *key)
{
	char text[160];
	uint8_t thumbprint[32];

	base64url_encode(bytes_of(key->point + 1, JOSE_COORDINATE), key->x);
	base64url_encode(bytes_of(key->point + 1 + JOSE_COORDINATE, JOSE_COORDINATE), key->y);
	int size = snprintf(text, sizeof(text), "{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"%s\",\"y\":\"%s\"}", key->x, key->y);
	struct bytes input = bytes_of(text, (size_t)size);
	if (!jose_digest(key, &input, 1, thumbprint))
		return false;
	base64url_encode(bytes_of(thumbprint, sizeof(thumbprint)), key->kid);
	return true;
}

static enum status key_new(EVP_PKEY *take_pkey, enum jose_use use, bool is_private, struct jose_key **ret_key)
{
	struct jose_key *key = calloc(1, sizeof(*key));
	size_t size = 0;

	*ret_key = NULL;
	if (!key) {
		EVP_PKEY_free(take_pkey);
		return STATUS_AGENT_INTERNAL;
	}
	key->use = use;
	key->is_private = is_private;
	key->pkey = take_pkey;
	if (EVP_PKEY_get_octet_string_param(take_pkey, OSSL_PKEY_PARAM_PUB_KEY, key->point, sizeof(key->point), &size) != 1 || size != JOSE_POINT ||
	    !prepare_contexts(key) || !name_key(key)) {
		ERR_clear_error();
		jose_key_free(key);
		return STATUS_AGENT_INTERNAL;
	}
	*ret_key = key;
	return STATUS_OK;
}

enum status jose_key_generate(enum jose_use use, struct jose_key **ret_key)
{
	EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");

	*ret_key = NULL;
	if (pkey)
		return key_new(pkey, use, true, ret_key);
	ERR_clear_error();
	return STATUS_AGENT_INTERNAL;
}

enum status jose_key_public(const struct jose_key *key, struct jose_key **ret_public)
{
	EVP_PKEY *pkey = pkey_from(key->point, NULL);

	*ret_public = NULL;
	if (pkey)
		return key_new(pkey, key->use, false, ret_public);
	ERR_clear_error();
	return STATUS_AGENT_INTERNAL;
}

/* Reading JWKs ----------------------------------------------------------------------------------------------------------------------- */

/* Exactly 32 bytes, RFC 7518 sections 6.2.1.2 and 6.2.2.1. */
static bool read_number(const json_t *jwk, const char *name, uint8_t out[JOSE_COORDINATE])
{
	const json_t *value = json_object_get(jwk, name);
	size_t size;

	return json_is_string(value) && json_string_length(value) == JOSE_COORDINATE_TEXT &&
	       base64url_decode(bytes_of(json_string_value(value), JOSE_COORDINATE_TEXT), out, JOSE_COORDINATE, &size) == STATUS_OK;
}

bool jose_point_read(const json_t *jwk, uint8_t ret_point[JOSE_POINT])
{
	ret_point[0] = 0x04;
	return jose_member_is(jwk, "kty", "EC") && jose_member_is(jwk, "crv", "P-256") && read_number(jwk, "x", ret_point + 1) &&
	       read_number(jwk, "y", ret_point + 1 + JOSE_COORDINATE);
}

static bool optional_is(const json_t *jwk, const char *name, const char *value, size_t *count)
{
	if (!json_object_get(jwk, name))
		return true;
	++*count;
	return jose_member_is(jwk, name, value);
}

static EVP_PKEY *read_private(const json_t *jwk, const uint8_t point[JOSE_POINT])
{
	uint8_t number[JOSE_COORDINATE];
	BIGNUM *d = BN_secure_new();
	EVP_PKEY *pkey = NULL;

	if (d && read_number(jwk, "d", number) && BN_bin2bn(number, sizeof(number), d))
		pkey = pkey_from(point, d);
	wipe(number, sizeof(number));
	BN_clear_free(d);
	EVP_PKEY_CTX *check = pkey ? EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL) : NULL;
	if (pkey && (!check || EVP_PKEY_pairwise_check(check) != 1)) {
		EVP_PKEY_free(pkey);
		pkey = NULL;
	}
	EVP_PKEY_CTX_free(check);
	return pkey;
}

enum status jose_key_from_jwk(const json_t *jwk, enum jose_use use, bool with_private, struct jose_key **ret_key)
{
	uint8_t point[JOSE_POINT];
	struct jose_key *key;
	size_t count = with_private ? 5 : 4;

	*ret_key = NULL;
	if (!json_is_object(jwk) || !jose_point_read(jwk, point))
		return STATUS_LOCAL_INPUT;
	EVP_PKEY *pkey = with_private ? read_private(jwk, point) : pkey_from(point, NULL);
	if (!pkey) {
		ERR_clear_error();
		return STATUS_LOCAL_INPUT;
	}
	enum status status = key_new(pkey, use, with_private, &key);
	if (status != STATUS_OK)
		return status;
	if (!optional_is(jwk, "kid", key->kid, &count) || !optional_is(jwk, "alg", algorithms[use].alg, &count) ||
	    !optional_is(jwk, "use", algorithms[use].use, &count) || json_object_size(jwk) != count) {
		jose_key_free(key);
		return STATUS_LOCAL_INPUT;
	}
	*ret_key = key;
	return STATUS_OK;
}

/* Writing JWKs ----------------------------------------------------------------------------------------------------------------------- */

json_t *jose_key_public_jwk(const struct jose_key *key)
{
	return json_pack("{ss ss ss ss ss ss ss}", "kty", "EC", "crv", "P-256", "x", key->x, "y", key->y, "kid", key->kid, "alg", algorithms[key->use].alg,
	                 "use", algorithms[key->use].use);
}

/* Written around the secret's own buffer, so that `d` is nowhere else in text. */
enum status jose_key_private_jwk(const struct jose_key *key, struct secret *ret_json)
{
	static const char head[] = "{\"kty\":\"EC\",\"crv\":\"P-256\",\"d\":\"";
	AUTO_SECRET struct secret text = SECRET_EMPTY;
	uint8_t number[JOSE_COORDINATE];
	BIGNUM *d = NULL;

	*ret_json = SECRET_EMPTY;
	if (!key->is_private || secret_new(512, &text) != STATUS_OK || EVP_PKEY_get_bn_param(key->pkey, OSSL_PKEY_PARAM_PRIV_KEY, &d) != 1 ||
	    BN_bn2binpad(d, number, sizeof(number)) != sizeof(number)) {
		BN_clear_free(d);
		ERR_clear_error();
		return STATUS_AGENT_INTERNAL;
	}
	BN_clear_free(d);
	char *out = (char *)text.data;
	memcpy(out, head, sizeof(head) - 1);
	base64url_encode(bytes_of(number, sizeof(number)), out + sizeof(head) - 1);
	wipe(number, sizeof(number));
	size_t size = sizeof(head) - 1 + JOSE_COORDINATE_TEXT;
	size += (size_t)snprintf(out + size, text.capacity - size, "\",\"x\":\"%s\",\"y\":\"%s\",\"kid\":\"%s\",\"alg\":\"%s\",\"use\":\"%s\"}", key->x, key->y, key->kid,
	                         algorithms[key->use].alg, algorithms[key->use].use);
	text.size = size;
	secret_move(ret_json, &text);
	return STATUS_OK;
}

const char *jose_key_id(const struct jose_key *key)
{
	return key->kid;
}

enum jose_use jose_key_use(const struct jose_key *key)
{
	return key->use;
}

/* Sets of keys ----------------------------------------------------------------------------------------------------------------------- */

struct jose_keys *jose_keys_new(void)
{
	struct jose_keys *keys = calloc(1, sizeof(*keys));

	if (keys && (keys->kept = calloc(1, sizeof(*keys->kept))))
		return keys;
	free(keys);
	return NULL;
}

void jose_keys_free(struct jose_keys *keys)
{
	if (!keys)
		return;
	for (unsigned i = 0; i < keys->count; i++)
		jose_key_free(keys->keys[i]);
	free(keys->kept);
	free(keys);
}

enum status jose_keys_add(struct jose_keys *keys, struct jose_key *take_key)
{
	if (take_key->use != JOSE_SIGN || keys->count == JOSE_MAX_KEYS || jose_keys_find(keys, take_key->kid)) {
		jose_key_free(take_key);
		return STATUS_LOCAL_INPUT;
	}
	keys->keys[keys->count++] = take_key;
	return STATUS_OK;
}

struct jose_key *jose_keys_find(const struct jose_keys *keys, const char *kid)
{
	for (unsigned i = 0; i < keys->count; i++)
		if (strcmp(keys->keys[i]->kid, kid) == 0)
			return keys->keys[i];
	return NULL;
}

unsigned jose_keys_count(const struct jose_keys *keys)
{
	return keys->count;
}
