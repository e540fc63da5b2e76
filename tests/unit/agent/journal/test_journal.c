#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>
#include <sqlite3.h>

#include "agent/journal/journal.h"
#include "agent/journal/seal.h"
#include "base/clock.h"

#define NOW INT64_C(1790000000)
enum { RETAIN_MS = 3600000 };

static char folder[] = "/tmp/journal-XXXXXX";
static char path[64];
static struct event_base *base;
static struct journal *journal;
static char *why;

static const char *uuid(unsigned n)
{
	static char text[UUID_SIZE];
	snprintf(text, sizeof text, "6f9619ff-8b86-4d01-b42d-%012x", n);
	return text;
}

static enum status open_journal(unsigned rows_limit)
{
	struct journal_settings settings = { .path = path, .retain_ms = RETAIN_MS, .rows_limit = rows_limit };
	free(why);
	return journal_open(base, &settings, &journal, &why);
}

static void close_journal(void)
{
	journal_close(journal);
	journal = NULL;
}

static void reopen(void)
{
	close_journal();
	enum status status = open_journal(100);
	if (status != STATUS_OK)
		fail_msg("%s: %s", status_code(status), why ? why : "?");
}

static void remove_files(void)
{
	char name[80];
	static const char *const suffixes[] = { "", "-wal", "-shm", ".mark" };
	for (size_t i = 0; i < 4; i++) {
		snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
		unlink(name);
	}
}

static int setup(void **state)
{
	base = event_base_new();
	remove_files();
	assert_int_equal(open_journal(100), STATUS_OK);
	return 0;
}

static int teardown(void **state)
{
	close_journal();
	event_base_free(base);
	free(why);
	why = NULL;
	remove_files();
	return 0;
}

/* Waits for one callback and keeps its status. */
struct answer { enum status status; unsigned calls; };
static void answered(enum status status, void *arg)
{
	struct answer *answer = arg;
	answer->status = status;
	answer->calls++;
	event_base_loopbreak(base);
}

static enum status wait_for(struct answer *answer)
{
	while (!answer->calls)
		assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
	assert_int_equal(answer->calls, 1);
	return answer->status;
}

static struct journal_entry intent(unsigned n)
{
	struct journal_entry entry = { .exp = NOW + 30, .state = JOURNAL_INTENT, .op = "reset", .directory = "corp", .server = "dc1.corp.example.test",
		.highest_committed_usn = UINT64_MAX, .password_version = UINT32_MAX, .password_originating_usn = 4711, .intent_at_ms = NOW * 1000 + 5 };
	strcpy(entry.request_id, uuid(n));
	strcpy(entry.operation_id, uuid(n + 1000));
	strcpy(entry.user_guid, uuid(n + 2000));
	memset(entry.frame_sha256, (int)(n + 1), sizeof entry.frame_sha256);
	memset(entry.invocation_id, 0xab, sizeof entry.invocation_id);
	memset(entry.password_originator, 0xcd, sizeof entry.password_originator);
	return entry;
}

static struct journal_entry outcome(unsigned n)
{
	struct journal_entry entry = intent(n);
	entry.state = JOURNAL_OUTCOME;
	entry.outcome_at_ms = NOW * 1000 + 50;
	strcpy(entry.code, "ok");
	entry.counts = entry.sets_password = true;
	entry.result = (char *)(uintptr_t)"{\"status\":\"applied\",\"code\":\"ok\"}";
	return entry;
}

static void write_intent(unsigned n)
{
	struct answer answer = { 0 };
	struct journal_entry entry = intent(n);
	assert_int_equal(journal_intent(journal, &entry, answered, &answer), STATUS_OK);
	assert_int_equal(wait_for(&answer), STATUS_OK);
}

static void write_outcome(unsigned n)
{
	struct answer answer = { 0 };
	struct journal_entry entry = outcome(n);
	assert_int_equal(journal_outcome(journal, &entry, answered, &answer), STATUS_OK);
	assert_int_equal(wait_for(&answer), STATUS_OK);
}

static void assert_same(const struct journal_entry *found, const struct journal_entry *expected)
{
	assert_non_null(found);
	struct journal_entry a = *found, b = *expected;
	if (b.result)
		assert_string_equal(a.result, b.result);
	else
		assert_null(a.result);
	assert_string_equal(a.request_id, b.request_id);
	assert_string_equal(a.operation_id, b.operation_id);
	assert_memory_equal(a.frame_sha256, b.frame_sha256, 32);
	assert_true(a.exp == b.exp && a.state == b.state && a.highest_committed_usn == b.highest_committed_usn && a.password_version == b.password_version);
	assert_true(a.password_originating_usn == b.password_originating_usn && a.intent_at_ms == b.intent_at_ms && a.outcome_at_ms == b.outcome_at_ms);
	assert_true(a.counts == b.counts && a.sets_password == b.sets_password && a.acknowledged == b.acknowledged && !a.pending);
	assert_string_equal(a.op, b.op);
	assert_string_equal(a.user_guid, b.user_guid);
	assert_string_equal(a.directory, b.directory);
	assert_string_equal(a.server, b.server);
	assert_string_equal(a.code, b.code);
	assert_memory_equal(a.invocation_id, b.invocation_id, 16);
	assert_memory_equal(a.password_originator, b.password_originator, 16);
}

static void intent_and_outcome_survive(void **state)
{
	struct journal_entry first = intent(1), second = outcome(1);
	write_intent(1);
	reopen();
	assert_same(journal_find(journal, uuid(1)), &first);
	assert_int_equal(journal_unacknowledged(journal), 0);
	write_outcome(1);
	reopen();
	assert_same(journal_find(journal, uuid(1)), &second);
	assert_int_equal(journal_unacknowledged(journal), 1);
	assert_null(journal_find(journal, uuid(2)));
	assert_null(journal_find(journal, ""));
}

static void the_index_knows_at_once(void **state)
{
	struct answer answer = { 0 };
	struct journal_entry entry = intent(1);
	assert_int_equal(journal_intent(journal, &entry, answered, &answer), STATUS_OK);
	const struct journal_entry *found = journal_find(journal, uuid(1));
	assert_non_null(found);
	assert_true(found->pending); /* seen as a duplicate, but nobody may be told yet */
	assert_int_equal(answer.calls, 0);
	assert_int_equal(wait_for(&answer), STATUS_OK);
	assert_false(journal_find(journal, uuid(1))->pending);
}

static void the_first_outcome_stands(void **state)
{
	struct answer answer = { 0 };
	struct journal_entry other = outcome(1), late = intent(1), original = outcome(1);
	write_outcome(1);
	strcpy(other.code, "policy.history");
	assert_int_equal(journal_outcome(journal, &other, answered, &answer), STATUS_AGENT_INTERNAL);
	assert_int_equal(journal_intent(journal, &late, answered, &answer), STATUS_AGENT_INTERNAL);
	assert_int_equal(answer.calls, 0);
	assert_same(journal_find(journal, uuid(1)), &original);
	other.state = JOURNAL_INTENT; /* wrong state for the call */
	strcpy(other.request_id, uuid(2));
	assert_int_equal(journal_outcome(journal, &other, answered, &answer), STATUS_AGENT_INTERNAL);
	other.state = JOURNAL_OUTCOME;
	strcpy(other.request_id, "no uuid");
	assert_int_equal(journal_outcome(journal, &other, answered, &answer), STATUS_AGENT_INTERNAL);
}

static void remove_mark(void)
{
	char name[80];
	snprintf(name, sizeof name, "%s.mark", path);
	assert_int_equal(unlink(name), 0);
}

static void run_sql(const char *sql)
{
	sqlite3 *db;
	char *error = NULL;
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(seal_opened(db, NULL), STATUS_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, &error) != SQLITE_OK)
		fail_msg("%s: %s", sql, error);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void settling_then_final(void **state)
{
	struct answer answer = { 0 };
	struct journal_entry settling = intent(1);
	write_intent(1);
	settling.state = JOURNAL_SETTLING;
	assert_int_equal(journal_outcome(journal, &settling, answered, &answer), STATUS_OK);
	assert_int_equal(wait_for(&answer), STATUS_OK);
	reopen();
	assert_int_equal(journal_find(journal, uuid(1))->state, JOURNAL_SETTLING);
	assert_int_equal(journal_unacknowledged(journal), 0);
	write_outcome(1);
	assert_int_equal(journal_unacknowledged(journal), 1);
}

static struct journal_entry second_intent(unsigned n)
{
	struct journal_entry entry = intent(n);
	strcpy(entry.second_server, "dc2.corp.example.test");
	memset(entry.second_invocation_id, 0xef, sizeof entry.second_invocation_id);
	entry.second_committed_usn = 815;
	entry.second_password_version = 3;
	memset(entry.second_password_originator, 0xcd, sizeof entry.second_password_originator);
	entry.second_password_originating_usn = 4711;
	entry.second_at_ms = NOW * 1000 + 9;
	return entry;
}

static void assert_second(const struct journal_entry *entry, const struct journal_entry *expected)
{
	assert_string_equal(entry->second_server, expected->second_server);
	assert_memory_equal(entry->second_invocation_id, expected->second_invocation_id, 16);
	assert_int_equal(entry->second_committed_usn, expected->second_committed_usn);
	assert_int_equal(entry->second_password_version, expected->second_password_version);
	assert_memory_equal(entry->second_password_originator, expected->second_password_originator, 16);
	assert_int_equal(entry->second_password_originating_usn, expected->second_password_originating_usn);
	assert_int_equal(entry->second_at_ms, expected->second_at_ms);
}

static void second_intent_survives(void **state)
{
	struct answer answer = { 0 };
	struct journal_entry second = second_intent(1);
	write_intent(1);
	assert_int_equal(journal_intent(journal, &second, answered, &answer), STATUS_OK);
	assert_int_equal(wait_for(&answer), STATUS_OK);
	reopen();
	assert_int_equal(journal_find(journal, uuid(1))->state, JOURNAL_INTENT);
	assert_string_equal(journal_find(journal, uuid(1))->server, "dc1.corp.example.test");
	assert_second(journal_find(journal, uuid(1)), &second);
}

/* Rows of version 1 are taken over; what is added to them afterwards is guarded. */
static void version_1_is_taken_over(void **state)
{
	static const char *const columns[] = { "second_server", "second_invocation_id", "second_committed_usn", "second_password_version", "second_password_originator",
		"second_password_originating_usn", "second_at_ms", "wrong_at_ms" };
	char sql[128];
	write_intent(1);
	write_outcome(2);
	close_journal();
	run_sql("DROP TABLE seal; DROP TRIGGER entries_insert; DROP TRIGGER entries_update; DROP TRIGGER entries_delete; DROP TRIGGER numbers_insert; DROP TRIGGER numbers_update; DROP TRIGGER numbers_delete");
	remove_mark();
	for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
		snprintf(sql, sizeof sql, "ALTER TABLE entries DROP COLUMN %s", columns[i]);
		run_sql(sql);
	}
	run_sql("PRAGMA user_version = 1");
	assert_int_equal(open_journal(100), STATUS_OK);
	struct journal_entry none = { 0 };
	assert_second(journal_find(journal, uuid(1)), &none);
	assert_int_equal(journal_find(journal, uuid(2))->state, JOURNAL_OUTCOME);
	close_journal();
	run_sql("UPDATE entries SET second_server = 'dc2'");
	assert_int_equal(open_journal(100), STATUS_LOCAL_DAMAGED);
}

static void wrong_passwords_survive(void **state)
{
	struct answer answer = { 0 };
	struct journal_entry entry = intent(1);
	write_intent(1);
	entry.state = JOURNAL_SETTLING;
	entry.wrong_at_ms = NOW * 1000 + 7;
	assert_int_equal(journal_outcome(journal, &entry, answered, &answer), STATUS_OK);
	assert_int_equal(wait_for(&answer), STATUS_OK);
	reopen();
	assert_int_equal(journal_find(journal, uuid(1))->wrong_at_ms, NOW * 1000 + 7);
	close_journal();
	run_sql("UPDATE entries SET wrong_at_ms = 0");
	assert_int_equal(open_journal(100), STATUS_LOCAL_DAMAGED);
}

/* Rows with a second intent and without have another checksum each. */
static void version_3_is_taken_over(void **state)
{
	struct answer answer = { 0 };
	struct journal_entry second = second_intent(1);
	write_intent(1);
	write_intent(2);
	assert_int_equal(journal_intent(journal, &second, answered, &answer), STATUS_OK);
	assert_int_equal(wait_for(&answer), STATUS_OK);
	close_journal();
	run_sql("ALTER TABLE entries DROP COLUMN wrong_at_ms; PRAGMA user_version = 3");
	assert_int_equal(open_journal(100), STATUS_OK);
	assert_second(journal_find(journal, uuid(1)), &second);
	assert_int_equal(journal_find(journal, uuid(1))->wrong_at_ms, 0);
	assert_non_null(journal_find(journal, uuid(2)));
}

static bool note_order(const struct journal_entry *entry, void *arg)
{
	strncat(arg, entry->request_id + 35, 1);
	return entry->request_id[35] != '3';
}

static void order_of_arrival(void **state)
{
	char order[16] = "";
	write_intent(2);
	write_intent(1);
	write_intent(3);
	write_intent(4);
	write_outcome(2);
	reopen();
	journal_each(journal, note_order, order);
	assert_string_equal(order, "213");
}

static void forgetting_wants_acknowledgement_expiry_and_age(void **state)
{
	int64_t late = (NOW + 30 + 1) * 1000 + RETAIN_MS;
	write_intent(1);
	write_outcome(2);
	write_outcome(3);
	journal_acknowledge(journal, uuid(1)); /* no outcome to acknowledge */
	journal_acknowledge(journal, uuid(3));
	journal_acknowledge(journal, uuid(3));
	journal_acknowledge(journal, uuid(99));
	reopen();
	assert_int_equal(journal_unacknowledged(journal), 1);
	assert_false(journal_find(journal, uuid(1))->acknowledged);
	assert_true(journal_find(journal, uuid(3))->acknowledged);
	journal_forget(journal, (NOW + 31) * 1000); /* too young for the throttle and the administrator */
	reopen();
	assert_non_null(journal_find(journal, uuid(3)));
	assert_true(journal_forgotten_exp(journal) == 0);
	journal_forget(journal, late);
	assert_true(journal_forgotten_exp(journal) == NOW + 30); /* before the rows are gone */
	reopen();
	assert_null(journal_find(journal, uuid(3)));
	assert_non_null(journal_find(journal, uuid(2)));
	assert_non_null(journal_find(journal, uuid(1)));
	assert_true(journal_forgotten_exp(journal) == NOW + 30);
	journal_forget(journal, late);
	reopen();
	assert_true(journal_forgotten_exp(journal) == NOW + 30);
}

static void an_unexpired_row_is_kept(void **state)
{
	struct answer answer = { 0 };
	struct journal_entry entry = outcome(1);
	entry.exp = NOW + 100000;
	assert_int_equal(journal_outcome(journal, &entry, answered, &answer), STATUS_OK);
	assert_int_equal(wait_for(&answer), STATUS_OK);
	journal_acknowledge(journal, uuid(1));
	reopen();
	journal_forget(journal, (NOW + 100000) * 1000);
	reopen();
	assert_non_null(journal_find(journal, uuid(1)));
	journal_forget(journal, (NOW + 100001) * 1000);
	reopen();
	assert_null(journal_find(journal, uuid(1)));
}

static void a_full_journal_keeps_what_counts(void **state)
{
	struct answer answers[3] = { 0 };
	for (unsigned i = 0; i < 3; i++) {
		struct journal_entry entry = outcome(i);
		entry.counts = i == 2;
		assert_int_equal(journal_outcome(journal, &entry, answered, &answers[i]), STATUS_OK);
		assert_int_equal(wait_for(&answers[i]), STATUS_OK);
		if (i > 0)
			journal_acknowledge(journal, entry.request_id);
	}
	reopen();
	journal_forget(journal, (NOW + 31) * 1000);
	reopen();
	assert_non_null(journal_find(journal, uuid(1)));
	close_journal();
	assert_int_equal(open_journal(5), STATUS_OK); /* three of five: more than half */
	journal_forget(journal, (NOW + 30) * 1000);
	reopen();
	assert_non_null(journal_find(journal, uuid(1))); /* not expired */
	close_journal();
	assert_int_equal(open_journal(5), STATUS_OK);
	journal_forget(journal, (NOW + 31) * 1000);
	reopen();
	assert_null(journal_find(journal, uuid(0))); /* not acknowledged, but nothing was changed */
	assert_null(journal_find(journal, uuid(1)));
	assert_non_null(journal_find(journal, uuid(2))); /* the throttle needs it */
}

static struct journal_entry refusal(unsigned n, int64_t exp)
{
	struct journal_entry entry = outcome(n);
	entry.intent_at_ms = 0;
	entry.counts = false;
	entry.exp = exp;
	return entry;
}

static enum status write_refusal(unsigned n, int64_t exp)
{
	struct answer answer = { 0 };
	struct journal_entry entry = refusal(n, exp);
	enum status status = journal_outcome(journal, &entry, answered, &answer);
	return status == STATUS_OK ? wait_for(&answer) : status;
}

/* Whoever holds a signing key may ask for refusals without end and acknowledge none: a quarter of the rows is theirs, and time alone empties it. */
static void refusals_leave_room_for_the_rest(void **state)
{
	close_journal();
	assert_int_equal(open_journal(20), STATUS_OK);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(write_refusal(i, NOW + 30), STATUS_OK);
	assert_int_equal(write_refusal(5, NOW + 30), STATUS_AGENT_OVERLOADED);
	write_intent(6);
	write_outcome(6);
	close_journal();
	assert_int_equal(open_journal(20), STATUS_OK); /* counted again at the start */
	assert_int_equal(write_refusal(5, NOW + 30), STATUS_AGENT_OVERLOADED);
	journal_forget(journal, (NOW + 30) * 1000);
	assert_int_equal(write_refusal(5, NOW + 30), STATUS_AGENT_OVERLOADED);
	journal_forget(journal, (NOW + 31) * 1000);
	journal_acknowledge(journal, uuid(0)); /* on its way out already: nothing is written back */
	while (journal_find(journal, uuid(0)))
		event_base_loop(base, EVLOOP_ONCE);
	assert_int_equal(write_refusal(5, NOW + 60), STATUS_OK);
	assert_true(journal_forgotten_exp(journal) == NOW + 30);
	reopen();
	assert_null(journal_find(journal, uuid(0)));
	assert_non_null(journal_find(journal, uuid(6)));
}

static void write_wrong(unsigned n)
{
	struct answer answer = { 0 };
	struct journal_entry entry = refusal(n, NOW + 30);
	entry.wrong_at_ms = entry.outcome_at_ms;
	assert_int_equal(journal_outcome(journal, &entry, answered, &answer), STATUS_OK);
	assert_int_equal(wait_for(&answer), STATUS_OK);
}

/* Whoever may ask may ask for anything else until it is gone: then a restart would let him guess on. */
static void no_flood_washes_a_wrong_password_away(void **state)
{
	close_journal();
	assert_int_equal(open_journal(32), STATUS_OK); /* 8 refusals */
	write_wrong(0);
	for (unsigned i = 1; i < 6; i++)
		assert_int_equal(write_refusal(i, NOW + 30), STATUS_OK);
	journal_forget(journal, (NOW + 31) * 1000);
	while (journal_find(journal, uuid(5)))
		event_base_loop(base, EVLOOP_ONCE);
	assert_non_null(journal_find(journal, uuid(0)));
	/* but they leave room as well */
	for (unsigned i = 6; i < 12; i++)
		write_wrong(i);
	journal_forget(journal, (NOW + 31) * 1000);
	while (journal_find(journal, uuid(0)))
		event_base_loop(base, EVLOOP_ONCE);
}

static void a_journal_nearly_full_keeps_only_what_is_owed(void **state)
{
	close_journal();
	assert_int_equal(open_journal(4), STATUS_OK);
	for (unsigned i = 0; i < 4; i++)
		write_outcome(i);
	for (unsigned i = 1; i < 4; i++)
		journal_acknowledge(journal, uuid(i));
	close_journal();
	assert_int_equal(open_journal(4), STATUS_OK);
	journal_forget(journal, (NOW + 31) * 1000);
	reopen();
	assert_non_null(journal_find(journal, uuid(0)));
	assert_null(journal_find(journal, uuid(3)));
}

static void what_changed_something_waits_for_its_acknowledgement(void **state)
{
	struct answer answer = { 0 };
	struct journal_entry entry = outcome(1);
	entry.counts = true;
	assert_int_equal(journal_outcome(journal, &entry, answered, &answer), STATUS_OK);
	assert_int_equal(wait_for(&answer), STATUS_OK);
	assert_int_equal(write_refusal(2, NOW + 30), STATUS_OK);
	journal_forget(journal, (NOW + 31) * 1000 + 2 * RETAIN_MS);
	reopen();
	assert_non_null(journal_find(journal, uuid(1)));
	assert_null(journal_find(journal, uuid(2)));
}

static void thousands_are_abandoned_at_once(void **state)
{
	enum { MANY = 9000 };
	struct answer last = { 0 };
	close_journal();
	assert_int_equal(open_journal(10000), STATUS_OK);
	for (unsigned i = 0; i < MANY; i++) {
		struct journal_entry entry = outcome(i);
		entry.counts = i % 3 == 0;
		last.calls = 0;
		while (journal_outcome(journal, &entry, answered, &last) == STATUS_AGENT_OVERLOADED)
			event_base_loop(base, EVLOOP_ONCE);
	}
	while (journal_find(journal, uuid(MANY - 1))->pending)
		event_base_loop(base, EVLOOP_ONCE);
	assert_int_equal(journal_unacknowledged(journal), MANY);
	journal_abandon(journal);
	while (journal_unacknowledged(journal))
		event_base_loop(base, EVLOOP_ONCE);
	assert_true(journal_forgotten_exp(journal) == 0); /* the new agent's requests are others */
	reopen();
	assert_int_equal(journal_unacknowledged(journal), 0);
	assert_non_null(journal_find(journal, uuid(0)));
	assert_null(journal_find(journal, uuid(1)));
}

static void thousands_are_forgotten_at_once(void **state)
{
	enum { MANY = 2500 };
	struct answer last = { 0 };
	close_journal();
	assert_int_equal(open_journal(10000), STATUS_OK);
	for (unsigned i = 0; i < MANY; i++) {
		struct journal_entry entry = outcome(i);
		entry.acknowledged = true;
		last.calls = 0;
		while (journal_outcome(journal, &entry, answered, &last) == STATUS_AGENT_OVERLOADED)
			event_base_loop(base, EVLOOP_ONCE);
	}
	while (journal_find(journal, uuid(MANY - 1))->pending)
		event_base_loop(base, EVLOOP_ONCE);
	journal_forget(journal, (NOW + 31) * 1000 + RETAIN_MS);
	while (journal_find(journal, uuid(MANY - 1)))
		event_base_loop(base, EVLOOP_ONCE);
	reopen();
	assert_null(journal_find(journal, uuid(0)));
	assert_null(journal_find(journal, uuid(MANY - 1)));
}

static void numbers_survive(void **state)
{
	assert_true(journal_number(journal, "boot", 7) == 7);
	journal_set_number(journal, "boot", 8);
	journal_set_number(journal, "latched", 1);
	assert_true(journal_number(journal, "boot", 7) == 8);
	journal_set_number(journal, "boot", INT64_MAX);
	reopen();
	assert_true(journal_number(journal, "boot", 7) == INT64_MAX);
	assert_true(journal_number(journal, "latched", 0) == 1);
	assert_true(journal_number(journal, "key_set_version", 0) == 0);
}

/* Who has to know hears when it is on disk, or that it is not. */
static void a_number_tells_when_it_is_written(void **state)
{
	struct answer written = { 0 }, failed = { 0 };
	assert_int_equal(journal_store_number(journal, "refused_exp", 9, answered, &written), STATUS_OK);
	assert_int_equal(written.calls, 0);
	assert_false(journal_has_number(journal, "refused_exp") || journal_has_number(journal, "nothing"));
	assert_int_equal(wait_for(&written), STATUS_OK);
	assert_true(journal_has_number(journal, "refused_exp"));
	run_sql("DROP TABLE numbers");
	assert_int_equal(journal_store_number(journal, "refused_exp", 10, answered, &failed), STATUS_OK);
	assert_int_equal(wait_for(&failed), STATUS_AGENT_JOURNAL);
	assert_false(journal_writable(journal));
	assert_true(journal_number(journal, "refused_exp", 0) == 10);
	assert_false(journal_has_number(journal, "refused_exp"));
}

/* Something else is written before the probe comes to it: it is written all the same. */
static void a_number_that_failed_is_written_later(void **state)
{
	run_sql("ALTER TABLE numbers RENAME TO away");
	journal_set_number(journal, "latched", 1);
	while (journal_writable(journal))
		event_base_loop(base, EVLOOP_ONCE);
	run_sql("ALTER TABLE away RENAME TO numbers");
	journal_set_number(journal, "boot", 2);
	while (!journal_writable(journal))
		event_base_loop(base, EVLOOP_ONCE);
	assert_false(journal_has_number(journal, "latched"));
	event_base_loopexit(base, &(struct timeval){ 20, 0 });
	for (int64_t until_us = clock_monotonic_us() + 20000000; !journal_has_number(journal, "latched") && clock_monotonic_us() < until_us;)
		event_base_loop(base, EVLOOP_ONCE);
	assert_true(journal_has_number(journal, "latched"));
}

static void rows_are_limited(void **state)
{
	struct answer answer = { 0 };
	close_journal();
	assert_int_equal(open_journal(2), STATUS_OK);
	write_intent(1);
	write_intent(2);
	struct journal_entry third = intent(3), refused = outcome(4);
	assert_int_equal(journal_intent(journal, &third, answered, &answer), STATUS_AGENT_JOURNAL);
	assert_int_equal(journal_outcome(journal, &refused, answered, &answer), STATUS_AGENT_JOURNAL);
	assert_null(journal_find(journal, uuid(3)));
	write_outcome(1); /* what is begun may end */
	assert_true(journal_writable(journal));
}

/* Damage ------------------------------------------------------------------------------------------------------------------------------- */

static void every_column_is_guarded(void **state)
{
	static const char *const damages[] = {
		"request_id = '6f9619ff-8b86-4d01-b42d-00000000000f'", "operation_id = 'x'", "frame_sha256 = zeroblob(32)", "frame_sha256 = zeroblob(31)", "exp = exp + 1",
		"state = 1", "state = 9", "op = 'unlock'", "op = ''", "user_guid = ''", "directory = 'corq'", "server = server || 'x'", "invocation_id = zeroblob(16)",
		"highest_committed_usn = 0", "password_version = 1", "password_version = -1", "password_originator = zeroblob(16)", "password_originating_usn = 4712",
		"intent_at_ms = 0", "outcome_at_ms = 0", "code = 'policy.history'", "counts = 0", "counts = 2", "sets_password = 0", "result = NULL", "result = ''",
		"result = result || ' '", "acknowledged = 1", "checksum = zeroblob(32)", "checksum = zeroblob(0)", "sequence = 77",
		"server = printf('%0300d', 0)",
		"second_server = 'dc2'", "second_invocation_id = x'01000000000000000000000000000000'", "second_committed_usn = 1", "second_password_version = 1",
		"second_password_originator = zeroblob(15)", "second_password_originating_usn = 1", "second_at_ms = 1",
		/* What moves between two columns leaves their concatenation as it was. */
		"directory = directory || substr(server, 1, 1), server = substr(server, 2)",
	};
	char sql[256];
	for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
		write_outcome(1);
		close_journal();
		snprintf(sql, sizeof sql, "UPDATE entries SET %s", damages[i]);
		run_sql(sql);
		if (open_journal(100) != STATUS_LOCAL_DAMAGED)
			fail_msg("%s was not seen", damages[i]);
		assert_null(journal);
		assert_non_null(strstr(why, path));
		assert_non_null(strstr(why, "row "));
		assert_non_null(strstr(why, "damaged"));
		remove_files();
		assert_int_equal(open_journal(100), STATUS_OK);
	}
}

static void numbers_are_guarded(void **state)
{
	static const char *const damages[] = { "UPDATE numbers SET value = value - 1 WHERE name = 'boot'", "UPDATE numbers SET name = 'boat' WHERE name = 'boot'",
		"UPDATE numbers SET checksum = x'00' WHERE name = 'boot'" };
	for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
		journal_set_number(journal, "boot", 8);
		close_journal();
		run_sql(damages[i]);
		assert_int_equal(open_journal(100), STATUS_LOCAL_DAMAGED);
		assert_non_null(strstr(why, "numbers"));
		remove_files();
		assert_int_equal(open_journal(100), STATUS_OK);
	}
}

static void keep_digest(sqlite3_context *context, int count, sqlite3_value **values)
{
	sqlite3_result_value(context, values[0]);
}

/* As if what is gone had never been committed. */
static void run_unsealed(const char *sql)
{
	sqlite3 *db;
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_create_function(db, "seal_mix", -1, SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS, NULL, keep_digest, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* Each of the rows that are left is whole: only the seal tells. */
static void rows_that_are_lost_are_seen(void **state)
{
	static const char *const losses[] = { "DELETE FROM entries WHERE request_id LIKE '%2'", "DELETE FROM numbers WHERE name = 'boot'" };
	for (size_t i = 0; i < sizeof losses / sizeof *losses; i++) {
		write_outcome(1);
		write_outcome(2);
		journal_set_number(journal, "boot", 8);
		close_journal();
		run_unsealed(losses[i]);
		assert_int_equal(open_journal(100), STATUS_LOCAL_DAMAGED);
		assert_non_null(strstr(why, "do not add up"));
		remove_files();
		assert_int_equal(open_journal(100), STATUS_OK);
	}
	write_outcome(1);
	write_outcome(2);
	close_journal();
	run_sql("DELETE FROM entries WHERE request_id LIKE '%2'"); /* as the journal itself does it */
	assert_int_equal(open_journal(100), STATUS_OK);
	assert_null(journal_find(journal, uuid(2)));
}

static void a_flipped_bit_in_the_file_is_seen(void **state)
{
	write_outcome(1);
	close_journal();
	run_sql("PRAGMA wal_checkpoint(TRUNCATE)");
	static char content[1 << 20];
	FILE *file = fopen(path, "r+b");
	assert_non_null(file);
	size_t size = fread(content, 1, sizeof content, file);
	char *result = memmem(content, size, "\"applied\"", 9);
	assert_non_null(result);
	fseek(file, (long)(result - content) + 3, SEEK_SET);
	fputc(result[3] ^ 1, file);
	fclose(file);
	assert_int_equal(open_journal(100), STATUS_LOCAL_DAMAGED);
	assert_non_null(strstr(why, uuid(1)));
}

static void foreign_and_newer_files_are_refused(void **state)
{
	close_journal();
	run_sql("PRAGMA user_version = 5");
	assert_int_equal(open_journal(100), STATUS_LOCAL_DAMAGED);
	run_sql("PRAGMA user_version = 4; PRAGMA application_id = 1");
	assert_int_equal(open_journal(100), STATUS_LOCAL_DAMAGED);
	assert_non_null(why);
	run_sql("PRAGMA application_id = 1463962188"); /* "WBJL" */
	assert_int_equal(open_journal(100), STATUS_OK);
	close_journal();
	run_sql("DROP TABLE numbers");
	assert_int_equal(open_journal(100), STATUS_LOCAL_DAMAGED);
	assert_non_null(strstr(why, "tables"));
}

static void no_database_is_no_fresh_start(void **state)
{
	close_journal();
	remove_files();
	FILE *file = fopen(path, "w");
	fputs("this is no database, and was never one, whatever its name says\n", file);
	fclose(file);
	chmod(path, 0600);
	assert_int_equal(open_journal(100), STATUS_LOCAL_DAMAGED);
	struct stat facts;
	assert_int_equal(stat(path, &facts), 0);
	assert_int_equal(facts.st_size, 63); /* untouched */
}

/* Failing writes ----------------------------------------------------------------------------------------------------------------------- */

/* From here every write of an entry fails, as on a full disk. */
static void drop_table(void)
{
	run_sql("DROP TABLE entries");
}

static void a_failed_intent_leaves_the_index(void **state)
{
	struct answer first = { 0 }, second = { 0 };
	struct journal_entry entry = intent(1), refused = intent(2);
	drop_table();
	assert_int_equal(journal_intent(journal, &entry, answered, &first), STATUS_OK);
	assert_int_equal(wait_for(&first), STATUS_AGENT_JOURNAL);
	assert_null(journal_find(journal, uuid(1)));
	assert_false(journal_writable(journal));
	assert_int_equal(journal_intent(journal, &refused, answered, &second), STATUS_AGENT_JOURNAL);
	assert_int_equal(second.calls, 0);
	/* The first write that succeeds lets it go on; here a number, in production the probe. */
	journal_set_number(journal, "boot", 2);
	while (!journal_writable(journal))
		event_base_loop(base, EVLOOP_ONCE);
}

static void a_failed_outcome_leaves_the_intent(void **state)
{
	struct answer answer = { 0 };
	struct journal_entry entry = outcome(1);
	write_intent(1);
	drop_table();
	assert_int_equal(journal_outcome(journal, &entry, answered, &answer), STATUS_OK);
	assert_int_equal(journal_find(journal, uuid(1))->state, JOURNAL_OUTCOME);
	assert_int_equal(wait_for(&answer), STATUS_AGENT_JOURNAL);
	assert_int_equal(journal_find(journal, uuid(1))->state, JOURNAL_INTENT);
	assert_false(journal_find(journal, uuid(1))->pending);
}

static void two_failures_in_a_row_leave_nothing(void **state)
{
	struct answer first = { 0 }, second = { 0 };
	struct journal_entry one = intent(1), two = outcome(1);
	drop_table();
	assert_int_equal(journal_intent(journal, &one, answered, &first), STATUS_OK);
	assert_int_equal(journal_outcome(journal, &two, answered, &second), STATUS_OK);
	assert_int_equal(wait_for(&second), STATUS_AGENT_JOURNAL);
	assert_int_equal(first.status, STATUS_AGENT_JOURNAL);
	assert_null(journal_find(journal, uuid(1)));
}

static void closing_answers_everybody(void **state)
{
	struct answer answers[20] = { 0 };
	for (unsigned i = 0; i < 20; i++) {
		struct journal_entry entry = intent(i);
		assert_int_equal(journal_intent(journal, &entry, answered, &answers[i]), STATUS_OK);
	}
	close_journal();
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(answers[i].calls, 1);
		assert_int_equal(answers[i].status, STATUS_OK);
	}
	assert_int_equal(open_journal(100), STATUS_OK);
	for (unsigned i = 0; i < 20; i++)
		assert_non_null(journal_find(journal, uuid(i)));
}

int main(void)
{
	if (!mkdtemp(folder))
		return 1;
	snprintf(path, sizeof path, "%s/journal.db", folder);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(intent_and_outcome_survive), TEST(the_index_knows_at_once), TEST(the_first_outcome_stands), TEST(settling_then_final), TEST(second_intent_survives), TEST(version_1_is_taken_over), TEST(version_3_is_taken_over), TEST(wrong_passwords_survive), TEST(order_of_arrival),
		TEST(forgetting_wants_acknowledgement_expiry_and_age), TEST(an_unexpired_row_is_kept), TEST(a_full_journal_keeps_what_counts), TEST(thousands_are_forgotten_at_once),
		TEST(refusals_leave_room_for_the_rest), TEST(no_flood_washes_a_wrong_password_away), TEST(a_journal_nearly_full_keeps_only_what_is_owed), TEST(what_changed_something_waits_for_its_acknowledgement), TEST(thousands_are_abandoned_at_once),
		TEST(numbers_survive), TEST(a_number_tells_when_it_is_written), TEST(a_number_that_failed_is_written_later), TEST(rows_are_limited),
		TEST(every_column_is_guarded), TEST(numbers_are_guarded), TEST(rows_that_are_lost_are_seen), TEST(a_flipped_bit_in_the_file_is_seen), TEST(foreign_and_newer_files_are_refused),
		TEST(no_database_is_no_fresh_start), TEST(a_failed_intent_leaves_the_index), TEST(a_failed_outcome_leaves_the_intent),
		TEST(two_failures_in_a_row_leave_nothing), TEST(closing_answers_everybody),
	};
	int failed = cmocka_run_group_tests_name("journal", tests, NULL, NULL);
	rmdir(folder);
	return failed;
}
