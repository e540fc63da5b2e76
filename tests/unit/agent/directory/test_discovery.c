/* The set of servers as DNS names it: what is taken from an answer, what is refused, and what an answer that is none leaves as it was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "agent/directory/directory.h"
#include "base/clock.h"
#include "fake_server.h"
#include "tests/unit/base/dns_server.h"

#define DC "_ldap._tcp.dc._msdcs.x"
#define SITE "_ldap._tcp.Berlin._sites.dc._msdcs.x"
#define PDC "_ldap._tcp.pdc._msdcs.x"
#define HOSTS { "dc1.x", .address = "127.0.0.1" }, { "dc2.x", .address = "127.0.0.1" }, { "elsewhere.y", .address = "127.0.0.1" }

static char folder[] = "/tmp/test_discovery.XXXXXX", ca_file[64], password_file[64];
static struct event_base *base;
static struct fake one, two;
static unsigned port_one, port_two;
static struct dns_server dns;
static struct directory_settings settings;
static struct directory *directory;
static int64_t slowness; /* what every time is multiplied with */

static int set_up_once(void **state)
{
	assert_non_null(mkdtemp(folder));
	snprintf(ca_file, sizeof ca_file, "%s/root.pem", folder);
	snprintf(password_file, sizeof password_file, "%s/password", folder);
	fake_certificates(folder);
	FILE *file = fopen(password_file, "w");
	fputs("secret of the agent\n", file);
	fclose(file);
	return chmod(password_file, 0600);
}

static int tear_down_once(void **state)
{
	static const char *const NAMES[] = { "root.pem", "server.pem", "server.key", "password" };
	char path[128];
	for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
		snprintf(path, sizeof path, "%s/%s", folder, NAMES[i]);
		unlink(path);
	}
	return rmdir(folder);
}

static unsigned port_of(const struct fake *fake)
{
	return (unsigned)strtoul(strchr(fake->name, ':') + 1, NULL, 10);
}

static int set_up(void **state)
{
	slowness = fake_slowness();
	base = event_base_new();
	one = two = (struct fake){ 0 };
	fake_start(&one, base, folder);
	fake_start(&two, base, folder);
	port_one = port_of(&one);
	port_two = port_of(&two);
	dns = (struct dns_server){ 0 };
	dns_server_start(&dns, base);
	settings = (struct directory_settings){ .name = "test", .discover = "x", .ca_file = ca_file, .bind_dn = "CN=svc,DC=x", .bind_password_file = password_file,
		.policy_hints = POLICY_HINTS_WHEN_SUPPORTED, .connections = 1, .pipeline = 8, .queue_limit = 16, .connect_timeout_ms = (unsigned)(300 * slowness),
		.locate_timeout_ms = (unsigned)(1000 * slowness), .write_timeout_ms = (unsigned)(1000 * slowness), .policy_cache_ms = 60000, .idle_probe_ms = 60000 };
	return 0;
}

static int tear_down(void **state)
{
	directory_free(directory);
	directory = NULL;
	dns_server_stop(&dns);
	fake_stop(&one);
	fake_stop(&two);
	event_base_loop(base, EVLOOP_NONBLOCK);
	event_base_free(base);
	return 0;
}

static void start(const struct dns_row *rows)
{
	char *why = NULL;
	dns.rows = rows;
	assert_int_equal(directory_new(base, &settings, &directory, &why), STATUS_OK);
	assert_null(why);
}

/* The servers as "dc1 up, dc2 down". */
static void add_server(const struct directory_server *server, void *arg)
{
	char *text = arg;
	size_t used = strlen(text);
	snprintf(text + used, 4096 - used, "%s%.*s %s", used > 0 ? ", " : "", (int)strcspn(server->name, ".:"), server->name, server->up ? "up" : "down");
}

static const char *servers_now(void)
{
	static char text[4096];
	text[0] = 0;
	directory_each_server(directory, add_server, text);
	return text;
}

static void turn(int64_t ms)
{
	struct timeval pause = { ms / 1000, ms % 1000 * 1000 };
	event_base_loopexit(base, &pause);
	event_base_dispatch(base);
}

static void wait_for_servers(const char *wanted)
{
	for (int64_t begin = clock_monotonic_us(); strcmp(servers_now(), wanted) != 0 && clock_monotonic_us() - begin < 8000000 * slowness;) {
		turn(5);
	}
	assert_string_equal(servers_now(), wanted);
}

/* At most one a second is begun. */
static void look_up_again(const struct dns_row *rows)
{
	unsigned before = dns.queries;
	dns.rows = rows;
	for (unsigned i = 0; i < 600 && dns.queries == before; i++) {
		directory_retry(directory);
		turn(5);
	}
	assert_true(dns.queries > before);
	turn(50);
}

static void priority_and_site_decide(void **state)
{
	const struct dns_row rows[] = { { DC, { { 7, 0, port_one, "dc1.x" }, { 3, 0, port_two, "dc2.x" } }, .ttl = 60 }, HOSTS, { 0 } };
	start(rows);
	wait_for_servers("dc2 up, dc1 up");
	directory_free(directory);
	settings.site = "Berlin";
	const struct dns_row with_site[] = { rows[0], { SITE, { { 9, 0, port_one, "dc1.x" } }, .ttl = 60 }, HOSTS, { 0 } };
	start(with_site);
	wait_for_servers("dc1 up, dc2 up");
}

static void strangers_are_refused(void **state)
{
	const struct dns_row rows[] = { { DC, { { 0, 0, port_one, "elsewhere.y" }, { 0, 0, port_one, "evilx" }, { 0, 0, port_one, "x" }, { 5, 0, port_two, "DC2.X" } }, .ttl = 60 }, HOSTS, { 0 } };
	start(rows);
	wait_for_servers("dc2 up");
	assert_int_equal(one.connections, 0);
}

static void port_389_means_636(void **state)
{
	const struct dns_row rows[] = { { DC, { { 0, 0, 389, "dc1.x" } }, .ttl = 60 }, HOSTS, { 0 } };
	struct directory_health health;
	start(rows);
	wait_for_servers("dc1 down");
	directory_health(directory, &health);
	assert_null(strchr(health.text, '9')); /* the name has no port: 636 */
}

static void an_answer_that_is_none_changes_nothing(void **state)
{
	const struct dns_row rows[] = { { DC, { { 0, 0, port_one, "dc1.x" }, { 1, 0, port_two, "dc2.x" } }, .ttl = 60 }, HOSTS, { 0 } };
	const struct dns_row empty[] = { { DC }, HOSTS, { 0 } }, failing[] = { { DC, .code = 2 }, { 0 } };
	const struct dns_row strange[] = { { DC, { { 0, 0, port_one, "elsewhere.y" } }, .ttl = 60 }, HOSTS, { 0 } };
	const struct dns_row fewer[] = { { DC, { { 0, 0, port_one, "dc1.x" } }, .ttl = 60 }, HOSTS, { 0 } };
	start(rows);
	wait_for_servers("dc1 up, dc2 up");
	look_up_again(empty);
	look_up_again(failing);
	look_up_again(strange);
	assert_string_equal(servers_now(), "dc1 up, dc2 up");
	look_up_again(fewer);
	wait_for_servers("dc1 up"); /* dc2 was idle */
}

static void the_last_that_is_up_stays(void **state)
{
	const struct dns_row rows[] = { { DC, { { 0, 0, port_two, "dc2.x" } }, .ttl = 60 }, HOSTS, { 0 } };
	const struct dns_row other[] = { { DC, { { 0, 0, port_one, "dc1.x" } }, .ttl = 60 }, HOSTS, { 0 } };
	one.unsynchronized = true;
	start(rows);
	wait_for_servers("dc2 up");
	look_up_again(other);
	wait_for_servers("dc1 down, dc2 up"); /* no longer named, and nobody else is there */
	one.unsynchronized = false;
	wait_for_servers("dc1 up");
}

/* Forged, or of controllers long gone: as many as there is room for, and then those that are there. */
static void a_flood_of_nobodies_keeps_nobody_out(void **state)
{
	const struct dns_row flood[] = { { DC, .nobodies = 22, .first_port = 1, .ttl = 60 }, { SITE, .nobodies = 22, .first_port = 101, .ttl = 60 }, { PDC, .nobodies = 22, .first_port = 201, .ttl = 60 }, { 0 } };
	const struct dns_row rows[] = { { DC, { { 0, 0, port_one, "dc1.x" } }, .ttl = 60 }, HOSTS, { 0 } };
	struct directory_health health = { 0 };
	settings.site = "Berlin";
	settings.prefer_pdc = true;
	start(flood);
	for (int64_t begin = clock_monotonic_us(); health.servers < 64 && clock_monotonic_us() - begin < 3000000 * slowness;) {
		turn(5);
		directory_health(directory, &health);
	}
	assert_int_equal(health.servers, 64);
	dns.rows = rows;
	turn(1050); /* one round a second */
	directory_retry(directory);
	for (int64_t begin = clock_monotonic_us(); health.servers_up == 0 && clock_monotonic_us() - begin < 5000000 * slowness;) {
		turn(5);
		directory_health(directory, &health);
	}
	assert_int_equal(health.servers_up, 1);
}

static void silent_dns_stops_nobody_who_is_known(void **state)
{
	const struct dns_row rows[] = { { DC, { { 0, 0, port_one, "dc1.x" } }, .ttl = 60 }, HOSTS, { 0 } };
	start(rows);
	wait_for_servers("dc1 up");
	dns.silent = true;
	fake_hang_up(&one);
	wait_for_servers("dc1 down");
	wait_for_servers("dc1 up");
	assert_int_equal(one.connections, 2);
}

static void on_located(enum status status, struct located *take_located, const struct directory_answer *answer, void *arg)
{
	located_free(take_located);
	*(enum status *)arg = status;
}

static void a_request_waits_for_the_first_answer_only(void **state)
{
	const struct dns_row rows[] = { { DC, { { 0, 0, port_one, "dc1.x" } }, .ttl = 60 }, HOSTS, { 0 } };
	struct directory_health health;
	enum status status = STATUS_LOCAL_INPUT;
	dns.silent = true;
	start(rows);
	assert_int_equal(directory_locate(directory, LOCATE_UPN, "alice@x", NULL, 5000 * slowness, on_located, &status, NULL), STATUS_OK);
	int64_t begin = clock_monotonic_us();
	while (status == STATUS_LOCAL_INPUT && clock_monotonic_us() - begin < 3000000 * slowness) {
		turn(5);
	}
	assert_int_equal(status, STATUS_DIRECTORY_UNAVAILABLE);
	assert_in_range(clock_monotonic_us() - begin, 250000 * slowness, 1500000 * slowness); /* a lookup may take connect_timeout */
	directory_health(directory, &health);
	assert_non_null(strstr(health.text, "no answer from DNS in time"));
	dns.silent = false;
	wait_for_servers("dc1 up");
}

static void a_name_is_claimed_by_degrees(void **state)
{
	static const char *const DOMAINS[] = { "corp.example.com", NULL };
	const struct dns_row none[] = { { 0 } };
	start(none);
	assert_int_equal(directory_claims(directory, "anything"), CLAIM_UNKNOWN);
	settings.domains = DOMAINS;
	assert_int_equal(directory_claims(directory, "CORP.example.com"), CLAIM_CONFIGURED);
	assert_int_equal(directory_claims(directory, "anything"), CLAIM_NONE);
	settings.domains = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(priority_and_site_decide, set_up, tear_down), cmocka_unit_test_setup_teardown(strangers_are_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(port_389_means_636, set_up, tear_down), cmocka_unit_test_setup_teardown(an_answer_that_is_none_changes_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_last_that_is_up_stays, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_flood_of_nobodies_keeps_nobody_out, set_up, tear_down), cmocka_unit_test_setup_teardown(silent_dns_stops_nobody_who_is_known, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_request_waits_for_the_first_answer_only, set_up, tear_down), cmocka_unit_test_setup_teardown(a_name_is_claimed_by_degrees, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, set_up_once, tear_down_once);
}
