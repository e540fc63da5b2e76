/* Jobs in order on another thread, their ends on the loop; a limit; the end waits for what was taken. */
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/worker.h"

enum { LIMIT = 16 };

struct scene {
	struct event_base *base;
	struct worker *worker;
	sem_t gate;
	pthread_t loop_thread;
	int jobs[LIMIT * 2], dones[LIMIT * 2];
	unsigned job_count, done_count;
};

struct step {
	struct scene *scene;
	int number;
};

static void run_job(void *arg)
{
	struct step *step = arg;
	assert_false(pthread_equal(pthread_self(), step->scene->loop_thread));
	if (step->number == 0)
		while (sem_wait(&step->scene->gate) != 0)
			;
	step->scene->jobs[step->scene->job_count++] = step->number;
}

static void run_done(void *arg)
{
	struct step *step = arg;
	assert_true(pthread_equal(pthread_self(), step->scene->loop_thread));
	step->scene->dones[step->scene->done_count++] = step->number;
}

static int setup(void **state)
{
	struct scene *scene = calloc(1, sizeof *scene);
	scene->base = event_base_new();
	scene->loop_thread = pthread_self();
	sem_init(&scene->gate, 0, 0);
	assert_int_equal(worker_new(scene->base, &scene->worker), STATUS_OK);
	*state = scene;
	return 0;
}

static int teardown(void **state)
{
	struct scene *scene = *state;
	worker_free(scene->worker);
	event_base_free(scene->base);
	sem_destroy(&scene->gate);
	free(scene);
	return 0;
}

static void fill(struct scene *scene, struct step steps[LIMIT])
{
	for (int i = 0; i < LIMIT; i++) {
		steps[i] = (struct step){ scene, i };
		assert_int_equal(worker_submit(scene->worker, run_job, run_done, &steps[i]), STATUS_OK);
	}
}

static void assert_all_in_order(const struct scene *scene)
{
	assert_int_equal(scene->done_count, LIMIT);
	for (int i = 0; i < LIMIT; i++) {
		assert_int_equal(scene->jobs[i], i);
		assert_int_equal(scene->dones[i], i);
	}
}

static void in_order_and_so_many(void **state)
{
	struct scene *scene = *state;
	struct step steps[LIMIT], more = { scene, 99 };
	fill(scene, steps);
	assert_int_equal(worker_submit(scene->worker, run_job, run_done, &more), STATUS_AGENT_OVERLOADED);
	event_base_loop(scene->base, EVLOOP_NONBLOCK);
	assert_int_equal(scene->done_count, 0);
	sem_post(&scene->gate);
	while (scene->done_count < LIMIT)
		event_base_loop(scene->base, EVLOOP_ONCE);
	assert_all_in_order(scene);
	assert_int_equal(worker_submit(scene->worker, run_job, run_done, &more), STATUS_OK);
	while (scene->done_count <= LIMIT)
		event_base_loop(scene->base, EVLOOP_ONCE);
}

static void the_end_waits(void **state)
{
	struct scene *scene = *state;
	struct step steps[LIMIT];
	fill(scene, steps);
	sem_post(&scene->gate);
	worker_free(scene->worker);
	scene->worker = NULL;
	assert_all_in_order(scene);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(in_order_and_so_many, setup, teardown),
		cmocka_unit_test_setup_teardown(the_end_waits, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
