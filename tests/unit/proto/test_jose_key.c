#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/proto/jose_forge.h"

/* RFC 7518 appendix C: Bob's key. Its thumbprint was computed with python3-jwcrypto. */
static const char *const bob[][2] = {
	{ "kty", "EC" }, { "crv", "P-256" }, { "x", "weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ" }, { "y", "e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck" },
	{ "d", "VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw" },
};
static const char bob_thumbprint[] = "Vy57XrArUrW0NbpI12tEzDHABxMwrTh6HHXRenSpnCo";

static json_t *bob_jwk(bool with_private)
{
	json_t *jwk = json_object();

	for (size_t i = 0; i < (with_private ? 5 : 4); i++)
		json_object_set_new(jwk, bob[i][0], json_string(bob[i][1]));
	return jwk;
}

static enum status from_jwk(const json_t *jwk, enum jose_use use, bool with_private)
{
	struct jose_key *key;
	enum status status = jose_key_from_jwk(jwk, use, with_private, &key);

	assert_true((status == STATUS_OK) == (key != NULL));
	jose_key_free(key);
	return status;
}

static void a_key_has_the_thumbprint_of_rfc_7638(void **state)
{
	json_t *jwk = bob_jwk(false);
	struct jose_key *key;

	assert_int_equal(jose_key_from_jwk(jwk, JOSE_DECRYPT, false, &key), STATUS_OK);
	assert_string_equal(jose_key_id(key), bob_thumbprint);
	assert_int_equal(jose_key_use(key), JOSE_DECRYPT);
	json_t *public = jose_key_public_jwk(key);
	assert_int_equal(json_object_size(public), 7);
	assert_true(jose_member_is(public, "kid", bob_thumbprint));
	assert_true(jose_member_is(public, "alg", "ECDH-ES"));
	assert_true(jose_member_is(public, "use", "enc"));
	assert_int_equal(from_jwk(public, JOSE_DECRYPT, false), STATUS_OK);
	/* a key for one use is not taken for the other */
	assert_int_equal(from_jwk(public, JOSE_SIGN, false), STATUS_LOCAL_INPUT);
	json_decref(public);
	json_decref(jwk);
	jose_key_free(key);
}

static const struct {
	const char *name, *value; /* NULL value: taken away */
} twins[] = {
	{ "kty", NULL }, { "crv", NULL }, { "x", NULL }, { "y", NULL },
	{ "kty", "RSA" }, { "crv", "P-384" }, { "crv", "secp256k1" },
	{ "x", "" }, { "x", "weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxM" }, { "x", "weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ=" },
	{ "x", "weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMR" }, /* stray bits */
	{ "y", "weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ" }, /* off the curve */
	{ "x", "__________________________________________8" }, /* above the prime */
	{ "kid", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" }, { "alg", "ES384" }, { "alg", "none" }, { "use", "enc" }, { "key_ops", "verify" }, { "ext", "true" },
};

static void a_jwk_is_exact(void **state)
{
	for (size_t i = 0; i < sizeof(twins) / sizeof(*twins); i++) {
		json_t *jwk = bob_jwk(false);

		if (twins[i].value)
			json_object_set_new(jwk, twins[i].name, json_string(twins[i].value));
		else
			json_object_del(jwk, twins[i].name);
		print_message("# %s %s\n", twins[i].name, twins[i].value ? twins[i].value : "-");
		assert_int_equal(from_jwk(jwk, JOSE_SIGN, false), STATUS_LOCAL_INPUT);
		json_decref(jwk);
	}
	assert_int_equal(from_jwk(NULL, JOSE_SIGN, false), STATUS_LOCAL_INPUT);
	json_t *array = json_array();
	assert_int_equal(from_jwk(array, JOSE_SIGN, false), STATUS_LOCAL_INPUT);
	json_decref(array);
	assert_int_equal(ERR_peek_error(), 0);
}

static void a_private_part_is_where_it_is_wanted(void **state)
{
	json_t *jwk = bob_jwk(true), *public = bob_jwk(false);

	assert_int_equal(from_jwk(jwk, JOSE_SIGN, true), STATUS_OK);
	assert_int_equal(from_jwk(jwk, JOSE_SIGN, false), STATUS_LOCAL_INPUT);
	assert_int_equal(from_jwk(public, JOSE_SIGN, true), STATUS_LOCAL_INPUT);
	/* of another key, zero, and above the order */
	json_object_set_new(jwk, "d", json_string("VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdA"));
	assert_int_equal(from_jwk(jwk, JOSE_SIGN, true), STATUS_LOCAL_INPUT);
	json_object_set_new(jwk, "d", json_string("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
	assert_int_equal(from_jwk(jwk, JOSE_SIGN, true), STATUS_LOCAL_INPUT);
	json_object_set_new(jwk, "d", json_string("__________________________________________8"));
	assert_int_equal(from_jwk(jwk, JOSE_SIGN, true), STATUS_LOCAL_INPUT);
	json_decref(jwk);
	json_decref(public);
}

static void a_private_jwk_comes_back(void **state)
{
	AUTO_SECRET struct secret text = SECRET_EMPTY;
	struct jose_key *key, *again, *public;

	assert_int_equal(jose_key_generate(JOSE_SIGN, &key), STATUS_OK);
	assert_int_equal(jose_key_private_jwk(key, &text), STATUS_OK);
	json_t *jwk = jose_json_parse(secret_bytes(&text));
	assert_int_equal(json_object_size(jwk), 8);
	assert_int_equal(jose_key_from_jwk(jwk, JOSE_SIGN, true, &again), STATUS_OK);
	assert_string_equal(jose_key_id(key), jose_key_id(again));
	assert_int_equal(jose_key_public(key, &public), STATUS_OK);
	assert_string_equal(jose_key_id(key), jose_key_id(public));
	secret_wipe(&text);
	assert_int_equal(jose_key_private_jwk(public, &text), STATUS_AGENT_INTERNAL);
	json_decref(jwk);
	jose_key_free(key);
	jose_key_free(again);
	jose_key_free(public);
}

static void a_set_has_sixteen_keys_of_distinct_names(void **state)
{
	struct jose_keys *keys = jose_keys_new();
	struct jose_key *key, *first = NULL;

	for (unsigned i = 0; i < 18; i++) {
		assert_int_equal(jose_key_generate(JOSE_SIGN, &key), STATUS_OK);
		if (i == 0)
			assert_int_equal(jose_key_public(key, &first), STATUS_OK);
		assert_int_equal(jose_keys_add(keys, key), i < 16 ? STATUS_OK : STATUS_LOCAL_INPUT);
		if (i == 1)
			assert_int_equal(jose_keys_add(keys, first), STATUS_LOCAL_INPUT);
	}
	assert_int_equal(jose_keys_count(keys), 16);
	assert_null(jose_keys_find(keys, bob_thumbprint));
	jose_keys_free(keys);
	keys = jose_keys_new();
	assert_int_equal(jose_key_generate(JOSE_DECRYPT, &key), STATUS_OK);
	assert_int_equal(jose_keys_add(keys, key), STATUS_LOCAL_INPUT);
	jose_keys_free(keys);
	jose_keys_free(NULL);
	jose_key_free(NULL);
}

static void a_key_file_is_written_and_read(void **state)
{
	char folder[] = "/tmp/test_jose_key.XXXXXX", path[64];
	struct jose_key *key, *again;
	struct stat facts;

	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/signing.jwk", folder);
	assert_int_equal(jose_key_load(path, JOSE_SIGN, &again), STATUS_LOCAL_SYSTEM);
	assert_int_equal(jose_key_generate(JOSE_SIGN, &key), STATUS_OK);
	umask(0);
	assert_int_equal(jose_key_store(key, path), STATUS_OK);
	assert_int_equal(stat(path, &facts), 0);
	assert_int_equal(facts.st_mode & 07777, 0600);
	assert_int_equal(jose_key_load(path, JOSE_SIGN, &again), STATUS_OK);
	assert_string_equal(jose_key_id(key), jose_key_id(again));
	/* written over; a file of another use, of a wrong mode and of another content */
	assert_int_equal(jose_key_store(again, path), STATUS_OK);
	jose_key_free(again);
	assert_int_equal(jose_key_load(path, JOSE_DECRYPT, &again), STATUS_LOCAL_INPUT);
	chmod(path, 0644);
	assert_int_equal(jose_key_load(path, JOSE_SIGN, &again), STATUS_LOCAL_PERMISSION);
	chmod(path, 0600);
	assert_int_equal(truncate(path, 100), 0);
	assert_int_equal(jose_key_load(path, JOSE_SIGN, &again), STATUS_LOCAL_INPUT);
	assert_null(again);
	unlink(path);
	rmdir(folder);
	assert_int_equal(jose_key_store(key, path), STATUS_LOCAL_SYSTEM);
	assert_int_equal(errno, ENOENT);
	jose_key_free(key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_key_has_the_thumbprint_of_rfc_7638), cmocka_unit_test(a_jwk_is_exact), cmocka_unit_test(a_private_part_is_where_it_is_wanted),
		cmocka_unit_test(a_private_jwk_comes_back), cmocka_unit_test(a_set_has_sixteen_keys_of_distinct_names), cmocka_unit_test(a_key_file_is_written_and_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
