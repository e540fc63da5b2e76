/* The thread that talks to KDCs, against one that takes connections and says nothing, and against none. Real KDCs: tests/integration/test_binding.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <krb5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/directory/kerberos.h"
#include "agent/directory/sasl.h"
#include "base/clock.h"

static char folder[] = "/tmp/test_kerberos.XXXXXX";
static char keytab[64], config[64];
static struct event_base *base;
static struct kerberos *kerberos;
static struct directory_settings settings;
static int kdc = -1, kdc_udp = -1;
static struct { unsigned fired; struct negotiation_answer answer; } end;

static void put(const char *path, const void *data, size_t size)
{
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fwrite(data, 1, size, file);
	fclose(file);
}

/* svc@TEST with a key that no KDC will ever see. */
static void put_keytab(void)
{
	static const uint8_t ONE[] = { 5, 2, 0, 0, 0, 63, 0, 1, 0, 4, 'T', 'E', 'S', 'T', 0, 3, 's', 'v', 'c', 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 18, 0, 32,
		1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 0, 0, 0, 1, 0 };
	put(keytab, ONE, 6 + 63);
}

static void put_config(unsigned port)
{
	char text[256];
	int size = snprintf(text, sizeof text, "[libdefaults]\n default_realm = TEST\n dns_lookup_kdc = false\n[realms]\n TEST = {\n  kdc = 127.0.0.1:%u\n }\n", port);
	put(config, text, size);
}

static unsigned listen_silently(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof address;
	kdc = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(kdc, (struct sockaddr *)&address, size), 0);
	assert_int_equal(listen(kdc, 8), 0);
	getsockname(kdc, (struct sockaddr *)&address, &size);
	kdc_udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(kdc_udp, (struct sockaddr *)&address, size), 0);
	return ntohs(address.sin_port);
}

static int set_up_all(void **state)
{
	if (mkdtemp(folder) == NULL) {
		return -1;
	}
	snprintf(keytab, sizeof keytab, "%s/keytab", folder);
	snprintf(config, sizeof config, "%s/krb5.conf", folder);
	setenv("KRB5_CONFIG", config, 1);
	return sasl_prepare() != STATUS_OK || ticket_prepare() != STATUS_OK;
}

static int tear_down_all(void **state)
{
	unlink(keytab);
	unlink(config);
	return rmdir(folder);
}

static int set_up(void **state)
{
	base = event_base_new();
	memset(&end, 0, sizeof end);
	put_keytab();
	put_config(1);
	settings = (struct directory_settings){ .name = "test", .bind_mechanism = BIND_GSSAPI, .bind_principal = "svc@TEST", .bind_keytab_file = keytab };
	return kerberos_new(base, &settings, &kerberos) != STATUS_OK;
}

static int tear_down(void **state)
{
	kerberos_free(kerberos);
	event_base_free(base);
	if (kdc >= 0) {
		close(kdc);
		close(kdc_udp);
	}
	kdc = kdc_udp = -1;
	return 0;
}

static void on_done(const struct negotiation_answer *answer, void *arg)
{
	end.fired++;
	end.answer = *answer;
}

static void wait_ms(int64_t ms)
{
	struct timeval tick = { 0, 5000 };
	int64_t begin = clock_monotonic_us();
	while (end.fired == 0 && clock_monotonic_us() - begin < ms * 1000) {
		event_base_loopexit(base, &tick);
		event_base_dispatch(base);
	}
}

/* One negotiation to its end, or `ms` long. */
static void negotiate(int64_t ms)
{
	struct negotiation *negotiation = NULL;
	end.fired = 0;
	assert_int_equal(negotiation_new(kerberos, "dc1.test", bytes_of(NULL, 0), on_done, NULL, &negotiation), STATUS_OK);
	wait_ms(ms);
	assert_int_equal(negotiation_waits(negotiation), end.fired == 0);
	negotiation_free(negotiation);
}

static void expect(enum status status, const char *says)
{
	negotiate(5000);
	assert_int_equal(end.fired, 1);
	if (end.answer.status != status || strstr(end.answer.why, says) == NULL) {
		fail_msg("%s: %s", status_code(end.answer.status), end.answer.why);
	}
}

static void what_a_kdc_says_is_told_apart(void **state)
{
	static const struct { int32_t code; enum status status; } ROWS[] = {
		{ 0, STATUS_OK }, { KRB5_KDC_UNREACH, STATUS_DIRECTORY_UNAVAILABLE }, { KRB5_REALM_UNKNOWN, STATUS_DIRECTORY_UNAVAILABLE },
		{ KRB5KDC_ERR_C_PRINCIPAL_UNKNOWN, STATUS_DIRECTORY_CREDENTIAL }, { KRB5KDC_ERR_PREAUTH_FAILED, STATUS_DIRECTORY_CREDENTIAL },
		{ KRB5KDC_ERR_CLIENT_REVOKED, STATUS_DIRECTORY_CREDENTIAL }, { KRB5KDC_ERR_KEY_EXP, STATUS_DIRECTORY_CREDENTIAL }, { KRB5_KT_NOTFOUND, STATUS_DIRECTORY_CREDENTIAL },
		{ ENOENT, STATUS_DIRECTORY_CREDENTIAL }, { KRB5KRB_AP_ERR_SKEW, STATUS_AGENT_CLOCK_SKEW }, { KRB5KDC_ERR_SVC_UNAVAILABLE, STATUS_DIRECTORY_UNAVAILABLE },
	};
	for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
		assert_int_equal(ticket_error_status(ROWS[i].code), ROWS[i].status);
	}
}

static void a_ticket_is_renewed_at_four_fifths(void **state)
{
	assert_int_equal(ticket_renewal_s(&(struct ticket_facts){ .from_s = 1000, .until_s = 37000 }), 1000 + 28800);
	assert_int_equal(ticket_renewal_s(&(struct ticket_facts){ .from_s = 1000, .until_s = 1010 }), 1008);
	assert_int_equal(ticket_renewal_s(&(struct ticket_facts){ 0 }), 0);
}

static void a_kdc_that_is_not_there(void **state)
{
	expect(STATUS_DIRECTORY_UNAVAILABLE, "the KDC of TEST does not answer");
	put_config(2);
	expect(STATUS_DIRECTORY_UNAVAILABLE, "the KDC of TEST does not answer"); /* not remembered: it may come back at any time */
}

static void a_key_that_is_refused_rests_until_an_administrator_asks(void **state)
{
	unlink(keytab);
	expect(STATUS_DIRECTORY_CREDENTIAL, "does not exist: export the keytab of svc@TEST there");
	put_keytab();
	expect(STATUS_DIRECTORY_CREDENTIAL, "does not exist");
	kerberos_renew(kerberos, false);
	expect(STATUS_DIRECTORY_UNAVAILABLE, "the KDC of TEST does not answer");
	put(keytab, "nonsense", 8);
	expect(STATUS_DIRECTORY_CREDENTIAL, "is not a keytab");
}

static void a_keytab_without_the_principal(void **state)
{
	kerberos_free(kerberos);
	settings.bind_principal = "other@TEST";
	assert_int_equal(kerberos_new(base, &settings, &kerberos), STATUS_OK);
	expect(STATUS_DIRECTORY_CREDENTIAL, "holds no key of other@TEST");
}

/* The loop's deadlines are its own: here it gives up after 300 ms, thrice, and goes. The thread is still in the KDC's silence. */
static void a_silent_kdc_holds_nobody(void **state)
{
	put_config(listen_silently());
	int64_t begin = clock_monotonic_us();
	for (unsigned i = 0; i < 3; i++) {
		negotiate(300);
		assert_int_equal(end.fired, 0);
	}
	kerberos_free(kerberos);
	kerberos = NULL;
	assert_true(clock_monotonic_us() - begin < 3000000);
	assert_int_equal(kerberos_new(base, &settings, &kerberos), STATUS_OK);
}

/* KDC_ERR_C_PRINCIPAL_UNKNOWN, with its length before it as TCP has it (RFC 4120 sections 5.9.1 and 7.2.2). */
static void refuse_by_tcp(void)
{
	static const char REFUSAL[] = "\0\0\0\x4e" "\x7e\x4c\x30\x4a" "\xa0\x03\x02\x01\x05" "\xa1\x03\x02\x01\x1e" "\xa4\x11\x18\x0f" "20260101000000Z" "\xa5\x03\x02\x01\x01" "\xa6\x03\x02\x01\x06"
		"\xa9\x06\x1b\x04" "TEST" "\xaa\x19\x30\x17\xa0\x03\x02\x01\x02\xa1\x10\x30\x0e\x1b\x06" "krbtgt" "\x1b\x04" "TEST";
	char question[2048];
	int fd = accept(kdc, NULL, NULL);
	assert_true(read(fd, question, sizeof question) > 4);
	assert_int_equal(write(fd, REFUSAL, sizeof REFUSAL - 1), 4 + 0x4e);
	close(fd);
}

/* Whoever can send one datagram could say that the account is not there: nothing signs that. */
static void a_kdc_is_asked_by_tcp_first(void **state)
{
	struct negotiation *negotiation = NULL;
	char question;
	put_config(listen_silently());
	assert_int_equal(negotiation_new(kerberos, "dc1.test", bytes_of(NULL, 0), on_done, NULL, &negotiation), STATUS_OK);
	refuse_by_tcp();
	wait_ms(5000);
	assert_int_equal(end.answer.status, STATUS_DIRECTORY_CREDENTIAL);
	assert_non_null(strstr(end.answer.why, "the KDC knows no svc@TEST"));
	negotiation_free(negotiation);
	assert_int_equal(recv(kdc_udp, &question, 1, 0), -1);
}

static void a_queue_has_an_end(void **state)
{
	struct negotiation *many[KERBEROS_QUEUE_MAX + 2] = { NULL };
	enum status status = STATUS_OK;
	size_t count = 0;
	put_config(listen_silently());
	while (status == STATUS_OK && count < sizeof many / sizeof many[0]) {
		status = negotiation_new(kerberos, "dc1.test", bytes_of(NULL, 0), on_done, NULL, &many[count]);
		count += status == STATUS_OK;
	}
	assert_true(count == KERBEROS_QUEUE_MAX || count == KERBEROS_QUEUE_MAX + 1); /* the thread may have taken one */
	assert_int_equal(status, STATUS_AGENT_OVERLOADED);
	while (count > 0) {
		negotiation_free(many[--count]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_a_kdc_says_is_told_apart),
		cmocka_unit_test(a_ticket_is_renewed_at_four_fifths),
		cmocka_unit_test_setup_teardown(a_kdc_that_is_not_there, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_key_that_is_refused_rests_until_an_administrator_asks, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_keytab_without_the_principal, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_silent_kdc_holds_nobody, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_kdc_is_asked_by_tcp_first, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_queue_has_an_end, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, set_up_all, tear_down_all);
}
