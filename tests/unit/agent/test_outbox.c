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

/* The wall clock, where a test sets it. */
static int64_t clock_ahead_ms;
int64_t __real_clock_now_ms(void), __wrap_clock_now_ms(void);
int64_t __wrap_clock_now_ms(void) { return __real_clock_now_ms() + clock_ahead_ms; }

#define AGENT "6f9619ff-8b86-4d01-b42d-00c04fc964ff"
enum { MANY = 50 };

static unsigned told[MANY], sent;
static int64_t outcome_us, outcome_at_ms;

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
	outcome_us = 0;
	outcome_at_ms = 1;
	clock_ahead_ms = 0;
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
		struct journal_entry entry = { .exp = 1, .state = JOURNAL_OUTCOME, .outcome_at_ms = outcome_at_ms, .outcome_us = outcome_us, .counts = true, .result = result };
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

static void run_round_of(struct event_base *base, struct outbox *outbox, int64_t age_ms)
{
	outbox_repeat(outbox, age_ms);
	while (outbox->ids)
		event_base_loop(base, EVLOOP_ONCE);
}

static void run_round(struct event_base *base, struct outbox *outbox) { run_round_of(base, outbox, 0); }

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

/* What has just been told is not told again; what is older is, though the clock was set back since, and what was there at the start. */
static void age_is_not_the_wall_clocks(void **state)
{
	struct fixture *f = *state;
	static const struct { int64_t ago_s, ahead_s; unsigned sent; } rows[] = { { 0, 0, 0 }, { 0, 3600, 0 }, { 60, 0, 1 }, { 60, -3600, 1 }, { -1, -3600, 1 } };
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		assert_int_equal(teardown(state) | setup(state), 0);
		outcome_us = rows[i].ago_s < 0 ? 0 : clock_monotonic_us() - rows[i].ago_s * 1000000;
		outcome_at_ms = clock_now_ms() - rows[i].ago_s * 1000;
		submit_outcomes(f, 1);
		wait_for_disk(f);
		clock_ahead_ms = rows[i].ahead_s * 1000;
		run_round_of(f->base, f->outbox, 59000);
		assert_int_equal(sent, rows[i].sent);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_one_has_its_turn, setup, teardown),
		cmocka_unit_test_setup_teardown(age_is_not_the_wall_clocks, setup, teardown),
		cmocka_unit_test_setup_teardown(none_is_told_before_it_is_on_disk, setup, teardown),
	};
	return cmocka_run_group_tests_name("outbox", tests, NULL, NULL);
}
