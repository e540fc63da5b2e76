/* What is owed to the service is told in rounds; where there is more than a round holds, the next one goes on where the last has ended. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define ROUND_MAX 20
#include "agent/outbox.c"

#define AGENT "6f9619ff-8b86-4d01-b42d-00c04fc964ff"
enum { MANY = 50 };

static unsigned told[MANY], sent;

static enum status take(struct bytes payload, void *arg)
{
	unsigned number = (unsigned)atoi(strstr((const char *)payload.data, "\"n\":") + 4);
	told[number]++;
	sent++;
	return STATUS_OK;
}

struct fixture {
	char folder[32], name[64], last_id[UUID_SIZE];
	struct identity identity;
	struct event_base *base;
	struct journal *journal;
	struct outbox *outbox;
};

static int setup(void **state)
{
	static struct fixture fixture;
	struct fixture *f = *state = &fixture;
	*f = (struct fixture){ .folder = "/tmp/outbox-XXXXXX", .identity.enrolled = true, .base = event_base_new() };
	memset(told, 0, sizeof told);
	sent = 0;
	strcpy(f->identity.agent_id, AGENT);
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->name, sizeof f->name, "%s/j", f->folder);
	struct journal_settings settings = { .path = f->name, .rows_limit = 1000 };
	assert_int_equal(journal_open(f->base, &settings, &f->journal, NULL), STATUS_OK);
	f->outbox = outbox_new(f->base, f->journal, &f->identity, take, NULL);
	return 0;
}

static int teardown(void **state)
{
	static const char *const suffixes[] = { "", "-wal", "-shm", ".mark" };
	struct fixture *f = *state;
	outbox_free(f->outbox);
	journal_close(f->journal);
	event_base_free(f->base);
	for (size_t i = 0; i < 4; i++) {
		snprintf(f->name, sizeof f->name, "%s/j%s", f->folder, suffixes[i]);
		unlink(f->name);
	}
	return rmdir(f->folder);
}

static void submit_outcomes(struct fixture *f, unsigned count)
{
	char result[200];
	for (unsigned i = 0; i < count; i++) {
		struct journal_entry entry = { .exp = 1, .state = JOURNAL_OUTCOME, .outcome_at_ms = 1, .counts = true, .result = result };
		snprintf(f->last_id, sizeof f->last_id, "6f9619ff-8b86-4d01-b42d-%012u", i);
		strcpy(entry.request_id, f->last_id);
		snprintf(result, sizeof result, "{\"iss\":\"" AGENT "\",\"iat\":0,\"n\":%u}", i);
		assert_int_equal(journal_outcome(f->journal, &entry, NULL, NULL), STATUS_OK);
	}
}

static void wait_for_disk(struct fixture *f)
{
	while (journal_find(f->journal, f->last_id)->pending)
		event_base_loop(f->base, EVLOOP_ONCE);
}

static void run_round(struct event_base *base, struct outbox *outbox)
{
	outbox_repeat(outbox, 0);
	while (outbox->ids)
		event_base_loop(base, EVLOOP_ONCE);
}

static void every_one_has_its_turn(void **state)
{
	struct fixture *f = *state;
	submit_outcomes(f, MANY);
	wait_for_disk(f);
	run_round(f->base, f->outbox);
	assert_int_equal(sent, 20);
	assert_int_equal(told[0], 1);
	run_round(f->base, f->outbox);
	run_round(f->base, f->outbox);
	assert_int_equal(sent, 60);
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(told[i], i < 10 ? 2 : 1);
}

/* A new channel while a commit is under way: what is not on disk yet is not told. */
static void none_is_told_before_it_is_on_disk(void **state)
{
	struct fixture *f = *state;
	submit_outcomes(f, 1);
	assert_true(journal_find(f->journal, f->last_id)->pending);
	run_round(f->base, f->outbox);
	assert_int_equal(sent, 0);
	wait_for_disk(f);
	run_round(f->base, f->outbox);
	assert_int_equal(sent, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_one_has_its_turn, setup, teardown),
		cmocka_unit_test_setup_teardown(none_is_told_before_it_is_on_disk, setup, teardown),
	};
	return cmocka_run_group_tests_name("outbox", tests, NULL, NULL);
}
