#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <string.h>
#include <sys/queue.h>

#include "service/http.h"

struct fault { const char *headers[4][2]; bool good; };

static void headers(void **state)
{
	static const struct fault faults[] = {
		{ { { "Host", "x" } }, true },
		{ { { "host", "x" }, { "Content-Length", "0" } }, true },
		{ { { "Host", "x" }, { "Transfer-Encoding", "chunked" } }, true },
		{ { { "Content-Length", "2" } }, false },
		{ { { "Host", "x" }, { "HOST", "x" } }, false },
		{ { { "Host", "x" }, { "Content-Length", "2" }, { "content-length", "2" } }, false },
		{ { { "Host", "x" }, { "Content-Length", "+2" } }, false },
		{ { { "Host", "x" }, { "Content-Length", "-2" } }, false },
		{ { { "Host", "x" }, { "Content-Length", "" } }, false },
		{ { { "Host", "x" }, { "Content-Length", "2 " } }, false },
		{ { { "Host", "x" }, { "Content-Length", "2, 2" } }, false },
		{ { { "Host", "x" }, { "Content-Length", "0x2" } }, false },
		{ { { "Host", "x" }, { "Content-Length", "99999999999" } }, false },
		{ { { "Host", "x" }, { "Content-Length", "2" }, { "Transfer-Encoding", "chunked" } }, false },
		{ { { "Host", "x" }, { "Transfer-Encoding", "chunked" }, { "Transfer-Encoding", "gzip" } }, false },
		{ { { "Host", "x" }, { "Transfer-Encoding", "Chunked" } }, true },
		{ { { "Host", "x" }, { "Transfer-Encoding", "xchunked" } }, false },
		{ { { "Host", "x" }, { "Transfer-Encoding", "gzip, chunked" } }, false },
		{ { { "Host", "x" }, { "Transfer-Encoding", "chunked, identity" } }, false },
		{ { { "Host", "x" }, { "Transfer-Encoding", "identity" } }, false },
		{ { { "Host", "x" }, { "Transfer-Encoding", "" } }, false },
		{ { { "Host", "x" }, { "Content-Length ", "2" } }, false },
		{ { { "Host", "x" }, { "\tX", "2" } }, false },
		{ { { "Host", "x" }, { "", "2" } }, false },
	};
	for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
		struct evkeyvalq queue;
		struct evkeyval rows[4];
		TAILQ_INIT(&queue);
		for (size_t j = 0; j < 4 && faults[i].headers[j][0] != NULL; j++) {
			rows[j].key = (char *)faults[i].headers[j][0];
			rows[j].value = (char *)faults[i].headers[j][1];
			TAILQ_INSERT_TAIL(&queue, &rows[j], next);
		}
		if (faults[i].good)
			assert_null(http_headers_fault(&queue));
		else
			assert_non_null(http_headers_fault(&queue));
	}
}

#define ID "6f9619ff-8b86-4011-b42d-00c04fc964ff"

static void paths(void **state)
{
	char parameter[UUID_SIZE];
	assert_true(http_path_matches("/v1/agents", "/v1/agents", parameter));
	assert_string_equal(parameter, "");
	assert_true(http_path_matches("/v1/agents/{}", "/v1/agents/" ID, parameter));
	assert_string_equal(parameter, ID);
	assert_true(http_path_matches("/v1/{}/x", "/v1/" ID "/x", parameter));
	static const char *const bad[] = { "", "/", "/v1/agents", "/v1/agents/", "/v1/agents/" ID "/", "/v1/agents/" ID "x", "/v1/agents/" ID "?a=1", "/v1//agents/" ID, "/v1/agents/{}",
		"/v1/agents/6F9619FF-8B86-4011-B42D-00C04FC964FF", "/v1/agents/6f9619ff-8b86-4011-b42d-00c04fc964f", "/v1/agents/../agents/" ID, "x/v1/agents/" ID,
		"https://h/v1/agents/" ID, "/v1/agents/6f9619ff%2d8b86-4011-b42d-00c04fc96", NULL };
	for (size_t i = 0; bad[i] != NULL; i++)
		assert_false(http_path_matches("/v1/agents/{}", bad[i], parameter));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(headers), cmocka_unit_test(paths) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
