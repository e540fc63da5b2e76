/* The examples of RFC 7520 (rfc7520.json: its keys and messages, section by section): none of its messages is of this profile, and each is refused for its form or its header, before any key
 * is looked for; its one key on P-256 works once it has no name but its thumbprint. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "proto/jose.h"

static json_t *examples;

static int load(void **state)
{
	char path[512];
	snprintf(path, sizeof path, "%s/tests/unit/proto/rfc7520.json", getenv("SOURCE_ROOT"));
	examples = json_load_file(path, 0, NULL);
	return examples ? 0 : -1;
}

static int unload(void **state)
{
	json_decref(examples);
	return 0;
}

static const char *text(const json_t *example, const char *member)
{
	return json_string_value(json_object_get(example, member));
}

static void must_be(const json_t *example, enum jose_reason reason)
{
	if (strcmp(jose_reason_name(reason), text(example, "reason")) != 0)
		fail_msg("%s %s: %s", text(example, "section"), text(example, "what"), jose_reason_name(reason));
}

/* No key is known, and the reason is never "kid": nothing got so far. */
static void no_signature_is_of_this_profile(void **state)
{
	static const char *const typs[] = { "wb-request+jwt", "JWT", NULL };
	struct jose_keys *none = jose_keys_new();
	json_t *example;
	size_t i;
	json_array_foreach(json_object_get(examples, "jws"), i, example) {
		char *payload = NULL;
		size_t size;
		must_be(example, jose_verify(bytes_of_string(text(example, "message")), typs, none, &payload, &size, NULL, NULL));
		assert_null(payload);
	}
	assert_int_equal(i, 8);
	jose_keys_free(none);
}

static void no_encryption_is_of_this_profile(void **state)
{
	struct jose_key *const none[] = { NULL };
	json_t *example;
	size_t i;
	json_array_foreach(json_object_get(examples, "jwe"), i, example) {
		AUTO_SECRET struct secret plaintext = SECRET_EMPTY;
		char kid[JOSE_KID_SIZE];
		must_be(example, jose_decrypt(bytes_of_string(text(example, "message")), none, &plaintext));
		must_be(example, jose_jwe_kid(bytes_of_string(text(example, "message")), kid));
		assert_null(plaintext.data);
	}
	assert_int_equal(i, 9);
}

static void no_key_is_taken_as_it_is(void **state)
{
	json_t *example;
	size_t i;
	json_array_foreach(json_object_get(examples, "keys"), i, example) {
		for (unsigned use = JOSE_SIGN; use <= JOSE_DECRYPT; use++) {
			for (unsigned private = 0; private < 2; private++) {
				struct jose_key *key = NULL;
				if (jose_key_from_jwk(json_object_get(example, "jwk"), use, private, &key) != STATUS_LOCAL_INPUT)
					fail_msg("%s %s was taken", text(example, "section"), text(example, "what"));
			}
		}
	}
	assert_int_equal(i, 6);
}

/* Section 5.5.1: for ECDH-ES on P-256, as here. */
static void the_p256_key_works_under_its_thumbprint(void **state)
{
	json_t *example, *jwk = NULL;
	size_t i;
	json_array_foreach(json_object_get(examples, "keys"), i, example) {
		if (strcmp(text(example, "section"), "5.5.1") == 0)
			jwk = json_copy(json_object_get(example, "jwk"));
	}
	assert_non_null(jwk);
	json_object_del(jwk, "kid");
	struct jose_key *key, *public, *wrong = NULL;
	assert_int_equal(jose_key_from_jwk(jwk, JOSE_DECRYPT, true, &key), STATUS_OK);
	assert_int_equal(jose_key_from_jwk(jwk, JOSE_SIGN, true, &wrong), STATUS_LOCAL_INPUT); /* its use is enc */
	json_decref(jwk);
	AUTO_FREE char *jwe = NULL;
	AUTO_SECRET struct secret plaintext = SECRET_EMPTY;
	struct jose_key *const keys[] = { key, NULL };
	assert_int_equal(jose_key_public(key, &public), STATUS_OK);
	assert_int_equal(jose_encrypt(public, bytes_of_string("You can trust us"), &jwe), STATUS_OK);
	assert_int_equal(jose_decrypt(bytes_of_string(jwe), keys, &plaintext), JOSE_OK);
	assert_true(bytes_equal(secret_bytes(&plaintext), bytes_of_string("You can trust us")));
	jose_key_free(public);
	jose_key_free(key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_signature_is_of_this_profile),
		cmocka_unit_test(no_encryption_is_of_this_profile),
		cmocka_unit_test(no_key_is_taken_as_it_is),
		cmocka_unit_test(the_p256_key_works_under_its_thumbprint),
	};
	return cmocka_run_group_tests(tests, load, unload);
}
