#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/proto/jose_forge.h"

static const char plaintext[] = "{\"new_password\":\"Winter is 2026!\"}";

struct fixture {
	struct jose_key *key, *retired, *public;
	char *jwe;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_int_equal(jose_key_generate(JOSE_DECRYPT, &f->key), STATUS_OK);
	assert_int_equal(jose_key_generate(JOSE_DECRYPT, &f->retired), STATUS_OK);
	assert_int_equal(jose_key_public(f->key, &f->public), STATUS_OK);
	assert_int_equal(jose_encrypt(f->public, bytes_of_string(plaintext), &f->jwe), STATUS_OK);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	jose_key_free(f->key);
	jose_key_free(f->retired);
	jose_key_free(f->public);
	free(f->jwe);
	free(f);
	return 0;
}

static enum jose_reason decrypt_bytes(struct fixture *f, struct bytes jwe)
{
	struct jose_key *const keys[] = { f->key, f->retired, NULL };
	AUTO_SECRET struct secret got = SECRET_EMPTY;
	enum jose_reason reason = jose_decrypt(jwe, keys, &got);

	assert_true((reason == JOSE_OK) == (got.data != NULL));
	return reason;
}

/* Takes the message. */
static void expect(struct fixture *f, enum jose_reason reason, char *take_jwe)
{
	AUTO_FREE char *jwe = take_jwe;

	assert_string_equal(jose_reason_name(decrypt_bytes(f, bytes_of_string(jwe))), jose_reason_name(reason));
}

static void an_encrypted_text_is_decrypted(void **state)
{
	struct fixture *f = *state;
	struct jose_key *const keys[] = { f->retired, f->key, NULL };
	AUTO_SECRET struct secret got = SECRET_EMPTY;
	char kid[JOSE_KID_SIZE];

	assert_int_equal(jose_decrypt(bytes_of_string(f->jwe), keys, &got), JOSE_OK);
	assert_true(bytes_equal(secret_bytes(&got), bytes_of_string(plaintext)));
	assert_int_equal(jose_jwe_kid(bytes_of_string(f->jwe), kid), JOSE_OK);
	assert_string_equal(kid, jose_key_id(f->key));
}

/* Kept contexts hold nothing from one message to the next, failed ones between. */
static void keys_serve_many_messages(void **state)
{
	struct fixture *f = *state;
	char text[200];

	for (size_t size = 1; size < sizeof(text); size++) {
		struct jose_key *to = size % 2 ? f->key : f->retired;
		char *jwe;

		memset(text, 'p', sizeof(text));
		assert_int_equal(jose_encrypt(to, bytes_of(text, size), &jwe), STATUS_OK);
		expect(f, JOSE_DECRYPTION, forge_part(jwe, 4, "AAAAAAAAAAAAAAAAAAAAAA"));
		expect(f, JOSE_OK, jwe);
	}
}

static void two_encryptions_differ(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *again = NULL;

	assert_int_equal(jose_encrypt(f->public, bytes_of_string(plaintext), &again), STATUS_OK);
	for (unsigned part = 0; part < 5; part++)
		if (part != 1)
			assert_string_not_equal(part_of(again, part), part_of(f->jwe, part));
}

static void wrong_keys_are_told(void **state)
{
	struct fixture *f = *state;
	struct jose_key *const none[] = { NULL }, *const other[] = { f->retired, NULL }, *const public[] = { f->public, NULL };
	struct secret got;
	struct jose_key *sign;
	char *jwe;

	assert_int_equal(jose_decrypt(bytes_of_string(f->jwe), none, &got), JOSE_KID);
	assert_int_equal(jose_decrypt(bytes_of_string(f->jwe), other, &got), JOSE_KID);
	assert_int_equal(jose_decrypt(bytes_of_string(f->jwe), public, &got), JOSE_KID);
	assert_int_equal(jose_key_generate(JOSE_SIGN, &sign), STATUS_OK);
	struct jose_key *const signs[] = { sign, NULL };
	assert_int_equal(jose_encrypt(sign, bytes_of_string(plaintext), &jwe), STATUS_AGENT_INTERNAL);
	assert_null(jwe);
	assert_int_equal(jose_decrypt(bytes_of_string(f->jwe), signs, &got), JOSE_KID);
	jose_key_free(sign);
	assert_int_equal(jose_encrypt(f->public, bytes_of(NULL, 0), &jwe), STATUS_LOCAL_INPUT);
}

/* Before any cryptography, so the rest need not fit. @kid@ is the kid, @x@ x and @y@ y of a point on the curve. */
static const struct {
	enum jose_reason reason;
	const char *header;
} headers[] = {
	{ JOSE_DECRYPTION, "{\"kid\":\"@kid@\",\"epk\":{\"y\":\"@y@\",\"x\":\"@x@\",\"crv\":\"P-256\",\"kty\":\"EC\"},\"enc\":\"A256GCM\",\"alg\":\"ECDH-ES\"}" },
	{ JOSE_HEADER, "{\"alg\":\"ECDH-ES\",\"enc\":\"A256GCM\",\"epk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"@x@\",\"y\":\"@y@\"}}" },
	{ JOSE_HEADER, "{\"alg\":\"ECDH-ES\",\"enc\":\"A256GCM\",\"kid\":\"@kid@\"}" },
	{ JOSE_HEADER, "{\"alg\":\"ECDH-ES\",\"epk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"@x@\",\"y\":\"@y@\"},\"kid\":\"@kid@\"}" },
	{ JOSE_HEADER, "{\"alg\":\"ECDH-ES\",\"enc\":\"A256GCM\",\"epk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"@x@\",\"y\":\"@y@\"},\"kid\":\"@kid@\",\"zip\":\"DEF\"}" },
	{ JOSE_HEADER, "{\"alg\":\"ECDH-ES\",\"enc\":\"A256GCM\",\"epk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"@x@\",\"y\":\"@y@\"},\"kid\":\"@kid@\",\"apu\":\"QQ\"}" },
	{ JOSE_HEADER, "{\"alg\":\"ECDH-ES\",\"enc\":\"A256GCM\",\"epk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"@x@\",\"y\":\"@y@\"},\"kid\":\"@kid@\",\"p2c\":2147483647}" },
	{ JOSE_HEADER, "{\"alg\":\"ECDH-ES\",\"alg\":\"ECDH-ES\",\"enc\":\"A256GCM\",\"epk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"@x@\",\"y\":\"@y@\"},\"kid\":\"@kid@\"}" },
	{ JOSE_ALG, "{\"alg\":\"ECDH-ES+A256KW\",\"enc\":\"A256GCM\",\"epk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"@x@\",\"y\":\"@y@\"},\"kid\":\"@kid@\"}" },
	{ JOSE_ALG, "{\"alg\":\"dir\",\"enc\":\"A256GCM\",\"epk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"@x@\",\"y\":\"@y@\"},\"kid\":\"@kid@\"}" },
	{ JOSE_ALG, "{\"alg\":\"PBES2-HS256+A128KW\",\"enc\":\"A256GCM\",\"epk\":{},\"kid\":\"@kid@\"}" },
	{ JOSE_ENC, "{\"alg\":\"ECDH-ES\",\"enc\":\"A128GCM\",\"epk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"@x@\",\"y\":\"@y@\"},\"kid\":\"@kid@\"}" },
	{ JOSE_ENC, "{\"alg\":\"ECDH-ES\",\"enc\":\"A256CBC-HS512\",\"epk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"@x@\",\"y\":\"@y@\"},\"kid\":\"@kid@\"}" },
	{ JOSE_KID, "{\"alg\":\"ECDH-ES\",\"enc\":\"A256GCM\",\"epk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"@x@\",\"y\":\"@y@\"},\"kid\":\"\"}" },
	{ JOSE_KID, "{\"alg\":\"ECDH-ES\",\"enc\":\"A256GCM\",\"epk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"@x@\",\"y\":\"@y@\"},\"kid\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}" },
	{ JOSE_EPK, "{\"alg\":\"ECDH-ES\",\"enc\":\"A256GCM\",\"epk\":\"@x@\",\"kid\":\"@kid@\"}" },
	{ JOSE_EPK, "{\"alg\":\"ECDH-ES\",\"enc\":\"A256GCM\",\"epk\":{},\"kid\":\"@kid@\"}" },
	{ JOSE_EPK, "{\"alg\":\"ECDH-ES\",\"enc\":\"A256GCM\",\"epk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"@x@\"},\"kid\":\"@kid@\"}" },
	{ JOSE_EPK, "{\"alg\":\"ECDH-ES\",\"enc\":\"A256GCM\",\"epk\":{\"kty\":\"EC\",\"crv\":\"P-384\",\"x\":\"@x@\",\"y\":\"@y@\"},\"kid\":\"@kid@\"}" },
	{ JOSE_EPK, "{\"alg\":\"ECDH-ES\",\"enc\":\"A256GCM\",\"epk\":{\"kty\":\"OKP\",\"crv\":\"P-256\",\"x\":\"@x@\",\"y\":\"@y@\"},\"kid\":\"@kid@\"}" },
	{ JOSE_EPK, "{\"alg\":\"ECDH-ES\",\"enc\":\"A256GCM\",\"epk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"@x@\",\"y\":\"@y@\",\"d\":\"@x@\"},\"kid\":\"@kid@\"}" },
	{ JOSE_EPK, "{\"alg\":\"ECDH-ES\",\"enc\":\"A256GCM\",\"epk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"@x@=\",\"y\":\"@y@\"},\"kid\":\"@kid@\"}" },
	{ JOSE_EPK, "{\"alg\":\"ECDH-ES\",\"enc\":\"A256GCM\",\"epk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"@y@\"},\"kid\":\"@kid@\"}" },
	/* off the curve: x twice, zeros, x above the field's prime */
	{ JOSE_EPK, "{\"alg\":\"ECDH-ES\",\"enc\":\"A256GCM\",\"epk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"@x@\",\"y\":\"@x@\"},\"kid\":\"@kid@\"}" },
	{ JOSE_EPK, "{\"alg\":\"ECDH-ES\",\"enc\":\"A256GCM\",\"epk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\",\"y\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"},\"kid\":\"@kid@\"}" },
	{ JOSE_EPK, "{\"alg\":\"ECDH-ES\",\"enc\":\"A256GCM\",\"epk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"__________________________________________8\",\"y\":\"@y@\"},\"kid\":\"@kid@\"}" },
};

/* `template` with @kid@, @x@ and @y@ filled in. */
static void fill_in(const char *template, const char *kid, const char *x, const char *y, char *out, size_t capacity)
{
	const struct { const char *word, *value; } words[] = { { "@kid@", kid }, { "@x@", x }, { "@y@", y } };
	size_t size = 0;

	while (*template) {
		size_t i = 0;
		while (i < 3 && strncmp(template, words[i].word, strlen(words[i].word)) != 0)
			i++;
		size += (size_t)snprintf(out + size, capacity - size, "%.*s", i < 3 ? 64 : 1, i < 3 ? words[i].value : template);
		template += i < 3 ? strlen(words[i].word) : 1;
		assert_true(size < capacity);
	}
}

static void the_header_is_exact(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(headers) / sizeof(*headers); i++) {
		char header[512];

		fill_in(headers[i].header, jose_key_id(f->key), f->retired->x, f->retired->y, header, sizeof(header));
		print_message("# %s\n", header);
		expect(f, headers[i].reason, forge_part_bytes(f->jwe, 0, bytes_of_string(header)));
	}
	/* none of them has spoiled the key */
	expect(f, JOSE_OK, strdup(f->jwe));
	assert_int_equal(ERR_peek_error(), 0);
}

static void parts_are_five_and_the_second_is_empty(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *six = NULL;

	expect(f, JOSE_FORM, strdup(""));
	expect(f, JOSE_FORM, strdup("a..b.c"));
	expect(f, JOSE_FORM, strdup("...."));
	expect(f, JOSE_FORM, forge_part(f->jwe, 1, "AAAA"));
	expect(f, JOSE_FORM, forge_part(f->jwe, 3, ""));
	assert_true(asprintf(&six, "%s.", f->jwe) > 0);
	expect(f, JOSE_FORM, strdup(six));
}

/* CVE-2023-37464: a tag of one byte is guessed in 256 tries. */
static void tags_have_16_bytes_and_ivs_12(void **state)
{
	struct fixture *f = *state;
	uint8_t tag[100] = { 0 }, iv[100] = { 0 };
	size_t size;

	assert_int_equal(base64url_decode(bytes_of(part_of(f->jwe, 2), 16), iv, sizeof(iv), &size), STATUS_OK);
	assert_int_equal(base64url_decode(bytes_of_string(part_of(f->jwe, 4)), tag, sizeof(tag), &size), STATUS_OK);
	for (size = 0; size < sizeof(tag); size++) {
		expect(f, size == 16 ? JOSE_OK : JOSE_DECRYPTION, forge_part_bytes(f->jwe, 4, bytes_of(tag, size)));
		expect(f, size == 12 ? JOSE_OK : JOSE_DECRYPTION, forge_part_bytes(f->jwe, 2, bytes_of(iv, size)));
	}
}

static void base64url_is_strict(void **state)
{
	struct fixture *f = *state;

	for (unsigned part = 0; part < 5; part++)
		if (part != 1)
			expect(f, JOSE_BASE64, forge_part(f->jwe, part, "AA=="));
}

static void every_flipped_bit_is_seen(void **state)
{
	struct fixture *f = *state;
	size_t size = strlen(f->jwe);

	for (size_t bit = 0; bit < 7 * size; bit++) {
		AUTO_FREE char *jwe = strdup(f->jwe);

		jwe[bit / 7] ^= (char)(1 << bit % 7);
		assert_int_not_equal(decrypt_bytes(f, bytes_of(jwe, size)), JOSE_OK);
	}
}

static void every_cut_is_seen(void **state)
{
	struct fixture *f = *state;

	for (size_t size = 0; size < strlen(f->jwe); size++) {
		uint8_t *cut = malloc(size ? size : 1); /* of its exact size, for the sanitizer */

		memcpy(cut, f->jwe, size);
		assert_int_not_equal(decrypt_bytes(f, bytes_of(cut, size)), JOSE_OK);
		free(cut);
	}
}

/* To Bob of RFC 7518 appendix C, by python3-jwcrypto. The interoperability tests go both ways. */
static const char foreign[] = "eyJhbGciOiJFQ0RILUVTIiwiZW5jIjoiQTI1NkdDTSIsImVwayI6eyJjcnYiOiJQLTI1NiIsImt0eSI6IkVDIiwieCI6IlZCU2x3QjVtOUFHT2E2bllIVDZ5SGFtcV9lWk81b1NwV0xJLUdoLThTc0EiLCJ5IjoiXzNrQUdkbnRZNTM2RGgyRFJoY2RrN3Jaemo0VDFUWmRveGdzYkdBa09xTSJ9LCJraWQiOiJWeTU3WHJBclVyVzBOYnBJMTJ0RXpESEFCeE13clRoNkhIWFJlblNwbkNvIn0..lxENcO8Z3_QA_1Ok.b3gKV3az_l5u7ET_QqYyffTK9J2H7DXX7GjJR_kuuGU.SCpASAI32yeE0BFIgIQwtA";

static void a_foreign_message_is_decrypted(void **state)
{
	json_t *jwk = json_pack("{ss ss ss ss ss}", "kty", "EC", "crv", "P-256", "x", "weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ", "y",
	                        "e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck", "d", "VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw");
	struct jose_key *key;

	assert_int_equal(jose_key_from_jwk(jwk, JOSE_DECRYPT, true, &key), STATUS_OK);
	struct jose_key *const keys[] = { key, NULL };
	AUTO_SECRET struct secret got = SECRET_EMPTY;
	assert_int_equal(jose_decrypt(bytes_of_string(foreign), keys, &got), JOSE_OK);
	assert_true(bytes_equal(secret_bytes(&got), bytes_of_string("{\"new_password\":\"from jwcrypto\"}")));
	jose_key_free(key);
	json_decref(jwk);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(an_encrypted_text_is_decrypted), T(keys_serve_many_messages), T(two_encryptions_differ), T(wrong_keys_are_told), T(the_header_is_exact),
		T(parts_are_five_and_the_second_is_empty), T(tags_have_16_bytes_and_ivs_12), T(base64url_is_strict), T(every_flipped_bit_is_seen), T(every_cut_is_seen),
		T(a_foreign_message_is_decrypted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
