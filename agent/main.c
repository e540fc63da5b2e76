/* writebackd: verifies, decides, decrypts, applies, journals, signs. It never speaks to the Internet. */
#include <errno.h>
#include <getopt.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/log.h"
#include "base/secret.h"

#define CONFIG_FILE "/etc/writebackd/writebackd.yaml"
#define SERVICE_USER "writebackd"

struct options {
	const char *config_file;
	bool check_config, dump_config;
	const char *user;              /* for whom files are judged; NULL: see choose_reader */
	int log_format; /* -1: as configured */
};

static const char usage[] =
	"Usage: writebackd [--config FILE] [--check-config [--user NAME]] [--dump-config] [--log-format auto|text|json|journal] [--version] [--help]\n"
	"The agent. Default configuration: " CONFIG_FILE "\n"
	"  --check-config   find everything in the configuration that a start would refuse, and end. Root asks for the user of the unit, " SERVICE_USER ",\n"
	"                   where the configuration is the default one; --user names another\n"
	"  --dump-config    show every key with its value and where it comes from, and end\n"
	"Signals: SIGTERM finishes what is in flight and ends; SIGHUP reads the configuration and the password files again and tries lost directories at once.\n"
	"Exit status: 0 good; 64 wrong usage; 65 the journal is damaged or not the one that was left; 67 --user names nobody; 71 the system refuses a socket or a file; 77 a file of the state directory has the wrong owner or mode;\n"
	"78 the configuration, or what it names, is wrong; 75 anything that may heal by itself\n";

static int parse_log_format(const char *name)
{
	static const char *const names[] = { [LOG_FORMAT_AUTO] = "auto", [LOG_FORMAT_TEXT] = "text", [LOG_FORMAT_JSON] = "json", [LOG_FORMAT_JOURNAL] = "journal" };
	for (int i = 0; i < 4; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	return -1;
}

/* -1: go on; else the exit status. */
static int parse_options(int argc, char **argv, struct options *options)
{
	static const struct option long_options[] = {
		{ "config", required_argument, NULL, 'c' }, { "check-config", no_argument, NULL, 'k' }, { "dump-config", no_argument, NULL, 'd' }, { "user", required_argument, NULL, 'u' },
		{ "log-format", required_argument, NULL, 'l' }, { "version", no_argument, NULL, 'v' }, { "help", no_argument, NULL, 'h' }, { 0 },
	};
	int option;
	while ((option = getopt_long(argc, argv, "c:", long_options, NULL)) != -1) {
		switch (option) {
		case 'c': options->config_file = optarg; break;
		case 'k': options->check_config = true; break;
		case 'd': options->dump_config = true; break;
		case 'u': options->user = optarg; break;
		case 'l': options->log_format = parse_log_format(optarg); break;
		case 'v': puts("writebackd " WRITEBACKD_VERSION); return 0;
		case 'h': fputs(usage, stdout); return 0;
		default: fputs(usage, stderr); return EX_USAGE;
		}
		if (option == 'l' && options->log_format < 0) {
			fputs(usage, stderr);
			return EX_USAGE;
		}
	}
	if (optind == argc)
		return -1;
	fputs(usage, stderr);
	return EX_USAGE;
}

static int exit_status(enum status status)
{
	switch (status) {
	case STATUS_OK: return 0;
	case STATUS_LOCAL_CONFIG: return EX_CONFIG;
	case STATUS_LOCAL_PERMISSION: return EX_NOPERM;
	case STATUS_LOCAL_SYSTEM: return EX_OSERR;
	case STATUS_LOCAL_DAMAGED: return EX_DATAERR;
	case STATUS_LOCAL_TRUST:
	case STATUS_LOCAL_INPUT: return EX_CONFIG;
	default: return EX_TEMPFAIL;
	}
}

/* Neither a core dump nor another process of the same user sees the keys. */
static void harden(void)
{
	prctl(PR_SET_DUMPABLE, 0);
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
	if (!secret_heap_init())
		log_event(LOG_WARNING, "agent.memory", NULL, "the heap for secrets cannot be locked into memory: raise LimitMEMLOCK");
	secret_json_init();
}

/* Sockets handed over by systemd, by name; those that it did not hand over are made here. */
static enum status open_sockets(const struct settings *settings, int *ret_channel, int *ret_control)
{
	char **names = NULL;
	*ret_channel = *ret_control = -1;
	int count = sd_listen_fds_with_names(1, &names);
	for (int i = 0; i < count; i++) {
		if (strcmp(names[i], "channel") == 0)
			*ret_channel = SD_LISTEN_FDS_START + i;
		else if (strcmp(names[i], "control") == 0)
			*ret_control = SD_LISTEN_FDS_START + i;
		free(names[i]);
	}
	free(names);
	enum status status = *ret_channel >= 0 ? STATUS_OK : link_listen(settings->channel_socket, 0660, ret_channel);
	if (status != STATUS_OK) {
		log_event(LOG_ERR, "agent.socket", NULL, "%s: %s", settings->channel_socket, strerror(errno));
		return status;
	}
	status = *ret_control >= 0 ? STATUS_OK : link_listen(settings->control_socket, 0600, ret_control);
	if (status != STATUS_OK) {
		log_event(LOG_ERR, "agent.socket", NULL, "%s: %s", settings->control_socket, strerror(errno));
		close(*ret_channel);
	}
	return status;
}

static enum status run(const struct options *options, struct settings *settings)
{
	struct agent agent = { .config_file = options->config_file, .settings = settings, .first_settings = settings, .lock_fd = -1 };
	struct loop_callbacks callbacks = { agent_stop, agent_reload, &agent };
	char why[512] = "";
	int channel_fd, control_fd;
	enum status status = loop_new(&callbacks, settings->loop_probe_ms, &agent.loop);
	if (status != STATUS_OK) {
		log_event(LOG_CRIT, "agent.failed", LOG_FIELDS({ LOG_CODE, status_code(status) }), "the event loop cannot be made: %s", strerror(errno));
		return status;
	}
	status = agent_open(&agent, why, sizeof why);
	if (status != STATUS_OK)
		log_event(LOG_CRIT, status == STATUS_LOCAL_DAMAGED ? "journal.damaged" : "agent.failed", LOG_FIELDS({ LOG_CODE, status_code(status) }), "%s%s", why,
		          status == STATUS_LOCAL_DAMAGED ? "; nothing was changed. What to do: \"A damaged journal\" in docs/install.md" : "");
	if (status == STATUS_OK)
		status = open_sockets(settings, &channel_fd, &control_fd);
	if (status == STATUS_OK)
		status = agent_listen(&agent, channel_fd, control_fd);
	if (status == STATUS_OK) {
		log_event(LOG_NOTICE, "agent.start", NULL, "writebackd " WRITEBACKD_VERSION ", boot %lld, %s", (long long)agent.identity.boot, agent.identity.enrolled ? "enrolled" : "not enrolled");
		loop_reset_gap(agent.loop);
		loop_run(agent.loop);
		char gap[24];
		snprintf(gap, sizeof gap, "%lld", (long long)(loop_longest_gap_us(agent.loop) / 1000));
		log_event(LOG_NOTICE, "agent.stopped", NULL, "stopped; %u requests are left for the next start, %u outcomes are not acknowledged yet",
		          requests_running(agent.requests) + requests_settling(agent.requests), journal_unacknowledged(agent.journal));
		log_event(LOG_INFO, "loop.gap", LOG_FIELDS({ "longest_gap_ms", gap }), "the longest time the loop was held up");
	}
	agent_close(&agent);
	loop_free(agent.loop);
	return status;
}

/* Root can read everything; what counts is whether the unit's user can. NULL: nobody else. False: there is no such user. */
static bool choose_reader(const struct options *options, struct file_reader *reader, const struct file_reader **ret_reader)
{
	bool by_default = options->check_config && geteuid() == 0 && strcmp(options->config_file, CONFIG_FILE) == 0;
	const char *name = options->user ? options->user : by_default ? SERVICE_USER : NULL;
	const struct passwd *user = name ? getpwnam(name) : NULL;
	*ret_reader = user ? reader : NULL;
	if (user)
		*reader = (struct file_reader){ name, user->pw_uid, user->pw_gid };
	return user || !options->user;
}

static int start(const struct options *options)
{
	struct settings settings;
	struct config_errors errors = { 0 };
	struct config_document *document = NULL;
	struct file_reader reader;
	const struct file_reader *judged_for;
	if (!choose_reader(options, &reader, &judged_for)) {
		fprintf(stderr, "writebackd: --user: there is no user \"%s\"\n", options->user);
		return EX_NOUSER;
	}
	enum status status = settings_load(options->config_file, judged_for, &settings, &errors, &document);
	config_errors_print(&errors, stderr);
	config_errors_clear(&errors);
	if (document && options->dump_config)
		config_dump(settings_keys, &settings, document, stdout);
	config_document_free(document);
	if (status == STATUS_OK && !options->check_config && !options->dump_config) {
		log_start("writebackd", options->log_format >= 0 ? options->log_format : settings.log_format, settings_log_level(&settings));
		harden();
		status = run(options, &settings);
		log_stop();
	}
	settings_clear(&settings);
	return exit_status(status);
}

int main(int argc, char **argv)
{
	struct options options = { .config_file = CONFIG_FILE, .log_format = -1 };
	int early = parse_options(argc, argv, &options);
	return early >= 0 ? early : start(&options);
}
