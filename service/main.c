#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/log.h"
#include "base/secret.h"
#include "service/admin.h"
#include "service/owner.h"
#include "service/server.h"

#define DEFAULT_CONFIG "/etc/reset-service/reset-service.yaml"

struct invocation {
	const char *config;
	struct admin_options admin;
	int log_format;                /* -1: as configured */
	bool check_config, dump_config;
};

static int serve(struct settings *settings, const struct invocation *invocation)
{
	return server_run(invocation->config, settings, invocation->log_format >= 0 ? invocation->log_format : settings->log_format);
}

static const struct command {
	const char *name;
	int (*admin)(const struct settings *settings, const struct admin_options *options);
	int (*run)(struct settings *settings, const struct invocation *invocation);
	const char *arguments, *help;
} commands[] = {
	{ "init", admin_init, NULL, "", "make the root key, the first signing key and the key set" },
	{ "rotate-keys", admin_rotate_keys, NULL, "[--root FILE] [--drop-old]", "make a new signing key and key set; needs the root key" },
	{ "serve", NULL, serve, "[--log-format FORMAT] [--check-config] [--dump-config]", "run the service" },
	{ "ticket", admin_ticket, NULL, "[--ttl 15min]", "print a ticket that enrolls one agent" },
	{ "agents", admin_agents, NULL, "", "list the agents" },
	{ "revoke", admin_revoke, NULL, "AGENT_ID", "revoke an agent" },
	{ "release", admin_release, NULL, "AGENT_ID", "let an agent in again after a clone of it was seen" },
	{ "operations", admin_operations, NULL, "[--limit N]", "list the newest operations" },
	{ "operation", admin_operation, NULL, "OPERATION_ID", "show one operation" },
	{ "api-key", admin_api_key, NULL, "add NAME | list | revoke NAME", "keys for portals and scripts; a key is shown once" },
};

static const struct { int code; const char *help; } exit_codes[] = {
	{ EX_OK, "done" },
	{ EX_USAGE, "the command line is wrong" },
	{ EX_DATAERR, "there is no such agent, operation or API key, what was to be made exists already, or the store is damaged" },
	{ EX_UNAVAILABLE, "the address to listen on is taken or not this host's" },
	{ EX_SOFTWARE, "an internal error" },
	{ EX_OSERR, "the system refused something" },
	{ EX_IOERR, "the store cannot be read or written" },
	{ EX_NOPERM, "a file belongs to another user or is open to others" },
	{ EX_CONFIG, "the configuration, or a key or certificate that it names, is wrong; stderr says which line" },
};

static int help(FILE *out, int code)
{
	fprintf(out, "usage: reset-service COMMAND [--config FILE] [--json] ...\n\n");
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
		fprintf(out, "  %-11s %-34s %s\n", commands[i].name, commands[i].arguments, commands[i].help);
	fprintf(out, "\n--config is %s by default. Called by root, every command but this help first becomes the user to whom\n"
		"state_directory belongs, so that what it makes is that user's; --root FILE and the TLS files must be readable by that user.\n", DEFAULT_CONFIG);
	fprintf(out, "--drop-old: the signing keys before, one of which may be stolen, are believed no more, nor the requests that they have signed.\n");
	fprintf(out, "--json prints JSON. --ttl is 1s to 24h with a unit (15min; by default ticket_lifetime), --limit 1 to 999999 (50), FORMAT auto, text, json or journal.\n"
		"\nExit codes:\n");
	for (size_t i = 0; i < sizeof exit_codes / sizeof exit_codes[0]; i++)
		fprintf(out, "  %2d  %s\n", exit_codes[i].code, exit_codes[i].help);
	return code;
}

static int hint(int code)
{
	fprintf(stderr, "'reset-service --help' says more.\n");
	return code;
}

/* The same form as durations in the configuration. */
static bool parse_ttl(const char *text, int64_t *ret_ms)
{
	static const struct { const char *unit; int64_t ms; } units[] = { { "ms", 1 }, { "s", 1000 }, { "min", 60000 }, { "h", 3600000 }, { "d", 86400000 } };
	char *end;
	size_t digits = strspn(text, "0123456789");
	int64_t number = digits > 0 && digits < 9 ? strtoll(text, &end, 10) : 0;
	for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
		if (strcmp(text + digits, units[i].unit) == 0) {
			*ret_ms = number * units[i].ms;
			return *ret_ms >= 1000 && *ret_ms <= 86400000;
		}
	}
	return false;
}

static bool parse_log_format(const char *text, int *ret_format)
{
	static const char *const names[] = { "auto", "text", "json", "journal" };
	for (int i = 0; i < 4; i++) {
		if (strcmp(text, names[i]) == 0) {
			*ret_format = i;
			return true;
		}
	}
	return false;
}

static bool parse_limit(const char *text, int64_t *ret_limit)
{
	size_t digits = strspn(text, "0123456789");
	*ret_limit = digits > 0 && digits <= 6 && text[digits] == '\0' ? atoll(text) : 0;
	return *ret_limit > 0;
}

/* The options with a value that can be wrong. */
static const struct { int option; const char *name, *wanted; } judged[] = {
	{ 't', "--ttl", "it should be 1s to 24h with a unit, e.g. 15min" },
	{ 'l', "--limit", "it should be a number from 1 to 999999" },
	{ 'f', "--log-format", "it should be auto, text, json or journal" },
};

static int bad_value(int option, const char *value)
{
	for (size_t i = 0; i < sizeof judged / sizeof judged[0]; i++)
		if (judged[i].option == option)
			fprintf(stderr, "reset-service: %s %s: %s\n", judged[i].name, value, judged[i].wanted);
	return EX_USAGE;
}

/* EX_OK where the command may run; -1: all is done (help, version); else what is wrong has been said. */
static int parse_options(int argc, char **argv, struct invocation *invocation)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' }, { "json", no_argument, NULL, 'j' }, { "ttl", required_argument, NULL, 't' },
		{ "limit", required_argument, NULL, 'l' }, { "root", required_argument, NULL, 'r' }, { "drop-old", no_argument, NULL, 'd' }, { "log-format", required_argument, NULL, 'f' },
		{ "check-config", no_argument, NULL, 'C' }, { "dump-config", no_argument, NULL, 'D' }, { "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' }, { 0 }
	};
	int option;
	while ((option = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
		bool good = true;
		switch (option) {
		case 'c': invocation->config = optarg; break;
		case 'j': invocation->admin.json = true; break;
		case 't': good = parse_ttl(optarg, &invocation->admin.ttl_ms); break;
		case 'l': good = parse_limit(optarg, &invocation->admin.limit); break;
		case 'r': invocation->admin.root_file = optarg; break;
		case 'd': invocation->admin.drop_old = true; break;
		case 'f': good = parse_log_format(optarg, &invocation->log_format); break;
		case 'C': invocation->check_config = true; break;
		case 'D': invocation->dump_config = true; break;
		case 'h': help(stdout, 0); return -1;
		case 'V': puts("reset-service " WRITEBACKD_VERSION); return -1;
		default: return EX_USAGE; /* getopt has said why */
		}
		if (!good)
			return bad_value(option, optarg);
	}
	return EX_OK;
}

static int become_owner(const struct settings *settings)
{
	AUTO_FREE char *why = NULL;
	if (owner_become(settings->state_directory, &why) == STATUS_OK)
		return EX_OK;
	fprintf(stderr, "reset-service: %s\n", why != NULL ? why : settings->state_directory);
	return EX_NOPERM;
}

static int run(const struct command *command, const struct invocation *invocation)
{
	struct settings settings;
	struct config_document *document = NULL;
	int code = EX_OK;
	if (settings_load(invocation->config, &settings, &document) != STATUS_OK)
		return EX_CONFIG;
	code = become_owner(&settings);
	if (code == EX_OK && invocation->dump_config)
		config_dump(settings_keys, &settings, document, stdout);
	if (code == EX_OK && command->run != NULL && !invocation->dump_config && settings_check_start(&settings, document) != STATUS_OK)
		code = EX_CONFIG;
	if (code == EX_OK && !invocation->dump_config && !invocation->check_config)
		code = command->run != NULL ? command->run(&settings, invocation) : command->admin(&settings, &invocation->admin);
	config_document_free(document);
	settings_clear(&settings);
	return code;
}

int main(int argc, char **argv)
{
	struct invocation invocation = { .config = DEFAULT_CONFIG, .admin = { .limit = 50 }, .log_format = -1 };
	const struct rlimit no_core = { 0, 0 };
	(void)setrlimit(RLIMIT_CORE, &no_core);
	umask(0077);
	signal(SIGPIPE, SIG_IGN);
	(void)secret_heap_init(); /* unlocked memory is still wiped; the unit gives LimitMEMLOCK */
	secret_json_init();
	http_memory_init();
	int parsed = parse_options(argc, argv, &invocation);
	if (parsed != EX_OK)
		return parsed < 0 ? EX_OK : hint(parsed);
	if (optind >= argc)
		return help(stderr, EX_USAGE);
	/* getopt has moved the options to the front; argv ends with NULL. */
	invocation.admin.arguments = (const char *const *)&argv[optind + 1];
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
		if (strcmp(commands[i].name, argv[optind]) != 0)
			continue;
		if (commands[i].arguments[0] != '\0' && commands[i].arguments[0] != '[')
			return run(&commands[i], &invocation);
		if (optind + 1 == argc)
			return run(&commands[i], &invocation);
		fprintf(stderr, "reset-service: '%s' takes no argument, but there is '%s'\nusage: reset-service %s %s\n", commands[i].name, argv[optind + 1], commands[i].name,
			commands[i].arguments);
		return EX_USAGE;
	}
	fprintf(stderr, "reset-service: there is no command '%s'; there are", argv[optind]);
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
		fprintf(stderr, "%s %s", i > 0 ? "," : "", commands[i].name);
	fprintf(stderr, "\n");
	return hint(EX_USAGE);
}
