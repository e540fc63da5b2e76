/* A private key as a JWE with the key that wraps it used directly: RFC 7516, RFC 7517 section 7, RFC 7518 section 4.5. */
#include "proto/jose_internal.h"

#include <openssl/err.h>
#include <openssl/rand.h>
#include <string.h>

static const char HEADER[] = "{\"alg\":\"dir\",\"enc\":\"A256GCM\",\"cty\":\"jwk+json\"}";
enum { PART_HEADER, PART_KEY, PART_IV, PART_CIPHERTEXT, PART_TAG, PART_COUNT };

/* One pass of AES-256-GCM, in place; the tag is made or compared. */
static bool gcm(bool encrypt, const struct secret *wrap_key, const uint8_t iv[JOSE_IV], struct bytes aad, struct secret *text, uint8_t tag[JOSE_TAG])
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int size = 0, rest = 0;
	bool good = ctx && EVP_CipherInit_ex2(ctx, EVP_aes_256_gcm(), wrap_key->data, iv, encrypt, NULL) == 1 && EVP_CipherUpdate(ctx, NULL, &size, aad.data, (int)aad.size) == 1 &&
	            EVP_CipherUpdate(ctx, text->data, &size, text->data, (int)text->size) == 1 && (encrypt || EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, JOSE_TAG, tag) == 1) &&
	            EVP_CipherFinal_ex(ctx, text->data + size, &rest) == 1 && (!encrypt || EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, JOSE_TAG, tag) == 1);

	EVP_CIPHER_CTX_free(ctx); /* wipes the key schedule */
	ERR_clear_error();
	return good;
}

static char *put(char *at, struct bytes octets)
{
	base64url_encode(octets, at);
	at += BASE64URL_SIZE(octets.size);
	*at++ = '.';
	return at;
}

enum status jose_key_wrap(const struct jose_key *key, const struct secret *wrap_key, char **ret_jwe)
{
	AUTO_SECRET struct secret text = SECRET_EMPTY;
	uint8_t iv[JOSE_IV], tag[JOSE_TAG];
	enum status status = jose_key_private_jwk(key, &text);

	*ret_jwe = NULL;
	if (status != STATUS_OK)
		return status;
	size_t header = BASE64URL_SIZE(sizeof(HEADER) - 1);
	char *jwe = malloc(header + BASE64URL_SIZE(JOSE_IV) + BASE64URL_SIZE(text.size) + BASE64URL_SIZE(JOSE_TAG) + 6);
	if (!jwe)
		return STATUS_AGENT_INTERNAL;
	char *at = put(jwe, bytes_of(HEADER, sizeof(HEADER) - 1));
	*at++ = '.';
	if (wrap_key->size != JOSE_WRAP_KEY || RAND_bytes(iv, sizeof(iv)) != 1 || !gcm(true, wrap_key, iv, bytes_of(jwe, header), &text, tag)) {
		free(jwe);
		return STATUS_AGENT_INTERNAL;
	}
	at = put(put(put(at, bytes_of(iv, sizeof(iv))), secret_bytes(&text)), bytes_of(tag, sizeof(tag)));
	at[-1] = 0;
	*ret_jwe = jwe;
	return STATUS_OK;
}

static enum jose_reason check_header(struct bytes part)
{
	json_t *header;
	enum jose_reason reason = jose_header(part, &header);

	if (reason != JOSE_OK)
		return reason;
	if (json_object_size(header) != 3 || !jose_member_is(header, "cty", "jwk+json"))
		reason = JOSE_HEADER;
	else if (!jose_member_is(header, "alg", "dir"))
		reason = JOSE_ALG;
	else if (!jose_member_is(header, "enc", "A256GCM"))
		reason = JOSE_ENC;
	json_decref(header);
	return reason;
}

enum jose_reason jose_key_unwrap(struct bytes jwe, const struct secret *wrap_key, enum jose_use use, struct jose_key **ret_key)
{
	struct bytes parts[PART_COUNT];
	uint8_t iv[JOSE_IV + 4], tag[JOSE_TAG + 4];
	size_t iv_size = 0, tag_size = 0;
	AUTO_SECRET struct secret text = SECRET_EMPTY;

	*ret_key = NULL;
	if (jwe.size > 4096 || !jose_split(jwe, parts, PART_COUNT) || parts[PART_KEY].size != 0 || parts[PART_CIPHERTEXT].size == 0)
		return JOSE_FORM;
	enum jose_reason reason = check_header(parts[PART_HEADER]);
	if (reason == JOSE_OK)
		reason = jose_decode(parts[PART_IV], iv, sizeof(iv), &iv_size, JOSE_DECRYPTION);
	if (reason == JOSE_OK)
		reason = jose_decode(parts[PART_TAG], tag, sizeof(tag), &tag_size, JOSE_DECRYPTION);
	if (reason == JOSE_OK && secret_new(parts[PART_CIPHERTEXT].size, &text) != STATUS_OK)
		reason = JOSE_INTERNAL;
	if (reason == JOSE_OK)
		reason = jose_decode(parts[PART_CIPHERTEXT], text.data, text.capacity, &text.size, JOSE_FORM);
	if (reason != JOSE_OK)
		return reason;
	if (iv_size != JOSE_IV || tag_size != JOSE_TAG || wrap_key->size != JOSE_WRAP_KEY || !gcm(false, wrap_key, iv, parts[PART_HEADER], &text, tag))
		return JOSE_DECRYPTION;
	json_t *jwk = jose_json_parse(secret_bytes(&text));
	enum status status = jwk ? jose_key_from_jwk(jwk, use, true, ret_key) : STATUS_LOCAL_INPUT;
	json_decref(jwk);
	return status == STATUS_OK ? JOSE_OK : JOSE_HEADER;
}
