#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "service/settings.h"

static void issuers(void **state)
{
	static const char *const good[] = { "https://reset.example.org", "https://reset.example.org:8443", "https://127.0.0.1:1", "https://[::1]", "https://[2001:db8::1]:65535", NULL };
	static const char *const bad[] = { "", "https://", "http://reset.example.org", "https://reset.example.org/", "https://Reset.example.org", "https://reset.example.org:0",
		"https://reset.example.org:", "https://reset.example.org:65536", "https://reset.example.org:080", "https://u@reset.example.org", "https://reset.example.org?x",
		"https://[::1", "https://[]", "https://[::1]x", "https://[:]", "https://[1.2.3.4]", "https://reset.example.org/base", "https://reset.example.org:8443/", "https://reset example.org", NULL };
	for (size_t i = 0; good[i] != NULL; i++)
		assert_null(settings_issuer_fault(good[i]));
	for (size_t i = 0; bad[i] != NULL; i++)
		assert_non_null(settings_issuer_fault(bad[i]));
}

static void listens(void **state)
{
	static const struct { const char *text, *host; unsigned port; } good[] = { { "127.0.0.1:8443", "127.0.0.1", 8443 }, { "[::1]:0", "::1", 0 }, { "localhost:65535", "localhost", 65535 } };
	static const char *const bad[] = { "", "8443", ":8443", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:8443x", "::1:8443", "[]:1", "[::1:8443", "127.0.0.1:-1",
		"256.0.0.1:80", "1.2.3:80", "[127.0.0.1]:80", "[::g]:80", "a b:80", "https://x:80", NULL };
	char *host;
	unsigned port;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		assert_true(settings_listen_split(good[i].text, &host, &port));
		assert_string_equal(host, good[i].host);
		assert_int_equal(port, good[i].port);
		free(host);
	}
	for (size_t i = 0; bad[i] != NULL; i++)
		assert_false(settings_listen_split(bad[i], &host, &port));
}

static void endpoints(void **state)
{
	static const char *const good[] = { "wss://reset.example.org/v1/agent", "wss://Reset.example.org:8443/v1/agent?x=1", "wss://[::1]:1/", "wss://x", NULL };
	static const char *const bad[] = { "", "wss://", "wss:///v1/agent", "ws://x/v1/agent", "https://x/v1/agent", "wss://x:0/", "wss://x:65536/", "wss://x:/", "wss://u@x/", "wss://[::1/",
		"wss://[x]/", "wss://x/a b", "wss://x/#a", "wss://x y/", NULL };
	for (size_t i = 0; good[i] != NULL; i++)
		assert_null(settings_endpoint_fault(good[i]));
	for (size_t i = 0; bad[i] != NULL; i++)
		assert_non_null(settings_endpoint_fault(bad[i]));
}

static enum status load(const char *text, struct settings *ret_settings)
{
	char path[] = "/tmp/test-settings-XXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
	enum status status = settings_load(path, ret_settings, NULL);
	unlink(path);
	return status;
}

#define REQUIRED "issuer: https://reset.example.org:9443\ntls:\n  certificate_file: /c\n  key_file: /k\n"

static void defaults(void **state)
{
	struct settings settings;
	assert_int_equal(load(REQUIRED, &settings), STATUS_OK);
	assert_int_equal(settings.channel_endpoints.count, 1);
	assert_string_equal(settings.channel_endpoints.items[0], "wss://reset.example.org:9443/v1/agent");
	assert_string_equal(settings.enrollment_endpoint, "https://reset.example.org:9443/v1/agents");
	assert_int_equal(settings.request_lifetime_ms, 30000);
	assert_int_equal(settings.max_body, 65536);
	assert_int_equal(settings.listen_port, 8443);
	assert_int_equal(settings_log_level(&settings), LOG_INFO);
	settings_clear(&settings);
}

static void refused(void **state)
{
	static const char *const more[] = { "request_lifetime: 121s\n", "request_lifetime: 30\n", "wait: 21s\n", "listen: 8443\n", "channel_endpoints: [ws://x/v1/agent]\n", "channel_endpoints: [\"wss://\"]\n",
		"channel_endpoints: [wss://x/v1/agent, wss://y/v1/agent]\n", "unknown: 1\n",
		"limits:\n  body: 1\n", NULL };
	struct settings settings;
	char text[512];
	for (size_t i = 0; more[i] != NULL; i++) {
		snprintf(text, sizeof text, "%s%s", REQUIRED, more[i]);
		assert_int_equal(load(text, &settings), STATUS_LOCAL_CONFIG);
	}
	assert_int_equal(load("issuer: https://reset.example.org\n", &settings), STATUS_LOCAL_CONFIG);
	assert_int_equal(load("issuer: https://reset.example.org/\ntls:\n  certificate_file: /c\n  key_file: /k\n", &settings), STATUS_LOCAL_CONFIG);
}

static unsigned count_keys(void)
{
	unsigned count = 0;
	while (settings_keys[count].path != NULL)
		count++;
	return count;
}

/* Whatever differs, reloadable or not. */
static char *differences(const struct settings *a, const struct settings *b)
{
	unsigned count = count_keys();
	struct config_key *keys = calloc(count + 1, sizeof *keys);
	memcpy(keys, settings_keys, count * sizeof *keys);
	for (unsigned i = 0; i < count; i++)
		keys[i].reloadable = false;
	char *text = config_not_reloadable(keys, a, b);
	free(keys);
	return text;
}

/* Every key that a reload takes is marked so in the sample, on its own line, and no other. */
static void sample_marks(void **state)
{
	char path[512], line[1024], mark[64];
	snprintf(path, sizeof path, "%s/config/reset-service.yaml", getenv("SOURCE_ROOT"));
	FILE *file = fopen(path, "r");
	unsigned marked = 0, reloadable = 0, found = 0;
	assert_non_null(file);
	for (unsigned i = 0; i < count_keys(); i++)
		reloadable += settings_keys[i].reloadable;
	while (fgets(line, sizeof line, file) != NULL) {
		const char *key = line + strspn(line, " ");
		if (strstr(line, "(reload") == NULL || *key == '#')
			continue;
		marked++;
		for (unsigned i = 0; i < count_keys(); i++) {
			const char *dot = strrchr(settings_keys[i].path, '.');
			snprintf(mark, sizeof mark, "%s:", dot != NULL ? dot + 1 : settings_keys[i].path);
			found += settings_keys[i].reloadable && strncmp(key, mark, strlen(mark)) == 0;
		}
	}
	fclose(file);
	assert_int_equal(marked, reloadable);
	assert_int_equal(found, reloadable);
}

static void a_reload_takes_what_is_marked(void **state)
{
	struct settings before, fresh;
	assert_int_equal(load("issuer: https://reset.example.org\ntls:\n  certificate_file: /c\n  key_file: /k\n", &before), STATUS_OK);
	assert_int_equal(load("issuer: https://other.example.org\nlisten: '[::1]:1'\nstate_directory: /s\ntls:\n  certificate_file: /new\n  key_file: /k\nqueue_wait: 1s\nlimits:\n  api_requests: 7\n  body: 1MiB\n"
	                      "log:\n  level: debug\n  format: json\n", &fresh), STATUS_OK);
	AUTO_FREE char *fixed = config_not_reloadable(settings_keys, &before, &fresh);
	assert_string_equal(fixed, "issuer\nlisten\nstate_directory\nchannel_endpoints\nlimits.body\nlog.format\n");
	settings_reload(&before, &fresh);
	assert_null(fresh.issuer);
	assert_string_equal(before.issuer, "https://reset.example.org");
	assert_string_equal(before.listen_host, "127.0.0.1");
	assert_string_equal(before.certificate_file, "/new");
	assert_int_equal(before.queue_wait_ms, 1000);
	assert_int_equal(before.api_requests, 7);
	assert_int_equal(before.max_body, 65536);
	assert_int_equal(settings_log_level(&before), LOG_DEBUG);
	assert_int_equal(before.log_format, 0);
	settings_clear(&before);
}

/* The sample that is shipped says what the program does where it says nothing. */
static void sample(void **state)
{
	char path[512];
	struct settings given, initial;
	snprintf(path, sizeof path, "%s/config/reset-service.yaml", getenv("SOURCE_ROOT"));
	assert_int_equal(settings_load(path, &given, NULL), STATUS_OK);
	assert_int_equal(load("issuer: https://reset.example.org\ntls:\n  certificate_file: /etc/reset-service/tls.crt\n  key_file: /etc/reset-service/tls.key\n", &initial), STATUS_OK);
	assert_null(differences(&given, &initial));
	settings_clear(&given);
	settings_clear(&initial);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(issuers), cmocka_unit_test(listens), cmocka_unit_test(endpoints), cmocka_unit_test(defaults), cmocka_unit_test(refused), cmocka_unit_test(sample),
		cmocka_unit_test(sample_marks), cmocka_unit_test(a_reload_takes_what_is_marked) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
