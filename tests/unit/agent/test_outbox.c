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

static void write_outcomes(struct event_base *base, struct journal *journal)
{
	char result[200], id[UUID_SIZE];
	for (unsigned i = 0; i < MANY; i++) {
		struct journal_entry entry = { .exp = 1, .state = JOURNAL_OUTCOME, .outcome_at_ms = 1, .counts = true, .result = result };
		snprintf(id, sizeof id, "6f9619ff-8b86-4d01-b42d-%012u", i);
		strcpy(entry.request_id, id);
		snprintf(result, sizeof result, "{\"iss\":\"" AGENT "\",\"iat\":0,\"n\":%u}", i);
		assert_int_equal(journal_outcome(journal, &entry, NULL, NULL), STATUS_OK);
	}
	while (journal_find(journal, id)->pending)
		event_base_loop(base, EVLOOP_ONCE);
}

static void run_round(struct event_base *base, struct outbox *outbox)
{
	outbox_repeat(outbox, 0);
	while (outbox->ids)
		event_base_loop(base, EVLOOP_ONCE);
}

static void every_one_has_its_turn(void **state)
{
	char folder[] = "/tmp/outbox-XXXXXX", name[64];
	static const char *const suffixes[] = { "", "-wal", "-shm" };
	struct identity identity = { .enrolled = true };
	struct journal *journal;
	strcpy(identity.agent_id, AGENT);
	assert_non_null(mkdtemp(folder));
	snprintf(name, sizeof name, "%s/j", folder);
	struct journal_settings settings = { .path = name, .rows_limit = 1000 };
	struct event_base *base = event_base_new();
	assert_int_equal(journal_open(base, &settings, &journal, NULL), STATUS_OK);
	write_outcomes(base, journal);
	struct outbox *outbox = outbox_new(base, journal, &identity, take, NULL);
	run_round(base, outbox);
	assert_int_equal(sent, 20);
	assert_int_equal(told[0], 1);
	run_round(base, outbox);
	run_round(base, outbox);
	assert_int_equal(sent, 60);
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(told[i], i < 10 ? 2 : 1);
	outbox_free(outbox);
	journal_close(journal);
	event_base_free(base);
	for (size_t i = 0; i < 3; i++) {
		snprintf(name, sizeof name, "%s/j%s", folder, suffixes[i]);
		unlink(name);
	}
	rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(every_one_has_its_turn) };
	return cmocka_run_group_tests_name("outbox", tests, NULL, NULL);
}
