/* directory-tool: agent/directory by hand, against a real server or the mock.
 *
 *     directory-tool --server dc1.corp.example.com[:636] [--server …] --ca ca.pem --bind DN-or-UPN --password-file FILE [--base DN] [--require-hints]
 *                    [--flavor ldap] [--login ATTRIBUTE] [--default-policy DN] [--crl FILE]
 *                    [--mechanism M --keytab FILE --principal P | --mechanism external --certificate FILE --key FILE]
 *                    [--timeout MS] [--connections N] [--pipeline N] < commands
 *
 * One command a line, one JSON line an answer; the next begins when the one before has ended:
 *     health | wait MS | check | sid DN | retry
 *     locate guid|anchor|upn|sam|entry|uid ID [SERVER]     reads a user, whom the next commands mean
 *     recheck | unlock | reset PASSWORD [unlock] [must-change] [enforce]
 *     flood N guid|anchor|upn|sam ID             N locates at once
 *     gap                                        the loop's longest gap in ms since the last `gap` */
#include <event2/buffer.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/directory/directory.h"
#include "base/clock.h"
#include "base/loop.h"

static struct {
	struct loop *loop;
	struct directory *directory;
	struct located *located;
	struct event *next, *readable;
	struct evbuffer *input;
	bool ended;
	int64_t started_us, timeout_ms;
	unsigned flood, flood_ok;
	char *text[16];
	size_t words;
} tool;

static void say(json_t *take_line)
{
	json_object_set_new(take_line, "ms", json_real((clock_monotonic_us() - tool.started_us) / 1000.0));
	json_dumpf(take_line, stdout, JSON_COMPACT);
	putchar('\n');
	fflush(stdout);
	json_decref(take_line);
}

static void go_on(void)
{
	event_active(tool.next, 0, 0);
}

static json_t *answer_json(const char *what, enum status status, const struct directory_answer *answer)
{
	json_t *line = json_pack("{s:s, s:s}", "what", what, "status", status_code(status));
	if (answer != NULL) {
		json_t *more = json_pack("{s:i, s:I, s:s, s:s, s:b, s:b, s:b}", "result", answer->ldap_result, "win32", (json_int_t)answer->win32, "text", answer->diagnostic, "server",
		                         answer->server, "sent", answer->sent, "answered", answer->answered, "incomplete", answer->incomplete);
		json_object_update(line, more);
		json_decref(more);
	}
	return line;
}

static json_t *located_json(const struct located *located)
{
	const struct account *a = located_account(located);
	const struct server_position *p = located_position(located);
	const struct replication_record *r = located_password_record(located);
	char sid[SID_TEXT_MAX], invocation[UUID_SIZE], originator[UUID_SIZE];
	sid_format(&a->sid, sid);
	guid_format(p->invocation_id, invocation);
	guid_format(r->originator, originator);
	json_t *account = json_pack("{s:s, s:s, s:s, s:s?, s:s?, s:s?, s:b, s:b, s:b, s:I, s:i, s:i, s:I, s:b, s:b, s:i, s:b, s:b}", "dn", a->dn, "guid", a->guid, "sid", sid, "sam",
	                            a->sam_account_name, "upn", a->user_principal_name, "display", a->display_name, "is_user", a->is_user, "spn", a->has_spn, "critical",
	                            a->is_critical_system_object, "admin_count", (json_int_t)a->admin_count, "uac", (int)a->uac, "computed", (int)a->uac_computed, "pwd_last_set",
	                            (json_int_t)a->pwd_last_set_s, "locked", a->locked, "lockout_set", a->lockout_time_set, "groups", (int)a->group_count, "self", a->is_self, "never_expires_account",
	                            a->account_expires_s == INT64_MAX);
	json_t *policy = json_pack("{s:i, s:s?, s:i, s:b, s:i, s:I, s:I, s:i}", "source", a->policy.source, "name", a->policy.source_name, "min_length", (int)a->policy.min_length,
	                           "complexity", a->policy.complexity, "history", (int)a->policy.history, "min_age", (json_int_t)a->policy.min_age_s, "max_age",
	                           (json_int_t)a->policy.max_age_s, "lockout", (int)a->policy.lockout_threshold);
	json_t *position = json_pack("{s:s?, s:s, s:b, s:I, s:I, s:s?}", "server", p->server, "invocation", invocation, "known", p->invocation_known, "usn",
	                             (json_int_t)p->highest_committed_usn, "time", (json_int_t)p->current_time_s, "control", located_policy_control(located));
	json_t *record = json_pack("{s:b, s:i, s:s, s:I, s:I}", "known", r->known, "version", (int)r->version, "originator", originator, "usn", (json_int_t)r->originating_usn, "time",
	                           (json_int_t)r->time_s);
	json_object_set_new(account, "uid", a->uid != NULL ? json_string(a->uid) : json_null());
	json_object_set_new(account, "groups_read", json_boolean(a->groups_read));
	json_object_set_new(policy, "must_change", json_boolean(a->policy.must_change));
	return json_pack("{s:o, s:o, s:o, s:o}", "account", account, "policy", policy, "position", position, "record", record);
}

static void on_located(enum status status, struct located *take_located, const struct directory_answer *answer, void *arg)
{
	json_t *line = answer_json("locate", status, answer);
	if (take_located != NULL) {
		json_t *facts = located_json(take_located);
		json_object_update(line, facts);
		json_decref(facts);
		located_free(tool.located);
		tool.located = take_located;
	}
	say(line);
	go_on();
}

static void on_flooded(enum status status, struct located *take_located, const struct directory_answer *answer, void *arg)
{
	tool.flood_ok += status == STATUS_OK;
	located_free(take_located);
	if (--tool.flood == 0) {
		say(json_pack("{s:s, s:i}", "what", "flood", "ok", (int)tool.flood_ok));
		go_on();
	}
}

static void on_written(enum status status, const struct directory_answer *answer, void *arg)
{
	say(answer_json(arg, status, answer));
	go_on();
}

static void on_rechecked(enum status status, const struct directory_answer *answer, void *arg)
{
	json_t *line = answer_json("recheck", status, answer), *facts = located_json(tool.located);
	json_object_update(line, facts);
	json_decref(facts);
	say(line);
	go_on();
}

static void on_sid(enum status status, const struct sid *sid, const struct directory_answer *answer, void *arg)
{
	char text[SID_TEXT_MAX] = "";
	if (sid != NULL) {
		sid_format(sid, text);
	}
	json_t *line = answer_json("sid", status, answer);
	json_object_set_new(line, "sid", json_string(text));
	say(line);
	go_on();
}

static void on_checked(json_t *take_rows, void *arg)
{
	say(json_pack("{s:s, s:o}", "what", "check", "rows", take_rows));
	go_on();
}

static bool has_word(const char *word)
{
	for (size_t i = 2; i < tool.words; i++) {
		if (strcmp(tool.text[i], word) == 0) {
			return true;
		}
	}
	return false;
}

static enum locate_by by_name(const char *name)
{
	if (strcmp(name, "entry") == 0 || strcmp(name, "uid") == 0) {
		return *name == 'e' ? LOCATE_ENTRY_UUID : LOCATE_UID;
	}
	return strcmp(name, "guid") == 0 ? LOCATE_OBJECT_GUID : strcmp(name, "anchor") == 0 ? LOCATE_CONSISTENCY_GUID : strcmp(name, "upn") == 0 ? LOCATE_UPN : LOCATE_SAM;
}

static void say_health(void)
{
	struct directory_health health;
	directory_health(tool.directory, &health);
	say(json_pack("{s:s, s:i, s:i, s:s, s:s, s:I}", "what", "health", "up", (int)health.servers_up, "servers", (int)health.servers, "status", status_code(health.status), "text",
	              health.text, "skew", (json_int_t)(health.clock_skew_ms == INT64_MIN ? 0 : health.clock_skew_ms)));
	go_on();
}

static enum status start_flood(unsigned count)
{
	tool.flood = count;
	tool.flood_ok = 0;
	for (unsigned i = 0; i < count; i++) {
		enum status status = directory_locate(tool.directory, by_name(tool.text[2]), tool.text[3], NULL, tool.timeout_ms, on_flooded, NULL, NULL);
		if (status != STATUS_OK && --tool.flood == 0) {
			return status;
		}
	}
	return STATUS_OK;
}

static enum status start_write(const char *command)
{
	static char RESET[] = "reset", UNLOCK[] = "unlock";
	bool reset = strcmp(command, "reset") == 0;
	struct directory_change change = { .set_password = reset, .clear_lockout = !reset || has_word("unlock"), .must_change = has_word("must-change"),
		.enforce_policy = has_word("enforce") };
	if (reset) {
		change.password = bytes_of_string(tool.text[1]);
	}
	return directory_write(tool.located, &change, tool.timeout_ms, on_written, reset ? RESET : UNLOCK, NULL);
}

static enum status run_command(void)
{
	const char *command = tool.text[0];
	struct timeval pause = { 0 };
	if (strcmp(command, "health") == 0) {
		say_health();
	} else if (strcmp(command, "wait") == 0 && tool.words > 1) {
		pause.tv_sec = atoi(tool.text[1]) / 1000;
		pause.tv_usec = atoi(tool.text[1]) % 1000 * 1000;
		evtimer_add(tool.next, &pause);
	} else if (strcmp(command, "gap") == 0) {
		say(json_pack("{s:s, s:f}", "what", "gap", "gap_ms", loop_longest_gap_us(tool.loop) / 1000.0));
		loop_reset_gap(tool.loop);
		go_on();
	} else if (strcmp(command, "retry") == 0) {
		directory_retry(tool.directory);
		go_on();
	} else if (strcmp(command, "check") == 0) {
		return directory_check(tool.directory, on_checked, NULL);
	} else if (strcmp(command, "sid") == 0 && tool.words > 1) {
		return directory_lookup_sid(tool.directory, tool.text[1], tool.timeout_ms, on_sid, NULL, NULL);
	} else if (strcmp(command, "locate") == 0 && tool.words > 2) {
		return directory_locate(tool.directory, by_name(tool.text[1]), tool.text[2], tool.words > 3 ? tool.text[3] : NULL, tool.timeout_ms, on_located, NULL, NULL);
	} else if (strcmp(command, "flood") == 0 && tool.words > 3) {
		return start_flood(atoi(tool.text[1]));
	} else if (tool.located == NULL) {
		return STATUS_LOCAL_INPUT;
	} else if (strcmp(command, "recheck") == 0) {
		return directory_recheck(tool.located, tool.timeout_ms, on_rechecked, NULL, NULL);
	} else if (strcmp(command, "unlock") == 0 || (strcmp(command, "reset") == 0 && tool.words > 1)) {
		return start_write(command);
	} else {
		return STATUS_LOCAL_INPUT;
	}
	return STATUS_OK;
}

/* The loop goes on while nobody says anything. A file can be read at once, and libevent takes none. */
static void wait_for_line(void)
{
	if (event_add(tool.readable, NULL) != 0) {
		event_active(tool.readable, EV_READ, 0);
	}
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	tool.ended = evbuffer_read(tool.input, STDIN_FILENO, 4096) <= 0;
	go_on();
}

static void on_next(evutil_socket_t fd, short what, void *arg)
{
	static char *line;
	char *save = NULL;
	free(line);
	line = evbuffer_readln(tool.input, NULL, EVBUFFER_EOL_LF);
	if (line == NULL && tool.ended) {
		loop_end(tool.loop);
		return;
	}
	if (line == NULL) {
		wait_for_line();
		return;
	}
	tool.words = 0;
	for (char *word = strtok_r(line, " \t\n", &save); word != NULL && tool.words < 16; word = strtok_r(NULL, " \t\n", &save)) {
		tool.text[tool.words++] = word;
	}
	if (tool.words == 0) {
		go_on();
		return;
	}
	tool.started_us = clock_monotonic_us();
	enum status status = run_command();
	if (status != STATUS_OK) {
		say(answer_json(tool.text[0], status, NULL));
		go_on();
	}
}

static void stop(void *arg)
{
	loop_end(tool.loop);
}

static enum bind_mechanism mechanism_of(const char *name)
{
	static const char *const NAMES[] = { "simple", "gssapi", "gss-spnego", "external" };
	for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
		if (strcmp(NAMES[i], name) == 0) {
			return (enum bind_mechanism)i;
		}
	}
	return BIND_SIMPLE;
}

int main(int argc, char **argv)
{
	static const struct option OPTIONS[] = { { "server", 1, NULL, 's' }, { "ca", 1, NULL, 'c' }, { "bind", 1, NULL, 'b' }, { "password-file", 1, NULL, 'p' }, { "base", 1, NULL, 'B' },
		{ "flavor", 1, NULL, 'f' }, { "login", 1, NULL, 'L' }, { "default-policy", 1, NULL, 'D' },
		{ "require-hints", 0, NULL, 'r' }, { "timeout", 1, NULL, 't' }, { "connections", 1, NULL, 'n' }, { "pipeline", 1, NULL, 'l' },
		{ "mechanism", 1, NULL, 'm' }, { "keytab", 1, NULL, 'k' }, { "principal", 1, NULL, 'P' }, { "certificate", 1, NULL, 'C' }, { "key", 1, NULL, 'K' }, { "crl", 1, NULL, 'R' }, { 0 } };
	static const char *servers[17];
	struct directory_settings settings = { .name = "tool", .servers = servers, .policy_hints = POLICY_HINTS_WHEN_SUPPORTED, .connections = 2, .pipeline = 16, .queue_limit = 1024,
		.connect_timeout_ms = 3000, .locate_timeout_ms = 5000, .write_timeout_ms = 10000, .policy_cache_ms = 60000, .idle_probe_ms = 60000 };
	size_t count = 0;
	int option;
	tool.timeout_ms = 5000;
	while ((option = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1) {
		switch (option) {
		case 's': servers[count < 16 ? count++ : 15] = optarg; break;
		case 'c': settings.ca_file = optarg; break;
		case 'b': settings.bind_dn = optarg; break;
		case 'p': settings.bind_password_file = optarg; break;
		case 'B': settings.base_dn = optarg; break;
		case 'f': settings.kind = strcmp(optarg, "ldap") == 0 ? DIRECTORY_LDAP : DIRECTORY_ACTIVE_DIRECTORY; break;
		case 'L': settings.login_attribute = optarg; break;
		case 'D': settings.default_policy = optarg; break;
		case 'r': settings.policy_hints = POLICY_HINTS_REQUIRE; break;
		case 't': tool.timeout_ms = atoi(optarg); break;
		case 'n': settings.connections = atoi(optarg); break;
		case 'l': settings.pipeline = atoi(optarg); break;
		case 'm': settings.bind_mechanism = mechanism_of(optarg); break;
		case 'k': settings.bind_keytab_file = optarg; break;
		case 'P': settings.bind_principal = optarg; break;
		case 'C': settings.bind_certificate_file = optarg; break;
		case 'K': settings.bind_key_file = optarg; break;
		case 'R': settings.crl_file = optarg; break;
		default: return 64;
		}
	}
	struct loop_callbacks callbacks = { .stop = stop };
	char *why = NULL;
	if ((settings.bind_mechanism == BIND_SIMPLE && (settings.bind_dn == NULL || settings.bind_password_file == NULL)) || loop_new(&callbacks, 10, &tool.loop) != STATUS_OK) {
		return 64;
	}
	enum status status = directory_new(loop_base(tool.loop), &settings, &tool.directory, &why);
	if (status != STATUS_OK) {
		fprintf(stderr, "directory-tool: %s: %s\n", status_code(status), why != NULL ? why : "");
		free(why);
		loop_free(tool.loop);
		return 1;
	}
	tool.next = evtimer_new(loop_base(tool.loop), on_next, NULL);
	tool.readable = event_new(loop_base(tool.loop), STDIN_FILENO, EV_READ, on_readable, NULL);
	tool.input = evbuffer_new();
	go_on();
	loop_run(tool.loop);
	directory_free(tool.directory);
	located_free(tool.located);
	event_free(tool.next);
	event_free(tool.readable);
	evbuffer_free(tool.input);
	loop_free(tool.loop);
	return 0;
}
