/* What becomes of the agent's own keys as time passes, without a channel: what is due, what is told and how often, what is destroyed, what the disk did not take. The clock and fsync are the test's (-Wl,--wrap). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/agent.h"
#include "tests/unit/agent/enrolled.h"

#define START INT64_C(1790000000)
#define HOUR 3600
#define DAY 86400

static int64_t now;
int64_t __wrap_clock_now_ms(void);
int64_t __wrap_clock_now_ms(void) { return now * 1000; }

static bool disk_fails;
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
	errno = EIO;
	return disk_fails ? -1 : 0;
}

/* The log since it was read last: each event with a space behind it. */
static char told[512];
void __wrap_log_event(int level, const char *event, const struct log_field *fields, const char *format, ...);
void __wrap_log_event(int level, const char *event, const struct log_field *fields, const char *format, ...)
{
	size_t size = strlen(told);
	snprintf(told + size, sizeof told - size, "%s ", event);
}

static void assert_told(const char *events)
{
	assert_string_equal(told, events);
	told[0] = 0;
}

/* The scene ------------------------------------------------------------------------------------------------------------------------------ */

struct scene {
	struct agent agent;
	struct settings settings;
	char folder[64];
};

static void ignore_end(enum status status, void *arg) { assert_int_equal(status, STATUS_OK); }

static int setup(void **state)
{
	struct scene *scene = calloc(1, sizeof *scene);
	struct loop_callbacks callbacks = { 0 };
	char why[512];
	now = START;
	disk_fails = false;
	strcpy(scene->folder, "/tmp/test-rotation-XXXXXX");
	assert_non_null(mkdtemp(scene->folder));
	scene->settings.rotate_after_ms = (int64_t)90 * DAY * 1000;
	scene->agent.settings = &scene->settings;
	assert_int_equal(loop_new(&callbacks, 1000, &scene->agent.loop), STATUS_OK);
	assert_int_equal(identity_load(scene->folder, NULL, &scene->agent.identity, why, sizeof why), STATUS_OK);
	free(enroll(&scene->agent.identity, now, ignore_end, NULL));
	assert_int_equal(agent_open_rotation(&scene->agent), STATUS_OK);
	told[0] = 0;
	*state = scene;
	return 0;
}

static int teardown(void **state)
{
	struct scene *scene = *state;
	char command[128];
	agent_close_rotation(&scene->agent);
	identity_clear(&scene->agent.identity);
	loop_free(scene->agent.loop);
	snprintf(command, sizeof command, "rm -rf %s", scene->folder);
	free(scene);
	return system(command);
}

static void minute_at(struct scene *scene, int64_t at)
{
	now = at;
	agent_rotation_minute(&scene->agent);
}

/* A channel has come; nobody is told over it. */
static void begin(struct scene *scene)
{
	agent_rotation_ready(&scene->agent, NULL);
}

static bool has_file(const struct scene *scene, const char *kid)
{
	char path[256];
	snprintf(path, sizeof path, "%s/decryption.%s.jwk", scene->folder, kid);
	return access(path, F_OK) == 0;
}

/* Tests ---------------------------------------------------------------------------------------------------------------------------------- */

static void due_by_age(void **state)
{
	struct scene *scene = *state;
	now += 90 * DAY - 1;
	begin(scene);
	assert_told("");
	now++;
	begin(scene);
	assert_told("keys.rotating ");
	agent_rotation_welcomed(&scene->agent);
	assert_told("keys.rotated ");
	begin(scene);
	assert_told("");
}

static void the_old_key_ends_after_its_hour(void **state)
{
	struct scene *scene = *state;
	char old[JOSE_KID_SIZE];
	snprintf(old, sizeof old, "%s", jose_key_id(scene->agent.identity.decryption));
	now += 90 * DAY;
	begin(scene);
	int64_t since = now += 10;
	agent_rotation_welcomed(&scene->agent);
	minute_at(scene, since + HOUR - 1);
	assert_true(has_file(scene, old));
	minute_at(scene, since + HOUR);
	assert_false(has_file(scene, old));
	assert_true(has_file(scene, jose_key_id(scene->agent.identity.decryption)));
}

static void unconfirmed_is_told_once_a_day(void **state)
{
	struct scene *scene = *state;
	int64_t since = now += 90 * DAY;
	begin(scene);
	assert_told("keys.rotating ");
	minute_at(scene, since + DAY - 1);
	assert_told("");
	for (int day = 1; day < 4; day++) {
		minute_at(scene, since + day * DAY);
		assert_told("keys.rotation_pending ");
		minute_at(scene, since + day * DAY + DAY - 60);
		assert_told("");
	}
	/* It was begun then, also over a restart. */
	agent_close_rotation(&scene->agent);
	memset(&scene->agent.rotation, 0, sizeof scene->agent.rotation);
	assert_int_equal(agent_open_rotation(&scene->agent), STATUS_OK);
	minute_at(scene, now);
	assert_told("keys.rotation_pending ");
	agent_rotation_welcomed(&scene->agent);
	assert_told("keys.rotated ");
	minute_at(scene, since + 6 * DAY);
	assert_told("");
}

static void what_cannot_be_made_is_told_once_a_day(void **state)
{
	struct scene *scene = *state;
	int64_t since = now += 90 * DAY;
	disk_fails = true;
	begin(scene);
	assert_told("keys.not_rotated ");
	now = since + DAY - 1;
	begin(scene);
	assert_told("");
	now = since + DAY;
	begin(scene);
	assert_told("keys.not_rotated ");
	disk_fails = false;
	begin(scene);
	assert_told("keys.rotating ");
}

/* Old decryption keys are kept for so many. */
static void too_often_within_the_hour_is_told(void **state)
{
	struct scene *scene = *state;
	scene->settings.rotate_after_ms = 0;
	for (unsigned i = 0; i < IDENTITY_RETIRED; i++) {
		begin(scene);
		agent_rotation_welcomed(&scene->agent);
		assert_told("keys.rotating keys.rotated ");
	}
	begin(scene);
	assert_told("keys.not_rotated ");
	minute_at(scene, now + HOUR);
	begin(scene);
	assert_told("keys.rotating ");
}

static void what_the_disk_did_not_take_is_tried_each_minute(void **state)
{
	struct scene *scene = *state;
	struct identity *identity = &scene->agent.identity;
	char former[JOSE_KID_SIZE], why[512];
	struct identity found;
	snprintf(former, sizeof former, "%s", jose_key_id(identity->signing));
	now += 90 * DAY;
	begin(scene);
	told[0] = 0;
	disk_fails = true;
	agent_rotation_welcomed(&scene->agent);
	assert_told("keys.rotated keys.unwritten ");
	assert_string_not_equal(jose_key_id(identity->signing), former);
	minute_at(scene, now + 60);
	assert_told("");
	assert_true(identity->unwritten);
	disk_fails = false;
	minute_at(scene, now + 60);
	assert_told("keys.written ");
	minute_at(scene, now + 60);
	assert_told("");
	assert_int_equal(identity_load(scene->folder, NULL, &found, why, sizeof why), STATUS_OK);
	assert_string_equal(jose_key_id(found.signing), jose_key_id(identity->signing));
	assert_null(found.next.signing);
	identity_clear(&found);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define ROW(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
		ROW(due_by_age), ROW(the_old_key_ends_after_its_hour), ROW(unconfirmed_is_told_once_a_day), ROW(what_cannot_be_made_is_told_once_a_day), ROW(too_often_within_the_hour_is_told),
		ROW(what_the_disk_did_not_take_is_tried_each_minute),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
