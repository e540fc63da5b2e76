#include "proto/jose_internal.h"

#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>

static const char *const reason_names[] = {
	[JOSE_OK] = "ok", [JOSE_FORM] = "form", [JOSE_BASE64] = "base64url", [JOSE_HEADER] = "header", [JOSE_ALG] = "alg", [JOSE_ENC] = "enc",
	[JOSE_TYP] = "typ", [JOSE_KID] = "kid", [JOSE_EPK] = "epk", [JOSE_SIGNATURE] = "signature", [JOSE_DECRYPTION] = "decryption", [JOSE_INTERNAL] = "internal",
};

const char *jose_reason_name(enum jose_reason reason)
{
	return reason_names[reason];
}

/* The order of P-256's group, FIPS 186-4 D.1.2.3. */
static const uint8_t group_order[JOSE_COORDINATE] = {
	0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
	0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
};

/* 0 < n < order. A zero in either half verified for any message in CVE-2022-21449. */
static bool is_scalar(const uint8_t number[JOSE_COORDINATE])
{
	static const uint8_t zero[JOSE_COORDINATE];

	return memcmp(number, zero, sizeof(zero)) != 0 && memcmp(number, group_order, sizeof(group_order)) < 0;
}

static uint8_t *put_der_integer(uint8_t *out, const uint8_t number[JOSE_COORDINATE])
{
	unsigned skip = 0;

	while (skip < JOSE_COORDINATE - 1 && number[skip] == 0)
		skip++;
	unsigned sign = number[skip] >> 7;
	*out++ = 0x02;
	*out++ = (uint8_t)(JOSE_COORDINATE - skip + sign);
	if (sign)
		*out++ = 0;
	memcpy(out, number + skip, JOSE_COORDINATE - skip);
	return out + JOSE_COORDINATE - skip;
}

/* r‖s (RFC 7518 section 3.4) to the DER that OpenSSL wants; returns its size. */
static size_t signature_to_der(const uint8_t raw[JOSE_SIGNATURE_SIZE], uint8_t der[2 + 2 * (3 + JOSE_COORDINATE)])
{
	uint8_t *end = put_der_integer(put_der_integer(der + 2, raw), raw + JOSE_COORDINATE);

	der[0] = 0x30;
	der[1] = (uint8_t)(end - der - 2);
	return (size_t)(end - der);
}

static bool signature_from_der(const uint8_t *der, size_t size, uint8_t ret_raw[JOSE_SIGNATURE_SIZE])
{
	ECDSA_SIG *signature = d2i_ECDSA_SIG(NULL, &der, (long)size);
	bool good = signature && BN_bn2binpad(ECDSA_SIG_get0_r(signature), ret_raw, JOSE_COORDINATE) == JOSE_COORDINATE &&
	            BN_bn2binpad(ECDSA_SIG_get0_s(signature), ret_raw + JOSE_COORDINATE, JOSE_COORDINATE) == JOSE_COORDINATE;

	ECDSA_SIG_free(signature);
	return good;
}

/* Signing ---------------------------------------------------------------------------------------------------------------------------- */

static bool sign_input(struct jose_key *key, struct bytes input, uint8_t ret_raw[JOSE_SIGNATURE_SIZE])
{
	uint8_t digest[32], der[128];
	size_t size = sizeof(der);

	return jose_digest(key, &input, 1, digest) && EVP_PKEY_sign(key->sign, der, &size, digest, sizeof(digest)) == 1 && signature_from_der(der, size, ret_raw);
}

enum status jose_sign(struct jose_key *key, const char *typ, struct bytes payload, char **ret_jws)
{
	char header[JOSE_MAX_HEADER / 4];
	uint8_t raw[JOSE_SIGNATURE_SIZE];

	*ret_jws = NULL;
	if (key->use != JOSE_SIGN || !key->is_private)
		return STATUS_AGENT_INTERNAL;
	int header_size = snprintf(header, sizeof(header), "{\"alg\":\"%s\",\"kid\":\"%s\",\"typ\":\"%s\"}", jose_algorithm(key->use)->alg, key->kid, typ);
	if (header_size < 0 || (size_t)header_size >= sizeof(header))
		return STATUS_AGENT_INTERNAL;

	size_t header_text = BASE64URL_SIZE((size_t)header_size), payload_text = BASE64URL_SIZE(payload.size);
	char *jws = malloc(header_text + 1 + payload_text + 1 + BASE64URL_SIZE(sizeof(raw)) + 1);
	if (!jws)
		return STATUS_AGENT_INTERNAL;
	base64url_encode(bytes_of(header, (size_t)header_size), jws);
	jws[header_text] = '.';
	base64url_encode(payload, jws + header_text + 1);
	size_t input = header_text + 1 + payload_text;
	if (!sign_input(key, bytes_of(jws, input), raw)) {
		ERR_clear_error();
		free(jws);
		return STATUS_AGENT_INTERNAL;
	}
	jws[input] = '.';
	base64url_encode(bytes_of(raw, sizeof(raw)), jws + input + 1);
	*ret_jws = jws;
	return STATUS_OK;
}

/* Verifying -------------------------------------------------------------------------------------------------------------------------- */

/* Exactly alg, kid and typ (RFC 8725 sections 3.1 and 3.11); nothing else is looked at before all of it fits. */
static enum jose_reason check_header(const json_t *header, const char *const *typs, char ret_kid[JOSE_KID_SIZE], const char **ret_typ)
{
	const json_t *kid = json_object_get(header, "kid");

	*ret_typ = NULL;
	if (json_object_size(header) != 3 || !json_is_string(kid) || !json_is_string(json_object_get(header, "alg")) || !json_is_string(json_object_get(header, "typ")))
		return JOSE_HEADER;
	if (!jose_member_is(header, "alg", jose_algorithm(JOSE_SIGN)->alg))
		return JOSE_ALG;
	for (; *typs && !*ret_typ; typs++)
		if (jose_member_is(header, "typ", *typs))
			*ret_typ = *typs;
	if (!*ret_typ)
		return JOSE_TYP;
	if (json_string_length(kid) != JOSE_KID_SIZE - 1)
		return JOSE_KID;
	memcpy(ret_kid, json_string_value(kid), JOSE_KID_SIZE);
	return JOSE_OK;
}

static const struct jose_kept_header *find_kept(const struct jose_keys *keys, struct bytes part)
{
	const struct jose_kept_header *rows = keys && keys->kept ? keys->kept->rows : NULL;

	for (unsigned i = 0; rows && part.size > 0 && i < JOSE_HEADERS_KEPT; i++)
		if (rows[i].size == part.size && memcmp(rows[i].text, part.data, part.size) == 0)
			return &rows[i];
	return NULL;
}

static void keep_header(const struct jose_keys *keys, struct bytes part, const char *kid, const char *typ)
{
	if (!keys->kept || part.size > sizeof(keys->kept->rows[0].text) || strlen(typ) >= JOSE_TYP_SIZE || find_kept(keys, part))
		return;
	struct jose_kept_header *kept = &keys->kept->rows[keys->kept->next++ % JOSE_HEADERS_KEPT];
	memcpy(kept->text, part.data, part.size);
	kept->size = part.size;
	strcpy(kept->kid, kid);
	strcpy(kept->typ, typ);
}

static enum jose_reason split_and_check(struct bytes jws, const char *const *typs, const struct jose_keys *keys, struct bytes parts[3], char ret_kid[JOSE_KID_SIZE], const char **ret_typ)
{
	json_t *header;

	if (jws.size > JOSE_MAX_SIZE || !jose_split(jws, parts, 3))
		return JOSE_FORM;
	const struct jose_kept_header *kept = find_kept(keys, parts[0]);
	for (; kept && *typs; typs++)
		if (strcmp(kept->typ, *typs) == 0) {
			strcpy(ret_kid, kept->kid);
			*ret_typ = *typs;
			return JOSE_OK;
		}
	if (kept)
		return JOSE_TYP;
	enum jose_reason reason = jose_header(parts[0], &header);
	if (reason != JOSE_OK)
		return reason;
	reason = check_header(header, typs, ret_kid, ret_typ);
	json_decref(header);
	return reason;
}

static enum jose_reason verify_input(const struct jose_key *key, struct bytes input, struct bytes signature)
{
	uint8_t raw[2 * JOSE_SIGNATURE_SIZE], der[2 + 2 * (3 + JOSE_COORDINATE)], digest[32];
	size_t size = 0;
	enum jose_reason reason = jose_decode(signature, raw, sizeof(raw), &size, JOSE_SIGNATURE);

	if (reason != JOSE_OK)
		return reason;
	/* A high s is accepted: ECDSA peers make both. So anyone can give a message another signature that is good (jose_signed_part). */
	if (size != JOSE_SIGNATURE_SIZE || !is_scalar(raw) || !is_scalar(raw + JOSE_COORDINATE))
		return JOSE_SIGNATURE;
	if (!jose_digest(key, &input, 1, digest))
		return JOSE_INTERNAL;
	int verified = EVP_PKEY_verify(key->verify, der, signature_to_der(raw, der), digest, sizeof(digest));
	if (verified == 1)
		return JOSE_OK;
	/* What stays in the queue would be taken by SSL_get_error for a fault of the connection. */
	ERR_clear_error();
	return verified == 0 ? JOSE_SIGNATURE : JOSE_INTERNAL;
}

static enum jose_reason decode_payload(struct bytes part, char **ret_payload, size_t *ret_size)
{
	char *payload = malloc(part.size + 1);

	if (!payload)
		return JOSE_INTERNAL;
	if (base64url_decode(part, (uint8_t *)payload, part.size, ret_size) != STATUS_OK) {
		free(payload);
		return JOSE_BASE64;
	}
	payload[*ret_size] = '\0';
	*ret_payload = payload;
	return JOSE_OK;
}

enum jose_reason jose_verify(struct bytes jws, const char *const *typs, const struct jose_keys *keys,
                             char **ret_payload, size_t *ret_size, const char **ret_typ, struct jose_key **ret_key)
{
	struct bytes parts[3];
	char kid[JOSE_KID_SIZE];
	const char *typ;

	*ret_payload = NULL;
	*ret_size = 0;
	enum jose_reason reason = split_and_check(jws, typs, keys, parts, kid, &typ);
	if (reason != JOSE_OK)
		return reason;
	struct jose_key *key = jose_keys_find(keys, kid);
	if (!key || key->use != JOSE_SIGN)
		return JOSE_KID;
	reason = verify_input(key, bytes_of(jws.data, parts[0].size + 1 + parts[1].size), parts[2]);
	if (reason == JOSE_OK)
		reason = decode_payload(parts[1], ret_payload, ret_size);
	if (reason == JOSE_OK)
		keep_header(keys, parts[0], kid, typ);
	if (reason == JOSE_OK && ret_typ)
		*ret_typ = typ;
	if (reason == JOSE_OK && ret_key)
		*ret_key = key;
	return reason;
}

struct bytes jose_signed_part(struct bytes jws)
{
	const uint8_t *dot = memrchr(jws.data, '.', jws.size);
	return bytes_of(jws.data, dot ? (size_t)(dot - jws.data) : jws.size);
}

enum jose_reason jose_peek_typ(const struct jose_keys *keys, struct bytes jws, char ret_typ[JOSE_TYP_SIZE])
{
	const uint8_t *dot = jws.size ? memchr(jws.data, '.', jws.size) : NULL;
	struct bytes part = bytes_of(jws.data, dot ? (size_t)(dot - jws.data) : 0);
	const struct jose_kept_header *kept = find_kept(keys, part);
	json_t *header = NULL;

	if (kept)
		strcpy(ret_typ, kept->typ);
	if (kept || !dot)
		return kept ? JOSE_OK : JOSE_HEADER;
	enum jose_reason reason = jose_header(part, &header);
	const char *typ = json_string_value(json_object_get(header, "typ"));
	reason = reason == JOSE_OK && (!typ || strlen(typ) >= JOSE_TYP_SIZE) ? JOSE_HEADER : reason;
	if (reason == JOSE_OK)
		strcpy(ret_typ, typ);
	json_decref(header);
	return reason;
}

enum jose_reason jose_peek_unverified(struct bytes jws, const char *typ, char ret_kid[JOSE_KID_SIZE], json_t **ret_payload)
{
	const char *const typs[] = { typ, NULL };
	struct bytes parts[3];
	const char *found;
	AUTO_FREE char *payload = NULL;
	size_t size;

	*ret_payload = NULL;
	enum jose_reason reason = split_and_check(jws, typs, NULL, parts, ret_kid, &found);
	if (reason == JOSE_OK)
		reason = decode_payload(parts[1], &payload, &size);
	if (reason != JOSE_OK)
		return reason;
	json_t *json = jose_json_parse(bytes_of(payload, size));
	if (!json_is_object(json)) {
		json_decref(json);
		return JOSE_FORM;
	}
	*ret_payload = json;
	return JOSE_OK;
}
