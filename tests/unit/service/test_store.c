#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "service/store.h"

static char folder[64];
static struct database *database;

static int set_up(void **state)
{
	char *why = NULL;
	strcpy(folder, "/tmp/test-store-XXXXXX");
	assert_non_null(mkdtemp(folder));
	assert_int_equal(store_open(NULL, folder, &database, &why), STATUS_OK);
	return 0;
}

static int tear_down(void **state)
{
	static const char *const names[] = { "store.sqlite", "store.sqlite-wal", "store.sqlite-shm", NULL };
	char path[128];
	if (database != NULL)
		database_close(database);
	for (size_t i = 0; names[i] != NULL; i++) {
		snprintf(path, sizeof path, "%s/%s", folder, names[i]);
		unlink(path);
	}
	return rmdir(folder);
}

static void add_ticket(uint8_t first, int64_t now, int64_t expires)
{
	struct store_ticket ticket = { .hash = { first }, .now = now, .expires = expires };
	assert_int_equal(database_run(database, store_ticket_add, &ticket), STATUS_OK);
}

static bool enroll(uint8_t ticket, const char *id, const char *key, int64_t now)
{
	struct store_enrollment enrollment = { .ticket = { ticket }, .now = now, .agent = { .name = (char *)"host", .signing_key = (char *)key, .decryption_key = (char *)id, .enrolled_at = now } };
	snprintf(enrollment.agent.agent_id, UUID_SIZE, "%s", id);
	assert_int_equal(database_run(database, store_enroll, &enrollment), STATUS_OK);
	return enrollment.accepted;
}

static void tickets(void **state)
{
	add_ticket(1, 1000, 1900);
	add_ticket(2, 1000, 1900);
	add_ticket(3, 1000, 1900);
	assert_false(enroll(9, "a", "key-a", 1000)); /* unknown */
	assert_false(enroll(1, "a", "key-a", 1901)); /* expired */
	assert_true(enroll(1, "a", "key-a", 1900));
	assert_false(enroll(1, "b", "key-b", 1900)); /* used */
	assert_false(enroll(2, "c", "key-a", 1900)); /* a key that is enrolled already */
	assert_true(enroll(3, "b", "key-b", 1900));
	struct agent_rows rows = { 0 };
	assert_int_equal(database_run(database, store_agents, &rows), STATUS_OK);
	assert_int_equal(rows.count, 2);
	agent_rows_clear(&rows);
	struct store_agent_change change = { .agent_id = "a", .now = 2000 };
	assert_int_equal(database_run(database, store_agent_revoke, &change), STATUS_OK);
	assert_true(change.found);
	assert_int_equal(database_run(database, store_agent_revoke, &change), STATUS_OK);
	assert_false(change.found);
}

static bool key_job(database_job job, uint8_t hash, const char *name)
{
	struct store_api_key key = { .hash = { hash }, .name = name, .now = 1000 };
	assert_int_equal(database_run(database, job, &key), STATUS_OK);
	return key.found;
}

static void api_keys(void **state)
{
	assert_true(key_job(store_api_key_add, 1, "portal"));
	assert_false(key_job(store_api_key_add, 2, "portal"));
	assert_true(key_job(store_api_key_check, 1, NULL));
	assert_false(key_job(store_api_key_check, 2, NULL));
	assert_true(key_job(store_api_key_revoke, 0, "portal"));
	assert_false(key_job(store_api_key_revoke, 0, "portal"));
	assert_false(key_job(store_api_key_check, 1, NULL));
}

static void content_key_stays(void **state)
{
	uint8_t one[32] = { 0 }, two[32] = { 1 };
	assert_int_equal(database_run(database, store_hash_key, one), STATUS_OK);
	assert_int_equal(database_run(database, store_hash_key, two), STATUS_OK);
	assert_memory_equal(one, two, 32);
}

/* Larger than a page, as real ones are. */
static bool create_as(const char *op, const char *id, uint8_t content)
{
	static char frame[6401];
	for (size_t i = 0; i < 400; i++)
		memcpy(frame + 16 * i, "the-frame-itself", 17);
	struct operation_row operation = { .subject = (char *)"{}", .content = { content }, .created_ms = 1000, .status = "pending", .agent_id = "agent", .request_id = "request",
		.has_secret = true, .secret_key = { 'K' }, .secret_hash = { 'H' } };
	struct request_row request = { .request_id = "request", .agent_id = "agent", .created_ms = 1000, .expires = 31, .frame = frame };
	snprintf(operation.op, sizeof operation.op, "%s", op);
	snprintf(operation.operation_id, UUID_SIZE, "%s", id);
	snprintf(request.operation_id, UUID_SIZE, "%s", id);
	snprintf(request.request_id, UUID_SIZE, "request-%s", id);
	memcpy(operation.request_id, request.request_id, UUID_SIZE);
	struct store_create job = { .operation = &operation, .request = &request, .spares = { { "other", (char *)"the-spare-secret" }, { "third", NULL } } };
	assert_int_equal(database_run(database, store_operation_create, &job), STATUS_OK);
	if (job.exists)
		assert_string_equal(job.existing.operation_id, id);
	operation_row_clear(&job.existing);
	return !job.exists;
}

static bool create(const char *id, uint8_t content) { return create_as("reset", id, content); }

static struct store_finish say(const char *id, const char *agent, const char *request, const char *outcome, const char *code)
{
	struct store_finish job = { .now_ms = 2000, .final = strcmp(outcome, "settling") != 0 };
	snprintf(job.operation_id, UUID_SIZE, "%s", id);
	snprintf(job.agent_id, UUID_SIZE, "%s", agent);
	snprintf(job.request_id, UUID_SIZE, "%s", request);
	snprintf(job.status, sizeof job.status, "%s", outcome);
	snprintf(job.code, sizeof job.code, "%s", code);
	assert_int_equal(database_run(database, store_operation_finish, &job), STATUS_OK);
	struct store_finish facts = job;
	store_finish_clear(&job);
	return facts; /* without what it owned */
}

static void attempt(const char *id, const char *agent, const char *request, bool former_unsent, enum status expected)
{
	struct request_row row = { .created_ms = 1500, .expires = 61, .frame = (char *)"x" };
	snprintf(row.operation_id, UUID_SIZE, "%s", id);
	snprintf(row.agent_id, UUID_SIZE, "%s", agent);
	snprintf(row.request_id, UUID_SIZE, "%s", request);
	struct store_attempt job = { &row, former_unsent };
	assert_int_equal(database_run(database, store_request_add, &job), expected);
}

static void assert_code(const char *id, const char *code)
{
	struct store_find find = { 0 };
	snprintf(find.operation_id, UUID_SIZE, "%s", id);
	assert_int_equal(database_run(database, store_operation_find, &find), STATUS_OK);
	assert_true(find.found);
	assert_string_equal(find.row.code, code);
	operation_row_clear(&find.row);
}

static size_t open_count(void)
{
	struct open_operations rows = { 0 };
	assert_int_equal(database_run(database, store_operations_open, &rows), STATUS_OK);
	size_t count = rows.count;
	for (size_t i = 0; i < count; i++)
		assert_int_equal(strlen(rows.items[i].request.frame), 6400);
	open_operations_clear(&rows);
	return count;
}

/* "other third" */
static void assert_spares(const char *id, const char *expected)
{
	struct open_operations rows = { 0 };
	char found[256] = "none";
	assert_int_equal(database_run(database, store_operations_open, &rows), STATUS_OK);
	for (size_t i = 0; i < rows.count; i++) {
		struct spare_row *spares = rows.items[i].spares;
		if (strcmp(rows.items[i].operation.operation_id, id) != 0)
			continue;
		snprintf(found, sizeof found, "%s %s", spares[0].agent_id, spares[1].agent_id);
		for (size_t n = 0; n < MAX_SPARES; n++)
			assert_true((spares[n].jwe != NULL) == (strcmp(spares[n].agent_id, "other") == 0));
	}
	open_operations_clear(&rows);
	assert_string_equal(found, expected);
}

static int64_t count_spares(void)
{
	sqlite3 *db = NULL;
	sqlite3_stmt *statement = NULL;
	char path[128];
	snprintf(path, sizeof path, "%s/store.sqlite", folder);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, "SELECT count(*) FROM spares", -1, &statement, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
	int64_t count = sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	sqlite3_close(db);
	return count;
}

/* Who else may be asked is known after a restart, as long as anybody may be. */
static void spare_agents(void **state)
{
	assert_true(create("a", 1));
	assert_true(create("b", 1));
	assert_true(create("c", 1));
	assert_true(create("d", 1));
	assert_spares("a", "other third");
	attempt("a", "other", "second-a", false, STATUS_OK);
	assert_spares("a", "third ");
	attempt("a", "third", "third-a", false, STATUS_OK);
	assert_spares("a", " ");
	assert_spares("b", "other third");
	say("", "agent", "request-b", "settling", "settling");
	assert_spares("b", "other third");
	say("", "agent", "request-b", "refused", "policy.history");
	say("c", "", "", "unknown", "service.no_answer");
	assert_int_equal(count_spares(), 2);
	attempt("d", "other", "second-d", false, STATUS_OK);
	assert_true(say("", "other", "second-d", "refused", "policy.history").waits); /* for the first one's word */
	assert_spares("d", " ");
	assert_int_equal(count_spares(), 0);
}

static bool ended_at_start(const char *host, int64_t booted_ms)
{
	struct store_start start = { host, booted_ms };
	struct agent_rows rows = { 0 };
	assert_int_equal(database_run(database, store_agents_gone, &start), STATUS_OK);
	assert_int_equal(database_run(database, store_agents, &rows), STATUS_OK);
	assert_int_equal(rows.count, 1);
	assert_false(rows.items[0].connected);
	bool ended = rows.items[0].ended;
	agent_rows_clear(&rows);
	return ended;
}

static void seen(bool connected, bool ended)
{
	struct store_agent_change change = { .agent_id = "a", .now = 2000, .boot = 1, .instance_id = "i", .connected = connected, .ended = ended };
	assert_int_equal(database_run(database, store_agent_seen, &change), STATUS_OK);
	assert_true(change.found);
}

/* A channel that stood when the service was killed has ended for the agent too where the host, and with it the kernel, runs on. */
static void how_the_channels_ended(void **state)
{
	add_ticket(1, 1000, 1900);
	assert_true(enroll(1, "a", "key-a", 1000));
	assert_false(ended_at_start("one", 1000000)); /* the first start */
	assert_false(ended_at_start("one", 1000000)); /* it was never connected */
	seen(true, false);
	assert_true(ended_at_start("one", 1001500));
	assert_true(ended_at_start("one", 1003000)); /* a second start before it is back */
	seen(true, false);
	assert_false(ended_at_start("one", 1005100)); /* it has booted */
	assert_false(ended_at_start("one", 1005100)); /* and is not back since */
	seen(true, false);
	assert_false(ended_at_start("other", 1005100));
	seen(true, false);
	assert_true(ended_at_start("other", 1005100));
	seen(true, false);
	assert_false(ended_at_start("othe", 1005100));
	seen(false, true);
	assert_true(ended_at_start("othe", 1005100));
	seen(false, false); /* it fell silent */
	assert_false(ended_at_start("othe", 1005100));
	seen(false, true);
	assert_false(ended_at_start("othe", 900000000));
}

static void first_final_outcome_stands(void **state)
{
	assert_true(create("one", 1));
	assert_false(create("one", 2));
	assert_int_equal(open_count(), 1);
	assert_false(say("", "other", "request-one", "applied", "ok").known); /* another agent's word */
	assert_false(say("", "agent", "request-two", "applied", "ok").known);
	assert_true(say("", "agent", "request-one", "settling", "settling").changed);
	assert_int_equal(open_count(), 1);
	assert_true(say("", "agent", "request-one", "refused", "policy.too_short").changed);
	assert_int_equal(open_count(), 0);
	struct store_finish again = say("", "agent", "request-one", "refused", "policy.history");
	assert_true(again.known);
	assert_false(again.changed);
	assert_false(say("one", "", "", "unknown", "service.no_answer").changed);
	assert_code("one", "policy.too_short");
}

/* Nothing stays called refused that has been done, and nothing follows what has been done. */
static void applied_replaces_any_other(void **state)
{
	static const char *const others[][2] = { { "refused", "policy.history" }, { "failed", "directory.unavailable" }, { "unknown", "outcome.unknown" } };
	char request[32];
	for (size_t i = 0; i < 3; i++) {
		snprintf(request, sizeof request, "request-%s", others[i][0]);
		assert_true(create(others[i][0], 1));
		assert_true(say("", "agent", request, others[i][0], others[i][1]).changed);
		assert_true(say("", "agent", request, "applied", "ok").changed);
		assert_code(others[i][0], "ok");
		assert_false(say("", "agent", request, others[i][0], others[i][1]).changed);
		assert_false(say("", "agent", request, "applied", "ok").changed);
		assert_code(others[i][0], "ok");
	}
}

static void the_agents_word_replaces_no_answer(void **state)
{
	assert_true(create("two", 1));
	assert_true(say("two", "", "", "unknown", "service.no_answer").changed);
	assert_code("two", "service.no_answer");
	assert_false(say("", "agent", "request-two", "settling", "settling").changed);
	assert_true(say("", "agent", "request-two", "refused", "policy.history").changed);
	assert_code("two", "policy.history");
}

/* A second agent has been asked: the first one's failure is old news, its success is not. */
static void earlier_attempts(void **state)
{
	assert_true(create("four", 1));
	attempt("four", "other", "second", false, STATUS_OK);
	struct store_finish failure = say("", "agent", "request-four", "failed", "directory.unavailable");
	assert_true(failure.known);
	assert_false(failure.changed || failure.waits);
	assert_code("four", "");
	assert_true(say("", "agent", "request-four", "applied", "ok").changed);
	assert_code("four", "ok");
	assert_false(say("", "other", "second", "refused", "policy.history").changed);
	attempt("four", "other", "third", false, STATUS_LOCAL_INPUT);
}

/* The first agent may have set the password: what the second one says does not end the operation. */
static void a_later_refusal_waits_for_the_first(void **state)
{
	static const struct { const char *id, *outcome, *code, *expected; } ends[] = {
		{ "a", "applied", "ok", "ok" }, { "b", "failed", "request.expired", "policy.history" }, { "c", "unknown", "outcome.unknown", "outcome.unknown" },
	};
	char first[32], second[32];
	for (size_t i = 0; i < 3; i++) {
		snprintf(first, sizeof first, "request-%s", ends[i].id);
		snprintf(second, sizeof second, "second-%s", ends[i].id);
		assert_true(create(ends[i].id, 1));
		attempt(ends[i].id, "other", second, false, STATUS_OK);
		struct store_finish refusal = say("", "other", second, "refused", "policy.history");
		assert_true(refusal.waits);
		assert_false(refusal.changed);
		assert_string_equal(refusal.open.request_id, first);
		assert_string_equal(refusal.open.agent_id, "agent");
		assert_code(ends[i].id, "settling");
		assert_int_equal(open_count(), 1);
		assert_true(say("", "agent", first, ends[i].outcome, ends[i].code).changed);
		assert_code(ends[i].id, ends[i].expected);
		assert_int_equal(open_count(), 0);
	}
	/* It never comes: nobody knows, and the refusal does not become the outcome later. */
	assert_true(create("d", 1));
	attempt("d", "other", "second-d", false, STATUS_OK);
	assert_true(say("d", "", "", "unknown", "service.no_answer").changed);
	assert_false(say("", "other", "second-d", "refused", "policy.history").changed);
	assert_code("d", "service.no_answer");
	assert_true(say("", "agent", "request-d", "failed", "request.expired").changed);
	assert_code("d", "policy.history");
	/* What was never sent is not waited for. */
	assert_true(create("e", 1));
	attempt("e", "other", "second-e", true, STATUS_OK);
	assert_true(say("", "other", "second-e", "refused", "policy.history").changed);
	assert_code("e", "policy.history");
}

/* What only asks changes nothing: that one attempt does not know is no matter where another has answered. */
static void an_answer_goes_before_an_unknown(void **state)
{
	assert_true(create_as("check", "g", 1));
	attempt("g", "other", "second-g", false, STATUS_OK);
	assert_false(say("", "agent", "request-g", "unknown", "outcome.unknown").changed);
	assert_true(say("", "other", "second-g", "answered", "plausible").changed);
	assert_code("g", "plausible");
}

static void outcomes_fit_the_operation(void **state)
{
	assert_true(create("six", 1));
	assert_true(say("", "agent", "request-six", "answered", "plausible").mismatch);
	assert_code("six", "");
	assert_int_equal(open_count(), 1);
	assert_false(say("", "agent", "request-six", "applied", "ok").mismatch);
}

/* The database that is left has nothing that a guessed password could be tried against. */
static void secret_hashes_are_forgotten(void **state)
{
	struct store_find open = { .operation_id = "seven" }, done = { .operation_id = "seven" };
	assert_true(create("seven", 1));
	assert_int_equal(database_run(database, store_operation_find, &open), STATUS_OK);
	assert_true(open.row.has_secret);
	assert_int_equal(open.row.secret_key[0], 'K');
	assert_int_equal(open.row.secret_hash[0], 'H');
	operation_row_clear(&open.row);
	say("", "agent", "request-seven", "applied", "ok");
	assert_int_equal(database_run(database, store_operation_find, &done), STATUS_OK);
	assert_false(done.row.has_secret);
	operation_row_clear(&done.row);
}

static void old_operations_are_forgotten(void **state)
{
	int64_t before = 1000;
	struct store_find find = { .operation_id = "five" };
	assert_true(create("five", 1));
	assert_true(create("open", 1));
	say("", "agent", "request-five", "applied", "ok");
	assert_int_equal(database_run(database, store_operations_forget, &before), STATUS_OK);
	assert_code("five", "ok");
	before = 1001;
	assert_int_equal(database_run(database, store_operations_forget, &before), STATUS_OK);
	assert_int_equal(database_run(database, store_operation_find, &find), STATUS_OK);
	assert_false(find.found);
	assert_int_equal(open_count(), 1);
}

/* What only the agent can decrypt is not kept either. */
static void frames_are_removed(void **state)
{
	char path[128], text[4096];
	assert_true(create("three", 1));
	say("", "agent", "request-three", "applied", "ok");
	database_close(database); /* the write-ahead log goes into the file */
	database = NULL;
	snprintf(path, sizeof path, "%s/store.sqlite", folder);
	FILE *file = fopen(path, "rb");
	assert_non_null(file);
	size_t size;
	while ((size = fread(text, 1, sizeof text, file)) > 0) {
		assert_null(memmem(text, size, "the-frame-itself", 16));
		assert_null(memmem(text, size, "the-spare-secret", 16));
	}
	fclose(file);
	char *why = NULL;
	assert_int_equal(store_open(NULL, folder, &database, &why), STATUS_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(tickets, set_up, tear_down), cmocka_unit_test_setup_teardown(api_keys, set_up, tear_down),
		cmocka_unit_test_setup_teardown(spare_agents, set_up, tear_down), cmocka_unit_test_setup_teardown(how_the_channels_ended, set_up, tear_down),
		cmocka_unit_test_setup_teardown(content_key_stays, set_up, tear_down), cmocka_unit_test_setup_teardown(first_final_outcome_stands, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_agents_word_replaces_no_answer, set_up, tear_down), cmocka_unit_test_setup_teardown(frames_are_removed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(old_operations_are_forgotten, set_up, tear_down), cmocka_unit_test_setup_teardown(earlier_attempts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(applied_replaces_any_other, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_later_refusal_waits_for_the_first, set_up, tear_down),
		cmocka_unit_test_setup_teardown(an_answer_goes_before_an_unknown, set_up, tear_down),
		cmocka_unit_test_setup_teardown(outcomes_fit_the_operation, set_up, tear_down),
		cmocka_unit_test_setup_teardown(secret_hashes_are_forgotten, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
