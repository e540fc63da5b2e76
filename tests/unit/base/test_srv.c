/* SRV records: as messages, as a choice by weight, and over the loop from a DNS server of the test's own. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/resolve.h"
#include "dns_server.h"

/* The message ----------------------------------------------------------------------------------------------------------------------- */

/* _l.x SRV: the question; a CNAME to _m.x; two records, the second target compressed onto the question's "x", and one for ".". */
static const uint8_t MESSAGE[] = {
	0, 1, 0x85, 0x80, 0, 1, 0, 4, 0, 0, 0, 0,
	2, '_', 'l', 1, 'x', 0, 0, 33, 0, 1,
	0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 5, 2, '_', 'm', 0xc0, 15,
	0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 90, 0, 13, 0, 1, 0, 2, 1, 133, 3, 'D', 'C', '1', 1, 'x', 0,
	0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 80, 0, 12, 0, 9, 0, 0, 2, 124, 3, 'd', 'c', '2', 0xc0, 15,
	0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 80, 0, 7, 0, 0, 0, 0, 2, 124, 0,
};

static void a_message_is_read(void **state)
{
	struct srv_answer answer;
	assert_int_equal(srv_parse(bytes_of(MESSAGE, sizeof MESSAGE), &answer), STATUS_OK);
	assert_int_equal(answer.count, 2);
	assert_int_equal(answer.ttl_s, 60);
	assert_string_equal(answer.items[0].target, "dc1.x");
	assert_int_equal(answer.items[0].priority, 1);
	assert_int_equal(answer.items[0].weight, 2);
	assert_int_equal(answer.items[0].port, 389);
	assert_string_equal(answer.items[1].target, "dc2.x");
	assert_int_equal(answer.items[1].port, 636);
	assert_false(answer.cut);
}

static void a_message_cut_anywhere_is_refused(void **state)
{
	struct srv_answer answer;
	for (size_t size = 0; size < sizeof MESSAGE; size++)
		assert_int_equal(srv_parse(bytes_of(MESSAGE, size), &answer), STATUS_LOCAL_INPUT);
}

static void lengths_that_lie_are_refused(void **state)
{
	struct srv_answer answer;
	for (size_t i = 0; i < 2; i++) {
		uint8_t wrong[sizeof MESSAGE];
		memcpy(wrong, MESSAGE, sizeof MESSAGE);
		wrong[50] = i == 0 ? 12 : 14; /* of the first SRV record */
		assert_int_equal(srv_parse(bytes_of(wrong, sizeof wrong), &answer), STATUS_LOCAL_INPUT);
	}
}

static void targets_that_are_no_hosts_are_left_out(void **state)
{
	uint8_t odd[sizeof MESSAGE];
	struct srv_answer answer;
	memcpy(odd, MESSAGE, sizeof MESSAGE);
	odd[58] = '/';
	assert_int_equal(srv_parse(bytes_of(odd, sizeof odd), &answer), STATUS_OK);
	assert_int_equal(answer.count, 1);
	assert_string_equal(answer.items[0].target, "dc2.x");
}

static void at_most_64_are_taken(void **state)
{
	uint8_t many[12 + 70 * 20] = { 0, 1, 0x85, 0x80, 0, 0, 0, 70 }, *at = many + 12;
	for (unsigned i = 0; i < 70; i++, at += 20)
		memcpy(at, (uint8_t[20]){ 0, 0, 33, 0, 1, 0, 0, 0, 9, 0, 9, 0, 1, 0, 2, 1, 133, 1, (uint8_t)('a' + i % 26), 0 }, 20);
	struct srv_answer answer;
	assert_int_equal(srv_parse(bytes_of(many, sizeof many), &answer), STATUS_OK);
	assert_int_equal(answer.count, SRV_MAX);
	assert_true(answer.cut);
}

/* The choice ------------------------------------------------------------------------------------------------------------------------ */

static uint32_t next_random(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*seed >> 32);
}

static void weights_are_proportions(void **state)
{
	uint64_t seed = 1;
	unsigned first = 0, zero = 0;
	for (unsigned i = 0; i < 10000; i++) {
		double a = srv_key(30, next_random(&seed)), b = srv_key(10, next_random(&seed)), c = srv_key(0, next_random(&seed));
		first += a < b && a < c;
		zero += c < a && c < b;
	}
	assert_in_range(first, 7300, 7700); /* three of four */
	assert_in_range(zero, 0, 50);
	assert_true(srv_key(1, 0) > 0 && srv_key(1, UINT32_MAX) >= 0);
}

/* The lookup ------------------------------------------------------------------------------------------------------------------------ */

static struct {
	struct event_base *base;
	unsigned fired;
	bool answered;
	struct srv_answer answer;
	struct addresses addresses;
	char why[128];
} end;
static struct dns_server dns;
static struct resolve *resolve;

static void on_srv(const struct srv_answer *answer, const char *why, void *arg)
{
	end.fired++;
	end.answered = answer != NULL;
	if (answer)
		end.answer = *answer;
	snprintf(end.why, sizeof end.why, "%s", why ? why : "");
	event_base_loopexit(end.base, NULL);
}

static void on_addresses(const struct addresses *addresses, const char *why, void *arg)
{
	end.fired++;
	if (addresses)
		end.addresses = *addresses;
	event_base_loopexit(end.base, NULL);
}

static int set_up(void **state)
{
	memset(&end, 0, sizeof end);
	dns = (struct dns_server){ 0 };
	end.base = event_base_new();
	dns_server_start(&dns, end.base);
	return 0;
}

static int tear_down(void **state)
{
	resolve_free(resolve);
	resolve = NULL;
	dns_server_stop(&dns);
	event_base_free(end.base);
	return 0;
}

static void run(int64_t ms)
{
	struct timeval limit = { ms / 1000, ms % 1000 * 1000 };
	event_base_loopexit(end.base, &limit);
	event_base_dispatch(end.base);
}

static void look_up(const char *name)
{
	assert_int_equal(resolve_srv_start(end.base, name, on_srv, NULL, &resolve), STATUS_OK);
	assert_int_equal(end.fired, 0); /* never from inside the call */
	run(5000);
	assert_int_equal(end.fired, 1);
}

static void records_are_found(void **state)
{
	static const struct dns_row rows[] = { { "_ldap._tcp.x", { { 0, 100, 389, "DC1.x" }, { 5, 0, 636, "dc2.x" } }, .ttl = 7 }, { 0 } };
	dns.rows = rows;
	look_up("_ldap._tcp.x");
	assert_string_equal(end.why, "");
	assert_int_equal(end.answer.count, 2);
	assert_int_equal(end.answer.ttl_s, 7);
	assert_string_equal(end.answer.items[0].target, "dc1.x");
	assert_int_equal(end.answer.items[1].priority, 5);
}

static void a_cname_is_followed(void **state)
{
	static const struct dns_row rows[] = { { "_ldap._tcp.x", { { 0, 0, 389, "dc1.x" } }, .cname = "_other._tcp.x", .ttl = 3 }, { 0 } };
	dns.rows = rows;
	look_up("_ldap._tcp.x");
	assert_int_equal(end.answer.count, 1);
}

static void no_record_is_an_answer(void **state)
{
	static const struct dns_row rows[] = { { "empty.x" }, { "dot.x", { { 0, 0, 389, "" } } }, { 0 } };
	static const char *const names[] = { "nobody.x", "empty.x", "dot.x" };
	dns.rows = rows;
	for (size_t i = 0; i < 3; i++) {
		end.fired = 0;
		look_up(names[i]);
		assert_true(end.answered);
		assert_int_equal(end.answer.count, 0);
		assert_string_equal(end.why, "there is no such record");
		resolve_free(resolve);
		resolve = NULL;
	}
}

static void a_failure_is_none(void **state)
{
	static const struct dns_row rows[] = { { "fails.x", .code = 2 }, { "cut.x", { { 0, 0, 389, "dc1.x" } }, .cut = true }, { 0 } };
	static const char *const names[] = { "fails.x", "cut.x" };
	dns.rows = rows;
	for (size_t i = 0; i < 2; i++) {
		end.fired = 0;
		look_up(names[i]);
		assert_false(end.answered);
		assert_true(strlen(end.why) > 0);
		resolve_free(resolve);
		resolve = NULL;
	}
}

static void a_silent_server_holds_nobody_up(void **state)
{
	dns.silent = true;
	assert_int_equal(resolve_srv_start(end.base, "_ldap._tcp.x", on_srv, NULL, &resolve), STATUS_OK);
	int64_t before = clock_monotonic_us();
	run(200);
	assert_in_range(clock_monotonic_us() - before, 150000, 1000000);
	assert_int_equal(end.fired, 0);
	assert_true(dns.queries > 0);
	resolve_free(resolve); /* the caller's deadline */
	resolve = NULL;
	run(50);
	assert_int_equal(end.fired, 0);
}

static void addresses_of_both_kinds_are_found(void **state)
{
	static const struct dns_row rows[] = { { "dc1.x", .address = "192.0.2.7", .address6 = "2001:db8::7", .cname = "real.x", .ttl = 1 }, { 0 } };
	bool four = false, six = false;
	dns.rows = rows;
	assert_int_equal(resolve_start(end.base, "dc1.x", 636, on_addresses, NULL, &resolve), STATUS_OK);
	run(5000);
	assert_int_equal(end.fired, 1);
	for (size_t i = 0; i < end.addresses.count; i++) {
		four |= end.addresses.items[i].ss_family == AF_INET;
		six |= end.addresses.items[i].ss_family == AF_INET6;
	}
	assert_true(four && six);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_message_is_read), cmocka_unit_test(a_message_cut_anywhere_is_refused), cmocka_unit_test(lengths_that_lie_are_refused),
		cmocka_unit_test(targets_that_are_no_hosts_are_left_out), cmocka_unit_test(at_most_64_are_taken), cmocka_unit_test(weights_are_proportions),
		cmocka_unit_test_setup_teardown(records_are_found, set_up, tear_down), cmocka_unit_test_setup_teardown(a_cname_is_followed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(no_record_is_an_answer, set_up, tear_down), cmocka_unit_test_setup_teardown(a_failure_is_none, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_silent_server_holds_nobody_up, set_up, tear_down),
		cmocka_unit_test_setup_teardown(addresses_of_both_kinds_are_found, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
