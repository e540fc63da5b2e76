#include "agent/ctl/enroll.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "agent/ctl/agent_call.h"
#include "agent/ctl/report.h"
#include "base/clock.h"
#include "base/secret.h"
#include "config/file.h"
#include "proto/messages.h"

#define TICKET_SIZE 91
#define TICKET_PREFIX "wbt_"
#define KID_AT (TICKET_SIZE - 43)
#define ENDPOINT_TRIES 30

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

static enum status read_standard_input(struct secret *ret_ticket)
{
	char line[256];
	enum status status = fgets(line, sizeof line, stdin) ? secret_from(bytes_of(line, strcspn(line, "\r\n")), ret_ticket) : STATUS_LOCAL_INPUT;
	wipe(line, sizeof line);
	return status;
}

static int read_ticket(const struct enroll_options *options, struct secret *ret_ticket)
{
	const char *file = options->ticket_file;
	char why[512];
	if (file && strcmp(file, "-") != 0) {
		bool fault = file_secret_fault(file, why, sizeof why);
		if (!fault && secret_read_file(file, ret_ticket) == STATUS_OK)
			return 0;
		return report(options->json, EX_NOINPUT, "ticket", "the ticket's file %s", fault ? why : "cannot be read");
	}
	if (file || !isatty(STDIN_FILENO))
		return read_standard_input(ret_ticket) == STATUS_OK ? 0 : report(options->json, EX_NOINPUT, "ticket", "there is no ticket on standard input: pipe it in, or use --ticket-file FILE");
	return prompt_ticket(ret_ticket) == STATUS_OK ? 0 : report(options->json, EX_NOINPUT, "ticket", "there is no terminal to ask for the ticket: pipe it in, or use --ticket-file FILE");
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
		return report(options->json, EX_PROTOCOL, "discovery", "the service calls itself by another name: %s", issuer ? issuer : "(none)");
	if (!endpoint || strncmp(endpoint, issuer, origin) != 0 || endpoint[origin] != '/')
		return report(options->json, EX_PROTOCOL, "discovery", "enrollment_endpoint is missing or of another origin: %s", endpoint ? endpoint : "(none)");
	if (jose_key_from_jwk(json_object_get(document, "root_key"), JOSE_SIGN, false, ret_root) != STATUS_OK)
		return report(options->json, EX_PROTOCOL, "discovery", "the service's root_key is malformed");
	if (strcmp(jose_key_id(*ret_root), kid) != 0)
		return report(options->json, EX_PROTOCOL, "root_key", "the root key is not the one that the ticket names: this is not the service that made the ticket: %s", jose_key_id(*ret_root));
	struct key_set set = { 0 };
	enum status status = key_set ? key_set_verify(bytes_of_string(key_set), *ret_root, issuer, clock_now_ms() / 1000, &set) : STATUS_LOCAL_INPUT;
	key_set_clear(&set);
	return status == STATUS_OK ? 0 : report(options->json, EX_PROTOCOL, "key_set", "the key set is not signed by the root key, for another issuer, or expired");
}

static int report_unreachable(const struct enroll_options *options, enum status status, const char *why)
{
	const char *hint = status != STATUS_TLS_UNTRUSTED ? "" : options->https.ca_file ? ": --ca-file does not hold the CA of the service's certificate" : ": name the CA of the service's certificate with --ca-file";
	return report(options->json, EX_UNAVAILABLE, status_code(status), "the service cannot be reached: %s%s", why, hint);
}

static int report_answer(const struct enroll_options *options, const char *url, long http_status, const json_t *document)
{
	const char *detail = text_of(document, "detail"), *title = text_of(document, "title");
	if (http_status == 401)
		return report(options->json, EX_NOPERM, "ticket", "the service does not take the ticket: unknown, used or expired: make a new one with 'reset-service ticket'");
	return report(options->json, EX_UNAVAILABLE, "http", "%s answered %ld: %s", url, http_status, *detail ? detail : *title ? title : "(no reason given)");
}

static int fetch(const struct enroll_options *options, const char *url, const char *body, long expected, json_t **ret_document)
{
	char why[512];
	AUTO_FREE char *text = NULL;
	long http_status = 0;
	enum status status = https_request(&options->https, url, body, "application/jose", &http_status, &text, why, sizeof why);
	if (status != STATUS_OK)
		return report_unreachable(options, status, why);
	json_t *document = jose_json_parse(bytes_of_string(text));
	plain_strings(document);
	if (http_status != expected) {
		int failed = report_answer(options, url, http_status, document);
		json_decref(document);
		return failed;
	}
	*ret_document = document;
	return json_is_object(document) ? 0 : report(options->json, EX_PROTOCOL, "http", "%s: the answer is not JSON", url);
}

/* The agent --------------------------------------------------------------------------------------------------------------------------- */

static int ask(const struct enroll_options *options, json_t *take_input, json_t **ret_answer)
{
	return ask_agent(options->json, options->socket_path, take_input, ret_answer);
}

/* Who this is before: the agent's status. */
static int look_at_agent(const struct enroll_options *options, json_t **ret_status)
{
	int failed = ask(options, json_pack("{s:s}", "command", "status"), ret_status);
	const json_t *identity = json_object_get(*ret_status, "identity");
	if (failed || !json_is_object(identity) || options->replace)
		return failed;
	return report(options->json, EX_NOPERM, "enrolled", "this agent is enrolled already, as %s with %s. To make another agent of it use --replace, and revoke the old one at its service ('reset-service revoke %s')",
	              text_of(identity, "agent_id"), text_of(identity, "issuer"), text_of(identity, "agent_id"));
}

/* What the channel is configured with, as soon as it has tried: it is told of the enrolment at this moment. NULL: it has not said so in time. */
static json_t *configured_endpoints(const struct enroll_options *options)
{
	for (int tries = 0; tries < ENDPOINT_TRIES; tries++) {
		json_t *status = NULL, *row, *urls = json_array();
		size_t index;
		if (agent_call(options->socket_path, json_pack("{s:s}", "command", "status"), &status) == STATUS_OK)
			json_array_foreach(json_object_get(json_object_get(status, "channel"), "endpoints"), index, row)
				if (*text_of(row, "url"))
					json_array_append(urls, json_object_get(row, "url"));
		json_decref(status);
		if (json_array_size(urls) > 0)
			return urls;
		json_decref(urls);
		nanosleep(&(struct timespec){ 0, 100000000 }, NULL);
	}
	return NULL;
}

static bool among(const json_t *list, const char *url)
{
	size_t index;
	json_t *item;
	json_array_foreach((json_t *)list, index, item)
		if (json_is_string(item) && strcmp(json_string_value(item), url) == 0)
			return true;
	return false;
}

/* "" where channel.yaml and the service agree. */
static const char *compare_endpoints(const json_t *configured, const json_t *wanted)
{
	size_t index;
	json_t *item;
	if (!configured)
		return "writebackd-channel has not connected yet: see that its channel.yaml names these endpoints, and that it runs";
	json_array_foreach((json_t *)configured, index, item)
		if (!among(wanted, json_string_value(item)))
			return "channel.yaml names other endpoints than the service does: correct it, then 'systemctl reload writebackd-channel'";
	return json_array_size(configured) < json_array_size(wanted) ? "channel.yaml names fewer endpoints than the service does: add the missing ones" : "";
}

static void show_text(const struct enroll_options *options, const json_t *begun, const json_t *enrolled, const json_t *configured, const json_t *former)
{
	const json_t *endpoints = json_object_get(enrolled, "channel_endpoints");
	size_t index;
	json_t *endpoint;
	printf("Enrolled with %s as %s.\n\nCompare these thumbprints with what the service shows:\n  service root key      %s\n  agent signing key     %s\n  agent decryption key  %s\n\nEndpoints for channel.yaml:\n",
	       options->issuer, text_of(enrolled, "agent_id"), text_of(json_object_get(enrolled, "root_key"), "kid"), text_of(begun, "signing_key"), text_of(begun, "decryption_key"));
	json_array_foreach((json_t *)endpoints, index, endpoint)
		printf("  %s\n", json_is_string(endpoint) ? json_string_value(endpoint) : "");
	const char *difference = compare_endpoints(configured, endpoints);
	if (*difference)
		printf("\n%s.\n", difference);
	json_array_foreach((json_t *)configured, index, endpoint)
		if (*difference)
			printf("  now: %s\n", json_string_value(endpoint));
	if (json_is_object(former))
		printf("\nThis agent was %s with %s before: revoke that one there ('reset-service revoke %s').\n", text_of(former, "agent_id"), text_of(former, "issuer"), text_of(former, "agent_id"));
}

static void show(const struct enroll_options *options, const json_t *begun, const json_t *enrolled, const json_t *former)
{
	const json_t *endpoints = json_object_get(enrolled, "channel_endpoints");
	json_t *configured = configured_endpoints(options);
	if (options->json) {
		json_t *out = json_pack("{s:s,s:s,s:s,s:s,s:s,s:O,s:O?,s:s,s:O?}", "agent_id", text_of(enrolled, "agent_id"), "issuer", options->issuer, "root_key", text_of(json_object_get(enrolled, "root_key"), "kid"),
		                        "signing_key", text_of(begun, "signing_key"), "decryption_key", text_of(begun, "decryption_key"), "channel_endpoints", endpoints, "configured_endpoints", configured,
		                        "endpoints_differ", compare_endpoints(configured, endpoints), "replaced", json_is_object(former) ? former : NULL);
		print_json(out);
		json_decref(out);
	} else
		show_text(options, begun, enrolled, configured, former);
	json_decref(configured);
}

static int finish(const struct enroll_options *options, const json_t *begun, const json_t *enrolled, const char *kid, const json_t *former)
{
	const char *agent_id = json_string_value(json_object_get(enrolled, "agent_id"));
	const char *key_set = json_string_value(json_object_get(enrolled, "key_set"));
	const char *root = json_string_value(json_object_get(json_object_get(enrolled, "root_key"), "kid"));
	if (!agent_id || !key_set || !root || strcmp(root, kid) != 0 || !json_is_array(json_object_get(enrolled, "channel_endpoints")))
		return report(options->json, EX_PROTOCOL, "answer", "the service's answer is malformed, or has another root key");
	json_t *answer = NULL;
	int failed = ask(options, json_pack("{s:s,s:s,s:s,s:s}", "command", "enroll-finish", "signing_key", text_of(begun, "signing_key"), "agent_id", agent_id, "key_set", key_set), &answer);
	if (!failed)
		show(options, begun, enrolled, former);
	json_decref(answer);
	return failed;
}

static int exchange(const struct enroll_options *options, const json_t *document, const struct secret *ticket, const char *kid, const json_t *former)
{
	char host[256] = "agent", text[TICKET_SIZE + 1];
	gethostname(host, sizeof host - 1);
	host[64] = 0; /* the longest name that the protocol takes */
	memcpy(text, ticket->data, TICKET_SIZE);
	text[TICKET_SIZE] = 0;
	json_t *begun = NULL, *enrolled = NULL;
	int failed = ask(options, json_pack("{s:s,s:s,s:O,s:s,s:s,s:b}", "command", "enroll-begin", "issuer", options->issuer, "root_key", json_object_get(document, "root_key"), "ticket", text, "name",
	                                          options->name ? options->name : host, "replace", options->replace), &begun);
	wipe(text, sizeof text);
	const char *jws = json_string_value(json_object_get(begun, "jws"));
	if (!failed)
		failed = fetch(options, json_string_value(json_object_get(document, "enrollment_endpoint")), jws, 201, &enrolled);
	if (!failed)
		failed = finish(options, begun, enrolled, kid, former);
	json_decref(begun);
	json_decref(enrolled);
	return failed;
}

/* https://host or https://host:port, and nothing behind it: what is signed and compared is this text. */
static const char *url_fault(const char *url)
{
	if (strncmp(url, "https://", 8) != 0)
		return "it must begin with https://";
	const char *host = url + 8;
	if (!*host || *host == ':')
		return "it names no host";
	if (strchr(host, '@'))
		return "it must not hold a user name";
	if (strpbrk(host, "?#"))
		return "it must not have a query";
	if (strchr(host, '/'))
		return strcmp(strchr(host, '/'), "/") == 0 ? "it must end without a slash" : "it must not have a path: https://host or https://host:port";
	return strpbrk(host, " \t\"'<>\\,") ? "it holds a character that no host name has" : NULL;
}

static int run(const struct enroll_options *options, const struct secret *ticket, const json_t *former)
{
	char kid[JOSE_KID_SIZE], url[2048];
	memcpy(kid, ticket->data + KID_AT, 43);
	kid[43] = 0;
	snprintf(url, sizeof url, "%s/.well-known/writeback-configuration", options->issuer);
	json_t *document = NULL;
	struct jose_key *root = NULL;
	int failed = fetch(options, url, NULL, 200, &document);
	if (!failed)
		failed = check_discovery(options, document, kid, &root);
	if (!failed)
		failed = exchange(options, document, ticket, kid, former);
	jose_key_free(root);
	json_decref(document);
	return failed;
}

int enroll(const struct enroll_options *options)
{
	AUTO_SECRET struct secret ticket = SECRET_EMPTY;
	char why[512];
	const char *fault = url_fault(options->issuer);
	if (fault)
		return report(options->json, EX_USAGE, "usage", "%s is not the URL of a service: %s", options->issuer, fault);
	if (options->https.ca_file && file_plain_fault(options->https.ca_file, why, sizeof why))
		return report(options->json, EX_NOINPUT, "ca_file", "--ca-file: %s", why);
	json_t *status = NULL;
	int failed = look_at_agent(options, &status);
	if (!failed)
		failed = read_ticket(options, &ticket);
	if (!failed && !ticket_well_formed(&ticket))
		failed = report(options->json, EX_DATAERR, "ticket", "this is not a ticket (wbt_….…, 91 characters)%s%s", options->ticket_file ? ": " : "", options->ticket_file ? options->ticket_file : "");
	if (!failed)
		failed = run(options, &ticket, json_object_get(status, "identity"));
	json_decref(status);
	return failed;
}
