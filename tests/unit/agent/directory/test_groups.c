/* The walk over a user's groups alone: the directory it asks is the test's. A group's entry is its number here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "agent/directory/call.h"

enum { NUMBERS_MAX = 11000 };
static struct played {
	unsigned count;          /* of groups */
	unsigned direct;         /* those that the user is in: the first ones */
	int (*parent)(int group);/* the one that a group is a member of; -1: none */
	int nameless;            /* a group whose entry shows no identity; 0: none */
	int result;              /* of a search, from the one on that `from` says */
	unsigned from;
	bool referred, fails, lost;
	unsigned searches, ended, failed;
	size_t asked[NUMBERS_MAX];
} played;
static struct directory directory;
static struct connection connection;
static struct directory_call call;
static char asked_for[64][64];
static size_t asked_count;

static LDAPMessage *entry_of(int group)
{
	return (LDAPMessage *)(intptr_t)(group + 1);
}

static int group_of(LDAPMessage *entry)
{
	return (int)(intptr_t)entry - 1;
}

char *ldap_get_dn(LDAP *ldap, LDAPMessage *entry)
{
	char *dn = malloc(32);
	snprintf(dn, 32, "cn=%d", group_of(entry));
	return dn;
}

void ldap_memfree(void *pointer)
{
	free(pointer);
}

struct view connection_view(const struct connection *of)
{
	return (struct view){ 0 };
}

int64_t call_attempt_ms(const struct directory_call *of)
{
	return 1000;
}

void call_fail_attempt(struct directory_call *of, enum status status)
{
	played.failed++;
}

bool call_take_reply(struct directory_call *of, size_t slot, const struct reply *reply)
{
	played.failed += reply->status != STATUS_OK;
	return reply->status == STATUS_OK;
}

void ldap_search_clear(struct ldap_search *search)
{
}

static enum status find_groups(const struct view *view, const struct user_facts *facts, char *const *dns, size_t count, struct ldap_search *ret_search)
{
	assert_in_range(count, 0, 32);
	for (size_t i = 0; i < count; i++) {
		snprintf(asked_for[i], sizeof asked_for[i], "%s", dns[i]);
		played.asked[atoi(dns[i] + 3)]++;
	}
	asked_count = count;
	*ret_search = (struct ldap_search){ 0 };
	return played.fails ? STATUS_AGENT_INTERNAL : STATUS_OK;
}

static bool read_sid(LDAP *ldap, LDAPMessage *entry, struct sid *ret_sid)
{
	uint8_t guid[16] = { 0 };
	int group = group_of(entry);
	memcpy(guid, &group, sizeof group);
	sid_from_entry(guid, ret_sid);
	return played.nameless == 0 || group != played.nameless;
}

/* The stack would be deep otherwise: answers are given one after the other by run(). */
static struct ldap_search waiting;
static operation_done waiting_done;
enum status operation_search(struct connection *at, struct ldap_search *take_search, int64_t timeout_ms, operation_done done, void *arg, struct operation **ret_operation)
{
	if (played.lost) {
		return STATUS_DIRECTORY_UNAVAILABLE;
	}
	waiting = *take_search;
	waiting_done = done;
	return STATUS_OK;
}

static void answer(void)
{
	LDAPMessage **entries = calloc(waiting.most, sizeof *entries);
	struct reply reply = { .sent = true, .entries = entries, .referred = played.referred, .ldap_result = ++played.searches >= played.from ? played.result : LDAP_SUCCESS };
	for (unsigned i = 0; i < (asked_count > 0 ? asked_count : played.direct); i++) {
		int group = asked_count == 0 ? (int)i : played.parent != NULL ? played.parent(atoi(asked_for[i] + 3)) : -1;
		reply.truncated |= group >= 0 && reply.count == waiting.most;
		if (group >= 0 && !reply.truncated) {
			entries[reply.count++] = entry_of(group);
		}
	}
	operation_done done = waiting_done;
	waiting_done = NULL;
	done(&reply, &call);
	free(entries);
}

static void on_end(struct directory_call *of)
{
	played.ended++;
}

/* Whether all of them are known, which are none where they are not. */
static bool run(struct played setting)
{
	static struct flavor flavor = { .find_groups = find_groups, .read_sid = read_sid };
	played = setting;
	directory.flavor = &flavor;
	call = (struct directory_call){ .directory = &directory, .connection = &connection };
	waiting_done = NULL;
	assert_true(groups_start(&call, on_end));
	while (waiting_done != NULL) {
		answer();
	}
	bool good = call.user.account.groups_read;
	size_t count = call.user.account.group_count;
	assert_int_equal(played.ended + played.failed, 1);
	assert_true(good || count == 0);
	assert_true(!good || count == setting.count);
	free(call.user.account.groups);
	group_walk_clear(&call.walk);
	return good;
}

static int next(int group) { return group + 1 < (int)played.count ? group + 1 : -1; }
static int around(int group) { return (group + 1) % (int)played.count; }
static int to_itself(int group) { return group; }
static int to_the_last(int group) { return (int)played.count - 1; }

static void all_of_them(void **state)
{
	assert_true(run((struct played){ .count = 0 }));
	assert_true(run((struct played){ .count = 5, .direct = 5 }));
	assert_true(run((struct played){ .count = 40, .direct = 1, .parent = next }));
	assert_true(run((struct played){ .count = 101, .direct = 100, .parent = to_the_last }));
}

/* Each is asked for once. */
static void circles(void **state)
{
	assert_true(run((struct played){ .count = 1, .direct = 1, .parent = to_itself }));
	assert_int_equal(played.asked[0], 1);
	assert_true(run((struct played){ .count = 30, .direct = 3, .parent = around }));
	for (size_t i = 0; i < 30; i++) {
		assert_int_equal(played.asked[i], 1);
	}
}

static void too_many(void **state)
{
	assert_true(run((struct played){ .count = 1000, .direct = 1000 }));
	assert_false(run((struct played){ .count = 1001, .direct = 1001 }));
	assert_false(run((struct played){ .count = 10000, .direct = 10000 }));
	assert_false(run((struct played){ .count = 1001, .direct = 1000, .parent = to_the_last }));
	/* A chain that is longer than anybody has. */
	assert_false(run((struct played){ .count = 10000, .direct = 1, .parent = next }));
	assert_in_range(played.searches, 50, 64);
}

static void what_cannot_be_seen(void **state)
{
	static const int RESULTS[] = { LDAP_SIZELIMIT_EXCEEDED, LDAP_ADMINLIMIT_EXCEEDED, LDAP_TIMELIMIT_EXCEEDED, LDAP_INSUFFICIENT_ACCESS, LDAP_NO_SUCH_OBJECT, LDAP_REFERRAL, LDAP_BUSY };
	for (size_t i = 0; i < sizeof RESULTS / sizeof RESULTS[0]; i++) {
		assert_false(run((struct played){ .count = 5, .direct = 5, .result = RESULTS[i] }));
		assert_false(run((struct played){ .count = 5, .direct = 1, .parent = next, .result = RESULTS[i], .from = 3 }));
	}
	assert_false(run((struct played){ .count = 5, .direct = 5, .nameless = 4 }));
	assert_false(run((struct played){ .count = 5, .direct = 5, .referred = true }));
	assert_false(run((struct played){ .count = 5, .direct = 5, .fails = true }));
	assert_false(run((struct played){ .count = 5, .direct = 5, .lost = true }));
	assert_int_equal(played.failed, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(all_of_them), cmocka_unit_test(circles), cmocka_unit_test(too_many), cmocka_unit_test(what_cannot_be_seen) };
	return cmocka_run_group_tests_name("groups", tests, NULL, NULL);
}
