#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/messages.h"
#include "service/keys.h"

#define ISSUER "https://reset.example.org"
#define NOW 1790000000

static char folder[64];

static int set_up(void **state)
{
	strcpy(folder, "/tmp/test-keys-XXXXXX");
	return mkdtemp(folder) != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
	static const char *const names[] = { "root.jwk", "root-public.jwk", "signing.jwk", "key-set.jws", "offline.jwk", NULL };
	char path[128];
	for (size_t i = 0; names[i] != NULL; i++) {
		snprintf(path, sizeof path, "%s/%s", folder, names[i]);
		unlink(path);
	}
	return rmdir(folder);
}

static void load(struct keys *keys, int64_t version)
{
	char *why = NULL;
	assert_int_equal(keys_load(folder, ISSUER, NOW, keys, &why), STATUS_OK);
	assert_int_equal(keys->version, version);
}

static unsigned count_keys(const struct keys *keys)
{
	struct key_set set = { 0 };
	assert_int_equal(key_set_verify(bytes_of_string(keys->key_set), keys->root, ISSUER, NOW, &set), STATUS_OK);
	unsigned count = jose_keys_count(set.keys);
	key_set_clear(&set);
	return count;
}

static void rotation_keeps_the_keys_before(void **state)
{
	struct keys first, second, third, fourth;
	char *why = NULL;
	assert_int_equal(keys_init(folder, ISSUER, NOW, &why), STATUS_OK);
	load(&first, 1);
	assert_int_equal(keys_init(folder, ISSUER, NOW, &why), STATUS_LOCAL_INPUT);
	assert_non_null(why);
	free(why);
	why = NULL;
	assert_int_equal(keys_rotate(folder, NULL, false, ISSUER, NOW, &why), STATUS_OK);
	load(&second, 2);
	assert_int_equal(count_keys(&second), 2);
	assert_int_equal(keys_rotate(folder, NULL, false, ISSUER, NOW, &why), STATUS_OK);
	load(&third, 3);
	assert_int_equal(count_keys(&third), 3);
	assert_int_equal(keys_rotate(folder, NULL, false, ISSUER, NOW, &why), STATUS_OK);
	load(&fourth, 4);
	assert_int_equal(count_keys(&fourth), KEY_SET_MAX_KEYS);
	assert_string_equal(jose_key_id(first.root), jose_key_id(fourth.root));
	struct key_set set = { 0 };
	assert_int_equal(key_set_verify(bytes_of_string(fourth.key_set), fourth.root, ISSUER, NOW, &set), STATUS_OK);
	assert_non_null(jose_keys_find(set.keys, jose_key_id(third.signing)));
	assert_non_null(jose_keys_find(set.keys, jose_key_id(second.signing)));
	assert_null(jose_keys_find(set.keys, jose_key_id(first.signing)));
	key_set_clear(&set);
	keys_clear(&first);
	keys_clear(&second);
	keys_clear(&third);
	keys_clear(&fourth);
}

static void assert_refused(int64_t now, const char *issuer, enum status expected)
{
	struct keys keys;
	char *why = NULL;
	assert_int_equal(keys_load(folder, issuer, now, &keys, &why), expected);
	assert_non_null(why);
	free(why);
}

static void what_does_not_belong_together(void **state)
{
	char root[128], offline[128], signing[128];
	char *why = NULL;
	struct jose_key *stranger;
	snprintf(root, sizeof root, "%s/root.jwk", folder);
	snprintf(offline, sizeof offline, "%s/offline.jwk", folder);
	snprintf(signing, sizeof signing, "%s/signing.jwk", folder);
	assert_int_equal(keys_init(folder, ISSUER, NOW, &why), STATUS_OK);
	assert_refused(NOW, "https://other.example.org", STATUS_LOCAL_TRUST);
	assert_refused(NOW + KEY_SET_LIFETIME_S + 1, ISSUER, STATUS_LOCAL_TRUST);
	/* The root is offline: nothing works without it, and with it from elsewhere, an expired set is renewed. */
	assert_int_equal(rename(root, offline), 0);
	assert_int_not_equal(keys_rotate(folder, NULL, false, ISSUER, NOW, &why), STATUS_OK);
	free(why);
	why = NULL;
	assert_int_equal(keys_rotate(folder, offline, false, ISSUER, NOW + KEY_SET_LIFETIME_S + 1, &why), STATUS_OK);
	/* Another root is not the one that agents know. */
	assert_int_equal(jose_key_generate(JOSE_SIGN, &stranger), STATUS_OK);
	assert_int_equal(jose_key_store(stranger, root), STATUS_OK);
	assert_int_equal(keys_rotate(folder, NULL, false, ISSUER, NOW, &why), STATUS_LOCAL_TRUST);
	free(why);
	/* A signing key that the set does not name. */
	assert_int_equal(jose_key_store(stranger, signing), STATUS_OK);
	assert_refused(NOW, ISSUER, STATUS_LOCAL_TRUST);
	jose_key_free(stranger);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(rotation_keeps_the_keys_before, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_does_not_belong_together, set_up, tear_down) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
