/* The whole module against a server that misbehaves on demand: every call ends once, in time, and says truly whether a write left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>
#include <ldap.h>

#include "agent/directory/directory.h"
#include "base/clock.h"
#include "fake_server.h"

#define USER_GUID "33323130-3534-3736-3839-616263646566"

static char folder[] = "/tmp/test_directory.XXXXXX", ca_file[64], password_file[64];
static struct event_base *base;
static struct fake one, two;
static const char *servers[3];
static struct directory_settings settings;
static struct directory *directory;
static struct located *located;
static int64_t slowness; /* what every time is multiplied with */

/* There is no memory for the so many-th time that is waited for from now on. */
static unsigned no_timer;
int __real_event_add(struct event *event, const struct timeval *after), __wrap_event_add(struct event *event, const struct timeval *after);
int __wrap_event_add(struct event *event, const struct timeval *after) { return after != NULL && no_timer > 0 && --no_timer == 0 ? -1 : __real_event_add(event, after); }

/* How the last call ended. */
static struct {
	unsigned fired;
	enum status status;
	struct directory_answer answer;
	struct sid sid;
	json_t *rows;
} end;

static void record_end(enum status status, const struct directory_answer *answer)
{
	end.fired++;
	end.status = status;
	end.answer = *answer;
}

static void on_located(enum status status, struct located *take_located, const struct directory_answer *answer, void *arg)
{
	record_end(status, answer);
	located_free(located);
	located = take_located;
}

static void on_end(enum status status, const struct directory_answer *answer, void *arg)
{
	record_end(status, answer);
}

static void on_sid(enum status status, const struct sid *sid, const struct directory_answer *answer, void *arg)
{
	record_end(status, answer);
	end.sid = sid != NULL ? *sid : (struct sid){ 0 };
}

static void on_checked(json_t *take_rows, void *arg)
{
	end.fired++;
	end.rows = take_rows;
}

/* What libldap would take before the first handle of the process, if it might: two options, and a file of them. */
static void be_hostile(void)
{
	char path[64];
	snprintf(path, sizeof path, "%s/ldap.conf", folder);
	FILE *file = fopen(path, "w");
	fputs("SIZELIMIT 77\nTLS_REQCERT never\n", file);
	fclose(file);
	setenv("LDAPCONF", path, 1);
	setenv("LDAPRC", path, 1);
	setenv("LDAPTIMELIMIT", "77", 1);
	setenv("LDAPURI", "ldap://127.0.0.1:1", 1);
}

static int set_up_once(void **state)
{
	assert_non_null(mkdtemp(folder));
	be_hostile();
	snprintf(ca_file, sizeof ca_file, "%s/root.pem", folder);
	snprintf(password_file, sizeof password_file, "%s/password", folder);
	fake_certificates(folder);
	FILE *file = fopen(password_file, "w");
	fputs("secret of the agent\n", file);
	fclose(file);
	chmod(password_file, 0600);
	return 0;
}

static int tear_down_once(void **state)
{
	static const char *const NAMES[] = { "root.pem", "server.pem", "server.key", "password", "ldap.conf" };
	char path[128];
	for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
		snprintf(path, sizeof path, "%s/%s", folder, NAMES[i]);
		unlink(path);
	}
	return rmdir(folder);
}

static int set_up(void **state)
{
	slowness = fake_slowness();
	base = event_base_new();
	one = two = (struct fake){ 0 };
	memset(&end, 0, sizeof end);
	fake_start(&one, base, folder);
	fake_start(&two, base, folder);
	servers[0] = one.name;
	servers[1] = NULL;
	settings = (struct directory_settings){ .name = "test", .servers = servers, .ca_file = ca_file, .bind_dn = "CN=svc,DC=x", .bind_password_file = password_file,
		.policy_hints = POLICY_HINTS_WHEN_SUPPORTED, .connections = 1, .pipeline = 8, .queue_limit = 16, .connect_timeout_ms = (unsigned)(300 * slowness),
		.locate_timeout_ms = (unsigned)(1000 * slowness), .write_timeout_ms = (unsigned)(1000 * slowness), .policy_cache_ms = 60000, .idle_probe_ms = 60000 };
	return 0;
}

static int tear_down(void **state)
{
	directory_free(directory);
	directory = NULL;
	located_free(located);
	located = NULL;
	json_decref(end.rows);
	fake_stop(&one);
	fake_stop(&two);
	event_base_loop(base, EVLOOP_NONBLOCK);
	event_base_free(base);
	return 0;
}

static void start(void)
{
	char *why = NULL;
	assert_int_equal(directory_new(base, &settings, &directory, &why), STATUS_OK);
	assert_null(why);
}

/* Until `fired` ends in all, at most `ms` long; how long it took. Every time here is of a machine that is not slowed down. */
static int64_t wait_for(unsigned fired, int64_t ms)
{
	int64_t begin = clock_monotonic_us();
	struct timeval tick = { 0, 5000 };
	while (end.fired < fired && clock_monotonic_us() - begin < ms * 1000 * slowness) {
		event_base_loopexit(base, &tick);
		event_base_dispatch(base);
	}
	assert_int_equal(end.fired, fired);
	return (clock_monotonic_us() - begin) / 1000 / slowness;
}

static void locate(int64_t timeout_ms)
{
	unsigned before = end.fired;
	assert_int_equal(directory_locate(directory, LOCATE_UPN, "alice@x", NULL, timeout_ms * slowness, on_located, NULL, NULL), STATUS_OK);
	assert_int_equal(end.fired, before); /* never from inside the call */
	wait_for(before + 1, timeout_ms + 200);
}

static void locate_well(void)
{
	locate(2000);
	assert_int_equal(end.status, STATUS_OK);
	assert_non_null(located);
}

static void begin_write(const struct directory_change *change, int64_t timeout_ms)
{
	assert_int_equal(directory_write(located, change, timeout_ms * slowness, on_end, NULL, NULL), STATUS_OK);
}

static const struct directory_change RESET = { .set_password = true, .password = { (const uint8_t *)"Canary-77", 9 }, .clear_lockout = true, .enforce_policy = true };
static const struct directory_change UNLOCK = { .clear_lockout = true };

static void write_now(const struct directory_change *change, int64_t timeout_ms)
{
	unsigned before = end.fired;
	begin_write(change, timeout_ms);
	assert_int_equal(end.fired, before);
	wait_for(before + 1, timeout_ms + 200);
}

static void reads_everything(void **state)
{
	start();
	locate_well();
	const struct account *account = located_account(located);
	assert_string_equal(account->dn, "CN=alice,DC=x");
	assert_string_equal(account->guid, USER_GUID);
	assert_string_equal(account->sam_account_name, "alice");
	assert_null(account->user_principal_name);
	assert_true(account->is_user && account->locked && account->lockout_time_set && account->is_self && !account->self_unknown);
	assert_int_equal(account->uac, 512);
	assert_int_equal(account->group_count, 1);
	assert_true(account->account_expires_s == INT64_MAX);
	assert_int_equal(account->policy.source, POLICY_DOMAIN);
	assert_int_equal(account->policy.min_length, 10);
	assert_true(account->policy.complexity && account->policy.min_age_s == 86400);
	assert_true(account->policy.max_age_s == 0 && account->policy.lockout_threshold == 5 && account->policy.lockout_duration_s == 0);
	const struct server_position *position = located_position(located);
	assert_string_equal(position->server, one.name);
	assert_true(position->invocation_known && position->highest_committed_usn == 4123 && position->current_time_s == 1795349015);
	assert_true(located_password_record(located)->known);
	assert_int_equal(located_password_record(located)->version, 7);
	assert_null(located_policy_control(located));
	assert_ptr_equal(located_directory(located), directory);
	struct sid domain;
	assert_true(directory_domain_sid(directory, &domain));
	assert_int_equal(domain.size, 24);
	struct directory_health health;
	directory_health(directory, &health);
	assert_int_equal(health.servers_up, 1);
	assert_int_equal(health.status, STATUS_OK);
	assert_true(health.clock_skew_ms != INT64_MIN);
}

/* The service's own account, by whatever name it binds. Where it cannot be told which that is, it may be anybody. */
static void the_agents_own_account(void **state)
{
	static const struct { const char *bind; unsigned selves; bool is_self, unknown; } ROWS[] = {
		{ "svc@x", 1, true, false }, { "svc@x", 2, true, false }, { "X\\svc", 1, true, false }, { "CN=svc,DC=x", 1, true, false },
		{ "svc@x", 0, false, true }, { "svc@x", 3, false, true }, { "CN=svc,DC=x", 0, false, true },
	};
	for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
		settings.bind_dn = ROWS[i].bind;
		one.selves = ROWS[i].selves;
		start();
		locate_well();
		assert_int_equal(located_account(located)->is_self, ROWS[i].is_self);
		assert_int_equal(located_account(located)->self_unknown, ROWS[i].unknown);
		struct directory_health health;
		directory_health(directory, &health);
		assert_int_equal(strstr(health.text, "everybody is protected") != NULL, ROWS[i].unknown);
		directory_free(directory);
		directory = NULL;
	}
}

static void reads_one_byte_at_a_time(void **state)
{
	one.dribble = true;
	settings.connect_timeout_ms = (unsigned)(2000 * slowness);
	start();
	locate_well();
	assert_int_equal(located_account(located)->policy.min_length, 10);
}

/* The entry that is read must be the one that was found: a name may be another's by now. */
static void another_entry_is_not_taken(void **state)
{
	start();
	locate_well();
	unsigned before = end.fired;
	assert_int_equal(directory_locate(directory, LOCATE_OBJECT_GUID, "6f9619ff-8b86-d011-b42d-00cf4fc964ff", NULL, 1000 * slowness, on_located, NULL, NULL), STATUS_OK);
	wait_for(before + 1, 1200);
	assert_int_equal(end.status, STATUS_USER_NOT_FOUND);
	assert_null(located);
}

static void names_that_match_not_once(void **state)
{
	static const struct { unsigned matches; enum status status; } ROWS[] = { { 0, STATUS_USER_NOT_FOUND }, { 2, STATUS_USER_AMBIGUOUS }, { 3, STATUS_USER_AMBIGUOUS } };
	start();
	for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
		one.matches = ROWS[i].matches;
		locate(1000);
		assert_int_equal(end.status, ROWS[i].status);
		assert_null(located);
	}
	one.user_result = 32;
	one.matches = 1;
	locate(1000);
	assert_int_equal(end.status, STATUS_USER_NOT_FOUND);
	assert_int_equal(end.answer.win32, 0x208D);
}

static void unreadable_policy_is_unknown(void **state)
{
	one.other_pso = true;
	start();
	locate_well();
	assert_int_equal(located_account(located)->policy.source, POLICY_UNKNOWN);
	assert_string_equal(located_account(located)->policy.source_name, "CN=PSO,DC=x");
}

/* Neither the domain's nor one of the user's own; and the next reading finds it. */
static void a_policy_that_a_busy_server_withholds_is_not_unknown(void **state)
{
	settings.policy_cache_ms = 0;
	start();
	locate_well();
	assert_int_equal(located_account(located)->policy.source, POLICY_DOMAIN);
	one.policy_result = 51; /* busy */
	locate(1000);
	assert_int_equal(end.status, STATUS_DIRECTORY_BUSY);
	assert_null(located);
	one.policy_result = 0;
	locate_well();
	assert_int_equal(located_account(located)->policy.source, POLICY_DOMAIN);
	settings.policy_cache_ms = 60000; /* the domain's is known: it is the user's own now */
	one.other_pso = true;
	one.policy_result = 52; /* unavailable */
	locate(1000);
	assert_int_equal(end.status, STATUS_DIRECTORY_BUSY);
	one.policy_result = 50; /* insufficientAccessRights */
	locate_well();
	assert_int_equal(located_account(located)->policy.source, POLICY_UNKNOWN);
}

/* No attribute stands for its default: what is not there may not be read. */
static void partly_readable_policy_is_unknown(void **state)
{
	one.partial_policy = true;
	start();
	locate_well();
	assert_int_equal(located_account(located)->policy.source, POLICY_UNKNOWN);
	assert_int_equal(located_account(located)->policy.min_length, 0);
}

static void recheck_reads_anew(void **state)
{
	start();
	locate_well();
	one.user_result = 32;
	assert_int_equal(directory_recheck(located, 1000, on_end, NULL, NULL), STATUS_OK);
	wait_for(2, 1000);
	assert_int_equal(end.status, STATUS_USER_NOT_FOUND);
	assert_string_equal(located_account(located)->dn, "CN=alice,DC=x"); /* as it was */
	one.user_result = 0;
	one.other_pso = true;
	assert_int_equal(directory_recheck(located, 1000, on_end, NULL, NULL), STATUS_OK);
	wait_for(3, 1000);
	assert_int_equal(end.status, STATUS_OK);
	assert_int_equal(located_account(located)->policy.source, POLICY_UNKNOWN);
}

static bool modify_contains(const void *bytes, size_t size)
{
	return memmem(one.modified, one.modified_size, bytes, size) != NULL;
}

static void writes_once(void **state)
{
	one.has_control = true;
	start();
	locate_well();
	assert_string_equal(located_policy_control(located), "1.2.840.113556.1.4.2239");
	write_now(&RESET, 1000);
	assert_int_equal(end.status, STATUS_OK);
	assert_true(end.answer.sent && end.answer.answered);
	assert_string_equal(end.answer.server, one.name);
	assert_int_equal(one.modifies, 1);
	assert_true(modify_contains("<GUID=", 6));
	assert_true(modify_contains("unicodePwd", 10) && modify_contains("\"\0C\0a\0n\0a\0r\0y\0-\0007\0007\0\"\0", 22) && modify_contains("lockoutTime", 11));
	assert_false(modify_contains("pwdLastSet", 10));
	assert_true(modify_contains("1.2.840.113556.1.4.2239\x01\x01\xff\x04\x05\x30\x03\x02\x01\x01", 33));
	write_now(&UNLOCK, 1000);
	assert_int_equal(end.status, STATUS_OK);
	assert_false(modify_contains("unicodePwd", 10) || modify_contains("1.2.840.113556.1.4.2239", 23));
}

static void refusals_are_told(void **state)
{
	start();
	locate_well();
	one.modify_result = 53;
	one.text = "0000052D: SvcErr: DSID-031A12D2, problem 5003 (WILL_NOT_PERFORM), data 0\n";
	write_now(&RESET, 1000);
	assert_int_equal(end.status, STATUS_POLICY_REJECTED);
	assert_int_equal(end.answer.ldap_result, 53);
	assert_int_equal(end.answer.win32, 0x52D);
	assert_true(end.answer.sent && end.answer.answered);
	assert_false(modify_contains("1.2.840.113556.1.4.2239", 23)); /* not supported there, and not required */
}

static void an_answer_with_another_tag_counts(void **state)
{
	start();
	locate_well();
	one.on_modify = FAKE_WRONG_TAG;
	write_now(&RESET, 1000);
	assert_int_equal(end.status, STATUS_DIRECTORY_NO_POLICY_CONTROL);
	assert_true(end.answer.answered);
	one.on_search = FAKE_WRONG_TAG;
	locate(1000);
	assert_int_equal(end.status, STATUS_DIRECTORY_PROTOCOL);
}

static void the_policy_control_is_required(void **state)
{
	settings.policy_hints = POLICY_HINTS_REQUIRE;
	start();
	locate_well();
	assert_int_equal(directory_write(located, &RESET, 1000 * slowness, on_end, NULL, NULL), STATUS_DIRECTORY_NO_POLICY_CONTROL);
	write_now(&UNLOCK, 1000); /* needs none */
	assert_int_equal(end.status, STATUS_OK);
	assert_int_equal(one.modifies, 1);
}

static void a_silent_server_leaves_the_truth_open(void **state)
{
	start();
	locate_well();
	one.on_modify = FAKE_SILENT;
	begin_write(&RESET, 300);
	int64_t took = wait_for(2, 1000);
	assert_true(took >= 290 && took < 800);
	assert_int_equal(end.status, STATUS_DIRECTORY_TIMEOUT);
	assert_true(end.answer.sent && !end.answer.answered);
	assert_int_equal(end.answer.ldap_result, -1);
	/* that connection is not used again, not even by who was found on it */
	assert_int_equal(directory_write(located, &RESET, 300 * slowness, on_end, NULL, NULL), STATUS_DIRECTORY_UNAVAILABLE);
	assert_int_equal(directory_recheck(located, 300, on_end, NULL, NULL), STATUS_DIRECTORY_UNAVAILABLE);
	locate_well(); /* a new one */
	assert_int_equal(one.connections, 2);
}

static void a_write_that_waited_was_not_sent(void **state)
{
	settings.pipeline = 1;
	start();
	locate_well();
	one.on_modify = FAKE_SILENT;
	begin_write(&RESET, 300);
	begin_write(&RESET, 100); /* behind the first */
	wait_for(2, 1000);
	assert_int_equal(end.status, STATUS_DIRECTORY_TIMEOUT);
	assert_false(end.answer.sent);
	begin_write(&RESET, 1000);
	wait_for(4, 1000); /* the first times out, the third goes down with the connection */
	assert_int_equal(end.status == STATUS_DIRECTORY_TIMEOUT, end.answer.sent);
	assert_int_equal(one.modifies, 1);
}

static void a_lively_connection_retires_after_a_lost_answer(void **state)
{
	start();
	locate_well();
	one.on_modify = FAKE_SILENT;
	begin_write(&RESET, 200);
	assert_int_equal(directory_recheck(located, 1000, on_end, NULL, NULL), STATUS_OK);
	wait_for(2, 1000);
	assert_int_equal(end.status, STATUS_OK); /* it answers, only not the write */
	wait_for(3, 1000);
	assert_int_equal(end.status, STATUS_DIRECTORY_TIMEOUT);
	assert_true(end.answer.sent && !end.answer.answered);
	assert_int_equal(directory_recheck(located, 300, on_end, NULL, NULL), STATUS_DIRECTORY_UNAVAILABLE);
	locate_well();
	assert_int_equal(one.connections, 2);
}

/* It is known dead when what else is outstanding on it has ended: by its answer, its deadline, or by being forgotten. */
static void a_connection_with_a_lost_answer_stands_for_others(void **state)
{
	struct directory_call *call;
	start();
	locate_well();
	assert_false(located_is_retiring(located));
	one.on_modify = FAKE_SILENT;
	begin_write(&RESET, 200);
	begin_write(&RESET, 500);
	assert_int_equal(directory_recheck(located, 1000, on_end, NULL, NULL), STATUS_OK);
	wait_for(3, 400);
	assert_true(located_is_retiring(located));
	wait_for(4, 1000);
	assert_false(located_is_retiring(located));
	locate_well();
	begin_write(&RESET, 200);
	assert_int_equal(directory_recheck(located, 1000, on_end, NULL, NULL), STATUS_OK);
	wait_for(6, 150);
	one.on_user_read = FAKE_SILENT;
	assert_int_equal(directory_recheck(located, 5000, on_end, NULL, &call), STATUS_OK);
	wait_for(7, 400);
	assert_true(located_is_retiring(located));
	directory_cancel(call);
	event_base_loop(base, EVLOOP_NONBLOCK);
	assert_false(located_is_retiring(located));
}

static void a_malformed_answer_to_a_write_is_none(void **state)
{
	start();
	locate_well();
	one.on_modify = FAKE_MALFORMED;
	write_now(&RESET, 1000);
	assert_int_equal(end.status, STATUS_DIRECTORY_PROTOCOL);
	assert_true(end.answer.sent && !end.answer.answered);
	assert_int_equal(directory_recheck(located, 300, on_end, NULL, NULL), STATUS_DIRECTORY_UNAVAILABLE);
}

static void ends_the_connection(enum fake_reaction reaction)
{
	start();
	locate_well();
	one.on_modify = reaction;
	write_now(&RESET, 1000);
	assert_int_equal(end.status, STATUS_DIRECTORY_UNAVAILABLE);
	assert_true(end.answer.sent && !end.answer.answered);
}

static void an_answer_without_a_tag_ends_the_connection(void **state)
{
	ends_the_connection(FAKE_NO_TAG);
}

/* libldap would forget the request for good. */
static void an_answer_without_an_operation_ends_the_connection(void **state)
{
	ends_the_connection(FAKE_NO_OPERATION);
}

/* libldap would keep its text for good. */
static void what_nobody_asked_for_is_passed_over(void **state)
{
	start();
	locate_well();
	one.on_modify = FAKE_NOTICE;
	write_now(&RESET, 1000);
	assert_int_equal(end.status, STATUS_OK);
}

static void locate_by_guid(int64_t timeout_ms)
{
	assert_int_equal(directory_locate(directory, LOCATE_OBJECT_GUID, USER_GUID, NULL, timeout_ms * slowness, on_located, NULL, NULL), STATUS_OK);
}

/* Account and position are read together: the end of one must not end the other twice. */
static void two_reads_stall_together(void **state)
{
	servers[1] = two.name;
	servers[2] = NULL;
	start();
	locate_well();
	one.stalled = true;
	locate_by_guid(600);
	locate_by_guid(600);
	wait_for(3, 1500);
	assert_int_equal(end.status, STATUS_OK); /* by the other server, after half of the time */
	assert_string_equal(end.answer.server, two.name);
	two.stalled = true;
	locate_by_guid(300);
	wait_for(4, 1500);
	assert_int_not_equal(end.status, STATUS_OK);
}

/* What any server may answer is not left with one that says nothing at all, long before its time is over; and the next does not even try. Whom there is no other for waits. */
static void a_silent_server_is_left_within_a_second(void **state)
{
	servers[1] = two.name;
	servers[2] = NULL;
	start();
	locate_well();
	assert_string_equal(end.answer.server, one.name);
	one.stalled = true;
	locate_by_guid(20000);
	int64_t took_ms = wait_for(2, 3000);
	assert_true(took_ms >= 700 / slowness && took_ms < 1200);
	assert_int_equal(end.status, STATUS_OK);
	assert_string_equal(end.answer.server, two.name);
	locate_by_guid(20000);
	assert_true(wait_for(3, 3000) < 500);
	assert_string_equal(end.answer.server, two.name);
}

/* It has answered the search, and its rootDSE, and no more. */
static void a_server_that_falls_silent_in_between_is_left_too(void **state)
{
	servers[1] = two.name;
	servers[2] = NULL;
	start();
	locate_well();
	one.on_user_read = FAKE_SILENT;
	assert_int_equal(directory_locate(directory, LOCATE_UPN, "alice@x", NULL, 20000 * slowness, on_located, NULL, NULL), STATUS_OK);
	int64_t took_ms = wait_for(2, 3000);
	assert_true(took_ms >= 700 / slowness && took_ms < 1200);
	assert_string_equal(end.answer.server, two.name);
}

static void the_only_server_has_all_the_time(void **state)
{
	start();
	locate_well();
	one.stalled = true;
	locate_by_guid(1200);
	assert_true(wait_for(2, 3000) >= 1100);
	assert_int_not_equal(end.status, STATUS_OK);
}

static void busy_servers_get_another_connection(void **state)
{
	settings.connections = 2;
	settings.pipeline = 2;
	start();
	locate_well();
	struct timeval pause = { 0, 250000 };
	event_base_loopexit(base, &pause);
	event_base_dispatch(base);
	for (unsigned i = 0; i < 12; i++) {
		assert_int_equal(directory_locate(directory, LOCATE_UPN, "alice@x", NULL, 2000 * slowness, on_located, NULL, NULL), STATUS_OK);
	}
	wait_for(13, 2000);
	assert_int_equal(end.status, STATUS_OK);
	assert_int_equal(one.connections, 2);
}

static void count_news(struct directory *told, void *arg)
{
	++*(unsigned *)arg;
}

static void health_is_told_when_it_changes(void **state)
{
	unsigned news = 0;
	start();
	directory_on_health(directory, count_news, &news);
	locate_well();
	struct timeval pause = { 0, 20000 };
	event_base_loopexit(base, &pause);
	event_base_dispatch(base);
	assert_int_equal(news, 1);
	fake_hang_up(&one);
	event_base_loopexit(base, &pause);
	event_base_dispatch(base);
	assert_int_equal(news, 2);
	locate_well(); /* waits for it to come back */
	assert_int_equal(one.connections, 2);
}

static void take_words(struct directory *of, void *arg)
{
	struct directory_health health;
	directory_health(of, &health);
	if (health.servers_up == 0)
		snprintf(arg, sizeof health.text, "%s", health.text);
}

/* RFC 4511, section 4.4.1: why it disconnects. */
static void what_a_server_says_before_it_hangs_up_is_told(void **state)
{
	char words[sizeof ((struct directory_health *)NULL)->text] = "";
	struct timeval pause = { 0, 20000 };
	start();
	directory_on_health(directory, take_words, words);
	locate_well();
	one.on_modify = FAKE_NOTICE;
	write_now(&RESET, 1000);
	fake_hang_up(&one);
	event_base_loopexit(base, &pause);
	event_base_dispatch(base);
	assert_non_null(strstr(words, "it closed the connection, saying: 52 the server says something to nobody"));
}

static void a_closed_connection_leaves_the_truth_open(void **state)
{
	start();
	locate_well();
	one.on_modify = FAKE_CLOSE;
	write_now(&RESET, 1000);
	assert_int_equal(end.status, STATUS_DIRECTORY_UNAVAILABLE);
	assert_true(end.answer.sent && !end.answer.answered);
	assert_int_equal(one.modifies, 1); /* never again by itself */
}

static void what_never_left_was_not_sent(void **state)
{
	start();
	locate_well();
	begin_write(&RESET, 1000);
	directory_free(directory); /* in the same turn of the loop: nothing has been encrypted yet */
	directory = NULL;
	assert_int_equal(end.fired, 2);
	assert_int_equal(end.status, STATUS_DIRECTORY_UNAVAILABLE);
	assert_false(end.answer.sent);
	assert_null(located_directory(located));
	assert_int_equal(directory_write(located, &RESET, 300 * slowness, on_end, NULL, NULL), STATUS_DIRECTORY_UNAVAILABLE);
	event_base_loop(base, EVLOOP_NONBLOCK);
	assert_int_equal(one.modifies, 0);
}

static void freeing_ends_what_is_under_way(void **state)
{
	one.on_search = FAKE_SILENT;
	start();
	for (int i = 0; i < 12; i++) { /* more than the pipeline holds: some wait */
		assert_int_equal(directory_locate(directory, LOCATE_UPN, "alice@x", NULL, 5000 * slowness, on_located, NULL, NULL), STATUS_OK);
	}
	assert_int_equal(directory_check(directory, on_checked, NULL), STATUS_OK);
	struct timeval pause = { 0, 50000 };
	event_base_loopexit(base, &pause);
	event_base_dispatch(base);
	unsigned before = end.fired;
	directory_free(directory);
	directory = NULL;
	assert_true(before <= 1 && end.fired == 13);
	assert_int_equal(end.status, STATUS_DIRECTORY_UNAVAILABLE);
}

static void the_queue_is_bounded(void **state)
{
	one.no_tls = true;
	start();
	for (unsigned i = 0; i < settings.queue_limit; i++) {
		assert_int_equal(directory_locate(directory, LOCATE_UPN, "alice@x", NULL, 5000 * slowness, on_located, NULL, NULL), STATUS_OK);
	}
	assert_int_equal(directory_locate(directory, LOCATE_UPN, "alice@x", NULL, 5000 * slowness, on_located, NULL, NULL), STATUS_AGENT_OVERLOADED);
	wait_for(settings.queue_limit, 2000); /* the handshake's deadline ends them: there is no other server */
	assert_int_equal(end.status, STATUS_DIRECTORY_UNAVAILABLE);
	struct directory_health health;
	directory_health(directory, &health);
	assert_int_equal(health.status, STATUS_DIRECTORY_TIMEOUT);
	assert_non_null(strstr(health.text, "TLS handshake"));
}

static void a_read_goes_to_another_server(void **state)
{
	static const enum fake_reaction REACTIONS[] = { FAKE_CLOSE, FAKE_SILENT, FAKE_GARBAGE, FAKE_HUGE };
	servers[1] = two.name;
	start();
	for (size_t i = 0; i < sizeof REACTIONS / sizeof REACTIONS[0]; i++) {
		one.on_search = FAKE_ANSWER;
		for (int tries = 0; tries < 50; tries++) { /* until the first is up again */
			struct timeval pause = { 0, 20000 };
			event_base_loopexit(base, &pause);
			event_base_dispatch(base);
			struct directory_health health;
			directory_health(directory, &health);
			if (health.servers_up == 2) {
				break;
			}
		}
		one.on_search = REACTIONS[i];
		locate(300);
		assert_int_equal(end.status, STATUS_OK);
		assert_string_equal(end.answer.server, two.name);
	}
}

static void a_server_may_be_preferred(void **state)
{
	servers[1] = two.name;
	start();
	locate_well();
	struct timeval pause = { 0, 50000 };
	event_base_loopexit(base, &pause);
	event_base_dispatch(base);
	assert_int_equal(directory_locate(directory, LOCATE_OBJECT_GUID, USER_GUID, two.name, 1000 * slowness, on_located, NULL, NULL), STATUS_OK);
	wait_for(2, 1000);
	assert_string_equal(end.answer.server, two.name);
	assert_int_equal(directory_locate(directory, LOCATE_OBJECT_GUID, USER_GUID, NULL, 1000 * slowness, on_located, NULL, NULL), STATUS_OK);
	wait_for(3, 1000);
	assert_string_equal(end.answer.server, one.name);
}

static void a_server_may_be_excluded(void **state)
{
	servers[1] = two.name;
	start();
	locate_well();
	struct timeval pause = { 0, 50000 };
	event_base_loopexit(base, &pause);
	event_base_dispatch(base);
	assert_true(directory_has_beside(directory, one.name) && directory_has_beside(directory, two.name));
	assert_int_equal(directory_locate_beside(directory, LOCATE_OBJECT_GUID, USER_GUID, one.name, 1000, on_located, NULL, NULL), STATUS_OK);
	wait_for(2, 1000);
	assert_string_equal(end.answer.server, two.name);
	/* The other one lost meanwhile is no reason to ask the one that must not be asked. */
	two.on_user_read = FAKE_CLOSE;
	two.no_tls = true;
	assert_int_equal(directory_locate_beside(directory, LOCATE_OBJECT_GUID, USER_GUID, one.name, 1000, on_located, NULL, NULL), STATUS_OK);
	wait_for(3, 1000);
	assert_true(end.status != STATUS_OK);
	assert_false(directory_has_beside(directory, one.name));
}

/* Not even where there is no other. */
static void an_excluded_server_is_not_asked(void **state)
{
	start();
	locate_well();
	assert_false(directory_has_beside(directory, one.name));
	assert_int_equal(directory_locate_beside(directory, LOCATE_OBJECT_GUID, USER_GUID, one.name, 5000, on_located, NULL, NULL), STATUS_OK);
	assert_true(wait_for(2, 5000) < 1000);
	assert_int_equal(end.status, STATUS_DIRECTORY_UNAVAILABLE);
}

static void a_wrong_password_is_tried_once(void **state)
{
	servers[1] = two.name;
	one.bind_result = two.bind_result = 49;
	start();
	locate(2000);
	assert_int_equal(end.status, STATUS_DIRECTORY_CREDENTIAL);
	locate(500);
	assert_int_equal(end.status, STATUS_DIRECTORY_CREDENTIAL);
	struct timeval pause = { 0, 300000 };
	event_base_loopexit(base, &pause);
	event_base_dispatch(base);
	assert_int_equal(one.binds + two.binds, 1);
	struct directory_health health;
	directory_health(directory, &health);
	assert_int_equal(health.status, STATUS_DIRECTORY_CREDENTIAL);
	assert_non_null(strstr(health.text, "the password or the name is wrong"));
}

static void unfit_servers_are_skipped(void **state)
{
	servers[1] = two.name;
	one.read_only = true;
	start();
	locate_well();
	assert_string_equal(end.answer.server, two.name);
	directory_free(directory);
	two.unsynchronized = true;
	start();
	locate(200);
	assert_int_equal(end.status, STATUS_DIRECTORY_REFERRAL); /* what needs an administrator most */
}

static void a_cancelled_call_stays_quiet(void **state)
{
	struct directory_call *call = NULL;
	one.on_search = FAKE_SILENT;
	start();
	assert_int_equal(directory_locate(directory, LOCATE_UPN, "alice@x", NULL, 100 * slowness, on_located, NULL, &call), STATUS_OK);
	directory_cancel(call); /* while it waits */
	locate(150);
	assert_int_equal(end.status, STATUS_DIRECTORY_TIMEOUT);
	one.on_search = FAKE_ANSWER;
	locate_well();
	one.on_user_read = FAKE_SILENT;
	assert_int_equal(directory_recheck(located, 100, on_end, NULL, &call), STATUS_OK);
	event_base_loop(base, EVLOOP_NONBLOCK);
	directory_cancel(call); /* while it is asked */
	struct timeval pause = { 0, 200000 };
	event_base_loopexit(base, &pause);
	event_base_dispatch(base);
	assert_int_equal(end.fired, 2);
}

static void looks_up_a_sid(void **state)
{
	start();
	assert_int_equal(directory_lookup_sid(directory, "DC=x", 1000, on_sid, NULL, NULL), STATUS_OK);
	wait_for(1, 1000);
	assert_int_equal(end.status, STATUS_OK);
	assert_int_equal(end.sid.size, 24);
	assert_int_equal(directory_lookup_sid(directory, "CN=none,DC=x", 1000, on_sid, NULL, NULL), STATUS_OK);
	wait_for(2, 1000);
	assert_int_equal(end.status, STATUS_USER_NOT_FOUND);
	assert_int_equal(end.sid.size, 0);
	assert_int_equal(directory_exists(directory, "DC=x", 1000, on_sid, NULL, NULL), STATUS_OK);
	wait_for(3, 1000);
	assert_int_equal(end.status, STATUS_OK);
	assert_int_equal(directory_exists(directory, "CN=none,DC=x", 1000, on_sid, NULL, NULL), STATUS_OK);
	wait_for(4, 1000);
	assert_int_equal(end.status, STATUS_USER_NOT_FOUND);
}

static void checks_each_server(void **state)
{
	servers[1] = two.name;
	two.read_only = true;
	settings.policy_hints = POLICY_HINTS_REQUIRE;
	start();
	assert_int_equal(directory_check(directory, on_checked, NULL), STATUS_OK);
	wait_for(1, 2000);
	assert_int_equal(json_array_size(end.rows), 9 + 5);
	static const struct { size_t row; const char *step; bool ok; } ROWS[] = { { 0, "resolve", true }, { 3, "bind", true }, { 5, "account", true }, { 7, "policy", true }, { 8, "policy_control", false },
		{ 13, "rootdse", false } };
	for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
		json_t *row = json_array_get(end.rows, ROWS[i].row);
		assert_string_equal(json_string_value(json_object_get(row, "step")), ROWS[i].step);
		assert_int_equal(json_is_true(json_object_get(row, "ok")), ROWS[i].ok);
	}
}

static void an_idle_connection_is_probed(void **state)
{
	settings.idle_probe_ms = 50;
	start();
	locate_well();
	unsigned before = one.reads;
	struct timeval pause = { 0, 180000 };
	event_base_loopexit(base, &pause);
	event_base_dispatch(base);
	assert_true(one.reads >= before + 2);
	assert_int_equal(one.connections, 1);
}

static void refuses_what_cannot_work(void **state)
{
	char *why = NULL;
	chmod(password_file, 0604);
	assert_int_equal(directory_new(base, &settings, &directory, &why), STATUS_LOCAL_PERMISSION);
	chmod(password_file, 0600);
	assert_non_null(strstr(why, password_file));
	free(why);
	settings.bind_password_file = "/dev/null";
	assert_int_not_equal(directory_new(base, &settings, &directory, NULL), STATUS_OK);
	settings.bind_password_file = password_file;
	servers[0] = "host:99999";
	assert_int_equal(directory_new(base, &settings, &directory, &why), STATUS_LOCAL_CONFIG);
	free(why);
	assert_null(directory);
}

static void knows_its_domains(void **state)
{
	static const char *const DOMAINS[] = { "corp.example.com", "CORP", NULL };
	start();
	assert_true(directory_serves(directory, "anything"));
	settings.domains = DOMAINS;
	assert_true(directory_serves(directory, "Corp.Example.COM"));
	assert_false(directory_serves(directory, "corp.example"));
}

static void nothing_comes_from_the_environment(void **state)
{
	int size = -1, time = -1;
	char *uri = NULL;
	start();
	assert_int_equal(ldap_get_option(NULL, LDAP_OPT_SIZELIMIT, &size), LDAP_OPT_SUCCESS);
	assert_int_equal(ldap_get_option(NULL, LDAP_OPT_TIMELIMIT, &time), LDAP_OPT_SUCCESS);
	assert_int_equal(ldap_get_option(NULL, LDAP_OPT_URI, &uri), LDAP_OPT_SUCCESS);
	assert_int_equal(size, 0);
	assert_int_equal(time, 0);
	assert_null(uri ? strstr(uri, "127.0.0.1") : NULL);
	ldap_memfree(uri);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
static void begin_verify(const char *password, int64_t timeout_ms)
{
	assert_int_equal(directory_verify(located, bytes_of_string(password), timeout_ms * slowness, on_end, NULL, NULL), STATUS_OK);
}

static void verify_now(const char *password, int64_t timeout_ms)
{
	unsigned before = end.fired;
	begin_verify(password, timeout_ms);
	assert_int_equal(end.fired, before);
	wait_for(before + 1, timeout_ms + 200);
}

/* On a connection of its own: whatever the server says of the user, the agent's own one goes on. */
static void verifies(void **state)
{
	start();
	locate_well();
	unsigned connections = one.connections, binds = one.binds;
	verify_now("Canary-77", 1000);
	assert_int_equal(end.status, STATUS_VERIFIED);
	assert_int_equal(one.connections, connections + 1);
	one.bind_result = 49;
	verify_now("Canary-78", 1000);
	assert_int_equal(end.status, STATUS_CREDENTIAL_WRONG);
	assert_int_equal(end.answer.win32, 0x52e);
	assert_true(end.answer.sent && end.answer.answered);
	assert_int_equal(one.binds, binds + 2);
	/* an empty one would be an anonymous bind, which succeeds */
	one.bind_result = 0;
	assert_int_equal(directory_verify(located, bytes_of_string(""), 1000 * slowness, on_end, NULL, NULL), STATUS_CREDENTIAL_WRONG);
	assert_int_equal(one.binds, binds + 2);
	write_now(&UNLOCK, 1000);
	assert_int_equal(end.status, STATUS_OK);
	assert_int_equal(one.connections, connections + 2);
}

/* The agent's certificate says who the agent is, and nothing of a user. */
static void verifies_without_the_agents_certificate(void **state)
{
	char certificate[64], key[64];
	snprintf(certificate, sizeof certificate, "%s/server.pem", folder);
	snprintf(key, sizeof key, "%s/server.key", folder);
	settings.bind_mechanism = BIND_EXTERNAL;
	settings.bind_certificate_file = certificate;
	settings.bind_key_file = key;
	start();
	locate_well();
	assert_int_equal(one.certified_binds, one.binds);
	verify_now("Canary-77", 1000);
	assert_int_equal(end.status, STATUS_VERIFIED);
	assert_int_equal(one.certified_binds, one.binds - 1);
}

static void verifies_a_few_at_once(void **state)
{
	start();
	locate_well();
	unsigned connections = one.connections, before = end.fired;
	for (unsigned i = 0; i < 20; i++)
		begin_verify("Canary-77", 2000);
	wait_for(before + 20, 2500);
	assert_int_equal(end.status, STATUS_VERIFIED);
	assert_int_equal(one.connections, connections + 20);
	one.stalled = true;
	for (unsigned i = 0; i < 8 + 4; i++)
		begin_verify("Canary-77", i < 8 ? 3000 : 300);
	wait_for(before + 24, 1000);
	assert_int_equal(one.connections, connections + 28); /* eight have a place */
	assert_int_equal(end.status, STATUS_DIRECTORY_BUSY);
	assert_false(end.answer.sent);
	for (unsigned i = 0; i < 16; i++)
		begin_verify("Canary-77", 3000);
	assert_int_equal(directory_verify(located, bytes_of_string("Canary-77"), 300 * slowness, on_end, NULL, NULL), STATUS_AGENT_OVERLOADED);
	directory_free(directory);
	directory = NULL;
	assert_int_equal(end.fired, before + 24 + 24);
	assert_int_equal(end.status, STATUS_DIRECTORY_UNAVAILABLE);
}

/* The password may have been tried: the answer says so. */
static void verifies_without_an_answer(void **state)
{
	start();
	locate_well();
	one.stalled = true;
	verify_now("Canary-77", 300);
	assert_int_equal(end.status, STATUS_DIRECTORY_TIMEOUT);
	assert_true(end.answer.sent && !end.answer.answered);
	unsigned before = end.fired, connections = one.connections;
	begin_verify("Canary-77", 1000);
	for (int64_t begin = clock_monotonic_us(); one.connections == connections && clock_monotonic_us() - begin < 500000;)
		event_base_loop(base, EVLOOP_ONCE);
	fake_hang_up(&one);
	wait_for(before + 1, 1200);
	assert_int_equal(end.status, STATUS_DIRECTORY_UNAVAILABLE);
}

/* Canceled, and after the server is gone. */
static void verifies_no_more(void **state)
{
	struct directory_call *call;
	start();
	locate_well();
	unsigned before = end.fired;
	one.stalled = true;
	assert_int_equal(directory_verify(located, bytes_of_string("Canary-77"), 1000 * slowness, on_end, NULL, &call), STATUS_OK);
	directory_cancel(call);
	fake_hang_up(&one);
	for (int64_t begin = clock_monotonic_us(); clock_monotonic_us() - begin < 100000;)
		event_base_loop(base, EVLOOP_NONBLOCK);
	assert_int_equal(directory_verify(located, bytes_of_string("Canary-77"), 1000 * slowness, on_end, NULL, NULL), STATUS_DIRECTORY_UNAVAILABLE);
	assert_int_equal(end.fired, before);
}

/* Its own deadline is the second: without it a write would have no end. */
static void nothing_is_written_without_a_deadline(void **state)
{
	start();
	locate_well();
	unsigned before = end.fired;
	for (unsigned nth = 1; nth <= 2; nth++) {
		no_timer = nth;
		assert_int_equal(directory_write(located, &RESET, 200 * slowness, on_end, NULL, NULL), STATUS_AGENT_INTERNAL);
		assert_int_equal(no_timer, 0);
	}
	write_now(&RESET, 1000);
	assert_int_equal(end.fired, before + 1);
	assert_int_equal(one.modifies, 1);
}

/* The flavor ldap: a change is the user's own write, on a connection of its own. */
static void be_ldap(void)
{
	settings.kind = DIRECTORY_LDAP;
	settings.base_dn = "DC=x";
	start();
	unsigned before = end.fired;
	assert_int_equal(directory_locate(directory, LOCATE_UID, "alice", NULL, 2000 * slowness, on_located, NULL, NULL), STATUS_OK);
	wait_for(before + 1, 2200);
	assert_int_equal(end.status, STATUS_OK);
}

static void begin_change(int64_t timeout_ms)
{
	static const struct directory_change CHANGE = { .set_password = true, .password = { (const uint8_t *)"Canary-77", 9 }, .old_password = { (const uint8_t *)"Canary-76", 9 } };
	unsigned modifies = one.modifies;
	begin_write(&CHANGE, timeout_ms);
	for (int64_t begin = clock_monotonic_us(); one.modifies == modifies && clock_monotonic_us() - begin < 1000000 * slowness;)
		event_base_loop(base, EVLOOP_ONCE);
	assert_int_equal(one.modifies, modifies + 1);
}

static void changes_as_the_user(void **state)
{
	be_ldap();
	begin_change(1000);
	wait_for(2, 1200);
	assert_int_equal(end.status, STATUS_OK);
	assert_true(end.answer.sent && end.answer.answered && end.answer.tried);
	one.on_modify = FAKE_SILENT;
	begin_change(200);
	wait_for(3, 400);
	assert_int_equal(end.status, STATUS_DIRECTORY_TIMEOUT);
	assert_true(end.answer.sent && !end.answer.answered && end.answer.tried);
}

/* Asked right before anything of it is encoded: from the so-manieth time on it is not wanted any more. */
static struct { unsigned asked, not_from; } wanting;
static enum status still_wanted(void *arg)
{
	assert_ptr_equal(arg, &wanting);
	return ++wanting.asked >= wanting.not_from ? STATUS_REQUEST_EXPIRED : STATUS_OK;
}

static enum status begin_wanted(const struct directory_change *change, unsigned not_from)
{
	struct directory_change copy = *change;
	copy.still_wanted = still_wanted;
	wanting.asked = 0;
	wanting.not_from = not_from;
	return directory_write(located, &copy, 1000 * slowness, on_end, &wanting, NULL);
}

static void a_write_that_has_waited_is_asked_for_again(void **state)
{
	static const struct directory_change *const CHANGES[] = { &RESET, &UNLOCK };
	settings.pipeline = 1;
	start();
	locate_well();
	for (unsigned i = 0; i < 4; i++) {
		const struct directory_change *change = CHANGES[i % 2];
		bool wanted = i >= 2;
		unsigned before = end.fired, modifies = one.modifies;
		/* Where there is room, from inside the call. */
		assert_int_equal(begin_wanted(change, 1), STATUS_REQUEST_EXPIRED);
		assert_int_equal(wanting.asked, 1);
		assert_int_equal(directory_recheck(located, 1000 * slowness, on_end, NULL, NULL), STATUS_OK);
		assert_int_equal(begin_wanted(change, wanted ? 2 : 1), STATUS_OK);
		assert_int_equal(wanting.asked, 0); /* it waits behind the reading */
		wait_for(before + 2, 1200);
		assert_int_equal(wanting.asked, 1);
		assert_int_equal(end.status, wanted ? STATUS_OK : STATUS_REQUEST_EXPIRED);
		assert_true(end.answer.sent == wanted && end.answer.answered == wanted);
		assert_int_equal(one.modifies, modifies + wanted);
	}
	assert_int_equal(one.connections, 1);
}

/* Before the bind as the user, and behind it. */
static void a_change_as_the_user_is_asked_for_again(void **state)
{
	static const struct directory_change CHANGE = { .set_password = true, .password = { (const uint8_t *)"Canary-77", 9 }, .old_password = { (const uint8_t *)"Canary-76", 9 } };
	be_ldap();
	for (unsigned not_from = 1; not_from <= 3; not_from++) {
		unsigned before = end.fired, modifies = one.modifies, binds = one.binds;
		bool wanted = not_from > 2, tried = not_from > 1;
		assert_int_equal(begin_wanted(&CHANGE, not_from), STATUS_OK);
		wait_for(before + 1, 1200);
		assert_int_equal(wanting.asked, not_from < 2 ? 1 : 2);
		assert_int_equal(end.status, wanted ? STATUS_OK : STATUS_REQUEST_EXPIRED);
		assert_true(end.answer.sent == wanted && end.answer.answered == wanted && end.answer.tried == tried);
		assert_int_equal(one.modifies, modifies + wanted);
		assert_int_equal(one.binds, binds + tried);
	}
}

/* What a proxy may say behind a write that it passed on is for settling, whoever's connection it went over; a domain controller answers for itself. */
static void an_answer_that_leaves_the_truth_open(void **state)
{
	static const struct { int result; bool open; } ROWS[] = { { 0, false }, { 1, true }, { 3, true }, { 11, true }, { 50, false }, { 51, false }, { 52, true }, { 53, false }, { 80, true } };
	static const struct directory_change PLAIN = { .set_password = true, .password = { (const uint8_t *)"Canary-77", 9 } };
	for (unsigned ldap = 0; ldap < 2; ldap++) {
		if (ldap) {
			be_ldap();
		} else {
			start();
			locate_well();
		}
		for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
			one.modify_result = ROWS[i].result;
			write_now(&PLAIN, 1000);
			assert_true(end.answer.sent && end.answer.ldap_result == ROWS[i].result);
			assert_int_equal(end.answer.answered, !ldap || !ROWS[i].open);
			if (ldap) {
				unsigned before = end.fired;
				begin_change(1000);
				wait_for(before + 1, 1200);
				assert_true(end.answer.sent && end.answer.tried && end.answer.ldap_result == ROWS[i].result);
				assert_int_equal(end.answer.answered, !ROWS[i].open);
			}
		}
		directory_free(directory);
		directory = NULL;
		memset(&end, 0, sizeof end);
	}
}

/* Of a process that stood still: what has not been read by then was not answered. */
static void a_change_whose_answer_comes_with_its_deadline(void **state)
{
	unsigned late = 0;
	be_ldap();
	for (unsigned turns = 0; turns < 4; turns++) {
		begin_change(200);
		for (unsigned i = 0; i < turns; i++)
			event_base_loop(base, EVLOOP_ONCE);
		usleep((unsigned)(250000 * slowness));
		wait_for(2 + turns, 500);
		late += end.status == STATUS_DIRECTORY_TIMEOUT;
		assert_true(end.answer.sent && end.answer.tried);
		assert_int_equal(end.answer.answered, end.status == STATUS_OK);
	}
	assert_true(late > 0);
}

static void freeing_ends_a_change_as_what_may_have_been_done(void **state)
{
	be_ldap();
	one.on_modify = FAKE_SILENT;
	begin_change(5000);
	directory_free(directory);
	directory = NULL;
	assert_int_equal(end.fired, 2);
	assert_int_equal(end.status, STATUS_DIRECTORY_UNAVAILABLE);
	assert_true(end.answer.sent && !end.answer.answered && end.answer.tried);
}

int main(void)
{
	const struct CMUnitTest tests[] = { CASE(nothing_comes_from_the_environment), CASE(reads_everything), CASE(reads_one_byte_at_a_time), CASE(the_agents_own_account), CASE(another_entry_is_not_taken), CASE(names_that_match_not_once), CASE(unreadable_policy_is_unknown), CASE(a_policy_that_a_busy_server_withholds_is_not_unknown), CASE(partly_readable_policy_is_unknown),
		CASE(recheck_reads_anew), CASE(writes_once), CASE(refusals_are_told), CASE(an_answer_with_another_tag_counts), CASE(the_policy_control_is_required),
		CASE(a_silent_server_leaves_the_truth_open), CASE(a_write_that_waited_was_not_sent), CASE(a_lively_connection_retires_after_a_lost_answer), CASE(a_connection_with_a_lost_answer_stands_for_others),
		CASE(two_reads_stall_together), CASE(a_malformed_answer_to_a_write_is_none), CASE(an_answer_without_a_tag_ends_the_connection),
		CASE(an_answer_without_an_operation_ends_the_connection),
		CASE(what_nobody_asked_for_is_passed_over),
		CASE(busy_servers_get_another_connection), CASE(health_is_told_when_it_changes), CASE(what_a_server_says_before_it_hangs_up_is_told), CASE(a_closed_connection_leaves_the_truth_open), CASE(what_never_left_was_not_sent), CASE(freeing_ends_what_is_under_way),
		CASE(the_queue_is_bounded), CASE(a_read_goes_to_another_server), CASE(a_server_may_be_preferred), CASE(a_server_may_be_excluded), CASE(an_excluded_server_is_not_asked), CASE(a_wrong_password_is_tried_once), CASE(unfit_servers_are_skipped),
		CASE(a_silent_server_is_left_within_a_second), CASE(a_server_that_falls_silent_in_between_is_left_too), CASE(the_only_server_has_all_the_time), CASE(verifies), CASE(verifies_without_the_agents_certificate), CASE(verifies_a_few_at_once), CASE(verifies_without_an_answer), CASE(verifies_no_more), CASE(nothing_is_written_without_a_deadline), CASE(a_write_that_has_waited_is_asked_for_again),
		CASE(a_change_as_the_user_is_asked_for_again),
		CASE(changes_as_the_user), CASE(an_answer_that_leaves_the_truth_open), CASE(a_change_whose_answer_comes_with_its_deadline), CASE(freeing_ends_a_change_as_what_may_have_been_done), CASE(a_cancelled_call_stays_quiet), CASE(looks_up_a_sid), CASE(checks_each_server), CASE(an_idle_connection_is_probed), CASE(refuses_what_cannot_work), CASE(knows_its_domains) };
	return cmocka_run_group_tests(tests, set_up_once, tear_down_once);
}
