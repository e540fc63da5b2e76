#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/secret.h"

static void is_wiped_and_moved(void **state)
{
	AUTO_SECRET struct secret a = SECRET_EMPTY, b = SECRET_EMPTY;
	assert_int_equal(secret_from(bytes_of_string("hunter2"), &a), STATUS_OK);
	assert_int_equal(a.size, 7);
	assert_true(CRYPTO_secure_allocated(a.data));
	secret_move(&b, &a);
	assert_null(a.data);
	assert_int_equal(a.size, 0);
	assert_memory_equal(b.data, "hunter2", 7);
	/* What the target held goes. */
	assert_int_equal(secret_from(bytes_of_string("other"), &a), STATUS_OK);
	secret_move(&b, &a);
	assert_int_equal(b.size, 5);
	secret_move(&b, &b);
	assert_memory_equal(b.data, "other", 5);
	secret_wipe(&b);
	secret_wipe(&b);
	secret_wipe(NULL);
	assert_null(b.data);
}

static void leaves_nothing_in_the_heap(void **state)
{
	struct secret a = SECRET_EMPTY;
	assert_int_equal(secret_from(bytes_of_string("canary-canary-canary-canary"), &a), STATUS_OK);
	const uint8_t *where = a.data;
	secret_wipe(&a);
	/* The secure heap is one mapping, so what was freed may be looked at; its first words are the free list's. */
	for (size_t i = 0; i + 6 <= 27; i++)
		assert_memory_not_equal(where + i, "canary", 6);
}

static void may_be_empty(void **state)
{
	AUTO_SECRET struct secret a = SECRET_EMPTY;
	assert_int_equal(secret_new(0, &a), STATUS_OK);
	assert_int_equal(a.size, 0);
	assert_non_null(a.data);
}

static void says_when_memory_is_out(void **state)
{
	AUTO_SECRET struct secret a = SECRET_EMPTY;
	assert_int_equal(secret_new((size_t)1 << 24, &a), STATUS_AGENT_INTERNAL);
	assert_null(a.data);
}

static const char *file_with(const char *content, size_t size, mode_t mode)
{
	static char path[] = "/tmp/test_secret.XXXXXX";
	strcpy(path + strlen(path) - 6, "XXXXXX");
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, content, size), size);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
	return path;
}

static void expect_file(const char *content, size_t size, mode_t mode, enum status expected, size_t expected_size)
{
	AUTO_SECRET struct secret secret = SECRET_EMPTY;
	const char *path = file_with(content, size, mode);
	assert_int_equal(secret_read_file(path, &secret), expected);
	assert_int_equal(secret.size, expected_size);
	if (expected == STATUS_OK)
		assert_memory_equal(secret.data, content, expected_size);
	else
		assert_null(secret.data);
	unlink(path);
}

static void reads_one_line(void **state)
{
	static char large[4098];
	memset(large, 'x', sizeof large);
	expect_file("secret\n", 7, 0600, STATUS_OK, 6);
	expect_file("secret", 6, 0400, STATUS_OK, 6);
	expect_file("secret", 6, 0440, STATUS_OK, 6);
	expect_file(" s p \n", 6, 0600, STATUS_OK, 5);
	expect_file("", 0, 0600, STATUS_LOCAL_INPUT, 0);
	expect_file("\n", 1, 0600, STATUS_LOCAL_INPUT, 0);
	expect_file("a\nb\n", 4, 0600, STATUS_LOCAL_INPUT, 0);
	expect_file("a\n\n", 3, 0600, STATUS_LOCAL_INPUT, 0);
	expect_file("a\0b", 3, 0600, STATUS_LOCAL_INPUT, 0);
	expect_file(large, 4096, 0600, STATUS_OK, 4096);
	expect_file(large, 4097, 0600, STATUS_LOCAL_INPUT, 0);
	large[4096] = '\n';
	expect_file(large, 4097, 0600, STATUS_OK, 4096);
	expect_file(large, 4098, 0600, STATUS_LOCAL_INPUT, 0);
}

static void refuses_open_files(void **state)
{
	static const mode_t wrong[] = { 0620, 0604, 0602, 0601, 0644, 0666 };
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		expect_file("secret\n", 7, wrong[i], STATUS_LOCAL_PERMISSION, 0);
	AUTO_SECRET struct secret secret = SECRET_EMPTY;
	assert_int_equal(secret_read_file("/tmp", &secret), STATUS_LOCAL_PERMISSION);
	assert_int_equal(secret_read_file("/nowhere/secret", &secret), STATUS_LOCAL_SYSTEM);
	assert_int_equal(errno, ENOENT);
	/* A FIFO without a writer must not hold the reader up. */
	const char *path = "/tmp/test_secret.fifo";
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(secret_read_file(path, &secret), STATUS_LOCAL_PERMISSION);
	unlink(path);
}

static void json_wipes_and_free_takes_it(void **state)
{
	secret_json_init();
	json_t *value = json_pack("{s:s}", "password", "canary");
	assert_non_null(value);
	char *text = json_dumps(value, JSON_COMPACT);
	assert_string_equal(text, "{\"password\":\"canary\"}");
	/* Both ways to free what json_dumps gives are right. */
	free(text);
	json_free_t json_free_function;
	json_get_alloc_funcs(NULL, &json_free_function);
	json_free_function(json_dumps(value, 0));
	json_free_function(NULL);
	json_decref(value);
}

int main(void)
{
	secret_heap_init();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(is_wiped_and_moved), cmocka_unit_test(leaves_nothing_in_the_heap), cmocka_unit_test(may_be_empty),
		cmocka_unit_test(says_when_memory_is_out), cmocka_unit_test(reads_one_line), cmocka_unit_test(refuses_open_files),
		cmocka_unit_test(json_wipes_and_free_takes_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
