/* A rotation step by step, with a restart after each; what a crash leaves over; key files of an older version, wrapped, torn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/agent/enrolled.h"
#include "tests/unit/proto/jose_forge.h"

#define NOW INT64_C(1790000000)

static char folder[64], why[512];

static const char *path_of(const char *format, const char *a)
{
	static char path[2][256];
	static unsigned turn;
	char name[160];
	turn = !turn;
	snprintf(name, sizeof name, format, a);
	snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
	return path[turn];
}

static bool exists(const char *format, const char *a) { return access(path_of(format, a), F_OK) == 0; }

static void write_file(const char *path, const void *text, size_t size, mode_t mode)
{
	FILE *file = fopen(path, "wb");
	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, size, file), size);
	fclose(file);
	chmod(path, mode);
}

static const char *wrap_file(unsigned char first, size_t size)
{
	unsigned char octets[64] = { first };
	octets[31] = '\n';
	const char *path = path_of("wrap-%s", "key");
	unlink(path);
	write_file(path, octets, size, 0600);
	return path;
}

static void load(struct identity *identity, const char *wrap)
{
	enum status status = identity_load(folder, wrap, identity, why, sizeof why);
	if (status != STATUS_OK)
		print_message("# %s\n", why);
	assert_int_equal(status, STATUS_OK);
}

static void reload(struct identity *identity, const char *wrap)
{
	identity_clear(identity);
	load(identity, wrap);
	assert_true(identity->enrolled);
}

static void refuse(const char *wrap, enum status expected, const char *words)
{
	struct identity identity;
	assert_int_equal(identity_load(folder, wrap, &identity, why, sizeof why), expected);
	if (!strstr(why, words))
		fail_msg("%s", why);
	assert_false(identity.enrolled);
	identity_clear(&identity);
}

/* Without a worker all is written in the call. */
static void keep_status(enum status status, void *arg)
{
	*(enum status *)arg = status;
}

static enum status begin(struct identity *identity, int64_t now_s)
{
	enum status done = STATUS_AGENT_INTERNAL, status = identity_begin_rotation(identity, now_s, keep_status, &done);
	return status == STATUS_OK ? done : status;
}

static enum status finish(struct identity *identity, int64_t now_s)
{
	enum status done = STATUS_AGENT_INTERNAL, status = identity_finish_rotation(identity, now_s, keep_status, &done);
	return status == STATUS_OK ? done : status;
}

static void drop_retired(struct identity *identity, int64_t now_s)
{
	enum status done = STATUS_OK;
	identity_drop_retired(identity, now_s, keep_status, &done);
	assert_int_equal(done, STATUS_OK);
}

static void save(struct identity *identity)
{
	enum status done = STATUS_AGENT_INTERNAL;
	identity_save(identity, keep_status, &done);
	assert_int_equal(done, STATUS_OK);
}

/* The key set of the enrolment's answer. */
static char *enrolled_set;

static void enroll_now(struct identity *identity)
{
	enum status done = STATUS_AGENT_INTERNAL;
	free(enrolled_set);
	enrolled_set = enroll(identity, NOW, keep_status, &done);
	assert_int_equal(done, STATUS_OK);
}

static int setup(void **state)
{
	struct identity *identity = calloc(1, sizeof *identity);
	strcpy(folder, "/tmp/test-identity-XXXXXX");
	assert_non_null(mkdtemp(folder));
	load(identity, NULL);
	assert_false(identity->enrolled);
	enroll_now(identity);
	*state = identity;
	return 0;
}

static int teardown(void **state)
{
	char command[128];
	identity_clear(*state);
	free(*state);
	free(enrolled_set);
	enrolled_set = NULL;
	snprintf(command, sizeof command, "rm -rf %s", folder);
	return system(command);
}

static void copy_id(char *out, const struct jose_key *key) { snprintf(out, JOSE_KID_SIZE, "%s", jose_key_id(key)); }

static unsigned count_keys(const struct identity *identity)
{
	struct jose_key *keys[IDENTITY_DECRYPTION_KEYS];
	unsigned count = 0;
	identity_decryption_keys(identity, keys);
	while (keys[count])
		count++;
	return count;
}

/* Tests --------------------------------------------------------------------------------------------------------------------------------- */

static void step_by_step(void **state)
{
	struct identity *identity = *state;
	char signing[2][JOSE_KID_SIZE], decryption[2][JOSE_KID_SIZE];
	copy_id(signing[0], identity->signing);
	copy_id(decryption[0], identity->decryption);
	assert_int_equal(begin(identity, NOW + 10), STATUS_OK);
	assert_int_equal(begin(identity, NOW + 10), STATUS_LOCAL_INPUT);
	copy_id(signing[1], identity->next.signing);
	copy_id(decryption[1], identity->next.decryption);
	reload(identity, NULL);
	assert_string_equal(jose_key_id(identity->signing), signing[0]);
	assert_string_equal(jose_key_id(identity->next.signing), signing[1]);
	assert_string_equal(jose_key_id(identity->next.decryption), decryption[1]);
	assert_false(identity->next.first);
	assert_int_equal(count_keys(identity), 2);

	enum status turned = STATUS_AGENT_INTERNAL;
	identity_set_turn(identity, true, keep_status, &turned);
	assert_int_equal(turned, STATUS_OK);
	reload(identity, NULL);
	assert_true(identity->next.first);

	assert_int_equal(finish(identity, NOW + 20), STATUS_OK);
	assert_false(exists("signing.%s.jwk", signing[0]));
	assert_true(exists("decryption.%s.jwk", decryption[0]));
	reload(identity, NULL);
	assert_null(identity->next.signing);
	assert_string_equal(jose_key_id(identity->signing), signing[1]);
	assert_string_equal(jose_key_id(identity->decryption), decryption[1]);
	assert_int_equal(identity->made_at, NOW + 10);
	assert_int_equal(count_keys(identity), 2);
	assert_int_equal(finish(identity, NOW), STATUS_LOCAL_INPUT);

	drop_retired(identity, NOW + 20 + IDENTITY_OVERLAP_S - 1);
	assert_true(exists("decryption.%s.jwk", decryption[0]));
	reload(identity, NULL);
	drop_retired(identity, NOW + 20 + IDENTITY_OVERLAP_S);
	assert_false(exists("decryption.%s.jwk", decryption[0]));
	assert_int_equal(count_keys(identity), 1);
	reload(identity, NULL);
	assert_int_equal(count_keys(identity), 1);
}

/* Enrolled with one of a key set's two signatures, and shown the other. */
static void the_key_set_of_the_enrolment(void **state)
{
	struct identity *identity = *state;
	char *twin = forge_twin(enrolled_set);
	for (unsigned i = 0; i < 4; i++) {
		bool changed = true;
		enum status done = STATUS_OK;
		assert_int_equal(identity_adopt_key_set(identity, bytes_of_string(i % 2 ? enrolled_set : twin), NOW, &changed, keep_status, &done), STATUS_OK);
		assert_false(changed);
		assert_string_equal(identity->key_set_jws, enrolled_set);
		if (i == 1)
			reload(identity, NULL);
	}
	free(twin);
}

static void a_clock_set_back_keeps_nothing_for_years(void **state)
{
	struct identity *identity = *state;
	assert_int_equal(begin(identity, NOW), STATUS_OK);
	assert_int_equal(finish(identity, NOW), STATUS_OK);
	drop_retired(identity, NOW - 400 * 86400);
	assert_int_equal(count_keys(identity), 2);
	drop_retired(identity, NOW - 400 * 86400 + IDENTITY_OVERLAP_S);
	assert_int_equal(count_keys(identity), 1);
}

static void so_many_in_an_hour(void **state)
{
	struct identity *identity = *state;
	for (unsigned i = 0; i < IDENTITY_RETIRED; i++) {
		assert_int_equal(begin(identity, NOW + i), STATUS_OK);
		assert_int_equal(finish(identity, NOW + i), STATUS_OK);
	}
	assert_int_equal(count_keys(identity), IDENTITY_RETIRED + 1);
	assert_int_equal(begin(identity, NOW), STATUS_LOCAL_INPUT);
	reload(identity, NULL);
	assert_int_equal(count_keys(identity), IDENTITY_RETIRED + 1);
	drop_retired(identity, NOW + IDENTITY_OVERLAP_S + 1);
	assert_int_equal(begin(identity, NOW), STATUS_OK);
}

/* Between the files and identity.json, in either direction. */
static void what_a_crash_leaves_over(void **state)
{
	struct identity *identity = *state;
	write_file(path_of("signing.%s.jwk", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), "{}", 2, 0600);
	write_file(path_of("decryption.%s.jwk.new", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), "{", 1, 0600);
	write_file(path_of("%s", "journal.db"), "x", 1, 0600);
	reload(identity, NULL);
	assert_false(exists("signing.%s.jwk", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
	assert_false(exists("decryption.%s.jwk.new", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
	assert_true(exists("%s", "journal.db"));
}

/* Where identity.json cannot be written nothing has begun; where the end cannot be written, the new keys count all the same, and it is mended. */
static void a_folder_that_takes_nothing(void **state)
{
	struct identity *identity = *state;
	char old[JOSE_KID_SIZE];
	copy_id(old, identity->signing);
	/* A folder in the way of the file stops root too. */
	mkdir(path_of("%s", "identity.json.new"), 0700);
	assert_int_equal(begin(identity, NOW), STATUS_LOCAL_SYSTEM);
	assert_null(identity->next.signing);
	rmdir(path_of("%s", "identity.json.new"));
	assert_int_equal(begin(identity, NOW), STATUS_OK);
	mkdir(path_of("%s", "identity.json.new"), 0700);
	assert_int_equal(finish(identity, NOW), STATUS_LOCAL_SYSTEM);
	assert_true(identity->unwritten);
	assert_string_not_equal(jose_key_id(identity->signing), old);
	assert_true(exists("signing.%s.jwk", old));
	rmdir(path_of("%s", "identity.json.new"));
	save(identity);
	assert_false(identity->unwritten);
	assert_false(exists("signing.%s.jwk", old));
}

static void files_of_an_older_version(void **state)
{
	struct identity *identity = *state;
	char signing[JOSE_KID_SIZE], decryption[JOSE_KID_SIZE];
	copy_id(signing, identity->signing);
	copy_id(decryption, identity->decryption);
	rename(path_of("signing.%s.jwk", signing), path_of("%s", "signing.jwk"));
	rename(path_of("decryption.%s.jwk", decryption), path_of("%s", "decryption.jwk"));
	reload(identity, NULL);
	assert_string_equal(jose_key_id(identity->signing), signing);
	assert_true(exists("signing.%s.jwk", signing) && exists("decryption.%s.jwk", decryption));
	assert_false(exists("%s", "signing.jwk") || exists("%s", "decryption.jwk"));
}

static size_t read_file(const char *path, char *text, size_t capacity)
{
	FILE *file = fopen(path, "rb");
	assert_non_null(file);
	size_t size = fread(text, 1, capacity, file);
	fclose(file);
	return size;
}

static void wrapped(void **state)
{
	struct identity *identity = *state;
	char signing[JOSE_KID_SIZE], text[4096];
	char wrap[256], path[256];
	snprintf(wrap, sizeof wrap, "%s", wrap_file(7, 32));
	copy_id(signing, identity->signing);
	snprintf(path, sizeof path, "%s", path_of("signing.%s.jwk", signing));
	read_file(path, text, sizeof text);
	assert_int_equal(text[0], '{');
	reload(identity, wrap);
	assert_string_equal(jose_key_id(identity->signing), signing);
	size_t size = read_file(path, text, sizeof text);
	assert_int_equal(text[0], 'e');
	assert_int_equal(begin(identity, NOW), STATUS_OK);
	read_file(path_of("signing.%s.jwk", jose_key_id(identity->next.signing)), text + 2048, 1024);
	assert_int_equal(text[2048], 'e');
	reload(identity, wrap);

	refuse(NULL, STATUS_LOCAL_CONFIG, "keys.wrap_key_file");
	refuse(wrap_file(8, 32), STATUS_LOCAL_CONFIG, "is not the key that it was wrapped with");
	refuse(wrap_file(7, 31), STATUS_LOCAL_CONFIG, "exactly 32 bytes");
	refuse(wrap_file(7, 33), STATUS_LOCAL_CONFIG, "exactly 32 bytes");
	refuse("/nonexistent/wrap-key", STATUS_LOCAL_CONFIG, "No such file");
	wrap_file(7, 32);
	chmod(wrap, 0644);
	refuse(wrap, STATUS_LOCAL_CONFIG, "mode");
	chmod(wrap, 0660);
	refuse(wrap, STATUS_LOCAL_CONFIG, "mode");
	chmod(wrap, 0640);
	/* Not wrapped, and no JWK either: nobody is sent to look for a key. */
	write_file(path, "xyz", 3, 0600);
	refuse(NULL, STATUS_LOCAL_INPUT, "neither a JWK nor a wrapped one");
	write_file(path, text, size, 0600);
	/* Torn anywhere, and every single bit in steps: never another key, never a crash. */
	for (size_t cut = 1; cut < size - 1; cut += 7) {
		write_file(path, text, cut, 0600);
		struct identity torn;
		enum status status = identity_load(folder, wrap, &torn, why, sizeof why);
		assert_true(status == STATUS_LOCAL_INPUT || status == STATUS_LOCAL_CONFIG);
		identity_clear(&torn);
	}
	for (size_t bit = 0; bit < 8 * (size - 1); bit += 5) {
		text[bit / 8] ^= (char)(1 << bit % 8);
		write_file(path, text, size, 0600);
		struct identity flipped;
		enum status status = identity_load(folder, wrap, &flipped, why, sizeof why);
		assert_true(status == STATUS_LOCAL_INPUT || status == STATUS_LOCAL_CONFIG);
		identity_clear(&flipped);
		text[bit / 8] ^= (char)(1 << bit % 8);
	}
	write_file(path, text, size, 0600);
	reload(identity, wrap);
	chmod(path, 0640);
	refuse(wrap, STATUS_LOCAL_PERMISSION, "mode 0600");
	unlink(path);
	refuse(wrap, STATUS_LOCAL_TRUST, "is missing");
}

/* Not "never enrolled": that would be said as a matter of course, and the keys be lost by the next enrolment. */
static void identity_is_lost(void **state)
{
	char kept[160];
	snprintf(kept, sizeof kept, "%s", path_of("%s", "identity.json.kept"));
	rename(path_of("%s", "identity.json"), kept);
	refuse(NULL, STATUS_LOCAL_TRUST, "identity.json is missing");
	assert_non_null(strstr(why, "restore it"));
	assert_non_null(strstr(why, ".jwk"));
	rename(kept, path_of("%s", "identity.json"));
	reload(*state, NULL);
}

/* A file that another user owns could be changed by him, and one that he may read is no secret. */
static void files_of_the_agent_alone(void **state)
{
	char signing[JOSE_KID_SIZE], wrap[256], file[256];
	struct identity *identity = *state;
	copy_id(signing, identity->signing);
	for (int i = 0; i < 2; i++) {
		snprintf(file, sizeof file, "%s", i ? path_of("signing.%s.jwk", signing) : path_of("identity.%s", "json"));
		chmod(file, 0640);
		refuse(NULL, STATUS_LOCAL_PERMISSION, "mode 0600");
		chmod(file, 0600);
		if (geteuid() == 0) {
			assert_int_equal(chown(file, 65534, 65534), 0);
			refuse(NULL, STATUS_LOCAL_PERMISSION, "of the agent's user");
			assert_int_equal(chown(file, 0, 0), 0);
		}
	}
	chmod(folder, 0750);
	refuse(NULL, STATUS_LOCAL_PERMISSION, "mode 0700");
	chmod(folder, 0700);
	snprintf(wrap, sizeof wrap, "%s", wrap_file(7, 32));
	if (geteuid() == 0) {
		assert_int_equal(chown(wrap, 65534, 65534), 0);
		refuse(wrap, STATUS_LOCAL_CONFIG, "of the agent's user or root");
		assert_int_equal(chown(folder, 65534, 65534), 0);
		refuse(NULL, STATUS_LOCAL_PERMISSION, "a folder of the agent's user");
		assert_int_equal(chown(folder, 0, 0), 0);
	}
	reload(identity, NULL);
}

/* Enrolling again cut short leaves the agent that was; whole, none of its keys. */
static void enrolled_again(void **state)
{
	struct identity *identity = *state;
	char old[JOSE_KID_SIZE];
	copy_id(old, identity->signing);
	assert_int_equal(begin(identity, NOW), STATUS_OK);
	enroll_now(identity);
	assert_null(identity->next.signing);
	assert_false(exists("signing.%s.jwk", old));
	reload(identity, NULL);
	assert_int_equal(identity->made_at, NOW);
}

int main(void)
{
	secret_json_init();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(step_by_step, setup, teardown),
		cmocka_unit_test_setup_teardown(the_key_set_of_the_enrolment, setup, teardown),
		cmocka_unit_test_setup_teardown(a_clock_set_back_keeps_nothing_for_years, setup, teardown),
		cmocka_unit_test_setup_teardown(so_many_in_an_hour, setup, teardown),
		cmocka_unit_test_setup_teardown(files_of_the_agent_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(what_a_crash_leaves_over, setup, teardown),
		cmocka_unit_test_setup_teardown(a_folder_that_takes_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(files_of_an_older_version, setup, teardown),
		cmocka_unit_test_setup_teardown(identity_is_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(wrapped, setup, teardown),
		cmocka_unit_test_setup_teardown(enrolled_again, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
