#include "proto/jose_internal.h"

#include <openssl/err.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>

#define ENC "A256GCM"

/* Concat KDF, RFC 7518 section 4.6.2, without apu and apv: 256 bits are one round of SHA-256, so it is one digest. */
static bool derive_cek(const struct jose_key *key, const uint8_t z[JOSE_COORDINATE], uint8_t ret_cek[32])
{
	static const uint8_t round[] = { 0, 0, 0, 1 };
	static const uint8_t info[] = { 0, 0, 0, 7, 'A', '2', '5', '6', 'G', 'C', 'M', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0 };
	const struct bytes parts[] = { { round, sizeof(round) }, { z, JOSE_COORDINATE }, { info, sizeof(info) } };

	return jose_digest(key, parts, 3, ret_cek);
}

/* Shared secret to content key; `derive` belongs to the private half, `peer` is public. */
static bool agree(const struct jose_key *key, EVP_PKEY_CTX *derive, EVP_PKEY *peer, uint8_t ret_cek[32])
{
	uint8_t z[JOSE_COORDINATE];
	size_t size = sizeof(z);
	/* The point was found to be on the curve when `peer` was made, so it is not checked a second time. */
	bool good = EVP_PKEY_derive_set_peer_ex(derive, peer, 0) == 1 && EVP_PKEY_derive(derive, z, &size) == 1 && size == sizeof(z) && derive_cek(key, z, ret_cek);

	wipe(z, sizeof(z));
	return good;
}

/* Encrypting ------------------------------------------------------------------------------------------------------------------------- */

/* An ephemeral key: its public point and the content key. */
static bool agree_ephemeral(const struct jose_key *recipient, uint8_t ret_point[JOSE_POINT], uint8_t ret_cek[32])
{
	EVP_PKEY *ephemeral = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	EVP_PKEY_CTX *derive = ephemeral ? EVP_PKEY_CTX_new_from_pkey(NULL, ephemeral, NULL) : NULL;
	size_t size = 0;
	bool good = derive && EVP_PKEY_get_octet_string_param(ephemeral, "pub", ret_point, JOSE_POINT, &size) == 1 && size == JOSE_POINT &&
	            EVP_PKEY_derive_init(derive) == 1 && agree(recipient, derive, recipient->pkey, ret_cek);

	EVP_PKEY_CTX_free(derive);
	EVP_PKEY_free(ephemeral);
	return good;
}

static bool gcm_encrypt(struct jose_key *key, const uint8_t cek[32], const uint8_t iv[JOSE_IV], struct bytes aad, struct bytes plaintext, uint8_t *out, uint8_t ret_tag[JOSE_TAG])
{
	int size;
	bool good = EVP_EncryptInit_ex2(key->gcm, key->aes, cek, iv, NULL) == 1 && EVP_EncryptUpdate(key->gcm, NULL, &size, aad.data, (int)aad.size) == 1 &&
	            EVP_EncryptUpdate(key->gcm, out, &size, plaintext.data, (int)plaintext.size) == 1 && EVP_EncryptFinal_ex(key->gcm, out + size, &size) == 1 &&
	            EVP_CIPHER_CTX_ctrl(key->gcm, EVP_CTRL_AEAD_GET_TAG, JOSE_TAG, ret_tag) == 1;

	EVP_CIPHER_CTX_reset(key->gcm); /* wipes the key schedule */
	return good;
}

static int write_header(const struct jose_key *recipient, const uint8_t point[JOSE_POINT], char *out, size_t capacity)
{
	char x[JOSE_COORDINATE_TEXT + 1], y[JOSE_COORDINATE_TEXT + 1];

	base64url_encode(bytes_of(point + 1, JOSE_COORDINATE), x);
	base64url_encode(bytes_of(point + 1 + JOSE_COORDINATE, JOSE_COORDINATE), y);
	return snprintf(out, capacity, "{\"alg\":\"%s\",\"enc\":\"" ENC "\",\"epk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"%s\",\"y\":\"%s\"},\"kid\":\"%s\"}",
	                jose_algorithm(JOSE_DECRYPT)->alg, x, y, recipient->kid);
}

/* header..iv.ciphertext.tag; the header part stands there already and is the additional data (RFC 7516 section 5.1). */
static bool encrypt_parts(struct jose_key *recipient, const uint8_t cek[32], struct bytes plaintext, char *jwe, size_t header_text)
{
	uint8_t iv[JOSE_IV], tag[JOSE_TAG];
	uint8_t *ciphertext = malloc(plaintext.size);

	if (!ciphertext || RAND_bytes(iv, sizeof(iv)) != 1 || !gcm_encrypt(recipient, cek, iv, bytes_of(jwe, header_text), plaintext, ciphertext, tag)) {
		free(ciphertext);
		return false;
	}
	char *at = jwe + header_text;
	*at++ = '.';
	*at++ = '.';
	base64url_encode(bytes_of(iv, sizeof(iv)), at);
	at += BASE64URL_SIZE(sizeof(iv));
	*at++ = '.';
	base64url_encode(bytes_of(ciphertext, plaintext.size), at);
	at += BASE64URL_SIZE(plaintext.size);
	*at++ = '.';
	base64url_encode(bytes_of(tag, sizeof(tag)), at);
	free(ciphertext);
	return true;
}

enum status jose_encrypt(struct jose_key *recipient, struct bytes plaintext, char **ret_jwe)
{
	uint8_t point[JOSE_POINT], cek[32];
	char header[JOSE_MAX_HEADER / 2];

	*ret_jwe = NULL;
	if (plaintext.size == 0 || plaintext.size > JOSE_MAX_SIZE)
		return STATUS_LOCAL_INPUT;
	if (recipient->use != JOSE_DECRYPT || !agree_ephemeral(recipient, point, cek)) {
		ERR_clear_error();
		return STATUS_AGENT_INTERNAL;
	}
	size_t header_size = (size_t)write_header(recipient, point, header, sizeof(header));
	size_t header_text = BASE64URL_SIZE(header_size);
	char *jwe = malloc(header_text + 4 + BASE64URL_SIZE(JOSE_IV) + BASE64URL_SIZE(plaintext.size) + BASE64URL_SIZE(JOSE_TAG) + 1);
	if (jwe)
		base64url_encode(bytes_of(header, header_size), jwe);
	if (jwe && !encrypt_parts(recipient, cek, plaintext, jwe, header_text)) {
		ERR_clear_error();
		free(jwe);
		jwe = NULL;
	}
	wipe(cek, sizeof(cek));
	*ret_jwe = jwe;
	return jwe ? STATUS_OK : STATUS_AGENT_INTERNAL;
}

/* Decrypting ------------------------------------------------------------------------------------------------------------------------- */

enum { PART_HEADER, PART_KEY, PART_IV, PART_CIPHERTEXT, PART_TAG, PART_COUNT };

/* Exactly alg, enc, epk and kid; epk of exactly four members. */
static enum jose_reason check_header(const json_t *header, uint8_t ret_point[JOSE_POINT], char ret_kid[JOSE_KID_SIZE])
{
	const json_t *epk = json_object_get(header, "epk"), *kid = json_object_get(header, "kid");

	if (json_object_size(header) != 4 || !epk || !json_is_string(kid) || !json_is_string(json_object_get(header, "alg")) || !json_is_string(json_object_get(header, "enc")))
		return JOSE_HEADER;
	if (!jose_member_is(header, "alg", jose_algorithm(JOSE_DECRYPT)->alg))
		return JOSE_ALG;
	if (!jose_member_is(header, "enc", ENC))
		return JOSE_ENC;
	if (json_object_size(epk) != 4 || !jose_point_read(epk, ret_point))
		return JOSE_EPK;
	if (json_string_length(kid) != JOSE_KID_SIZE - 1)
		return JOSE_KID;
	memcpy(ret_kid, json_string_value(kid), JOSE_KID_SIZE);
	return JOSE_OK;
}

static enum jose_reason split_and_check(struct bytes jwe, struct bytes parts[PART_COUNT], uint8_t ret_point[JOSE_POINT], char ret_kid[JOSE_KID_SIZE])
{
	json_t *header;

	if (jwe.size > JOSE_MAX_SIZE || !jose_split(jwe, parts, PART_COUNT) || parts[PART_KEY].size != 0 || parts[PART_CIPHERTEXT].size == 0)
		return JOSE_FORM;
	enum jose_reason reason = jose_header(parts[PART_HEADER], &header);
	if (reason != JOSE_OK)
		return reason;
	reason = check_header(header, ret_point, ret_kid);
	json_decref(header);
	return reason;
}

/* OpenSSL takes tags of fewer bytes as they come (CVE-2023-37464 in cjose), so the sizes are ours to hold. */
static enum jose_reason decode_exactly(struct bytes part, uint8_t *out, size_t size)
{
	uint8_t buffer[64];
	size_t got = 0;
	enum jose_reason reason = jose_decode(part, buffer, sizeof(buffer), &got, JOSE_DECRYPTION);

	if (reason == JOSE_OK && got != size)
		reason = JOSE_DECRYPTION;
	if (reason == JOSE_OK)
		memcpy(out, buffer, size);
	return reason;
}

static bool gcm_decrypt(struct jose_key *key, const uint8_t cek[32], const uint8_t iv[JOSE_IV], struct bytes aad, uint8_t tag[JOSE_TAG], struct secret *in_place)
{
	int size = 0, rest = 0;
	bool good = EVP_DecryptInit_ex2(key->gcm, key->aes, cek, iv, NULL) == 1 && EVP_DecryptUpdate(key->gcm, NULL, &size, aad.data, (int)aad.size) == 1 &&
	            EVP_DecryptUpdate(key->gcm, in_place->data, &size, in_place->data, (int)in_place->size) == 1 &&
	            EVP_CIPHER_CTX_ctrl(key->gcm, EVP_CTRL_AEAD_SET_TAG, JOSE_TAG, tag) == 1 && EVP_DecryptFinal_ex(key->gcm, in_place->data + size, &rest) == 1;

	EVP_CIPHER_CTX_reset(key->gcm); /* wipes the key schedule */
	return good;
}

static enum jose_reason decrypt_parts(struct jose_key *key, const struct bytes parts[PART_COUNT], const uint8_t point[JOSE_POINT], struct secret *text)
{
	uint8_t iv[JOSE_IV], tag[JOSE_TAG], cek[32];
	enum jose_reason reason = decode_exactly(parts[PART_IV], iv, sizeof(iv));

	if (reason == JOSE_OK)
		reason = decode_exactly(parts[PART_TAG], tag, sizeof(tag));
	if (reason == JOSE_OK)
		reason = jose_decode(parts[PART_CIPHERTEXT], text->data, text->capacity, &text->size, JOSE_FORM);
	if (reason != JOSE_OK)
		return reason;
	/* Refuses points off the curve (CVE-2017-16007). */
	if (EVP_PKEY_set1_encoded_public_key(key->peer, point, JOSE_POINT) != 1)
		return JOSE_EPK;
	if (!agree(key, key->derive, key->peer, cek))
		return JOSE_INTERNAL;
	if (!gcm_decrypt(key, cek, iv, parts[PART_HEADER], tag, text))
		reason = JOSE_DECRYPTION;
	wipe(cek, sizeof(cek));
	return reason;
}

enum jose_reason jose_decrypt(struct bytes jwe, struct jose_key *const *keys, struct secret *ret_plaintext)
{
	struct bytes parts[PART_COUNT];
	uint8_t point[JOSE_POINT];
	char kid[JOSE_KID_SIZE];
	AUTO_SECRET struct secret text = SECRET_EMPTY;

	*ret_plaintext = SECRET_EMPTY;
	enum jose_reason reason = split_and_check(jwe, parts, point, kid);
	if (reason != JOSE_OK)
		return reason;
	while (*keys && strcmp((*keys)->kid, kid) != 0)
		keys++;
	if (!*keys || !(*keys)->derive)
		return JOSE_KID;
	if (secret_new(parts[PART_CIPHERTEXT].size, &text) != STATUS_OK)
		return JOSE_INTERNAL;
	reason = decrypt_parts(*keys, parts, point, &text);
	if (reason == JOSE_OK)
		secret_move(ret_plaintext, &text);
	else
		ERR_clear_error();
	return reason;
}

enum jose_reason jose_jwe_kid(struct bytes jwe, char ret_kid[JOSE_KID_SIZE])
{
	struct bytes parts[PART_COUNT];
	uint8_t point[JOSE_POINT];

	return split_and_check(jwe, parts, point, ret_kid);
}
