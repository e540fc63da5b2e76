/* check-user and explain-user: could this user be reset now? One row a question, each answered by the same functions that a request meets. */
#include "agent/check_user.h"

#include <stdio.h>
#include <string.h>

#include "agent/gate/policy.h"
#include "base/clock.h"

#define LOCATE_MS 5000

json_t *check_add_row(struct user_check *check, const char *question, enum status status, const char *text)
{
	json_t *row = json_pack("{s:s,s:b,s:s}", "question", question, "ok", status == STATUS_OK, "text", text);
	json_array_append_new(check->rows, row);
	if (status == STATUS_OK || check->status != STATUS_OK)
		return row;
	check->status = status;
	snprintf(check->text, sizeof check->text, "%s", text + (strncmp(text, "yes: ", 5) == 0 ? 5 : strncmp(text, "no: ", 4) == 0 ? 4 : 0));
	return row;
}

/* Why a user is refused, as part of a sentence: the manual's texts are sentences of their own. */
struct clause { char text[256]; };
static struct clause clause_of(enum status status)
{
	struct clause clause;
	snprintf(clause.text, sizeof clause.text, "%s", status_admin_text(status));
	size_t size = strlen(clause.text);
	if (size > 0 && clause.text[size - 1] == '.')
		clause.text[size - 1] = 0;
	if (clause.text[0] >= 'A' && clause.text[0] <= 'Z' && (clause.text[1] == ' ' || (clause.text[1] >= 'a' && clause.text[1] <= 'z')))
		clause.text[0] += 'a' - 'A';
	return clause;
}

/* Who he is ---------------------------------------------------------------------------------------------------------------------------- */

void check_protected_groups(const struct account *account, char *text, size_t capacity)
{
	*text = 0;
	for (size_t i = 0; i < account->group_count; i++) {
		const char *name = scope_protected_group(&account->groups[i]);
		size_t used = strlen(text);
		if (name)
			snprintf(text + used, capacity - used, "%s%s", used ? ", " : "", name);
	}
}

static void ask_scope(struct user_check *check, const struct account *account)
{
	char why[256] = "", groups[256], text[400];
	if (!realm_scope_known(check->realm)) {
		check_add_row(check, "in scope", STATUS_DIRECTORY_UNAVAILABLE, "not known: the names in the scope could not be looked up yet");
		return;
	}
	enum status status = scope_judge(realm_scope(check->realm), account, why, sizeof why);
	check_protected_groups(account, groups, sizeof groups);
	if (status == STATUS_USER_PROTECTED)
		snprintf(text, sizeof text, "yes: %s", why);
	else if (status == STATUS_OK && *groups)
		snprintf(text, sizeof text, "exempted: an administrator (member of %s), let through by scope.exempt_administrators", groups);
	else
		snprintf(text, sizeof text, "%s", status == STATUS_OK ? "no" : "not asked: out of scope");
	check_add_row(check, "protected", status == STATUS_USER_PROTECTED ? status : STATUS_OK, text);
	snprintf(text, sizeof text, "no: %s", why);
	if (status != STATUS_USER_PROTECTED)
		check_add_row(check, "in scope", status, status == STATUS_OK ? "yes" : text);
}

static void ask_state(struct user_check *check, const struct account *account)
{
	static const struct { enum status status; const char *text; } refused[] = {
		{ STATUS_USER_DISABLED, "the account is disabled, and scope.allow does not have 'disabled'" },
		{ STATUS_USER_EXPIRED, "the account has expired (accountExpires), and scope.allow does not have 'expired'" },
		{ STATUS_USER_SMARTCARD, "a smart card is required (SMARTCARD_REQUIRED), and scope.allow does not have 'smartcard'" },
		{ STATUS_USER_CANNOT_CHANGE, "the user may not change the password, and scope.allow does not have 'cannot_change'" },
	};
	enum status status = scope_judge_state(realm_scope(check->realm), account, true, false, clock_now_ms() / 1000);
	for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
		if (status == refused[i].status) {
			check_add_row(check, "state", status, refused[i].text);
			return;
		}
	char text[256];
	snprintf(text, sizeof text, "%s%s%s", account->uac & UAC_ACCOUNTDISABLE ? "disabled, which the configuration allows" : "enabled", account->locked ? ", and locked: a reset unlocks it too" : "",
	         account->cannot_change_known || account->is_entry ? "" : "; whether the user may change the password could not be read");
	check_add_row(check, "state", status, status != STATUS_OK ? clause_of(status).text : text);
}

/* What the directory would say ----------------------------------------------------------------------------------------------------------- */

int64_t check_possible_s(const struct user_check *check, bool own_change)
{
	const struct account *account = located_account(check->located);
	const struct password_policy *policy = &account->policy;
	int64_t possible_s;
	if (policy->source == POLICY_UNKNOWN || (!own_change && !located_policy_control(check->located)) || !account->pwd_last_set_s || !policy->min_age_s)
		return INT64_MIN;
	if (__builtin_add_overflow(account->pwd_last_set_s, policy->min_age_s, &possible_s) || possible_s > INT64_MAX / 1000)
		possible_s = INT64_MAX / 1000;
	return possible_s > clock_now_ms() / 1000 ? possible_s : INT64_MIN;
}

static void ask_when(struct user_check *check, const struct account *account)
{
	const struct password_policy *policy = &account->policy;
	char text[200], full[CLOCK_TEXT_SIZE], at[CLOCK_TEXT_SIZE];
	int64_t possible_s = check_possible_s(check, false), change_s = check_possible_s(check, true);
	bool early = possible_s != INT64_MIN, only_by_reset = !early && change_s != INT64_MIN;
	if (policy->source == POLICY_UNKNOWN) {
		check_add_row(check, "when", STATUS_OK, "not known: the password policy could not be read");
		return;
	}
	clock_format(early || only_by_reset ? change_s * 1000 : 0, full);
	snprintf(at, sizeof at, "%.10s %.5s UTC", full, full + 11); /* as explain says it */
	if (early)
		snprintf(text, sizeof text, "not before %s: the password was set less than the minimum age of %lld s ago, which applies to resets too", at, (long long)policy->min_age_s);
	else if (only_by_reset)
		snprintf(text, sizeof text, "at once: the minimum age does not apply to resets here; to the user's own change it does, until %s", at);
	else
		snprintf(text, sizeof text, "at once: %s", policy->min_age_s ? "the minimum password age is over" : "there is no minimum password age");
	check_add_row(check, "when", early ? STATUS_POLICY_TOO_RECENT : STATUS_OK, text);
}

static void describe_policy(struct user_check *check, const struct account *account)
{
	static const char *const sources[] = { [POLICY_UNKNOWN] = "unknown", [POLICY_DOMAIN] = "domain", [POLICY_PSO] = "PSO", [POLICY_SUBENTRY] = "the user's own" };
	bool entry = account->is_entry;
	const struct password_policy *policy = &account->policy;
	char text[512];
	char lockout[96] = "no lockout";
	if (policy->lockout_threshold && policy->lockout_duration_s)
		snprintf(lockout, sizeof lockout, "locked for %lld s after %u wrong passwords", (long long)policy->lockout_duration_s, policy->lockout_threshold);
	else if (policy->lockout_threshold)
		snprintf(lockout, sizeof lockout, "locked after %u wrong passwords until an administrator unlocks", policy->lockout_threshold);
	if (policy->source == POLICY_UNKNOWN)
		snprintf(text, sizeof text, "%.300s could not be read: the agent's account lacks the right to read it%s", policy->source_name ? policy->source_name : "it",
		         account->is_entry ? "" : ": see the rights below");
	else
		snprintf(text, sizeof text, "%s (%s): at least %u characters%s, %u remembered, minimum age %lld s, %s", entry && policy->source == POLICY_DOMAIN ? "default" : sources[policy->source],
		         policy->source_name ? policy->source_name : "", policy->min_length, entry ? "" : policy->complexity ? ", complexity on" : ", complexity off", policy->history, (long long)policy->min_age_s, lockout);
	check_add_row(check, "policy", STATUS_OK, text);
}

static void ask_control(struct user_check *check)
{
	const char *control = located_policy_control(check->located);
	bool required = realm_settings(check->realm)->policy_hints == POLICY_HINTS_REQUIRE;
	check_add_row(check, "policy control", control || !required ? STATUS_OK : STATUS_DIRECTORY_NO_POLICY_CONTROL,
	        control ? control : required ? clause_of(STATUS_DIRECTORY_NO_POLICY_CONTROL).text : "none: history and minimum age are not enforced");
}

static void ask_operations(struct user_check *check)
{
	if (!(settings_operations(check->agent->settings) & 1u << OP_RESET))
		check_add_row(check, "operations", STATUS_REQUEST_UNSUPPORTED, "'operations' in the configuration does not allow resets");
}

/* The answer ----------------------------------------------------------------------------------------------------------------------------- */

static void free_check(struct user_check *check)
{
	located_free(check->located);
	json_decref(check->rows);
	free(check->user);
	free(check->domain);
	free(check);
}

static json_t *answer_check(const struct user_check *check)
{
	const struct account *account = located_account(check->located);
	bool good = check->status == STATUS_OK;
	return json_pack("{s:b,s:s,s:s,s:s,s:s,s:s,s:b,s:s,s:O}", "ok", good && !check->incomplete, "code", good ? "plausible" : status_code(check->status), "text",
	                 !good ? check->text : check->incomplete ? "a reset would be accepted, but the agent's account lacks a right: see below" : "everything but the write itself speaks for a reset",
	                 "dn", account->dn, "guid", account->guid, "server", located_position(check->located)->server, "locked", account->locked, "directory", realm_name(check->realm), "rows", check->rows);
}

static void handle_rights(enum status status, const struct directory_rights *rights, void *arg)
{
	struct user_check *check = arg;
	check->rights = rights;
	check_add_rights(check);
	control_reply(check->call, check->explain ? explain_user(check) : answer_check(check));
	free_check(check);
}

static void take_wrong_base(const struct realm_name *name, void *arg)
{
	struct clause *why = arg;
	if (strcmp(name->key, "base_dn") == 0 && name->asked && !name->good)
		snprintf(why->text, sizeof why->text, "base_dn %.240s", name->text);
}

static void answer_not_found(struct user_check *check, enum status status, const struct directory_answer *answer)
{
	/* A wrong base is the likeliest reason for anything that comes before the user is found. */
	struct clause why = clause_of(status);
	realm_each_name(check->realm, take_wrong_base, &why);
	const char *diagnostic = answer ? answer->diagnostic : "";
	control_reply(check->call, json_pack("{s:b,s:s,s:s,s:s,s:s,s:[]}", "ok", 0, "code", status_code(status), "text", why.text, "directory",
	                                     check->every && status == STATUS_USER_NOT_FOUND ? "" : realm_name(check->realm), "diagnostic", diagnostic, "rows"));
	free_check(check);
}

static void judge(struct user_check *check)
{
	const struct account *account = located_account(check->located);
	struct directory_call *call;
	char text[256];
	check_add_row(check, "found", STATUS_OK, account->dn);
	if (check->missed != STATUS_OK) {
		snprintf(text, sizeof text, "\"%.100s\" could not be asked whether it has such a user too (%s)", realm_name(check->missed_realm), status_code(check->missed));
		check_add_row(check, "other directory", STATUS_OK, text);
	}
	ask_operations(check);
	ask_scope(check, account);
	ask_state(check, account);
	ask_when(check, account);
	ask_control(check);
	describe_policy(check, account);
	if (directory_read_rights(check->located, LOCATE_MS, handle_rights, check, &call) != STATUS_OK)
		handle_rights(STATUS_DIRECTORY_UNAVAILABLE, NULL, check);
}

/* What a person types: a GUID, DOMAIN\name, name@domain, or a bare account name. */
static void handle_user(enum status status, struct located *take_located, const struct directory_answer *answer, void *arg);
static enum status locate(struct user_check *check, struct realm *realm)
{
	const char *user = check->user, *backslash = strchr(user, '\\'), *at = strrchr(user, '@');
	bool entries = realm_identity(realm) == LOCATE_ENTRY_UUID;
	enum locate_by by = uuid_valid(user) ? realm_identity(realm) : entries ? LOCATE_UID : at ? LOCATE_UPN : LOCATE_SAM;
	struct directory_call *call;
	check->realm = realm;
	return directory_locate(realm_directory(realm), by, backslash ? backslash + 1 : user, NULL, LOCATE_MS, handle_user, check, &call);
}

/* Every directory is asked, also behind one that has him: he may be in two. */
static bool ask_next(struct user_check *check)
{
	while (check->every && check->next < realms_count(check->agent->realms)) {
		struct realm *realm = realms_at(check->agent->realms, check->next++), *found = check->realm;
		if (check->domain && !directory_serves(realm_directory(realm), check->domain))
			continue;
		enum status status = locate(check, realm);
		if (status == STATUS_OK)
			return true;
		check->missed = status;
		check->missed_realm = realm;
		check->realm = found;
	}
	return false;
}

static void end_asking(struct user_check *check, enum status status, const struct directory_answer *answer)
{
	char text[512];
	if (check->located) {
		check->realm = realms_find(check->agent->realms, directory_name(located_directory(check->located)));
		judge(check);
	} else if (check->missed != STATUS_OK) {
		snprintf(text, sizeof text, "no directory that could be asked has the user; \"%s\" could not: %s", realm_name(check->missed_realm), status_admin_text(check->missed));
		control_refuse(check->call, check->missed, text);
		free_check(check);
	} else {
		answer_not_found(check, status, answer);
	}
}

static void handle_user(enum status status, struct located *take_located, const struct directory_answer *answer, void *arg)
{
	struct user_check *check = arg;
	if (status == STATUS_OK && check->located) {
		located_free(take_located);
		char text[256];
		snprintf(text, sizeof text, "the directories %.60s and %.60s both have such a user: choose one with --directory, or name the domain", directory_name(located_directory(check->located)),
		         realm_name(check->realm));
		control_refuse(check->call, STATUS_USER_AMBIGUOUS, text);
		free_check(check);
		return;
	}
	if (status == STATUS_USER_AMBIGUOUS) {
		located_free(check->located);
		check->located = NULL;
		answer_not_found(check, status, answer);
		return;
	}
	if (status == STATUS_OK) {
		check->located = take_located;
	} else {
		located_free(take_located);
		if (check->every && status != STATUS_USER_NOT_FOUND) {
			check->missed = status;
			check->missed_realm = check->realm;
		}
	}
	if (!ask_next(check))
		end_asking(check, status, answer);
}

/* The directory that is named, the one that serves the name's domain, or all of them in turn. */
static enum status choose(struct user_check *check, const char *directory)
{
	const char *backslash = strchr(check->user, '\\'), *at = strrchr(check->user, '@');
	struct realm *realm;
	check->domain = backslash ? strndup(check->user, backslash - check->user) : at ? strdup(at + 1) : NULL;
	enum status status = realms_choose(check->agent->realms, directory, check->domain, &realm);
	if (status == STATUS_OK)
		return locate(check, realm);
	if (status == STATUS_USER_NOT_FOUND)
		snprintf(check->text, sizeof check->text, "no directory here serves the domain \"%.100s\": see 'domains' in the configuration", check->domain ? check->domain : "");
	if (status != STATUS_USER_AMBIGUOUS)
		return status;
	check->every = true;
	return ask_next(check) ? STATUS_OK : check->missed;
}

static void run(struct control_call *call, const json_t *input, struct agent *agent, bool explain)
{
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
	*check = (struct user_check){ .agent = agent, .call = call, .explain = explain, .rows = json_array(), .user = strdup(user) };
	enum status status = check->user ? choose(check, directory) : STATUS_AGENT_INTERNAL;
	if (status == STATUS_OK)
		return;
	control_refuse(call, status, *check->text ? check->text : status_admin_text(status));
	free_check(check);
}

void agent_check_user(struct control_call *call, const json_t *input, void *arg)
{
	run(call, input, arg, false);
}

void agent_explain_user(struct control_call *call, const json_t *input, void *arg)
{
	run(call, input, arg, true);
}
