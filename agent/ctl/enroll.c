#include "agent/ctl/enroll.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <termios.h>
#include <unistd.h>

#include "agent/ctl/agent_call.h"
#include "base/clock.h"
#include "base/secret.h"
#include "proto/messages.h"

#define TICKET_SIZE 91
#define TICKET_PREFIX "wbt_"
#define KID_AT (TICKET_SIZE - 43)

static int complain(int exit_status, const char *what, const char *why)
{
	fprintf(stderr, "writebackctl: %s%s%s\n", what, why ? ": " : "", why ? why : "");
	return exit_status;
}

/* The ticket -------------------------------------------------------------------------------------------------------------------------- */

static enum status prompt_ticket(struct secret *ret_ticket)
{
	struct termios before, hidden;
	char line[256];
	FILE *terminal = fopen("/dev/tty", "r+");
	if (!terminal)
		return STATUS_LOCAL_SYSTEM;
	bool changed = tcgetattr(fileno(terminal), &before) == 0;
	hidden = before;
	hidden.c_lflag &= ~(tcflag_t)ECHO;
	if (changed)
		tcsetattr(fileno(terminal), TCSAFLUSH, &hidden);
	fputs("Ticket: ", terminal);
	fflush(terminal);
	bool good = fgets(line, sizeof line, terminal) != NULL;
	if (changed)
		tcsetattr(fileno(terminal), TCSAFLUSH, &before);
	fputc('\n', terminal);
	fclose(terminal);
	enum status status = good ? secret_from(bytes_of(line, strcspn(line, "\r\n")), ret_ticket) : STATUS_LOCAL_INPUT;
	wipe(line, sizeof line);
	return status;
}

/* "-" is standard input. */
static enum status read_ticket(const char *file, struct secret *ret_ticket)
{
	if (!file)
		return prompt_ticket(ret_ticket);
	if (strcmp(file, "-") != 0)
		return secret_read_file(file, ret_ticket);
	char line[256];
	enum status status = fgets(line, sizeof line, stdin) ? secret_from(bytes_of(line, strcspn(line, "\r\n")), ret_ticket) : STATUS_LOCAL_INPUT;
	wipe(line, sizeof line);
	return status;
}

static bool ticket_well_formed(const struct secret *ticket)
{
	return ticket->size == TICKET_SIZE && memcmp(ticket->data, TICKET_PREFIX, 4) == 0 && ticket->data[KID_AT - 1] == '.';
}

/* The service ------------------------------------------------------------------------------------------------------------------------- */

/* The discovery document, believed only as far as the ticket's thumbprint and the root's signature reach. */
static int check_discovery(const struct enroll_options *options, const json_t *document, const char *kid, struct jose_key **ret_root)
{
	const char *issuer = json_string_value(json_object_get(document, "issuer"));
	const char *endpoint = json_string_value(json_object_get(document, "enrollment_endpoint"));
	const char *key_set = json_string_value(json_object_get(document, "key_set"));
	size_t origin = strlen(options->issuer);
	if (!issuer || strcmp(issuer, options->issuer) != 0)
		return complain(EX_PROTOCOL, "the service calls itself by another name", issuer ? issuer : "(none)");
	if (!endpoint || strncmp(endpoint, issuer, origin) != 0 || endpoint[origin] != '/')
		return complain(EX_PROTOCOL, "enrollment_endpoint is missing or of another origin", endpoint);
	if (jose_key_from_jwk(json_object_get(document, "root_key"), JOSE_SIGN, false, ret_root) != STATUS_OK)
		return complain(EX_PROTOCOL, "root_key is malformed", NULL);
	if (strcmp(jose_key_id(*ret_root), kid) != 0)
		return complain(EX_PROTOCOL, "the root key is not the one that the ticket names: this is not the service that made the ticket", jose_key_id(*ret_root));
	struct key_set set = { 0 };
	enum status status = key_set ? key_set_verify(bytes_of_string(key_set), *ret_root, issuer, clock_now_ms() / 1000, &set) : STATUS_LOCAL_INPUT;
	key_set_clear(&set);
	return status == STATUS_OK ? 0 : complain(EX_PROTOCOL, "the key set is not signed by the root key, for another issuer, or expired", NULL);
}

static int fetch(const struct enroll_options *options, const char *url, const char *body, long expected, json_t **ret_document)
{
	char why[512];
	AUTO_FREE char *text = NULL;
	long http_status = 0;
	if (https_request(&options->https, url, body, "application/jose", &http_status, &text, why, sizeof why) != STATUS_OK)
		return complain(EX_UNAVAILABLE, "the service cannot be reached", why);
	json_t *document = jose_json_parse(bytes_of_string(text));
	if (http_status != expected) {
		const char *detail = json_string_value(json_object_get(document, "detail"));
		const char *title = json_string_value(json_object_get(document, "title"));
		fprintf(stderr, "writebackctl: %s answered %ld: %s\n", url, http_status, detail ? detail : title ? title : "(no reason given)");
		json_decref(document);
		return EX_UNAVAILABLE;
	}
	*ret_document = document;
	return json_is_object(document) ? 0 : complain(EX_PROTOCOL, "the answer is not JSON", url);
}

/* The agent --------------------------------------------------------------------------------------------------------------------------- */

static int ask_agent(const struct enroll_options *options, json_t *take_input, json_t **ret_answer)
{
	enum status status = agent_call(options->socket_path, take_input, ret_answer);
	if (status != STATUS_OK)
		return complain(status == STATUS_LOCAL_PERMISSION ? EX_NOPERM : EX_UNAVAILABLE, "the agent does not answer", status_admin_text(status));
	const char *text = json_string_value(json_object_get(*ret_answer, "text"));
	return json_object_get(*ret_answer, "error") ? complain(EX_TEMPFAIL, "the agent refuses", text) : 0;
}

static void show(const struct enroll_options *options, const json_t *begun, const json_t *enrolled)
{
	const json_t *endpoints = json_object_get(enrolled, "channel_endpoints");
	const char *agent_id = json_string_value(json_object_get(enrolled, "agent_id"));
	const char *kid = json_string_value(json_object_get(json_object_get(enrolled, "root_key"), "kid"));
	if (options->json) {
		json_t *out = json_pack("{s:s,s:s,s:s,s:s,s:s,s:O}", "agent_id", agent_id, "issuer", options->issuer, "root_key", kid, "signing_key",
		                        json_string_value(json_object_get(begun, "signing_key")), "decryption_key", json_string_value(json_object_get(begun, "decryption_key")), "channel_endpoints", endpoints);
		json_dumpf(out, stdout, JSON_INDENT(2));
		puts("");
		json_decref(out);
		return;
	}
	printf("Enrolled with %s as %s.\n\nCompare these thumbprints with what the service shows:\n  service root key      %s\n  agent signing key     %s\n  agent decryption key  %s\n\nEndpoints for channel.yaml:\n",
	       options->issuer, agent_id, kid, json_string_value(json_object_get(begun, "signing_key")), json_string_value(json_object_get(begun, "decryption_key")));
	size_t index;
	json_t *endpoint;
	json_array_foreach((json_t *)endpoints, index, endpoint)
		printf("  %s\n", json_string_value(endpoint));
}

static int finish(const struct enroll_options *options, const json_t *begun, const json_t *enrolled, const char *kid)
{
	const char *agent_id = json_string_value(json_object_get(enrolled, "agent_id"));
	const char *key_set = json_string_value(json_object_get(enrolled, "key_set"));
	const char *root = json_string_value(json_object_get(json_object_get(enrolled, "root_key"), "kid"));
	if (!agent_id || !key_set || !root || strcmp(root, kid) != 0 || !json_is_array(json_object_get(enrolled, "channel_endpoints")))
		return complain(EX_PROTOCOL, "the service's answer is malformed, or has another root key", NULL);
	json_t *answer = NULL;
	int failed = ask_agent(options, json_pack("{s:s,s:s,s:s}", "command", "enroll-finish", "agent_id", agent_id, "key_set", key_set), &answer);
	if (!failed)
		show(options, begun, enrolled);
	json_decref(answer);
	return failed;
}

static int exchange(const struct enroll_options *options, const json_t *document, const struct secret *ticket, const char *kid)
{
	char host[256] = "agent", text[TICKET_SIZE + 1];
	gethostname(host, sizeof host - 1);
	host[64] = 0; /* the longest name that the protocol takes */
	memcpy(text, ticket->data, TICKET_SIZE);
	text[TICKET_SIZE] = 0;
	json_t *begun = NULL, *enrolled = NULL;
	int failed = ask_agent(options, json_pack("{s:s,s:s,s:O,s:s,s:s}", "command", "enroll-begin", "issuer", options->issuer, "root_key", json_object_get(document, "root_key"), "ticket", text, "name",
	                                          options->name ? options->name : host), &begun);
	wipe(text, sizeof text);
	const char *jws = json_string_value(json_object_get(begun, "jws"));
	if (!failed)
		failed = fetch(options, json_string_value(json_object_get(document, "enrollment_endpoint")), jws, 201, &enrolled);
	if (!failed)
		failed = finish(options, begun, enrolled, kid);
	json_decref(begun);
	json_decref(enrolled);
	return failed;
}

int enroll(const struct enroll_options *options)
{
	AUTO_SECRET struct secret ticket = SECRET_EMPTY;
	char kid[JOSE_KID_SIZE], url[2048];
	size_t length = strlen(options->issuer);
	if (strncmp(options->issuer, "https://", 8) != 0 || options->issuer[length - 1] == '/')
		return complain(EX_USAGE, "the service's URL must begin with https:// and end without a slash", options->issuer);
	enum status status = read_ticket(options->ticket_file, &ticket);
	if (status != STATUS_OK)
		return complain(status == STATUS_LOCAL_PERMISSION ? EX_NOPERM : EX_NOINPUT, "the ticket cannot be read", status_admin_text(status));
	if (!ticket_well_formed(&ticket))
		return complain(EX_DATAERR, "this is not a ticket (wbt_….…, 91 characters)", NULL);
	memcpy(kid, ticket.data + KID_AT, 43);
	kid[43] = 0;
	snprintf(url, sizeof url, "%s/.well-known/writeback-configuration", options->issuer);
	json_t *document = NULL;
	struct jose_key *root = NULL;
	int failed = fetch(options, url, NULL, 200, &document);
	if (!failed)
		failed = check_discovery(options, document, kid, &root);
	if (!failed)
		failed = exchange(options, document, &ticket, kid);
	jose_key_free(root);
	json_decref(document);
	return failed;
}
