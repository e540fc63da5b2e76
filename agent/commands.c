/* commands: what writebackctl may ask for, as a table for control.h. */
#include <stdio.h>
#include <string.h>

#include "agent/agent.h"
#include "base/clock.h"
#include "base/log.h"

#define JOURNAL_SHOWN 120 /* a packet holds 64 KiB: some 150 rows */

/* status ------------------------------------------------------------------------------------------------------------------------------ */

static json_t *describe_channel(const struct agent *agent)
{
	json_t *endpoints = json_array();
	for (unsigned i = 0; i < PACKET_ENDPOINTS; i++)
		if (agent->endpoints[i].known)
			json_array_append_new(endpoints, json_pack("{s:i,s:s,s:s,s:s}", "endpoint", (int)i, "state", agent->sessions[i] ? session_state_name(session_state(agent->sessions[i])) : "down",
			                                           "url", agent->endpoints[i].url, "text", agent->endpoints[i].text));
	return json_pack("{s:b,s:i,s:o}", "attached", link_attached(agent->link), "ready", (int)agent_sessions_ready(agent), "endpoints", endpoints);
}

static void add_server(const struct directory_server *server, void *arg)
{
	json_array_append_new(arg, json_pack("{s:s,s:s,s:b,s:b,s:b,s:b,s:b,s:s}", "name", server->name, "origin", server->origin, "up", server->up, "next", server->next, "pdc", server->pdc,
	                                     "read_only", server->read_only, "unsynchronized", server->unsynchronized, "text", server->text));
}

static json_t *describe_directories(const struct agent *agent)
{
	json_t *directories = json_array();
	for (size_t i = 0; i < realms_count(agent->realms); i++) {
		struct directory_health health;
		directory_health(realm_directory(realms_at(agent->realms, i)), &health);
		char text[480];
		agent_describe_directory(realms_at(agent->realms, i), text, sizeof text);
		json_t *row = json_pack("{s:s,s:i,s:i,s:s}", "name", realm_name(realms_at(agent->realms, i)), "servers_up", (int)health.servers_up, "servers", (int)health.servers, "text", text);
		if (row && health.servers_up == 0)
			json_object_set_new(row, "code", json_string(status_code(health.status)));
		char exempt[2048];
		realm_describe_exemptions(realms_at(agent->realms, i), exempt, sizeof exempt);
		if (row && exempt[0])
			json_object_set_new(row, "exempt_administrators", json_string(exempt));
		if (row && health.clock_skew_ms != INT64_MIN)
			json_object_set_new(row, "clock_skew_ms", json_integer(health.clock_skew_ms));
		json_t *list = json_array();
		directory_each_server(realm_directory(realms_at(agent->realms, i)), add_server, list);
		json_object_set_new(row, "list", list);
		json_array_append_new(directories, row);
	}
	return directories;
}

static json_t *describe_counts(const struct agent *agent)
{
	json_t *counts = json_object();
	for (unsigned code = 0; code < STATUS_COUNT; code++)
		if (requests_count(agent->requests, code) > 0)
			json_object_set_new(counts, status_code(code), json_integer(requests_count(agent->requests, code)));
	return counts;
}

static json_t *describe_identity(const struct agent *agent)
{
	const struct identity *identity = &agent->identity;
	if (!identity->enrolled)
		return json_null();
	json_t *json = json_pack("{s:s,s:s,s:s,s:s,s:s,s:I}", "agent_id", identity->agent_id, "issuer", identity->issuer, "root_key", jose_key_id(identity->root), "signing_key",
	                         jose_key_id(identity->signing), "decryption_key", jose_key_id(identity->decryption), "boot", (json_int_t)identity->boot);
	char rotation[256];
	agent_describe_rotation(agent, rotation, sizeof rotation);
	if (json)
		json_object_set_new(json, "keys", json_pack("{s:I,s:I,s:b,s:b,s:s}", "made_at", (json_int_t)identity->made_at, "age_days", (json_int_t)((clock_now_ms() / 1000 - identity->made_at) / 86400),
		                                            "wrapped", identity->wrap_key.size > 0, "pending", identity->next.signing != NULL, "rotation", rotation));
	if (json && identity->key_set.keys)
		json_object_set_new(json, "key_set", json_pack("{s:I,s:I}", "version", (json_int_t)identity->key_set.version, "expires", (json_int_t)identity->key_set.exp));
	return json;
}

#define FIND_OUT "; find out why, then 'writebackctl resume')"

static void describe_latch(const struct agent *agent, enum latch latch, char *text, size_t capacity)
{
	struct limits_settings limits;
	settings_limits(agent->settings, &limits);
	if (!limits_latched(agent->limits, latch))
		snprintf(text, capacity, "allowed");
	else if (latch == LATCH_GUESSES)
		snprintf(text, capacity, "STOPPED (at least %u wrong ones in a minute" FIND_OUT, limits.wrong_per_minute);
	else
		snprintf(text, capacity, "STOPPED (%u applied in an hour, and more were asked for" FIND_OUT, limits.latch_per_hour);
}

static void run_status(struct control_call *call, const json_t *input, void *arg)
{
	struct agent *agent = arg;
	char why[800], resets[160], guesses[160], loaded[CLOCK_TEXT_SIZE];
	bool ready = agent_is_ready(agent, why, sizeof why);
	describe_latch(agent, LATCH_RESETS, resets, sizeof resets);
	describe_latch(agent, LATCH_GUESSES, guesses, sizeof guesses);
	clock_format(agent->config_ms, loaded);
	control_reply(call, json_pack("{s:{s:s,s:s,s:s,s:s},s:s,s:s,s:s,s:s,s:s,s:o,s:o,s:o,s:o,s:I,s:{s:i,s:b},s:i,s:i,s:b,s:b,s:I}", "config", "file", agent->config_file, "loaded", loaded, "refused", agent->config_refused, "restart", agent->restart_told ? agent->restart_told : "", "state", ready ? "ready" : "degraded", "why", why, "resets", resets, "guesses", guesses, "version", WRITEBACKD_VERSION,
	                              "identity", describe_identity(agent), "channel", describe_channel(agent), "directories", describe_directories(agent), "counts", describe_counts(agent),
	                              "loop_longest_gap_us", (json_int_t)loop_longest_gap_us(agent->loop), "journal", "unacknowledged", (int)journal_unacknowledged(agent->journal), "writable",
	                              journal_writable(agent->journal), "in_flight", (int)limits_in_flight(agent->limits), "settling", (int)requests_settling(agent->requests), "latched",
	                              limits_latched(agent->limits, LATCH_RESETS), "guesses_latched", limits_latched(agent->limits, LATCH_GUESSES), "log_dropped", (json_int_t)log_dropped()));
}

/* An exit status of its own: the command line was wrong, not the agent. */
void agent_refuse_usage(struct control_call *call, const char *text)
{
	control_reply(call, json_pack("{s:s,s:s,s:s}", "error", status_code(STATUS_LOCAL_INPUT), "text", text, "kind", "usage"));
}

void agent_refuse_directory(const struct agent *agent, struct control_call *call, const char *name)
{
	char text[1024];
	int size = snprintf(text, sizeof text, "no directory \"%.64s\"; there is", name);
	for (size_t i = 0; i < realms_count(agent->realms) && size < (int)sizeof text - 80; i++)
		size += snprintf(text + size, sizeof text - size, "%s %s", i ? "," : "", realm_name(realms_at(agent->realms, i)));
	agent_refuse_usage(call, text);
}

/* check ------------------------------------------------------------------------------------------------------------------------------- */

/* Directories are tried at the same time; the last one answers. */
struct check {
	struct control_call *call;
	json_t *rows;
	size_t waiting;
};
struct check_part {
	struct check *check;
	const char *directory;
	struct realm *realm;
};

static void add_row(json_t *rows, const char *what, const char *step, bool good, const char *text)
{
	char mended[1024];
	snprintf(mended, sizeof mended, "%s", text);
	utf8_mend(mended);
	json_array_append_new(rows, json_pack("{s:s,s:s,s:b,s:s}", "what", what, "step", step, "ok", good, "text", mended));
}

static void finish_check(struct check *check)
{
	int counts[2] = { 0 };
	size_t index;
	json_t *row;
	json_array_foreach(check->rows, index, row)
		counts[json_is_true(json_object_get(row, "ok"))]++;
	control_reply(check->call, json_pack("{s:b,s:i,s:i,s:o}", "ok", counts[false] == 0, "passed", counts[true], "failed", counts[false], "rows", check->rows));
	free(check);
}

static void end_part(struct check_part *part)
{
	if (--part->check->waiting == 0)
		finish_check(part->check);
	free(part);
}

static void handle_checked(struct json_t *take_rows, void *arg)
{
	struct check_part *part = arg;
	size_t index;
	json_t *row;
	json_array_foreach(take_rows, index, row) {
		json_object_set_new(row, "what", json_string(part->directory));
		json_array_append(part->check->rows, row);
	}
	json_decref(take_rows);
	end_part(part);
}

static void add_name(const struct realm_name *name, void *arg)
{
	struct check_part *part = arg;
	add_row(part->check->rows, part->directory, name->key, name->good, name->text);
}

static void handle_names(void *arg)
{
	struct check_part *part = arg;
	realm_each_name(part->realm, add_name, part);
	end_part(part);
}

/* A rotation that takes longer than a day is one that fails. */
static void check_keys(const struct agent *agent, json_t *rows)
{
	const struct identity *identity = &agent->identity;
	char text[512], rotation[256];
	int64_t now_s = clock_now_ms() / 1000;
	if (!identity->enrolled)
		return;
	agent_describe_rotation(agent, rotation, sizeof rotation);
	snprintf(text, sizeof text, "%lld days old, %s%s%s", (long long)((now_s - identity->made_at) / 86400), identity->wrap_key.size > 0 ? "their files are wrapped" : "their files are plain",
	         rotation[0] ? "; " : "", rotation);
	add_row(rows, "agent", "own keys", !identity->next.signing || now_s - identity->next.made_at < 86400, text);
}

static void check_agent(const struct agent *agent, json_t *rows)
{
	const struct identity *identity = &agent->identity;
	char text[640];
	if (identity->enrolled)
		snprintf(text, sizeof text, "%s with %s, root key %s", identity->agent_id, identity->issuer, jose_key_id(identity->root));
	else
		agent_describe_unenrolled(agent, text, sizeof text);
	add_row(rows, "agent", "enrolment", identity->enrolled, text);
	int64_t left_s = identity->key_set.keys ? identity->key_set.exp - clock_now_ms() / 1000 : 0;
	snprintf(text, sizeof text, identity->key_set.keys ? "version %lld, %lld days left" : "none seen yet", (long long)identity->key_set.version, (long long)(left_s / 86400));
	add_row(rows, "agent", "key set", left_s > 0, text);
	check_keys(agent, rows);
	snprintf(text, sizeof text, "%s%s%s%s", agent->config_refused[0] ? "what is there now is refused, and the agent would not start with it: " : "the one in force", agent->config_refused,
	         agent->restart_told ? "; these keys wait for a restart: " : "", agent->restart_told ? agent->restart_told : "");
	add_row(rows, "agent", "configuration", !agent->config_refused[0], text);
	add_row(rows, "agent", "journal", journal_writable(agent->journal), journal_writable(agent->journal) ? "can be written" : status_admin_text(STATUS_AGENT_JOURNAL));
	describe_latch(agent, LATCH_RESETS, text, sizeof text);
	add_row(rows, "agent", "resets", !limits_latched(agent->limits, LATCH_RESETS), text);
	describe_latch(agent, LATCH_GUESSES, text, sizeof text);
	add_row(rows, "agent", "passwords tried", !limits_latched(agent->limits, LATCH_GUESSES), text);
	add_row(rows, "channel", "program", link_attached(agent->link), link_attached(agent->link) ? "writebackd-channel is connected" : "writebackd-channel is not connected");
	for (unsigned i = 0; i < PACKET_ENDPOINTS; i++) {
		const struct session *session = agent->sessions[i];
		if (!agent->endpoints[i].known)
			continue;
		bool ready = session && session_state(session) == SESSION_READY;
		snprintf(text, sizeof text, "%s (%s)", agent->endpoints[i].text, session ? session_state_name(session_state(session)) : "down");
		add_row(rows, "channel", "endpoint", ready, text);
		if (agent->endpoints[i].certificate[0])
			add_row(rows, "channel", "certificate", true, agent->endpoints[i].certificate);
		int64_t difference = ready ? session_clock_difference_s(session) : 0;
		snprintf(text, sizeof text, "the service's clock is %+lld s from ours", (long long)difference);
		if (ready)
			add_row(rows, "channel", "clock", difference <= 60 && difference >= -60, text);
	}
}

/* Its servers, and the names that the configuration knows: at the same time. */
static void check_realm(struct check *check, struct realm *realm)
{
	struct check_part *servers = malloc(sizeof *servers), *names = malloc(sizeof *names);
	if (servers && names) {
		*servers = *names = (struct check_part){ check, realm_name(realm), realm };
		check->waiting += 2;
		if (!realm_refresh(realm, handle_names, names))
			end_part(names);
		names = NULL;
		if (directory_check(realm_directory(realm), handle_checked, servers) != STATUS_OK) {
			add_row(check->rows, realm_name(realm), "check", false, "could not be begun");
			end_part(servers);
		}
		servers = NULL;
	}
	free(servers);
	free(names);
}

static void run_check(struct control_call *call, const json_t *input, void *arg)
{
	struct agent *agent = arg;
	const char *only = json_string_value(json_object_get(input, "directory"));
	struct check *check = only && !realms_find(agent->realms, only) ? NULL : calloc(1, sizeof *check);
	if (only && !check) {
		agent_refuse_directory(agent, call, only);
		return;
	}
	if (!check) {
		control_refuse(call, STATUS_AGENT_INTERNAL, "out of memory");
		return;
	}
	/* One more, so that nothing ends before all have begun. */
	*check = (struct check){ call, json_array(), 1 };
	check_agent(agent, check->rows);
	for (size_t i = 0; i < realms_count(agent->realms); i++) {
		struct realm *realm = realms_at(agent->realms, i);
		if (!only || strcmp(only, realm_name(realm)) == 0)
			check_realm(check, realm);
	}
	if (--check->waiting == 0)
		finish_check(check);
}

/* Enrolment --------------------------------------------------------------------------------------------------------------------------- */

static void run_enroll_begin(struct control_call *call, const json_t *input, void *arg)
{
	struct agent *agent = arg;
	const char *issuer = json_string_value(json_object_get(input, "issuer"));
	const char *ticket = json_string_value(json_object_get(input, "ticket"));
	const char *name = json_string_value(json_object_get(input, "name"));
	AUTO_FREE char *jws = NULL;
	if (agent->identity.enrolled && !json_is_true(json_object_get(input, "replace"))) {
		control_refuse(call, STATUS_LOCAL_PERMISSION, "this agent is enrolled already: 'enroll --replace' makes another agent of it");
		return;
	}
	enrolment_clear(&agent->enrolment);
	if (!issuer || strncmp(issuer, "https://", 8) != 0 || !ticket || !name || !*name
	    || enrolment_begin(issuer, json_object_get(input, "root_key"), name, ticket, clock_now_ms() / 1000, &agent->enrolment, &jws) != STATUS_OK) {
		control_refuse(call, STATUS_LOCAL_INPUT, "the enrolment is malformed: issuer, root_key, ticket or name");
		return;
	}
	control_reply(call, json_pack("{s:s,s:s,s:s}", "jws", jws, "signing_key", jose_key_id(agent->enrolment.signing), "decryption_key", jose_key_id(agent->enrolment.decryption)));
	wipe(jws, strlen(jws)); /* the ticket is in it */
}

static void handle_enrolled(enum status status, void *arg)
{
	struct agent *agent = arg;
	struct control_call *call = agent->enrolling;
	char why[512], text[640];
	agent->enrolling = NULL;
	if (status == STATUS_OK) {
		journal_abandon(agent->journal);
		agent_identity_changed(agent);
		control_reply(call, describe_identity(agent));
		return;
	}
	identity_describe_unwritten(&agent->identity, why, sizeof why);
	snprintf(text, sizeof text, "the enrolment is not kept, and what was before it stays: %s", why);
	agent_begin_anew(agent); /* what came meanwhile was not taken in */
	control_refuse(call, status, text);
}

static void run_enroll_finish(struct control_call *call, const json_t *input, void *arg)
{
	struct agent *agent = arg;
	struct enrolment_answer answer = { json_string_value(json_object_get(input, "agent_id")), json_string_value(json_object_get(input, "key_set")) };
	if (requests_running(agent->requests) + requests_settling(agent->requests) > 0) {
		control_refuse(call, STATUS_AGENT_OVERLOADED, "requests are in flight for the present enrolment: try again when they are done");
		return;
	}
	const char *signing_key = json_string_value(json_object_get(input, "signing_key"));
	if (!uuid_valid(answer.agent_id) || !answer.key_set || !signing_key || !agent->enrolment.issuer || agent->enrolling) {
		control_refuse(call, STATUS_LOCAL_INPUT, "the enrolment was not begun, or its answer is malformed");
		return;
	}
	/* The service knows this agent_id by other keys than those that are at hand. */
	if (strcmp(signing_key, jose_key_id(agent->enrolment.signing)) != 0) {
		char text[256];
		snprintf(text, sizeof text, "another enrolment was begun behind this one, which has changed nothing here: 'reset-service revoke %s' at the service undoes what it did there. If the other one does not end well, enroll again with a new ticket", answer.agent_id);
		control_refuse(call, STATUS_LOCAL_INPUT, text);
		return;
	}
	agent->enrolling = call;
	enum status status = enrolment_finish(&agent->enrolment, &agent->identity, &answer, clock_now_ms() / 1000, handle_enrolled, agent);
	if (status != STATUS_OK) {
		agent->enrolling = NULL;
		control_refuse(call, status, "the service's key set is not signed by its root key, expired or for another issuer");
	}
}

/* The rest ---------------------------------------------------------------------------------------------------------------------------- */

static void run_resume(struct control_call *call, const json_t *input, void *arg)
{
	struct agent *agent = arg;
	bool latched = limits_latched(agent->limits, LATCH_RESETS) || limits_latched(agent->limits, LATCH_GUESSES);
	limits_resume(agent->limits, clock_now_ms());
	for (enum latch latch = 0; latch < LATCHES; latch++)
		journal_set_number(agent->journal, agent_latch_numbers[latch], 0);
	journal_set_number(agent->journal, REQUESTS_RESUMED_MS, clock_now_ms());
	log_event(LOG_NOTICE, "agent.resumed", NULL, "%s", latched ? "an administrator has opened the latch" : "the counts of the last hour are forgotten; resets were allowed already");
	control_reply(call, json_pack("{s:b}", "was_latched", latched));
}

static bool show_entry(const struct journal_entry *entry, void *arg)
{
	static const char *const states[] = { [JOURNAL_INTENT] = "intent", [JOURNAL_SETTLING] = "settling", [JOURNAL_OUTCOME] = "outcome", [JOURNAL_SETTLING_AGAIN] = "settling" };
	json_t *rows = arg;
	char at[CLOCK_TEXT_SIZE];
	clock_format(entry->outcome_at_ms ? entry->outcome_at_ms : entry->intent_at_ms, at);
	json_array_append_new(rows, json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:b}", "at", at, "request_id", entry->request_id, "operation_id", entry->operation_id, "op", entry->op, "state",
	                                      states[entry->state], "code", entry->code, "user", entry->user_guid, "server", entry->server, "acknowledged", entry->acknowledged));
	if (json_array_size(rows) > JOURNAL_SHOWN)
		json_array_remove(rows, 0);
	return true;
}

static void run_journal(struct control_call *call, const json_t *input, void *arg)
{
	struct agent *agent = arg;
	json_t *rows = json_array();
	json_int_t last = json_integer_value(json_object_get(input, "last"));
	journal_each(agent->journal, show_entry, rows);
	while (last > 0 && json_array_size(rows) > (size_t)last)
		json_array_remove(rows, 0);
	control_reply(call, json_pack("{s:o}", "entries", rows));
}

const struct control_command agent_commands[] = {
	{ "status", run_status },
	{ "check", run_check },
	{ "check-user", agent_check_user },
	{ "explain-user", agent_explain_user },
	{ "enroll-begin", run_enroll_begin },
	{ "enroll-finish", run_enroll_finish },
	{ "resume", run_resume },
	{ "journal", run_journal },
	{ "rotate-keys", agent_rotate_keys },
	{ 0 },
};
