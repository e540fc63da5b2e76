/* check-user: could this user be reset now? One row a question, each answered by the same functions that a request meets. */
#include <stdio.h>
#include <string.h>

#include "agent/agent.h"
#include "agent/gate/policy.h"
#include "base/clock.h"

#define LOCATE_MS 5000

struct user_check {
	struct agent *agent;
	struct control_call *call;
	struct realm *realm;
	struct located *located;
	json_t *rows;
	enum status status;            /* of the first question that a reset would fail at */
	char text[256];
};

static void add_row(struct user_check *check, const char *question, enum status status, const char *text)
{
	json_array_append_new(check->rows, json_pack("{s:s,s:b,s:s}", "question", question, "ok", status == STATUS_OK, "text", text));
	if (status == STATUS_OK || check->status != STATUS_OK)
		return;
	check->status = status;
	snprintf(check->text, sizeof check->text, "%s", text + (strncmp(text, "yes: ", 5) == 0 ? 5 : strncmp(text, "no: ", 4) == 0 ? 4 : 0));
}

/* Who he is ---------------------------------------------------------------------------------------------------------------------------- */

static void ask_scope(struct user_check *check, const struct account *account)
{
	char why[256] = "", text[300];
	if (!realm_scope_known(check->realm)) {
		add_row(check, "in scope", STATUS_DIRECTORY_UNAVAILABLE, "not known: the names in the scope could not be looked up yet");
		return;
	}
	enum status status = scope_judge(realm_scope(check->realm), account, why, sizeof why);
	snprintf(text, sizeof text, "yes: %s", why);
	add_row(check, "protected", status == STATUS_USER_PROTECTED ? status : STATUS_OK, status == STATUS_USER_PROTECTED ? text : status == STATUS_OK ? "no" : "not asked: out of scope");
	snprintf(text, sizeof text, "no: %s", why);
	if (status != STATUS_USER_PROTECTED)
		add_row(check, "in scope", status, status == STATUS_OK ? "yes" : text);
}

static void ask_state(struct user_check *check, const struct account *account)
{
	enum status status = scope_judge_state(realm_scope(check->realm), account, true, false, clock_now_ms() / 1000);
	add_row(check, "state", status, status != STATUS_OK ? status_admin_text(status) : account->locked ? "enabled, and locked: a reset unlocks it too" : "enabled");
}

/* What the directory would say ----------------------------------------------------------------------------------------------------------- */

static void ask_when(struct user_check *check, const struct account *account)
{
	const struct password_policy *policy = &account->policy;
	char text[160], at[CLOCK_TEXT_SIZE];
	int64_t now_s = clock_now_ms() / 1000, possible_s;
	if (policy->source == POLICY_UNKNOWN) {
		add_row(check, "when", STATUS_OK, "not known: the password policy could not be read");
		return;
	}
	if (__builtin_add_overflow(account->pwd_last_set_s, policy->min_age_s, &possible_s) || possible_s > INT64_MAX / 1000)
		possible_s = INT64_MAX / 1000;
	bool early = located_policy_control(check->located) && account->pwd_last_set_s && policy->min_age_s && possible_s > now_s;
	clock_format(possible_s * 1000, at);
	snprintf(text, sizeof text, "not before %s: the password was set less than the minimum age of %lld s ago, which applies to resets too", at, (long long)policy->min_age_s);
	add_row(check, "when", early ? STATUS_POLICY_TOO_RECENT : STATUS_OK, early ? text : "at once: the minimum password age is over");
}

static void describe_policy(struct user_check *check, const struct account *account)
{
	static const char *const sources[] = { [POLICY_UNKNOWN] = "unknown", [POLICY_DOMAIN] = "domain", [POLICY_PSO] = "PSO", [POLICY_SUBENTRY] = "subentry" };
	const struct password_policy *policy = &account->policy;
	char text[512];
	char lockout[96] = "no lockout";
	if (policy->lockout_threshold && policy->lockout_duration_s)
		snprintf(lockout, sizeof lockout, "locked for %lld s after %u wrong passwords", (long long)policy->lockout_duration_s, policy->lockout_threshold);
	else if (policy->lockout_threshold)
		snprintf(lockout, sizeof lockout, "locked after %u wrong passwords until an administrator unlocks", policy->lockout_threshold);
	if (policy->source == POLICY_UNKNOWN)
		snprintf(text, sizeof text, "could not be read");
	else
		snprintf(text, sizeof text, "%s (%s): at least %u characters, complexity %s, %u remembered, minimum age %lld s, %s", sources[policy->source],
		         policy->source_name ? policy->source_name : "", policy->min_length, policy->complexity ? "on" : "off", policy->history, (long long)policy->min_age_s, lockout);
	add_row(check, "policy", STATUS_OK, text);
}

static void ask_control(struct user_check *check)
{
	const char *control = located_policy_control(check->located);
	bool required = realm_settings(check->realm)->policy_hints == POLICY_HINTS_REQUIRE;
	add_row(check, "policy control", control || !required ? STATUS_OK : STATUS_DIRECTORY_NO_POLICY_CONTROL,
	        control ? control : required ? status_admin_text(STATUS_DIRECTORY_NO_POLICY_CONTROL) : "none: history and minimum age are not enforced");
}

static void ask_operations(struct user_check *check)
{
	if (!(settings_operations(check->agent->settings) & 1u << OP_RESET))
		add_row(check, "operations", STATUS_REQUEST_UNSUPPORTED, "'operations' in the configuration does not allow resets");
}

/* The answer ----------------------------------------------------------------------------------------------------------------------------- */

static void free_check(struct user_check *check)
{
	located_free(check->located);
	json_decref(check->rows);
	free(check);
}

static void finish(struct user_check *check)
{
	const struct account *account = located_account(check->located);
	bool good = check->status == STATUS_OK;
	control_reply(check->call, json_pack("{s:b,s:s,s:s,s:s,s:s,s:s,s:b,s:s,s:O}", "ok", good, "code", good ? "plausible" : status_code(check->status), "text",
	                                     good ? "everything but the write itself speaks for a reset" : check->text, "dn", account->dn, "guid", account->guid, "server",
	                                     located_position(check->located)->server, "locked", account->locked, "directory", realm_name(check->realm), "rows", check->rows));
	free_check(check);
}

static void handle_rights(enum status status, const struct directory_rights *rights, void *arg)
{
	struct user_check *check = arg;
	char text[300];
	static const char *const words[] = { [RIGHT_UNKNOWN] = "not known", [RIGHT_NO] = "no", [RIGHT_YES] = "yes" };
	bool all = rights && rights->answers[RIGHT_RESET_PASSWORD] != RIGHT_NO && rights->answers[RIGHT_WRITE_LOCKOUT_TIME] != RIGHT_NO && rights->answers[RIGHT_WRITE_PWD_LAST_SET] != RIGHT_NO;
	if (rights)
		snprintf(text, sizeof text, "Reset Password: %s, write lockoutTime: %s, write pwdLastSet: %s%s", words[rights->answers[RIGHT_RESET_PASSWORD]],
		         words[rights->answers[RIGHT_WRITE_LOCKOUT_TIME]], words[rights->answers[RIGHT_WRITE_PWD_LAST_SET]], all ? "" : ". Delegate what is missing to the agent's account");
	else
		snprintf(text, sizeof text, "could not be read (%s)", status_code(status));
	add_row(check, "rights", !rights || all ? STATUS_OK : STATUS_DIRECTORY_DENIED, text);
	finish(check);
}

static void answer_not_found(struct user_check *check, enum status status, const struct directory_answer *answer)
{
	char why[700];
	/* A wrong base is the likeliest reason for anything that comes before the user is found. */
	bool names = realm_names_good(check->realm, why, sizeof why);
	const char *diagnostic = answer ? answer->diagnostic : "";
	control_reply(check->call, json_pack("{s:b,s:s,s:s,s:s,s:s,s:[]}", "ok", 0, "code", status_code(status), "text", names ? status_admin_text(status) : why, "directory",
	                                     realm_name(check->realm), "diagnostic", diagnostic, "rows"));
	free_check(check);
}

static void handle_user(enum status status, struct located *take_located, const struct directory_answer *answer, void *arg)
{
	struct user_check *check = arg;
	struct directory_call *call;
	if (status != STATUS_OK) {
		located_free(take_located);
		answer_not_found(check, status, answer);
		return;
	}
	check->located = take_located;
	const struct account *account = located_account(take_located);
	add_row(check, "found", STATUS_OK, account->dn);
	ask_operations(check);
	ask_scope(check, account);
	ask_state(check, account);
	ask_when(check, account);
	ask_control(check);
	describe_policy(check, account);
	status = directory_read_rights(take_located, LOCATE_MS, handle_rights, check, &call);
	if (status != STATUS_OK)
		handle_rights(status, NULL, check);
}

/* What a person types: a GUID, DOMAIN\name, name@domain, or a bare account name. */
static enum status locate(struct user_check *check, const char *user, const char *directory)
{
	const char *backslash = strchr(user, '\\'), *at = strrchr(user, '@');
	AUTO_FREE char *domain = backslash ? strndup(user, backslash - user) : at ? strdup(at + 1) : NULL;
	enum locate_by by = uuid_valid(user) ? LOCATE_OBJECT_GUID : at ? LOCATE_UPN : LOCATE_SAM;
	struct directory_call *call;
	enum status status = realms_choose(check->agent->realms, directory, domain, &check->realm);
	if (status == STATUS_USER_NOT_FOUND)
		snprintf(check->text, sizeof check->text, "no directory here serves the domain \"%.100s\": see 'domains' in the configuration", domain ? domain : "");
	else if (status == STATUS_USER_AMBIGUOUS)
		snprintf(check->text, sizeof check->text, "several directories may have the user: choose one with --directory, or name the domain");
	return status == STATUS_OK ? directory_locate(realm_directory(check->realm), by, backslash ? backslash + 1 : user, NULL, LOCATE_MS, handle_user, check, &call) : status;
}

void agent_check_user(struct control_call *call, const json_t *input, void *arg)
{
	struct agent *agent = arg;
	const char *user = json_string_value(json_object_get(input, "user"));
	const char *directory = json_string_value(json_object_get(input, "directory"));
	if (!user || !*user || strlen(user) > 1024) {
		agent_refuse_usage(call, "no user is named");
		return;
	}
	if (directory && !realms_find(agent->realms, directory)) {
		agent_refuse_directory(agent, call, directory);
		return;
	}
	struct user_check *check = calloc(1, sizeof *check);
	if (!check) {
		control_refuse(call, STATUS_AGENT_INTERNAL, "out of memory");
		return;
	}
	*check = (struct user_check){ .agent = agent, .call = call, .rows = json_array() };
	enum status status = locate(check, user, directory);
	if (status == STATUS_OK)
		return;
	control_refuse(call, status, *check->text ? check->text : status_admin_text(status));
	free_check(check);
}
