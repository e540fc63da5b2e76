/* The journal with its n-th allocation failing, for every n: a status instead of a crash, nothing leaked, nothing half done. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/journal/rows.h"

static int countdown;

static void *failing_calloc(size_t count, size_t size)
{
	return countdown-- == 0 ? NULL : calloc(count, size);
}

static struct journal_entry *failing_copy(const struct journal_entry *entry)
{
	return countdown-- == 0 ? NULL : entry_copy(entry);
}

#define calloc failing_calloc
#define entry_copy failing_copy
#include "agent/journal/journal.c"
#include "agent/journal/forget.c"
#include "agent/journal/seal.c"
#undef calloc
#undef entry_copy

#define ID "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"

static void count_done(enum status status, void *arg)
{
	++*(unsigned *)arg;
}

/* Accepted calls are answered exactly once, others never. */
static void run_all(struct event_base *base, const char *path)
{
	struct journal_settings settings = { .path = path, .rows_limit = 10 };
	struct journal_entry entry = { .request_id = ID, .exp = 1, .state = JOURNAL_INTENT };
	struct journal *journal;
	char *why = NULL;
	unsigned accepted = 0, done = 0;
	enum status status = journal_open(base, &settings, &journal, &why);
	assert_int_equal(status == STATUS_OK, journal != NULL);
	free(why);
	if (!journal)
		return;
	status = journal_intent(journal, &entry, count_done, &done);
	accepted += status == STATUS_OK;
	assert_int_equal(status == STATUS_OK, journal_find(journal, ID) != NULL);
	entry.state = JOURNAL_OUTCOME;
	entry.result = (char *)(uintptr_t)"{}";
	status = journal_outcome(journal, &entry, count_done, &done);
	accepted += status == STATUS_OK;
	assert_int_equal(status == STATUS_OK, journal_unacknowledged(journal) == 1);
	journal_acknowledge(journal, ID);
	journal_set_number(journal, "boot", 3);
	assert_true(journal_number(journal, "boot", 0) == 3);
	while (database_pending(journal->database) > 0)
		usleep(100);
	event_base_loop(base, EVLOOP_NONBLOCK);
	journal_forget(journal, 1000000);
	journal_close(journal);
	assert_int_equal(accepted, done);
}

static void every_allocation_may_fail(void **state)
{
	char folder[] = "/tmp/journal-memory-XXXXXX", name[64];
	static const char *const suffixes[] = { "", "-wal", "-shm", ".mark" };
	int failed_at = 0;
	assert_non_null(mkdtemp(folder));
	do {
		struct event_base *base = event_base_new();
		snprintf(name, sizeof name, "%s/j", folder);
		countdown = failed_at;
		run_all(base, name);
		event_base_free(base);
		for (size_t i = 0; i < 4; i++) {
			snprintf(name, sizeof name, "%s/j%s", folder, suffixes[i]);
			unlink(name);
		}
		failed_at++;
	} while (countdown < 0 && failed_at < 100);
	rmdir(folder);
	assert_in_range(failed_at, 8, 50);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(every_allocation_may_fail) };
	return cmocka_run_group_tests_name("journal_memory", tests, NULL, NULL);
}
