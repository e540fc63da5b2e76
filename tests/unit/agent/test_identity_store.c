/* A disk that takes its time, or takes nothing: the loop goes on, the present keys stay until the next ones are durable, and who waits is told. fsync is the test's (-Wl,--wrap). */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/agent/enrolled.h"

#define NOW INT64_C(1790000000)

/* The disk ------------------------------------------------------------------------------------------------------------------------------- */

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t opened;
	bool closed;
	int calls, failing;             /* the number of the call that fails, from 1; 0: none */
} disk = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0, 0 };

int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
	pthread_mutex_lock(&disk.mutex);
	while (disk.closed)
		pthread_cond_wait(&disk.opened, &disk.mutex);
	bool fails = ++disk.calls == disk.failing;
	pthread_mutex_unlock(&disk.mutex);
	errno = EIO;
	return fails ? -1 : 0;
}

static void set_disk(bool closed, int failing)
{
	pthread_mutex_lock(&disk.mutex);
	disk.closed = closed;
	disk.calls = 0;
	disk.failing = failing;
	pthread_cond_broadcast(&disk.opened);
	pthread_mutex_unlock(&disk.mutex);
}

/* The scene ------------------------------------------------------------------------------------------------------------------------------ */

struct scene {
	struct event_base *base;
	struct worker *worker;
	struct identity identity;
	char folder[64], old[JOSE_KID_SIZE];
	enum status ends[8];
	unsigned ended;
};

static void keep_end(enum status status, void *arg)
{
	struct scene *scene = arg;
	scene->ends[scene->ended++ % 8] = status;
}

static int setup(void **state)
{
	struct scene *scene = calloc(1, sizeof *scene);
	char why[512];
	set_disk(false, 0);
	strcpy(scene->folder, "/tmp/test-identity-XXXXXX");
	assert_non_null(mkdtemp(scene->folder));
	scene->base = event_base_new();
	assert_int_equal(identity_load(scene->folder, NULL, &scene->identity, why, sizeof why), STATUS_OK);
	free(enroll(&scene->identity, NOW, keep_end, scene));
	assert_int_equal(scene->ends[0], STATUS_OK);
	scene->ended = 0;
	snprintf(scene->old, sizeof scene->old, "%s", jose_key_id(scene->identity.signing));
	assert_int_equal(worker_new(scene->base, &scene->worker), STATUS_OK);
	scene->identity.store.worker = scene->worker;
	*state = scene;
	return 0;
}

static int teardown(void **state)
{
	struct scene *scene = *state;
	char command[128];
	set_disk(false, 0);
	scene->identity.store.worker = NULL;
	worker_free(scene->worker);
	identity_clear(&scene->identity);
	event_base_free(scene->base);
	snprintf(command, sizeof command, "rm -rf %s", scene->folder);
	free(scene);
	return system(command);
}

static void wait_for(struct scene *scene, unsigned ends)
{
	while (scene->ended < ends)
		event_base_loop(scene->base, EVLOOP_ONCE);
}

/* What a restart would find. */
static void assert_on_disk(const struct scene *scene, const char *signing, const char *next)
{
	struct identity found;
	char why[512] = "";
	assert_int_equal(identity_load(scene->folder, NULL, &found, why, sizeof why), STATUS_OK);
	assert_true(found.enrolled);
	assert_string_equal(jose_key_id(found.signing), signing);
	assert_int_equal(found.next.signing != NULL, next != NULL);
	if (next)
		assert_string_equal(jose_key_id(found.next.signing), next);
	identity_clear(&found);
}

static void begin(struct scene *scene)
{
	assert_int_equal(identity_begin_rotation(&scene->identity, NOW, keep_end, scene), STATUS_OK);
}

/* Tests ---------------------------------------------------------------------------------------------------------------------------------- */

static void count_tick(evutil_socket_t fd, short what, void *arg)
{
	if (++*(unsigned *)arg == 20)
		set_disk(false, 0);
}

static void the_loop_goes_on(void **state)
{
	struct scene *scene = *state;
	unsigned ticks = 0;
	struct event *timer = event_new(scene->base, -1, EV_PERSIST, count_tick, &ticks);
	event_add(timer, &(struct timeval){ 0, 10000 });
	for (unsigned step = 1; step <= 2; step++) {
		ticks = 0;
		set_disk(true, 0);
		if (step == 1)
			begin(scene);
		else
			assert_int_equal(identity_finish_rotation(&scene->identity, NOW, keep_end, scene), STATUS_OK);
		assert_int_equal(scene->ended, step - 1);
		assert_true(step == 2 || !scene->identity.next.signing);
		wait_for(scene, step);
		assert_true(ticks >= 20);
		assert_int_equal(scene->ends[step - 1], STATUS_OK);
	}
	assert_string_not_equal(jose_key_id(scene->identity.signing), scene->old);
	assert_on_disk(scene, jose_key_id(scene->identity.signing), NULL);
	event_free(timer);
}

static void whichever_fsync_fails_the_old_keys_stay(void **state)
{
	struct scene *scene = *state;
	char why[512];
	unsigned failures = 0;
	for (int failing = 1; failing == (int)failures + 1; failing++) {
		set_disk(false, failing);
		begin(scene);
		wait_for(scene, scene->ended + 1);
		if (scene->ends[(scene->ended - 1) % 8] == STATUS_OK)
			break;
		failures++;
		assert_int_equal(scene->ends[(scene->ended - 1) % 8], STATUS_LOCAL_SYSTEM);
		assert_null(scene->identity.next.signing);
		assert_null(scene->identity.making.signing);
		assert_true(scene->identity.unwritten);
		assert_string_equal(jose_key_id(scene->identity.signing), scene->old);
		identity_describe_unwritten(&scene->identity, why, sizeof why);
		assert_non_null(strstr(why, scene->folder));
		assert_non_null(strstr(why, "Input/output error: the disk does not take what is written"));
		set_disk(false, 0);
		identity_save(&scene->identity, keep_end, scene);
		wait_for(scene, scene->ended + 1);
		assert_false(scene->identity.unwritten);
		assert_on_disk(scene, scene->old, NULL);
	}
	assert_int_equal(failures, 6); /* two key files and identity.json, each with its folder */
	assert_on_disk(scene, scene->old, jose_key_id(scene->identity.next.signing));
}

static void what_changes_meanwhile_is_written_together(void **state)
{
	struct scene *scene = *state;
	begin(scene);
	wait_for(scene, 1);
	set_disk(true, 0);
	identity_set_turn(&scene->identity, true, keep_end, scene);
	assert_true(scene->identity.turn_unwritten);
	identity_set_turn(&scene->identity, false, keep_end, scene);
	identity_set_turn(&scene->identity, true, keep_end, scene);
	identity_save(&scene->identity, keep_end, scene);
	set_disk(false, 0);
	wait_for(scene, 2);
	assert_true(scene->identity.turn_unwritten || scene->ended == 3);
	wait_for(scene, 3);
	assert_false(scene->identity.turn_unwritten);
	assert_false(scene->identity.store.writing);
	assert_int_equal(scene->ended, 3); /* the three behind the first write were one */
	assert_int_equal(disk.calls, 4); /* two writes of one file */
	struct identity found;
	char why[512];
	assert_int_equal(identity_load(scene->folder, NULL, &found, why, sizeof why), STATUS_OK);
	assert_true(found.next.first);
	identity_clear(&found);
}

static void another_agent_meanwhile(void **state)
{
	struct scene *scene = *state;
	set_disk(true, 0);
	begin(scene);
	free(enroll(&scene->identity, NOW, keep_end, scene));
	identity_save(&scene->identity, keep_end, scene);
	assert_string_equal(jose_key_id(scene->identity.signing), scene->old);
	set_disk(false, 0);
	wait_for(scene, 3);
	assert_int_equal(scene->ends[0], STATUS_OK);          /* the rotation was written */
	assert_int_equal(scene->ends[1], STATUS_LOCAL_INPUT); /* this one was not, any more */
	assert_int_equal(scene->ends[2], STATUS_OK);
	assert_string_not_equal(jose_key_id(scene->identity.signing), scene->old);
	assert_ptr_equal(scene->identity.store.worker, scene->worker);
	assert_null(scene->identity.next.signing);
	assert_on_disk(scene, jose_key_id(scene->identity.signing), NULL);
}

static void an_enrolment_that_cannot_be_kept(void **state)
{
	struct scene *scene = *state;
	for (int failing = 1; failing <= 8; failing++) {
		set_disk(false, failing);
		free(enroll(&scene->identity, NOW, keep_end, scene));
		wait_for(scene, scene->ended + 1);
		assert_int_equal(scene->ends[(scene->ended - 1) % 8], STATUS_LOCAL_SYSTEM);
		assert_string_equal(jose_key_id(scene->identity.signing), scene->old);
		if (failing < 8) /* the last one: it is there, and only its folder not known to be on disk */
			assert_on_disk(scene, scene->old, NULL);
		assert_true(scene->identity.unwritten);
	}
	set_disk(false, 0);
	identity_save(&scene->identity, keep_end, scene);
	wait_for(scene, scene->ended + 1);
	assert_on_disk(scene, scene->old, NULL);
}

static void the_end_waits_for_what_is_written(void **state)
{
	struct scene *scene = *state;
	set_disk(true, 0);
	begin(scene);
	identity_save(&scene->identity, keep_end, scene);
	scene->identity.store.worker = NULL;
	set_disk(false, 0);
	worker_free(scene->worker);
	scene->worker = NULL;
	assert_int_equal(scene->ended, 2);
	assert_on_disk(scene, scene->old, jose_key_id(scene->identity.next.signing));
}

int main(void)
{
	secret_json_init();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_loop_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(whichever_fsync_fails_the_old_keys_stay, setup, teardown),
		cmocka_unit_test_setup_teardown(what_changes_meanwhile_is_written_together, setup, teardown),
		cmocka_unit_test_setup_teardown(another_agent_meanwhile, setup, teardown),
		cmocka_unit_test_setup_teardown(an_enrolment_that_cannot_be_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(the_end_waits_for_what_is_written, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
