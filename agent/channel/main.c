/* writebackd-channel: the agent's pipe to the outside. It holds no secret but the proxy's password, and decides nothing. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sysexits.h>

#include "agent/channel/relay.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/secret.h"

#define PROGRAM "writebackd-channel"
#define DEFAULT_CONFIG "/etc/writebackd/channel.yaml"
#define STATUS_SIZE 500

static const char usage[] =
	"usage: " PROGRAM " [--config FILE] [--check-config | --dump-config] [--log-format FORMAT]\n"
	"\n"
	"  --config FILE        default " DEFAULT_CONFIG "\n"
	"  --check-config       judge the configuration and exit: 0, or 78 with what is wrong\n"
	"  --dump-config        show every key with its value and where it comes from, and exit\n"
	"  --log-format FORMAT  text, json, journal or auto (journal under systemd, else text); goes before log.format\n"
	"  --version            show the version and exit\n"
	"  --help               show this text and exit\n"
	"\n"
	"Signals: SIGTERM closes every channel and ends; SIGHUP reads the configuration again.\n"
	"Exit status: 0 good; 64 wrong usage; 71 the system refuses; 78 the configuration is wrong\n";

struct program {
	const char *config;
	int log_format;            /* -1: as the file says */
	bool check, dump;
	struct settings *settings;
	struct loop *loop;
	struct relay *relay;
	bool ready;
};

static int log_format_from_name(const char *name)
{
	static const char *const names[] = { [LOG_FORMAT_AUTO] = "auto", [LOG_FORMAT_TEXT] = "text", [LOG_FORMAT_JSON] = "json", [LOG_FORMAT_JOURNAL] = "journal" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strcmp(name, names[i]) == 0)
			return (int)i;
	return -1;
}

/* An exit code, or -1 to go on. */
static int parse_options(struct program *program, int argc, char **argv)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' }, { "check-config", no_argument, NULL, 'k' }, { "dump-config", no_argument, NULL, 'd' },
		{ "log-format", required_argument, NULL, 'l' }, { "version", no_argument, NULL, 'v' }, { "help", no_argument, NULL, 'h' }, { 0 },
	};
	int option;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'c': program->config = optarg; break;
		case 'k': program->check = true; break;
		case 'd': program->dump = true; break;
		case 'v': printf(PROGRAM " " WRITEBACKD_VERSION "\n"); return 0;
		case 'h': fputs(usage, stdout); return 0;
		case 'l':
			program->log_format = log_format_from_name(optarg);
			if (program->log_format >= 0)
				break;
			fprintf(stderr, PROGRAM ": --log-format: '%s' is none of text, json, journal, auto\n", optarg);
			return EX_USAGE;
		default:
			fputs(usage, stderr);
			return EX_USAGE;
		}
	}
	if (optind == argc)
		return -1;
	fprintf(stderr, PROGRAM ": '%s' is not understood\n%s", argv[optind], usage);
	return EX_USAGE;
}

static int load(struct program *program)
{
	struct config_errors errors = { 0 };
	struct config_document *document = NULL;
	program->settings = settings_load(program->config, &errors, &document);
	config_errors_print(&errors, stderr);
	config_errors_clear(&errors);
	if (program->settings && program->dump)
		config_dump(settings_table, program->settings, document, stdout);
	config_document_free(document);
	if (!program->settings)
		return EX_CONFIG;
	return program->check || program->dump ? 0 : -1;
}

static void on_changed(struct relay *relay, void *arg)
{
	struct program *program = arg;
	char text[STATUS_SIZE];
	relay_status(relay, text, sizeof text);
	if (program->ready)
		loop_notify_status(program->loop, text);
	else
		loop_notify_ready(program->loop, text);
	program->ready = true;
}

static void on_relay_stopped(struct relay *relay, void *arg)
{
	struct program *program = arg;
	loop_end(program->loop);
}

static void on_stop(void *arg)
{
	struct program *program = arg;
	loop_notify_stopping(program->loop);
	log_event(LOG_NOTICE, "channel.stop", NULL, "stopping: closing the channels");
	relay_stop(program->relay);
}

static void log_refusal(const struct config_errors *errors)
{
	char text[CONFIG_ERROR_SIZE];
	for (size_t i = 0; i < errors->count; i++) {
		config_error_format(&errors->items[i], text, sizeof text);
		log_event(LOG_ERR, "config.error", NULL, "%s", text);
	}
	log_event(LOG_ERR, "config.refused", NULL, "the old configuration stays in force");
}

static void on_reload(void *arg)
{
	struct program *program = arg;
	struct config_errors errors = { 0 };
	loop_notify_reloading(program->loop);
	struct settings *settings = settings_load(program->config, &errors, NULL);
	if (settings) {
		AUTO_FREE char *fixed = config_not_reloadable(settings_table, program->settings, settings);
		for (char *at = fixed; at && *at; at++)
			*at = *at == '\n' ? ' ' : *at;
		struct settings *old = program->settings;
		program->settings = settings;
		log_set_level(settings_log_level(settings));
		relay_reconfigure(program->relay, settings);
		settings_free(old);
		if (fixed)
			log_event(LOG_WARNING, "config.restart", NULL, "these keys have changed and need a restart: %s", fixed);
		log_event(LOG_NOTICE, "config.loaded", NULL, "%s is in force", program->config);
	} else {
		log_refusal(&errors);
	}
	config_errors_clear(&errors);
	loop_notify_ready(program->loop, NULL);
	on_changed(program->relay, program);
}

static void log_gap(struct program *program)
{
	char gap[32];
	snprintf(gap, sizeof gap, "%.1f", (double)loop_longest_gap_us(program->loop) / 1000);
	log_event(LOG_INFO, "loop.gap", LOG_FIELDS({ "longest_gap_ms", gap }), "the loop's longest delay was %s ms", gap);
}

static int run(struct program *program)
{
	struct loop_callbacks callbacks = { on_stop, on_reload, program };
	struct relay_callbacks relay_callbacks = { on_changed, on_relay_stopped, program };
	const struct settings *settings = program->settings;
	log_start(PROGRAM, program->log_format >= 0 ? (enum log_format)program->log_format : (enum log_format)settings->log_format, settings_log_level(settings));
	/* It may know a proxy's password. */
	prctl(PR_SET_DUMPABLE, 0);
	(void)setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
	enum status status = loop_new(&callbacks, (unsigned)settings->loop_probe_ms, &program->loop);
	if (status == STATUS_OK)
		status = relay_new(loop_base(program->loop), settings, &relay_callbacks, &program->relay);
	if (status == STATUS_OK) {
		log_event(LOG_NOTICE, "channel.start", NULL, PROGRAM " " WRITEBACKD_VERSION " started");
		loop_run(program->loop);
		log_gap(program);
	} else {
		log_event(LOG_CRIT, "channel.start", LOG_FIELDS({ LOG_CODE, status_code(status) }), "cannot start: %s", status_admin_text(status));
	}
	relay_free(program->relay);
	loop_free(program->loop);
	log_stop();
	return status == STATUS_OK ? 0 : EX_OSERR;
}

int main(int argc, char **argv)
{
	struct program program = { .config = DEFAULT_CONFIG, .log_format = -1 };
	int code = parse_options(&program, argc, argv);
	if (code < 0) {
		secret_heap_init();
		code = load(&program);
	}
	if (code < 0)
		code = run(&program);
	settings_free(program.settings);
	return code;
}
