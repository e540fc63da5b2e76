#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <event2/event.h>

#include "base/resolve.h"

struct resolved {
	struct event_base *base;
	unsigned fired;
	struct addresses addresses;
	char why[128];
};

static void on_done(const struct addresses *addresses, const char *why, void *arg)
{
	struct resolved *resolved = arg;
	resolved->fired++;
	if (addresses)
		resolved->addresses = *addresses;
	else
		snprintf(resolved->why, sizeof resolved->why, "%s", why);
	event_base_loopexit(resolved->base, NULL);
}

static struct resolved run(const char *host)
{
	struct resolved resolved = { .base = event_base_new() };
	struct resolve *resolve;
	struct timeval limit = { 10, 0 };
	assert_int_equal(resolve_start(resolved.base, host, 636, on_done, &resolved, &resolve), STATUS_OK);
	assert_int_equal(resolved.fired, 0); /* never from inside the call */
	event_base_loopexit(resolved.base, &limit);
	event_base_dispatch(resolved.base);
	resolve_free(resolve);
	event_base_free(resolved.base);
	return resolved;
}

static void an_address_is_taken_as_it_is(void **state)
{
	struct resolved resolved = run("127.0.0.10");
	const struct sockaddr_in *address = (const struct sockaddr_in *)&resolved.addresses.items[0];
	assert_int_equal(resolved.fired, 1);
	assert_int_equal(resolved.addresses.count, 1);
	assert_int_equal(ntohl(address->sin_addr.s_addr), 0x7f00000a);
	assert_int_equal(ntohs(address->sin_port), 636);
}

static void the_hosts_file_counts(void **state)
{
	struct resolved resolved = run("localhost");
	assert_int_equal(resolved.fired, 1);
	assert_true(resolved.addresses.count >= 1);
}

static void a_name_that_is_none_says_why(void **state)
{
	struct resolved resolved = run("no..name");
	assert_int_equal(resolved.fired, 1);
	assert_int_equal(resolved.addresses.count, 0);
	assert_true(strlen(resolved.why) > 0);
}

static void freed_early_it_never_fires(void **state)
{
	struct resolved resolved = { .base = event_base_new() };
	struct resolve *resolve;
	assert_int_equal(resolve_start(resolved.base, "localhost", 636, on_done, &resolved, &resolve), STATUS_OK);
	resolve_free(resolve);
	event_base_loop(resolved.base, EVLOOP_NONBLOCK);
	assert_int_equal(resolved.fired, 0);
	event_base_free(resolved.base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_address_is_taken_as_it_is), cmocka_unit_test(the_hosts_file_counts),
		cmocka_unit_test(a_name_that_is_none_says_why), cmocka_unit_test(freed_early_it_never_fires),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
