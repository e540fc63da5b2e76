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
#include "agent/ctl/report.h"
#include "base/secret.h"

struct options {
	bool json;
	const char *user, *directory, *last;
	struct enroll_options enroll;
};

struct command {
	const char *name;
	int (*run)(struct options *options, const char *argument);
	const char *argument; /* what it is, for whoever leaves it out; NULL: it takes none */
};

static const char usage[] =
	"Usage: writebackctl [--socket PATH] [--json] COMMAND\n"
	"  status                     is the agent ready?\n"
	"  check [--directory NAME]   try everything that a reset needs\n"
	"  check --user NAME [--directory NAME]\n"
	"                             could this user be reset now, and has the agent's account each right that it needs, with the commands that grant what is missing?\n"
	"                             NAME: a userPrincipalName, DOMAIN\\name, an account name or an objectGUID; flavor ldap: a uid or an entryUUID\n"
	"  explain NAME [--directory NAME]\n"
	"                             why this user can or cannot be reset: scope, protection, state, lock, password, policy, and when the next change is possible\n"
	"  enroll URL [--ticket-file FILE] [--ca-file FILE] [--proxy HOST:PORT] [--name NAME] [--replace]\n"
	"                             join a reset service. The ticket comes from FILE, else from standard input, else from a prompt.\n"
	"                             --replace: become another agent where this one is enrolled already\n"
	"  rotate-keys                replace the agent's own keys now, and show the old and the new ones\n"
	"  resume                     allow resets again after there were too many, and trying passwords after too many wrong ones\n"
	"  journal [--last N]         requests and their outcomes; N: 1 to 120\n"
	"  --version, --help\n"
	"With --json, standard output is one JSON object, also where something fails ({\"error\", \"text\"}).\n"
	"Exit status: 0 good; 1 degraded, a check failed, or the agent refuses; 3 the agent is not running; 64 wrong usage; 65 not a ticket; 66 a file is missing;\n"
	"69 the service cannot be reached; 76 it answers what it should not; 77 not permitted: the socket, the ticket, or enrolled already\n";

static int64_t number_of(const json_t *object, const char *name)
{
	return json_integer_value(json_object_get(object, name));
}

static int ask(const struct options *options, json_t *take_input, json_t **ret_answer)
{
	return ask_agent(options->json, options->enroll.socket_path, take_input, ret_answer);
}

/* status ------------------------------------------------------------------------------------------------------------------------------ */

static void print_identity(const json_t *identity)
{
	if (!json_is_object(identity)) {
		puts("Agent      not enrolled");
		return;
	}
	printf("Agent      %s with %s\n", text_of(identity, "agent_id"), text_of(identity, "issuer"));
	const json_t *key_set = json_object_get(identity, "key_set");
	time_t expires = number_of(key_set, "expires");
	char until[32] = "";
	strftime(until, sizeof until, "%Y-%m-%d", gmtime(&expires));
	const json_t *keys = json_object_get(identity, "keys");
	if (keys)
		printf("Keys       %" PRId64 " days old, files %s%s%s\n", number_of(keys, "age_days"), json_is_true(json_object_get(keys, "wrapped")) ? "wrapped" : "plain", *text_of(keys, "rotation") ? "; " : "",
		       text_of(keys, "rotation"));
	if (key_set)
		printf("Key set    version %" PRId64 ", until %s\n", number_of(key_set, "version"), until);
}

/* "* dc1.corp.example.com (site Berlin, PDC): ready"; the star is where the next request goes. */
static void print_servers(const json_t *servers)
{
	size_t index;
	json_t *row;
	json_array_foreach(servers, index, row)
		printf("  %s %s (%s%s%s%s): %s\n", json_is_true(json_object_get(row, "next")) ? "*" : json_is_true(json_object_get(row, "up")) ? "+" : "-", text_of(row, "name"), text_of(row, "origin"),
		       json_is_true(json_object_get(row, "pdc")) ? ", PDC" : "", json_is_true(json_object_get(row, "read_only")) ? ", read-only" : "",
		       json_is_true(json_object_get(row, "unsynchronized")) ? ", not synchronized" : "", text_of(row, "text"));
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
	json_array_foreach(json_object_get(status, "directories"), index, row) {
		printf("Directory  %s: %" PRId64 " of %" PRId64 " servers, %s\n", text_of(row, "name"), number_of(row, "servers_up"), number_of(row, "servers"), text_of(row, "text"));
		print_servers(json_object_get(row, "list"));
	}
	json_array_foreach(json_object_get(status, "directories"), index, row)
		if (*text_of(row, "exempt_administrators"))
			printf("Exempt     %s: ADMINISTRATORS MAY BE RESET: members of %s\n", text_of(row, "name"), text_of(row, "exempt_administrators"));
	const json_t *config = json_object_get(status, "config");
	bool refused = *text_of(config, "refused");
	printf("Config     %s as of %s%s%s%s%s\n", text_of(config, "file"), text_of(config, "loaded"), refused ? "; what is there now is refused: " : "", text_of(config, "refused"),
	       *text_of(config, "restart") ? "; these keys wait for a restart: " : "", text_of(config, "restart"));
	printf("Resets     %s\n", text_of(status, "resets"));
	printf("Passwords  trying them (verify, change): %s\n", text_of(status, "guesses"));
	printf("Requests   %" PRId64 " in flight, %" PRId64 " being settled, %" PRId64 " outcomes not acknowledged\n", number_of(status, "in_flight"), number_of(status, "settling"),
	       number_of(json_object_get(status, "journal"), "unacknowledged"));
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
	printf("%" PRId64 " ok, %" PRId64 " failed\n", number_of(answer, "passed"), number_of(answer, "failed"));
}

static void print_grant(const json_t *row)
{
	static const char *const members[][2] = { { "windows", "Windows:" }, { "samba", "Samba:  " } };
	const json_t *grant = json_object_get(row, "grant");
	if (*text_of(row, "note"))
		printf("     %s\n", text_of(row, "note"));
	for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
		if (*text_of(grant, members[i][0]))
			printf("     %s  %s\n", members[i][1], text_of(grant, members[i][0]));
}

static void print_user(const json_t *answer)
{
	size_t index;
	json_t *row;
	printf("%s%s: %s\n", strcmp(text_of(answer, "code"), "plausible") == 0 ? "" : "a reset would be refused: ", text_of(answer, "code"), text_of(answer, "text"));
	json_array_foreach(json_object_get(answer, "rows"), index, row) {
		const char *right = text_of(row, "answer");
		const char *mark = !json_is_true(json_object_get(row, "ok")) ? "FAIL" : strcmp(right, "no") == 0 ? "-" : strcmp(right, "unknown") == 0 ? "?" : "ok";
		printf("%-4s %-*s %s\n", mark, *right ? 30 : 15, text_of(row, "question"), text_of(row, "text"));
		print_grant(row);
	}
	static const char *const members[] = { "guid", "directory", "server", "diagnostic" };
	for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
		if (*text_of(answer, members[i]))
			printf("     %-15s %s\n", members[i], text_of(answer, members[i]));
}

/* What is asked about a user or a directory: `take_input` is NULL where its names are no UTF-8. Degraded where the answer is not "ok". */
static int ask_about(struct options *options, json_t *take_input, void (*print)(const json_t *answer))
{
	json_t *answer;
	if (!take_input)
		return report(options->json, EX_USAGE, "usage", "the user's or the directory's name is not UTF-8");
	int failed = ask(options, take_input, &answer);
	if (failed)
		return failed;
	(options->json ? print_json : print)(answer);
	int result = json_is_true(json_object_get(answer, "ok")) ? 0 : EXIT_DEGRADED;
	json_decref(answer);
	return result;
}

static int run_check(struct options *options, const char *argument)
{
	json_t *input = options->user ? json_pack("{s:s,s:s,s:s?}", "command", "check-user", "user", options->user, "directory", options->directory) : json_pack("{s:s,s:s?}", "command", "check", "directory", options->directory);
	return ask_about(options, input, options->user ? print_user : print_check);
}

/* explain ----------------------------------------------------------------------------------------------------------------------------- */

static void print_explanation(const json_t *answer)
{
	size_t index;
	json_t *row;
	if (!json_object_get(answer, "explanation"))
		printf("Reset now    NO: %s (%s%s%s)\n", text_of(answer, "text"), text_of(answer, "code"), *text_of(answer, "directory") ? ", directory " : "", text_of(answer, "directory"));
	json_array_foreach(json_object_get(answer, "explanation"), index, row)
		printf("%-12s %s\n", text_of(row, "topic"), text_of(row, "text"));
	json_array_foreach(json_object_get(answer, "warnings"), index, row)
		printf("%-12s %s\n", "Warning", json_string_value(row));
}

static int run_explain(struct options *options, const char *argument)
{
	json_t *input = json_pack("{s:s,s:s,s:s?}", "command", "explain-user", "user", argument, "directory", options->directory);
	return ask_about(options, input, print_explanation);
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
		puts(json_is_true(json_object_get(answer, "was_latched")) ? "Resets, changes and verifications are allowed again." : "Resets were allowed; the counts of the last hour are forgotten.");
	json_decref(answer);
	return 0;
}

static int run_rotate_keys(struct options *options, const char *argument)
{
	json_t *answer;
	int failed = ask(options, json_pack("{s:s}", "command", "rotate-keys"), &answer);
	if (failed)
		return failed;
	const json_t *before = json_object_get(answer, "old"), *now = json_object_get(answer, "new");
	if (options->json)
		print_json(answer);
	else
		printf("Signing key     %s -> %s\nDecryption key  %s -> %s\nThe service has confirmed them: 'reset-service agents' shows the new ones.\n", text_of(before, "signing_key"),
		       text_of(now, "signing_key"), text_of(before, "decryption_key"), text_of(now, "decryption_key"));
	json_decref(answer);
	return 0;
}

static int run_journal(struct options *options, const char *argument)
{
	json_t *answer, *row;
	size_t index;
	json_int_t last = options->last ? atoi(options->last) : 50;
	if (last < 1 || last > 120 || (options->last && options->last[strspn(options->last, "0123456789")]))
		return report(options->json, EX_USAGE, "usage", "--last is a number from 1 to 120; see writebackctl --help");
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
	{ "status", run_status, NULL }, { "check", run_check, NULL }, { "explain", run_explain, "user's name" }, { "enroll", run_enroll, "service's URL" }, { "resume", run_resume, NULL },
	{ "journal", run_journal, NULL }, { "rotate-keys", run_rotate_keys, NULL },
};

static int fail_usage(const struct options *options, const char *what, const char *word)
{
	return report(options->json, EX_USAGE, "usage", "%s%s%s; see writebackctl --help", what, word ? " " : "", word ? word : "");
}

static int run(struct options *options, int count, char **words)
{
	if (count == 0)
		return fail_usage(options, "a command is missing", NULL);
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
		if (strcmp(commands[i].name, words[0]) != 0)
			continue;
		int wanted = commands[i].argument ? 2 : 1;
		if (count < wanted)
			return report(options->json, EX_USAGE, "usage", "the %s is missing behind %s; see writebackctl --help", commands[i].argument, words[0]);
		if (count > wanted)
			return fail_usage(options, "this is one word too many:", words[wanted]);
		return commands[i].run(options, words[1]);
	}
	return fail_usage(options, "unknown command", words[0]);
}

int main(int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "socket", required_argument, NULL, 's' },    { "json", no_argument, NULL, 'j' },           { "user", required_argument, NULL, 'u' },  { "directory", required_argument, NULL, 'd' },
		{ "ticket-file", required_argument, NULL, 't' }, { "ca-file", required_argument, NULL, 'c' }, { "proxy", required_argument, NULL, 'p' }, { "name", required_argument, NULL, 'n' },
		{ "replace", no_argument, NULL, 'r' },         { "last", required_argument, NULL, 'l' },      { "version", no_argument, NULL, 'v' },        { "help", no_argument, NULL, 'h' },        { 0 },
	};
	struct options options = { .enroll.socket_path = AGENT_SOCKET };
	int option;
	/* Wherever it stands, so that also a mistake before it is told in JSON. */
	for (int i = 1; i < argc; i++)
		options.json |= strcmp(argv[i], "--json") == 0;
	opterr = 0;
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
		case 'r': options.enroll.replace = true; break;
		case 'l': options.last = optarg; break;
		case 'v': puts("writebackctl " WRITEBACKD_VERSION); return 0;
		case 'h': fputs(usage, stdout); return 0;
		default: return fail_usage(&options, "not an option, or its value is missing or too much:", argv[optind - 1]);
		}
	secret_heap_init();
	secret_json_init();
	return run(&options, argc - optind, argv + optind);
}
