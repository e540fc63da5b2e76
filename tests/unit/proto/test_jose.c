/* Signing and verifying. Encryption is in test_jose_jwe.c, keys in test_jose_key.c. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/proto/jose_forge.h"

static const char *const typs[] = { "wb-request+jwt", "wb-ack+jwt", NULL };
static const char payload[] = "{\"iss\":\"https://reset.example\"}";

struct fixture {
	struct jose_key *key, *other;
	struct jose_keys *keys;
	char *jws;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct jose_key *public;

	assert_int_equal(jose_key_generate(JOSE_SIGN, &f->key), STATUS_OK);
	assert_int_equal(jose_key_generate(JOSE_SIGN, &f->other), STATUS_OK);
	f->keys = jose_keys_new();
	assert_int_equal(jose_key_public(f->key, &public), STATUS_OK);
	assert_int_equal(jose_keys_add(f->keys, public), STATUS_OK);
	assert_int_equal(jose_sign(f->key, typs[0], bytes_of_string(payload), &f->jws), STATUS_OK);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	jose_key_free(f->key);
	jose_key_free(f->other);
	jose_keys_free(f->keys);
	free(f->jws);
	free(f);
	return 0;
}

static enum jose_reason verify_bytes(const struct fixture *f, struct bytes jws)
{
	AUTO_FREE char *got = NULL;
	size_t size;
	enum jose_reason reason = jose_verify(jws, typs, f->keys, &got, &size, NULL, NULL);

	assert_true((reason == JOSE_OK) == (got != NULL));
	return reason;
}

static enum jose_reason verify(const struct fixture *f, const char *jws)
{
	return verify_bytes(f, bytes_of_string(jws));
}

/* Takes the message. */
static void expect(const struct fixture *f, enum jose_reason reason, char *take_jws)
{
	AUTO_FREE char *jws = take_jws;

	assert_string_equal(jose_reason_name(verify(f, jws)), jose_reason_name(reason));
}

static void a_signed_message_verifies(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *got = NULL;
	const char *typ;
	struct jose_key *key;
	size_t size;

	assert_int_equal(jose_verify(bytes_of_string(f->jws), typs, f->keys, &got, &size, &typ, &key), JOSE_OK);
	assert_int_equal(size, strlen(payload));
	assert_string_equal(got, payload);
	assert_ptr_equal(typ, typs[0]);
	assert_ptr_equal(key, jose_keys_find(f->keys, jose_key_id(f->key)));
}

static void the_header_has_one_order(void **state)
{
	struct fixture *f = *state;
	char header[256], expected[256];
	size_t size;

	snprintf(expected, sizeof(expected), "{\"alg\":\"ES256\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\"}", jose_key_id(f->key));
	assert_int_equal(base64url_decode(bytes_of(f->jws, strcspn(f->jws, ".")), (uint8_t *)header, sizeof(header), &size), STATUS_OK);
	header[size] = '\0';
	assert_string_equal(header, expected);
}

static void a_key_signs_again_and_again(void **state)
{
	struct fixture *f = *state;
	char text[300];

	for (int size = 0; size < 300; size++) {
		memset(text, 'a', sizeof(text));
		char *jws;
		assert_int_equal(jose_sign(f->key, typs[1], bytes_of(text, (size_t)size), &jws), STATUS_OK);
		expect(f, JOSE_OK, jws);
	}
}

static void only_a_private_signing_key_signs(void **state)
{
	struct fixture *f = *state;
	struct jose_key *key;
	char *jws;

	assert_int_equal(jose_key_public(f->key, &key), STATUS_OK);
	assert_int_equal(jose_sign(key, typs[0], bytes_of_string("{}"), &jws), STATUS_AGENT_INTERNAL);
	assert_null(jws);
	jose_key_free(key);
	assert_int_equal(jose_key_generate(JOSE_DECRYPT, &key), STATUS_OK);
	assert_int_equal(jose_sign(key, typs[0], bytes_of_string("{}"), &jws), STATUS_AGENT_INTERNAL);
	jose_key_free(key);
}

/* Each is rightly signed over its own header, by the key that `%s` names: only the header is wrong. */
static const struct {
	enum jose_reason reason;
	const char *header;
} headers[] = {
	{ JOSE_OK, "{\"typ\":\"wb-request+jwt\",\"kid\":\"%s\",\"alg\":\"ES256\"}" },
	{ JOSE_OK, " {\"alg\" : \"ES256\", \"kid\":\"%s\",\t\"typ\":\"wb-ack+jwt\"} " },
	{ JOSE_ALG, "{\"alg\":\"none\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\"}" },
	{ JOSE_ALG, "{\"alg\":\"NONE\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\"}" },
	{ JOSE_ALG, "{\"alg\":\"\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\"}" },
	{ JOSE_ALG, "{\"alg\":\"es256\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\"}" },
	{ JOSE_ALG, "{\"alg\":\"ES384\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\"}" },
	{ JOSE_ALG, "{\"alg\":\"HS256\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\"}" },
	{ JOSE_ALG, "{\"alg\":\"PBES2-HS256+A128KW\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\"}" },
	{ JOSE_HEADER, "{\"alg\":null,\"kid\":\"%s\",\"typ\":\"wb-request+jwt\"}" },
	{ JOSE_HEADER, "{\"alg\":[\"ES256\"],\"kid\":\"%s\",\"typ\":\"wb-request+jwt\"}" },
	{ JOSE_HEADER, "{\"kid\":\"%s\",\"typ\":\"wb-request+jwt\"}" },
	{ JOSE_HEADER, "{\"alg\":\"ES256\",\"typ\":\"wb-request+jwt\"}" },
	{ JOSE_HEADER, "{\"alg\":\"ES256\",\"kid\":\"%s\"}" },
	{ JOSE_HEADER, "{\"alg\":\"ES256\",\"alg\":\"ES256\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\"}" },
	{ JOSE_HEADER, "{\"alg\":\"none\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\",\"alg\":\"ES256\"}" },
	{ JOSE_HEADER, "{\"alg\":\"ES256\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\",\"jwk\":{\"kty\":\"EC\"}}" },
	{ JOSE_HEADER, "{\"alg\":\"ES256\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\",\"jku\":\"http://127.0.0.1/\"}" },
	{ JOSE_HEADER, "{\"alg\":\"ES256\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\",\"x5u\":\"http://127.0.0.1/\"}" },
	{ JOSE_HEADER, "{\"alg\":\"ES256\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\",\"x5c\":[]}" },
	{ JOSE_HEADER, "{\"alg\":\"ES256\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\",\"crit\":[]}" },
	{ JOSE_HEADER, "{\"alg\":\"ES256\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\",\"crit\":[\"b64\"],\"b64\":false}" },
	{ JOSE_HEADER, "{\"alg\":\"ES256\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\",\"b64\":false}" },
	{ JOSE_HEADER, "{\"alg\":\"ES256\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\",\"zip\":\"DEF\"}" },
	{ JOSE_HEADER, "{\"alg\":\"ES256\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\",\"cty\":\"JWT\"}" },
	{ JOSE_HEADER, "{\"alg\":\"ES256\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\"}x" },
	{ JOSE_HEADER, "\xef\xbb\xbf{\"alg\":\"ES256\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\"}" },
	{ JOSE_HEADER, "[\"ES256\",\"%s\",\"wb-request+jwt\"]" },
	{ JOSE_HEADER, "\"ES256\"" },
	{ JOSE_HEADER, "{}" },
	{ JOSE_HEADER, "" },
	{ JOSE_TYP, "{\"alg\":\"ES256\",\"kid\":\"%s\",\"typ\":\"wb-result+jwt\"}" },
	{ JOSE_TYP, "{\"alg\":\"ES256\",\"kid\":\"%s\",\"typ\":\"JWT\"}" },
	{ JOSE_TYP, "{\"alg\":\"ES256\",\"kid\":\"%s\",\"typ\":\"WB-REQUEST+JWT\"}" },
	{ JOSE_KID, "{\"alg\":\"ES256\",\"kid\":\"\",\"typ\":\"wb-request+jwt\"}" },
	{ JOSE_KID, "{\"alg\":\"ES256\",\"kid\":\"../../etc/passwd\",\"typ\":\"wb-request+jwt\"}" },
	{ JOSE_KID, "{\"alg\":\"ES256\",\"kid\":\"%s \",\"typ\":\"wb-request+jwt\"}" },
	{ JOSE_KID, "{\"alg\":\"ES256\",\"kid\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\",\"typ\":\"wb-request+jwt\"}" },
};

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-security"
static void the_header_is_exact(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(headers) / sizeof(*headers); i++) {
		char header[512];

		snprintf(header, sizeof(header), headers[i].header, jose_key_id(f->key));
		print_message("# %s\n", header);
		expect(f, headers[i].reason, forge_jws(f->key, header, payload));
	}
}
#pragma GCC diagnostic pop

static void a_header_of_any_size_is_refused(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *spaces = malloc(4001);

	memset(spaces, ' ', 4000);
	spaces[4000] = '\0';
	expect(f, JOSE_HEADER, forge_jws(f->key, spaces, payload));
}

static void another_key_does_not_verify(void **state)
{
	struct fixture *f = *state;
	char header[256];
	char *jws;

	assert_int_equal(jose_sign(f->other, typs[0], bytes_of_string(payload), &jws), STATUS_OK);
	expect(f, JOSE_KID, jws);
	/* the right name on a wrong signature */
	snprintf(header, sizeof(header), "{\"alg\":\"ES256\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\"}", jose_key_id(f->key));
	expect(f, JOSE_SIGNATURE, forge_jws(f->other, header, payload));
}

static void parts_are_three(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *json = NULL;

	expect(f, JOSE_FORM, strdup(""));
	expect(f, JOSE_FORM, strdup("a"));
	expect(f, JOSE_FORM, strdup("a.b"));
	expect(f, JOSE_FORM, strdup("a.b.c.d"));
	expect(f, JOSE_FORM, strdup("a.b.c.d.e"));
	expect(f, JOSE_FORM, strdup("{\"payload\":\"e30\",\"signatures\":[{},{}]}"));
	expect(f, JOSE_HEADER, strdup(".."));
	assert_true(asprintf(&json, "%s.", f->jws) > 0);
	expect(f, JOSE_FORM, strdup(json));
}

static void a_message_above_64_kib_is_refused(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *text = calloc(1, 70000);
	char *jws;

	memset(text, ' ', 70000);
	assert_int_equal(jose_sign(f->key, typs[0], bytes_of(text, 48000), &jws), STATUS_OK);
	expect(f, JOSE_OK, jws);
	assert_int_equal(jose_sign(f->key, typs[0], bytes_of(text, 50000), &jws), STATUS_OK);
	expect(f, JOSE_FORM, jws);
}

static void base64url_is_strict(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *padded = NULL, *spaced = NULL;
	char *stray = strdup(f->jws);

	assert_true(asprintf(&padded, "%s==", f->jws) > 0);
	expect(f, JOSE_BASE64, strdup(padded));
	assert_true(asprintf(&spaced, "%s\n", f->jws) > 0);
	expect(f, JOSE_BASE64, strdup(spaced));
	/* 64 bytes leave four bits in the last character */
	char *last = stray + strlen(stray) - 1;
	*last = *last == 'A' ? 'B' : (char)(*last + 1);
	expect(f, JOSE_BASE64, stray);
	expect(f, JOSE_BASE64, forge_part(f->jws, 0, "e30="));
	expect(f, JOSE_BASE64, forge_part(f->jws, 0, "e3+/"));
	expect(f, JOSE_SIGNATURE, forge_part(f->jws, 1, "e30="));
}

/* The payload is decoded only behind the signature, and strictly then too. */
static void a_signed_payload_must_be_base64url(void **state)
{
	struct fixture *f = *state;
	char header[256];
	uint8_t raw[64];

	snprintf(header, sizeof(header), "{\"alg\":\"ES256\",\"kid\":\"%s\",\"typ\":\"wb-request+jwt\"}", jose_key_id(f->key));
	AUTO_FREE char *h = base64url_encode_new(bytes_of_string(header));
	AUTO_FREE char *input = NULL;
	assert_true(asprintf(&input, "%s.%s", h, "e30=") > 0);
	forge_signature(f->key, input, raw);
	AUTO_FREE char *s = base64url_encode_new(bytes_of(raw, sizeof(raw)));
	char *jws = NULL;
	assert_true(asprintf(&jws, "%s.%s", input, s) > 0);
	expect(f, JOSE_BASE64, jws);
}

static void every_flipped_bit_is_seen(void **state)
{
	struct fixture *f = *state;
	size_t size = strlen(f->jws);

	for (size_t bit = 0; bit < 7 * size; bit++) {
		AUTO_FREE char *jws = strdup(f->jws);

		jws[bit / 7] ^= (char)(1 << bit % 7);
		assert_int_not_equal(verify_bytes(f, bytes_of(jws, size)), JOSE_OK);
	}
}

static void every_cut_is_seen(void **state)
{
	struct fixture *f = *state;

	for (size_t size = 0; size < strlen(f->jws); size++) {
		uint8_t *cut = malloc(size + 1); /* of its exact size, for the sanitizer */

		cut = realloc(cut, size ? size : 1);
		memcpy(cut, f->jws, size);
		assert_int_not_equal(verify_bytes(f, bytes_of(cut, size)), JOSE_OK);
		free(cut);
	}
}

static void signature_of(const struct fixture *f, uint8_t raw[64])
{
	size_t size;

	assert_int_equal(base64url_decode(bytes_of_string(part_of(f->jws, 2)), raw, 64, &size), STATUS_OK);
	assert_int_equal(size, 64);
}

static void every_flipped_signature_bit_is_seen(void **state)
{
	struct fixture *f = *state;
	uint8_t raw[64];

	for (unsigned bit = 0; bit < 512; bit++) {
		signature_of(f, raw);
		raw[bit / 8] ^= (uint8_t)(1 << bit % 8);
		expect(f, JOSE_SIGNATURE, forge_part_bytes(f->jws, 2, bytes_of(raw, 64)));
	}
}

static void a_signature_has_64_bytes(void **state)
{
	struct fixture *f = *state;
	uint8_t raw[200] = { 0 };

	signature_of(f, raw);
	for (size_t size = 0; size < sizeof(raw); size++)
		expect(f, size == 64 ? JOSE_OK : JOSE_SIGNATURE, forge_part_bytes(f->jws, 2, bytes_of(raw, size)));
}

/* DER, as OpenSSL makes it, is not what RFC 7518 has. */
static void a_der_signature_is_refused(void **state)
{
	struct fixture *f = *state;
	uint8_t raw[64], der[80], *at = der;

	signature_of(f, raw);
	ECDSA_SIG *signature = ECDSA_SIG_new();
	ECDSA_SIG_set0(signature, BN_bin2bn(raw, 32, NULL), BN_bin2bn(raw + 32, 32, NULL));
	int size = i2d_ECDSA_SIG(signature, &at);
	ECDSA_SIG_free(signature);
	expect(f, JOSE_SIGNATURE, forge_part_bytes(f->jws, 2, bytes_of(der, (size_t)size)));
}

static const char order_hex[] = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

/* CVE-2022-21449 and its relatives: 0, 1, n - 1, n, n + 1 and 2^256 - 1 in either half. */
static void psychic_signatures_are_refused(void **state)
{
	struct fixture *f = *state;
	uint8_t order[32], numbers[6][32] = { { 0 } };
	size_t size;

	assert_int_equal(hex_decode(bytes_of_string(order_hex), order, sizeof(order), &size), STATUS_OK);
	numbers[1][31] = 1;
	for (unsigned i = 2; i < 5; i++)
		memcpy(numbers[i], order, 32);
	numbers[2][31]--;
	numbers[4][31]++;
	memset(numbers[5], 0xff, 32);
	for (unsigned r = 0; r < 7; r++)
		for (unsigned s = 0; s < 7; s++) {
			uint8_t raw[64];

			signature_of(f, raw);
			if (r < 6)
				memcpy(raw, numbers[r], 32);
			if (s < 6)
				memcpy(raw + 32, numbers[s], 32);
			expect(f, r == 6 && s == 6 ? JOSE_OK : JOSE_SIGNATURE, forge_part_bytes(f->jws, 2, bytes_of(raw, 64)));
		}
}

/* (r, n - s) verifies as (r, s) does: peers make both, so both are taken. */
static void a_high_s_is_accepted(void **state)
{
	struct fixture *f = *state;
	uint8_t raw[64];
	BIGNUM *order = NULL, *s;

	signature_of(f, raw);
	BN_hex2bn(&order, order_hex);
	s = BN_bin2bn(raw + 32, 32, NULL);
	BN_sub(s, order, s);
	assert_int_equal(BN_bn2binpad(s, raw + 32, 32), 32);
	expect(f, JOSE_OK, forge_part_bytes(f->jws, 2, bytes_of(raw, 64)));
	BN_free(s);
	BN_free(order);
}

/* The queue is per thread and read by SSL_get_error on the same one. */
static void nothing_stays_in_the_error_queue(void **state)
{
	struct fixture *f = *state;

	every_flipped_signature_bit_is_seen(state);
	psychic_signatures_are_refused(state);
	assert_int_equal(ERR_peek_error(), 0);
	assert_int_equal(verify(f, f->jws), JOSE_OK);
}

static void peeking_gives_what_is_not_verified(void **state)
{
	struct fixture *f = *state;
	char kid[JOSE_KID_SIZE];
	json_t *json;
	char *jws;

	assert_int_equal(jose_peek_unverified(bytes_of_string(f->jws), typs[0], kid, &json), JOSE_OK);
	assert_string_equal(kid, jose_key_id(f->key));
	assert_true(jose_member_is(json, "iss", "https://reset.example"));
	json_decref(json);
	assert_int_equal(jose_peek_unverified(bytes_of_string(f->jws), typs[1], kid, &json), JOSE_TYP);
	assert_null(json);
	assert_int_equal(jose_peek_unverified(bytes_of_string("a.b"), typs[0], kid, &json), JOSE_FORM);
	assert_int_equal(jose_sign(f->key, typs[0], bytes_of_string("[1]"), &jws), STATUS_OK);
	assert_int_equal(jose_peek_unverified(bytes_of_string(jws), typs[0], kid, &json), JOSE_FORM);
	assert_null(json);
	free(jws);
}

static void *no_malloc(size_t size)
{
	errno = ENOMEM;
	return NULL;
}

static void no_memory_is_not_a_bad_header(void **state)
{
	struct fixture *f = *state;
	char typ[JOSE_TYP_SIZE];

	json_set_alloc_funcs(no_malloc, free);
	assert_int_equal(jose_peek_typ(f->keys, bytes_of_string(f->jws), typ), JOSE_INTERNAL);
	assert_int_equal(verify(f, f->jws), JOSE_INTERNAL);
	assert_int_equal(verify(f, "e30.e30.e30"), JOSE_INTERNAL);
	json_set_alloc_funcs(malloc, free);
	assert_int_equal(verify(f, "e30.e30.e30"), JOSE_HEADER);
	assert_int_equal(verify(f, f->jws), JOSE_OK);
}

/* JSON ------------------------------------------------------------------------------------------------------------------------------- */

static bool parses(const char *text, size_t size)
{
	json_t *json = jose_json_parse(bytes_of(text, size));

	json_decref(json);
	return json != NULL;
}
#define PARSES(text) parses(text, sizeof(text) - 1)

static void json_is_strict(void **state)
{
	assert_true(PARSES("{\"a\":1}"));
	assert_true(PARSES(" [\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[[\"] "));
	assert_false(PARSES(""));
	assert_false(PARSES("\"a\""));
	assert_false(PARSES("1"));
	assert_false(PARSES("{\"a\":1}x"));
	assert_false(PARSES("{\"a\":1}{}"));
	assert_false(PARSES("{\"a\":1}\0"));
	assert_false(PARSES("{\"a\":1,\"a\":1}"));
	assert_false(PARSES("{\"a\":1,\"\\u0061\":1}"));
	assert_false(PARSES("\xef\xbb\xbf{\"a\":1}"));
	assert_false(PARSES("{\"a\":\"\\u0000\"}"));
	assert_false(PARSES("{\"a\":\"\\ud800\"}"));
	assert_false(PARSES("{\"a\":\"\xff\"}"));
	assert_false(PARSES("{\"a\":\"\xed\xa0\x80\"}"));
	assert_false(PARSES("{'a':1}"));
	assert_false(PARSES("{\"a\":1,}"));
	assert_false(PARSES("{\"a\":NaN}"));
	assert_false(PARSES("{\"a\":99999999999999999999}"));
	assert_false(PARSES("{\"a\":\"\\"));
}

static void json_is_shallow(void **state)
{
	char text[200];

	for (int depth = 1; depth < 80; depth++) {
		memset(text, '[', (size_t)depth);
		memset(text + depth, ']', (size_t)depth);
		assert_int_equal(parses(text, 2 * (size_t)depth), depth <= 32);
	}
	/* closed and opened again */
	assert_true(PARSES("[[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[]]"));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_signed_message_verifies), T(the_header_has_one_order), T(a_key_signs_again_and_again), T(only_a_private_signing_key_signs), T(the_header_is_exact),
		T(a_header_of_any_size_is_refused), T(another_key_does_not_verify), T(parts_are_three), T(a_message_above_64_kib_is_refused), T(base64url_is_strict),
		T(a_signed_payload_must_be_base64url), T(every_flipped_bit_is_seen), T(every_cut_is_seen), T(every_flipped_signature_bit_is_seen), T(a_signature_has_64_bytes),
		T(a_der_signature_is_refused), T(psychic_signatures_are_refused), T(a_high_s_is_accepted), T(nothing_stays_in_the_error_queue),
		T(peeking_gives_what_is_not_verified), T(no_memory_is_not_a_bad_header), cmocka_unit_test(json_is_strict), cmocka_unit_test(json_is_shallow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
