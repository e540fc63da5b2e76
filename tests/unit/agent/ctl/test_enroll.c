/* writebackctl enroll, with what the service and the agent say played: what a stranger at the issuer's address says is shown, and commands no terminal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/ctl/agent_call.h"
#include "agent/ctl/enroll.h"
#include "base/clock.h"
#include "proto/messages.h"

#define ISSUER "https://reset.example"
/* An escape sequence, a line of its own, DEL and a C1 control, as JSON. */
#define COMMANDS "\\u001b[2K\\r\\nwritebackctl: enrolled\\u007f\\u009b1m"

static struct jose_key *root;
static char *key_set, ticket_file[] = "/tmp/test-enroll-XXXXXX";
static const char *discovery;
static char *answer;
static long discovery_status;
static unsigned asked;

enum status https_request(const struct https_options *options, const char *url, const char *body, const char *content_type, long *ret_http_status, char **ret_body, char *why, size_t capacity)
{
	*ret_http_status = asked == 0 ? discovery_status : 201;
	*ret_body = strdup(asked++ == 0 ? discovery : answer);
	return STATUS_OK;
}

enum status agent_call(const char *socket_path, json_t *take_input, json_t **ret_answer)
{
	*ret_answer = strcmp(json_string_value(json_object_get(take_input, "command")), "enroll-begin") == 0 ? json_pack("{s:s}", "jws", "a.b.c") :
	              json_pack("{s:{s:[{s:s}]}}", "channel", "endpoints", "url", "wss://reset.example/v1/agent");
	json_decref(take_input);
	return STATUS_OK;
}

static int set_up(void **state)
{
	struct jose_key *keys[1];
	char ticket[92];
	if (jose_key_generate(JOSE_SIGN, &root) != STATUS_OK || jose_key_generate(JOSE_SIGN, &keys[0]) != STATUS_OK)
		return -1;
	int64_t now = clock_now_ms() / 1000;
	AUTO_FREE char *payload = key_set_build(ISSUER, now, now + 86400, 1, keys, 1);
	jose_key_free(keys[0]);
	snprintf(ticket, sizeof ticket, "wbt_2giEc5rp2zlTI_BSPHUAv_eU_2i402syGrcOcHuLKA0.%s", jose_key_id(root));
	int fd = mkstemp(ticket_file);
	return fd < 0 || write(fd, ticket, strlen(ticket)) != 91 || close(fd) != 0 || jose_sign(root, TYP_KEYS, bytes_of_string(payload), &key_set) != STATUS_OK ? -1 : 0;
}

static int tear_down(void **state)
{
	unlink(ticket_file);
	jose_key_free(root);
	free(key_set);
	return 0;
}

/* The discovery document with these three members, or as a whole where `whole` is there; and the answer with this endpoint. Returns all that was shown. */
static char *enroll_at(const char *issuer, const char *endpoint, const char *whole, int expected)
{
	char *shown = NULL;
	size_t size = 0;
	FILE *const output = stdout, *const errors = stderr;
	AUTO_FREE char *document = NULL;
	json_t *jwk = jose_key_public_jwk(root);
	AUTO_FREE char *key = json_dumps(jwk, JSON_COMPACT);
	json_decref(jwk);
	assert_true(asprintf(&document, "{\"issuer\":\"%s\",\"root_key\":%s,\"key_set\":\"%s\",\"enrollment_endpoint\":\"" ISSUER "/v1/agents\"}", issuer, key, key_set) > 0);
	assert_true(asprintf(&answer, "{\"agent_id\":\"6f9619ff-8b86-4011-b42d-00cf4fc964ff\",\"root_key\":%s,\"key_set\":\"%s\",\"channel_endpoints\":[\"%s\"]}", key, key_set, endpoint) > 0);
	discovery = whole ? whole : document;
	discovery_status = whole ? 404 : 200;
	asked = 0;
	const struct enroll_options options = { .socket_path = AGENT_SOCKET, .issuer = ISSUER, .ticket_file = ticket_file };
	stdout = stderr = open_memstream(&shown, &size);
	int status = enroll(&options);
	fclose(stdout);
	stdout = output;
	stderr = errors;
	free(answer);
	assert_int_equal(status, expected);
	return shown;
}

static void what_the_service_says_is_shown(void **state)
{
	AUTO_FREE char *shown = enroll_at(ISSUER, "wss://reset.example/v1/agent", NULL, 0);
	assert_non_null(strstr(shown, "Enrolled with " ISSUER " as 6f9619ff-8b86-4011-b42d-00cf4fc964ff.\n"));
	assert_non_null(strstr(shown, "\n  wss://reset.example/v1/agent\n"));
	AUTO_FREE char *problem = enroll_at(ISSUER, "", "{\"detail\":\"gone for good\"}", EX_UNAVAILABLE);
	assert_non_null(strstr(problem, " answered 404: gone for good\n"));
}

static void what_the_service_says_commands_no_terminal(void **state)
{
	AUTO_FREE char *endpoint = enroll_at(ISSUER, "wss://a" COMMANDS, NULL, 0);
	assert_non_null(strstr(endpoint, "\n  wss://a?[2K??writebackctl: enrolled???1m\n"));
	AUTO_FREE char *problem = enroll_at(ISSUER, "", "{\"detail\":\"gone" COMMANDS "\"}", EX_UNAVAILABLE);
	assert_string_equal(problem, "writebackctl: " ISSUER "/.well-known/writeback-configuration answered 404: gone?[2K??writebackctl: enrolled???1m\n");
	AUTO_FREE char *issuer = enroll_at("https://other" COMMANDS, "", NULL, EX_PROTOCOL);
	assert_string_equal(issuer, "writebackctl: the service calls itself by another name: https://other?[2K??writebackctl: enrolled???1m\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_the_service_says_is_shown),
		cmocka_unit_test(what_the_service_says_commands_no_terminal),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
