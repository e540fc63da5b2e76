/* Whether another agent is asked: only where the first is lost, may not act any more, and the operation is not too old for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "service/operations_internal.h"

#define NOW_MS INT64_C(1790000000000)

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(not_before_the_first_may_not_act_any_more),
		cmocka_unit_test(not_for_what_is_older_than_any_operation_is_tried),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
