/* enroll: what answers at an issuer's address while writebackctl enrolls: the discovery document, a NUL, the answer to the ticket. The first byte chooses how it is asked and with which status it
 * answers. The ticket goes nowhere but to that origin, the agent is told only of what the ticket's thumbprint vouches for, and what is shown commands no terminal. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/ctl/agent_call.h"
#include "agent/ctl/enroll.h"
#include "base/bytes.h"
#include "proto/jose.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ISSUER "https://reset.example"
#define ROOT "si4H8QrzHdA8eQR2KHTIdOGKb87_sqV_ofMh_JWS2kg" /* the root key of the test vectors */
enum { WITH_JSON = 1, WITH_REPLACE = 2, WITH_IDENTITY = 4, DISCOVERY_MISSING = 8, TICKET_REFUSED = 16, ANSWER_BUSY = 32, AGENT_REFUSES = 64 };

static struct {
	unsigned with, asked;
	const char *documents[2];
	bool finished;
} scene;

static void must(bool truth)
{
	if (!truth)
		abort();
}

enum status https_request(const struct https_options *options, const char *url, const char *body, const char *content_type, long *ret_http_status, char **ret_body, char *why, size_t capacity)
{
	must(scene.asked < 2 && strncmp(url, ISSUER "/", strlen(ISSUER "/")) == 0 && (scene.asked == 1) == (body != NULL));
	*ret_http_status = scene.asked == 0 ? (scene.with & DISCOVERY_MISSING ? 404 : 200) : scene.with & TICKET_REFUSED ? 401 : scene.with & ANSWER_BUSY ? 503 : 201;
	*ret_body = strdup(scene.documents[scene.asked++]);
	return STATUS_OK;
}

static json_t *begin(const json_t *input)
{
	struct jose_key *root = NULL;
	must(jose_key_from_jwk(json_object_get(input, "root_key"), JOSE_SIGN, false, &root) == STATUS_OK && strcmp(jose_key_id(root), ROOT) == 0);
	jose_key_free(root);
	return json_pack("{s:s,s:s,s:s}", "jws", "a.b.c", "signing_key", ROOT, "decryption_key", ROOT);
}

enum status agent_call(const char *socket_path, json_t *take_input, json_t **ret_answer)
{
	const char *command = json_string_value(json_object_get(take_input, "command"));
	if (strcmp(command, "status") == 0)
		*ret_answer = json_pack("{s:o*,s:{s:[{s:s}]}}", "identity", scene.with & WITH_IDENTITY ? json_pack("{s:s,s:s}", "agent_id", "6f9619ff-8b86-4011-b42d-00cf4fc964ff", "issuer", ISSUER) : NULL,
		                        "channel", "endpoints", "url", "wss://reset.example/v1/agent");
	else if (strcmp(command, "enroll-begin") == 0)
		*ret_answer = begin(take_input);
	else if (scene.with & AGENT_REFUSES)
		*ret_answer = json_pack("{s:s,s:s}", "error", "local.trust", "text", "the service's key set is not signed by its root key");
	else
		*ret_answer = json_object();
	scene.finished |= strcmp(command, "enroll-finish") == 0 && (scene.with & AGENT_REFUSES) == 0;
	json_decref(take_input);
	return STATUS_OK;
}

static char ticket_file[] = "/dev/shm/fuzz-ticket-XXXXXX";

static void remove_ticket(void)
{
	unlink(ticket_file);
}

static void start(void)
{
	static const char ticket[] = "wbt_2giEc5rp2zlTI_BSPHUAv_eU_2i402syGrcOcHuLKA0." ROOT;
	int fd = mkstemp(ticket_file);
	must(fd >= 0 && write(fd, ticket, strlen(ticket)) == (ssize_t)strlen(ticket) && close(fd) == 0);
	atexit(remove_ticket);
}

static void check_shown(const char *text, size_t size)
{
	for (size_t i = 0; i < size; i++)
		must((unsigned char)text[i] >= 0x20 ? text[i] != 0x7f && !((unsigned char)text[i] == 0xc2 && (unsigned char)text[i + 1] < 0xa0) : text[i] == '\n');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool started;
	FILE *const output = stdout, *const errors = stderr;
	AUTO_FREE char *text = NULL, *said = NULL, *shown = NULL;
	size_t said_size = 0, shown_size = 0;
	if (!started)
		start();
	started = true;
	if (size < 1 || size > 1 << 16)
		return 0;
	text = calloc(1, size + 1);
	must(text != NULL);
	memcpy(text, data + 1, size - 1);
	size_t first = strlen(text);
	scene.with = data[0];
	scene.asked = 0;
	scene.finished = false;
	scene.documents[0] = text;
	scene.documents[1] = first < size - 1 ? text + first + 1 : "";
	const struct enroll_options options = { .socket_path = AGENT_SOCKET, .issuer = ISSUER, .ticket_file = ticket_file, .json = data[0] & WITH_JSON, .replace = data[0] & WITH_REPLACE };
	stdout = open_memstream(&shown, &shown_size);
	stderr = open_memstream(&said, &said_size);
	must(stdout != NULL && stderr != NULL);
	int failed = enroll(&options);
	must(fclose(stdout) == 0 && fclose(stderr) == 0);
	stdout = output;
	stderr = errors;
	check_shown(shown, shown_size);
	check_shown(said, said_size);
	must((failed == 0) == scene.finished && (failed == 0) == (said_size == 0));
	return 0;
}
