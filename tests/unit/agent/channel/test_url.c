#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "agent/channel/proxy.h"
#include "agent/channel/url.h"

static void urls(void **state)
{
	static const struct {
		const char *text, *host, *authority, *path; /* host NULL: refused */
		uint16_t port;
	} rows[] = {
		{ "wss://reset.example.org/v1/agent", "reset.example.org", "reset.example.org", "/v1/agent", 443 },
		{ "wss://reset.example.org", "reset.example.org", "reset.example.org", "/", 443 },
		{ "wss://reset.example.org:443/", "reset.example.org", "reset.example.org", "/", 443 },
		{ "wss://localhost:8443?x=1&y=%20", "localhost", "localhost:8443", "/?x=1&y=%20", 8443 },
		{ "wss://192.0.2.1:65535/a", "192.0.2.1", "192.0.2.1:65535", "/a", 65535 },
		{ "wss://[2001:db8::1]/a", "2001:db8::1", "[2001:db8::1]", "/a", 443 },
		{ "wss://[::1]:8443/a", "::1", "[::1]:8443", "/a", 8443 },
		{ "wss://a/b:c@d", "a", "a", "/b:c@d", 443 },
		{ "ws://a/", NULL, NULL, NULL, 0 }, { "https://a/", NULL, NULL, NULL, 0 }, { "WSS://a/", NULL, NULL, NULL, 0 }, { "wss:/a", NULL, NULL, NULL, 0 },
		{ "wss://", NULL, NULL, NULL, 0 }, { "wss:///a", NULL, NULL, NULL, 0 }, { "wss://:443/", NULL, NULL, NULL, 0 }, { "wss://u:p@a/", NULL, NULL, NULL, 0 },
		{ "wss://a/#f", NULL, NULL, NULL, 0 }, { "wss://a#f", NULL, NULL, NULL, 0 }, { "wss://a/ b", NULL, NULL, NULL, 0 }, { "wss://a/\r\nX: y", NULL, NULL, NULL, 0 },
		{ "wss://a b/", NULL, NULL, NULL, 0 }, { "wss://a\r\n/", NULL, NULL, NULL, 0 }, { "wss://\xc3\xa4/", NULL, NULL, NULL, 0 }, { "wss://a%41/", NULL, NULL, NULL, 0 },
		{ "wss://a:/", NULL, NULL, NULL, 0 }, { "wss://a:0/", NULL, NULL, NULL, 0 }, { "wss://a:065/", NULL, NULL, NULL, 0 }, { "wss://a:65536/", NULL, NULL, NULL, 0 },
		{ "wss://a:+1/", NULL, NULL, NULL, 0 }, { "wss://a:1:2/", NULL, NULL, NULL, 0 }, { "wss://1.2.3/", NULL, NULL, NULL, 0 }, { "wss://1.2.3.256/", NULL, NULL, NULL, 0 },
		{ "wss://0x7f.1/", NULL, NULL, NULL, 0 }, { "wss://a..b/", NULL, NULL, NULL, 0 }, { "wss://.a/", NULL, NULL, NULL, 0 }, { "wss://2001:db8::1/", NULL, NULL, NULL, 0 },
		{ "wss://[::1/", NULL, NULL, NULL, 0 }, { "wss://[]/", NULL, NULL, NULL, 0 }, { "wss://[::1]x/", NULL, NULL, NULL, 0 }, { "wss://[fe80::1%eth0]/", NULL, NULL, NULL, 0 },
		{ "wss://[192.0.2.1]/", NULL, NULL, NULL, 0 },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		static struct url url;
		const char *why = NULL;
		enum status status = url_parse(rows[i].text, &url, &why);
		if ((status == STATUS_OK) != (rows[i].host != NULL))
			fail_msg("%s: %s", rows[i].text, why);
		assert_non_null(why);
		if (status != STATUS_OK)
			continue;
		assert_string_equal(url.host, rows[i].host);
		assert_string_equal(url.authority, rows[i].authority);
		assert_string_equal(url.path, rows[i].path);
		assert_int_equal(url.port, rows[i].port);
	}
}

static void urls_are_bounded(void **state)
{
	static char text[3000];
	static struct url url;
	const char *why;
	for (int size = 1023; size <= 1024; size++) {
		snprintf(text, sizeof text, "wss://a/%0*d", size - 1, 0);
		assert_int_equal(url_parse(text, &url, &why), size < 1024 ? STATUS_OK : STATUS_LOCAL_INPUT);
	}
	snprintf(text, sizeof text, "wss://%.63s/", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
	assert_int_equal(url_parse(text, &url, &why), STATUS_OK);
	snprintf(text, sizeof text, "wss://%.64s/", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
	assert_int_equal(url_parse(text, &url, &why), STATUS_LOCAL_INPUT);
	memset(text + 6, 'a', 2000);
	for (size_t i = 6 + 50; i < 2000; i += 50)
		text[i] = '.';
	memcpy(text + 6 + 300, "b/", 3);
	assert_int_equal(url_parse(text, &url, &why), STATUS_LOCAL_INPUT);
}

static void addresses(void **state)
{
	static struct url url;
	const char *why;
	assert_int_equal(url_parse_address("proxy.example.org:3128", &url, &why), STATUS_OK);
	assert_string_equal(url.host, "proxy.example.org");
	assert_int_equal(url.port, 3128);
	assert_int_equal(url_parse_address("[2001:db8::1]:3128", &url, &why), STATUS_OK);
	assert_string_equal(url.host, "2001:db8::1");
	static const char *const bad[] = { "", "proxy", ":3128", "proxy:", "proxy:0", "http://proxy:3128", "proxy:3128/", "user@proxy:1", "[::1]", "2001:db8::1:3128" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (url_parse_address(bad[i], &url, &why) == STATUS_OK)
			fail_msg("%s was taken", bad[i]);
}

static void the_request_to_a_proxy(void **state)
{
	struct secret password = SECRET_EMPTY, request = SECRET_EMPTY;
	assert_int_equal(proxy_request("reset.example.org:443", NULL, &password, &request), STATUS_OK);
	static const char plain[] = "CONNECT reset.example.org:443 HTTP/1.1\r\nHost: reset.example.org:443\r\nUser-Agent: writebackd/" WRITEBACKD_VERSION "\r\n\r\n";
	assert_int_equal(request.size, sizeof plain - 1);
	assert_memory_equal(request.data, plain, sizeof plain - 1);
	secret_wipe(&request);

	assert_int_equal(secret_from(bytes_of_string("open sesame"), &password), STATUS_OK);
	assert_int_equal(proxy_request("a:443", "Aladdin", &password, &request), STATUS_OK);
	static const char basic[] = "\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"; /* RFC 7617, section 2 */
	assert_true(request.size > sizeof basic);
	assert_memory_equal(request.data + request.size - (sizeof basic - 1), basic, sizeof basic - 1);
	secret_wipe(&request);
	secret_wipe(&password);

	static char long_password[4096];
	memset(long_password, 'p', sizeof long_password);
	assert_int_equal(secret_from(bytes_of(long_password, sizeof long_password), &password), STATUS_OK);
	assert_int_equal(proxy_request("a:443", "u", &password, &request), STATUS_OK);
	secret_wipe(&request);
	secret_wipe(&password);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(urls), cmocka_unit_test(urls_are_bounded), cmocka_unit_test(addresses), cmocka_unit_test(the_request_to_a_proxy),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
