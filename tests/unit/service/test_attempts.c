/* Whether another agent is asked: only where the first is lost, may not act any more, and the operation is not too old for it. And when the same one is asked again on a channel that stands. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "service/operations_internal.h"

#define NOW_MS INT64_C(1790000000000)

static int64_t now_us;

int64_t __wrap_clock_monotonic_us(void);
int64_t __wrap_clock_monotonic_us(void)
{
	return now_us;
}

/* A spare that is taken was asked, as far as this test goes: the frame is none, so that no request comes of it. */
static bool is_asked(struct task task)
{
	static int connected;
	struct settings settings = { .request_lifetime_ms = 30000, .no_answer_after_ms = 86400000 };
	struct keys keys = { 0 };
	struct operations operations = { .settings = &settings, .keys = &keys };
	struct agent lost = { 0 }, other = { .session = (struct session *)&connected };
	task.owner = &operations;
	task.agent = &lost;
	task.life = LIFE_QUEUED;
	task.request_sent = true;
	task.request.frame = (char *)"none";
	task.spares[0] = (struct spare){ &other, strdup("jwe") };
	assert_false(attempts_next(&task, NOW_MS));
	bool asked = !task.spares[0].agent;
	if (!asked)
		free(task.spares[0].jwe);
	return asked;
}

static void not_before_the_first_may_not_act_any_more(void **state)
{
	assert_false(is_asked((struct task){ .row.created_ms = NOW_MS - 10000, .request.expires = NOW_MS / 1000 - 4 }));
	assert_true(is_asked((struct task){ .row.created_ms = NOW_MS - 10000, .request.expires = NOW_MS / 1000 - 6 }));
}

/* As after a start with the store of yesterday: what the first one wrote then could not be told from anything else any more. */
static void not_for_what_is_older_than_any_operation_is_tried(void **state)
{
	assert_true(is_asked((struct task){ .row.created_ms = NOW_MS - 899000, .request.expires = NOW_MS / 1000 - 800 }));
	assert_false(is_asked((struct task){ .row.created_ms = NOW_MS - 901000, .request.expires = NOW_MS / 1000 - 800 }));
	assert_false(is_asked((struct task){ .row.created_ms = NOW_MS - 86400000, .request.expires = NOW_MS / 1000 - 86000 }));
}

/* So long after `now_us` it goes again. */
static int64_t due_in_ms(const struct task *task)
{
	int64_t then_us = now_us, ms = 0;
	while (ms < 100000 && !attempts_again_due(task)) {
		ms += 50;
		now_us = then_us + ms * 1000;
	}
	now_us = then_us;
	return ms;
}

static void again_at_exp_and_behind_it(void **state)
{
	static int connected;
	struct agent agent = { .session = (struct session *)&connected };
	struct task task = { .agent = &agent, .life = LIFE_SENT, .request.expires = NOW_MS / 1000 + 30 };
	now_us = 1000000;
	attempts_sent(&task, NOW_MS);
	assert_int_equal(due_in_ms(&task), 30000);
	attempts_sent(&task, NOW_MS + 27000);
	assert_int_equal(due_in_ms(&task), 3000);
	attempts_sent(&task, NOW_MS + 30000);
	assert_int_equal(due_in_ms(&task), 4000);
	attempts_sent(&task, NOW_MS + 500000); /* on another channel, say */
	assert_int_equal(due_in_ms(&task), 4000);
	now_us += 10000000;
	assert_true(attempts_again_due(&task));
	agent.draining = true;
	assert_false(attempts_again_due(&task));
	agent = (struct agent){ 0 };
	assert_false(attempts_again_due(&task));
	agent.session = (struct session *)&connected;
	task.life = LIFE_QUEUED;
	assert_false(attempts_again_due(&task));
}

static void sooner_where_the_agent_has_judged_nothing(void **state)
{
	static const int pauses[] = { 250, 500, 1000, 2000, 4000, 4000, 4000 };
	static int connected;
	struct agent agent = { .session = (struct session *)&connected };
	struct task task = { .agent = &agent, .life = LIFE_SENT, .request.expires = NOW_MS / 1000 + 30 };
	int64_t sent_us = now_us = 1000000;
	for (size_t i = 0; i < sizeof pauses / sizeof pauses[0]; i++) {
		attempts_sent(&task, NOW_MS + (now_us - sent_us) / 1000);
		attempts_again_sooner(&task);
		attempts_again_sooner(&task); /* a copy of that word changes nothing */
		assert_int_equal(due_in_ms(&task), pauses[i]);
		now_us += INT64_C(1000) * pauses[i];
	}
	attempts_sent(&task, NOW_MS + (now_us - sent_us) / 1000);
	assert_int_equal(due_in_ms(&task), 30000 - (now_us - sent_us) / 1000); /* passed over then */
	task.again_us = 0;
	attempts_again_sooner(&task);
	assert_int_equal(due_in_ms(&task), 100000); /* the agent has it */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(not_before_the_first_may_not_act_any_more),
		cmocka_unit_test(not_for_what_is_older_than_any_operation_is_tried),
		cmocka_unit_test(again_at_exp_and_behind_it),
		cmocka_unit_test(sooner_where_the_agent_has_judged_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
