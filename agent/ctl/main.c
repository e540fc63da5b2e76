/* writebackctl: what administrators type. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "agent/ctl/agent_call.h"
#include "agent/ctl/enroll.h"
#include "base/secret.h"

#define EXIT_DEGRADED 1
#define EXIT_NOT_RUNNING 3

struct options {
	bool json;
	const char *user, *directory, *last;
	struct enroll_options enroll;
};

struct command {
	const char *name;
	int (*run)(struct options *options, const char *argument);
	bool wants_argument;
};

static const char usage[] =
	"Usage: writebackctl [--socket PATH] [--json] COMMAND\n"
	"  status                     is the agent ready? exit status 0 ready, 1 degraded, 3 not running\n"
	"  check [--user NAME] [--directory NAME]\n"
	"                             try everything that a reset needs; with --user: could this user be reset?\n"
	"  enroll URL [--ticket-file FILE] [--ca-file FILE] [--proxy HOST:PORT] [--name NAME]\n"
	"                             join a reset service; the ticket is asked for where no file is named\n"
	"  resume                     open the latch that stops resets after too many\n"
	"  journal [--last N]         requests and their outcomes\n"
	"  --version, --help\n";

static const char *text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));
	return text ? text : "";
}

static int64_t number_of(const json_t *object, const char *name)
{
	return json_integer_value(json_object_get(object, name));
}

static void print_json(const json_t *json)
{
	json_dumpf(json, stdout, JSON_INDENT(2));
	puts("");
}

/* 0, with the answer; else the exit status, and it is said why. */
static int ask(const struct options *options, json_t *take_input, json_t **ret_answer)
{
	*ret_answer = NULL;
	enum status status = agent_call(options->enroll.socket_path, take_input, ret_answer);
	if (status == STATUS_OK && !json_object_get(*ret_answer, "error"))
		return 0;
	if (status == STATUS_OK) {
		if (options->json)
			print_json(*ret_answer);
		fprintf(stderr, "writebackctl: %s: %s\n", text_of(*ret_answer, "error"), text_of(*ret_answer, "text"));
		json_decref(*ret_answer);
		*ret_answer = NULL;
		return EXIT_DEGRADED;
	}
	if (status == STATUS_LOCAL_PERMISSION)
		fprintf(stderr, "writebackctl: %s: permission denied: run it as root or as the agent's user\n", options->enroll.socket_path);
	else if (status == STATUS_CHANNEL_REFUSED)
		fprintf(stderr, "writebackctl: the agent is not running (%s)\n", options->enroll.socket_path);
	else
		fprintf(stderr, "writebackctl: the agent does not answer: %s\n", status_code(status));
	return status == STATUS_LOCAL_PERMISSION ? EX_NOPERM : EXIT_NOT_RUNNING;
}

/* status ------------------------------------------------------------------------------------------------------------------------------ */

static void print_identity(const json_t *identity)
{
	if (!json_is_object(identity)) {
		puts("Agent      not enrolled: writebackctl enroll");
		return;
	}
	printf("Agent      %s with %s\n", text_of(identity, "agent_id"), text_of(identity, "issuer"));
	const json_t *key_set = json_object_get(identity, "key_set");
	time_t expires = number_of(key_set, "expires");
	char until[32] = "";
	strftime(until, sizeof until, "%Y-%m-%d", gmtime(&expires));
	if (key_set)
		printf("Key set    version %" PRId64 ", until %s\n", number_of(key_set, "version"), until);
}

static void print_status(const json_t *status)
{
	size_t index;
	json_t *row;
	const char *key;
	printf("State      %s%s%s\n", text_of(status, "state"), *text_of(status, "why") ? ": " : "", text_of(status, "why"));
	print_identity(json_object_get(status, "identity"));
	const json_t *channel = json_object_get(status, "channel");
	printf("Channel    %s\n", json_is_true(json_object_get(channel, "attached")) ? "writebackd-channel is connected" : "writebackd-channel is not connected");
	json_array_foreach(json_object_get(channel, "endpoints"), index, row)
		printf("  %-8" PRId64 " %s (%s)\n", number_of(row, "endpoint"), text_of(row, "state"), text_of(row, "text"));
	json_array_foreach(json_object_get(status, "directories"), index, row)
		printf("Directory  %s: %" PRId64 " of %" PRId64 " servers, %s\n", text_of(row, "name"), number_of(row, "servers_up"), number_of(row, "servers"), text_of(row, "text"));
	printf("Requests   %" PRId64 " in flight, %" PRId64 " being settled, %" PRId64 " outcomes not acknowledged%s\n", number_of(status, "in_flight"), number_of(status, "settling"),
	       number_of(json_object_get(status, "journal"), "unacknowledged"), json_is_true(json_object_get(status, "latched")) ? ", LATCHED: writebackctl resume" : "");
	json_object_foreach(json_object_get(status, "counts"), key, row)
		printf("  %-28s %" JSON_INTEGER_FORMAT "\n", key, json_integer_value(row));
}

static int run_status(struct options *options, const char *argument)
{
	json_t *status;
	int failed = ask(options, json_pack("{s:s}", "command", "status"), &status);
	if (failed)
		return failed;
	if (options->json)
		print_json(status);
	else
		print_status(status);
	int result = strcmp(text_of(status, "state"), "ready") == 0 ? 0 : EXIT_DEGRADED;
	json_decref(status);
	return result;
}

/* check ------------------------------------------------------------------------------------------------------------------------------- */

static void print_check(const json_t *answer)
{
	size_t index;
	json_t *row;
	json_array_foreach(json_object_get(answer, "rows"), index, row)
		printf("%-4s %s %s%s%s: %s\n", json_is_true(json_object_get(row, "ok")) ? "ok" : "FAIL", text_of(row, "what"), text_of(row, "server"), *text_of(row, "server") ? " " : "", text_of(row, "step"),
		       text_of(row, "text"));
}

static void print_user(const json_t *answer)
{
	printf("%s: %s\n", text_of(answer, "code"), text_of(answer, "text"));
	static const char *const members[] = { "dn", "guid", "directory", "server", "policy", "policy_control", "diagnostic" };
	for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
		if (*text_of(answer, members[i]))
			printf("  %-14s %s\n", members[i], text_of(answer, members[i]));
	if (json_is_true(json_object_get(answer, "locked")))
		puts("  locked         yes");
}

static int run_check(struct options *options, const char *argument)
{
	json_t *answer;
	json_t *input = options->user ? json_pack("{s:s,s:s,s:s?}", "command", "check-user", "user", options->user, "directory", options->directory) : json_pack("{s:s}", "command", "check");
	if (!input) {
		fputs("writebackctl: the user's name is not UTF-8\n", stderr);
		return EX_USAGE;
	}
	int failed = ask(options, input, &answer);
	if (failed)
		return failed;
	if (options->json)
		print_json(answer);
	else if (options->user)
		print_user(answer);
	else
		print_check(answer);
	int result = json_is_true(json_object_get(answer, "ok")) ? 0 : EXIT_DEGRADED;
	json_decref(answer);
	return result;
}

/* The rest ---------------------------------------------------------------------------------------------------------------------------- */

static int run_enroll(struct options *options, const char *argument)
{
	options->enroll.issuer = argument;
	options->enroll.json = options->json;
	return enroll(&options->enroll);
}

static int run_resume(struct options *options, const char *argument)
{
	json_t *answer;
	int failed = ask(options, json_pack("{s:s}", "command", "resume"), &answer);
	if (failed)
		return failed;
	if (options->json)
		print_json(answer);
	else
		puts(json_is_true(json_object_get(answer, "was_latched")) ? "The latch is open again." : "The latch was open; the counts of the last hour are forgotten.");
	json_decref(answer);
	return 0;
}

static int run_journal(struct options *options, const char *argument)
{
	json_t *answer, *row;
	size_t index;
	json_int_t last = options->last ? atoi(options->last) : 50;
	int failed = ask(options, json_pack("{s:s,s:I}", "command", "journal", "last", last), &answer);
	if (failed)
		return failed;
	if (options->json)
		print_json(answer);
	else
		json_array_foreach(json_object_get(answer, "entries"), index, row)
			printf("%s %-7s %-24s %s user %s%s%s%s\n", text_of(row, "at"), text_of(row, "op"), *text_of(row, "code") ? text_of(row, "code") : text_of(row, "state"), text_of(row, "operation_id"),
			       *text_of(row, "user") ? text_of(row, "user") : "-", *text_of(row, "server") ? " on " : "", text_of(row, "server"), json_is_true(json_object_get(row, "acknowledged")) ? "" : " (not acknowledged)");
	json_decref(answer);
	return 0;
}

static const struct command commands[] = {
	{ "status", run_status, false }, { "check", run_check, false }, { "enroll", run_enroll, true }, { "resume", run_resume, false }, { "journal", run_journal, false },
};

static int fail_usage(void)
{
	fputs(usage, stderr);
	return EX_USAGE;
}

static int run(struct options *options, int count, char **words)
{
	for (size_t i = 0; count > 0 && i < sizeof commands / sizeof commands[0]; i++)
		if (strcmp(commands[i].name, words[0]) == 0)
			return count != 1 + commands[i].wants_argument ? fail_usage() : commands[i].run(options, words[1]);
	return fail_usage();
}

int main(int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "socket", required_argument, NULL, 's' },    { "json", no_argument, NULL, 'j' },           { "user", required_argument, NULL, 'u' },  { "directory", required_argument, NULL, 'd' },
		{ "ticket-file", required_argument, NULL, 't' }, { "ca-file", required_argument, NULL, 'c' }, { "proxy", required_argument, NULL, 'p' }, { "name", required_argument, NULL, 'n' },
		{ "last", required_argument, NULL, 'l' },      { "version", no_argument, NULL, 'v' },        { "help", no_argument, NULL, 'h' },        { 0 },
	};
	struct options options = { .enroll.socket_path = AGENT_SOCKET };
	int option;
	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		switch (option) {
		case 's': options.enroll.socket_path = optarg; break;
		case 'j': options.json = true; break;
		case 'u': options.user = optarg; break;
		case 'd': options.directory = optarg; break;
		case 't': options.enroll.ticket_file = optarg; break;
		case 'c': options.enroll.https.ca_file = optarg; break;
		case 'p': options.enroll.https.proxy = optarg; break;
		case 'n': options.enroll.name = optarg; break;
		case 'l': options.last = optarg; break;
		case 'v': puts("writebackctl " WRITEBACKD_VERSION); return 0;
		case 'h': fputs(usage, stdout); return 0;
		default: return fail_usage();
		}
	secret_heap_init();
	secret_json_init();
	return run(&options, argc - optind, argv + optind);
}
