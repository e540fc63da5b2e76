/* explain-user: why a user can or cannot be reset, in sentences for somebody who sees this for the first time. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "agent/check_user.h"
#include "base/clock.h"

struct explanation {
	const struct user_check *check;
	const struct account *account;
	json_t *rows, *warnings;
};

__attribute__((format(printf, 3, 4))) static void say(struct explanation *to, const char *topic, const char *format, ...)
{
	char text[2048];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	json_array_append_new(to->rows, json_pack("{s:s,s:s}", "topic", topic, "text", text));
}

__attribute__((format(printf, 2, 3))) static void warn(struct explanation *to, const char *format, ...)
{
	char text[1024];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	json_array_append_new(to->warnings, json_string(text));
}

/* Words ------------------------------------------------------------------------------------------------------------------------------------ */

struct words { char text[320]; };

/* "2026-11-22 16:40 UTC" */
static struct words moment(int64_t at_s)
{
	struct words words;
	char text[CLOCK_TEXT_SIZE];
	clock_format(at_s > INT64_MAX / 1000 ? INT64_MAX / 1000 : at_s * 1000, text);
	snprintf(words.text, sizeof words.text, "%.10s %.5s UTC", text, text + 11);
	return words;
}

/* The largest unit that leaves nothing over: "1 day", "90 minutes". */
static struct words duration(int64_t seconds)
{
	static const struct { int64_t seconds; const char *name; } units[] = { { 86400, "day" }, { 3600, "hour" }, { 60, "minute" }, { 1, "second" } };
	struct words words;
	size_t i = 0;
	while (i < 3 && seconds % units[i].seconds != 0)
		i++;
	int64_t count = seconds / units[i].seconds;
	snprintf(words.text, sizeof words.text, "%lld %s%s", (long long)count, units[i].name, count == 1 ? "" : "s");
	return words;
}

/* How long ago or ahead, roughly. */
static struct words about(int64_t seconds)
{
	int64_t size = seconds < 0 ? -seconds : seconds, unit = size >= 2 * 86400 ? 86400 : size >= 2 * 3600 ? 3600 : size >= 120 ? 60 : 1;
	struct words span = duration(size / unit * unit), words = { "just now" };
	if (size == 0)
		return words;
	snprintf(words.text, sizeof words.text, seconds < 0 ? "%.100s ago" : "in %.100s", span.text);
	return words;
}

static void add(struct words *words, const char *text)
{
	size_t used = strlen(words->text);
	snprintf(words->text + used, sizeof words->text - used, "%s%s", used ? ", " : "", text);
}

/* Scope ------------------------------------------------------------------------------------------------------------------------------------ */

struct scope_names {
	const struct account *account;
	const char *key;
	char matching[600], all[600];     /* names of this key that hold for him; and all of them */
	char missing[600];                /* those that the directory does not have */
};

static bool is_member(const struct account *account, const struct sid *sid)
{
	bool member = sid_equal(sid, &account->sid);
	for (size_t i = 0; i < account->group_count && !member; i++)
		member = sid_equal(sid, &account->groups[i]);
	return member;
}

static void append_name(char *list, size_t capacity, const char *name)
{
	size_t used = strlen(list);
	snprintf(list + used, capacity - used, "%s\"%s\"", used ? ", " : "", name);
}

static void visit_name(const struct realm_name *name, void *arg)
{
	struct scope_names *names = arg;
	if (strcmp(name->key, names->key) != 0)
		return;
	append_name(names->all, sizeof names->all, name->name);
	if (name->asked && !name->good)
		append_name(names->missing, sizeof names->missing, name->name);
	if (strstr(names->key, "bases") ? dn_is_below(names->account->dn, name->name) : name->sid.size > 0 && is_member(names->account, &name->sid))
		append_name(names->matching, sizeof names->matching, name->name);
}

static struct scope_names names_of(const struct explanation *to, const char *key)
{
	struct scope_names names = { .account = to->account, .key = key };
	realm_each_name(to->check->realm, visit_name, &names);
	return names;
}

static void explain_inside(struct explanation *to)
{
	struct scope_names bases = names_of(to, "scope.bases"), groups = names_of(to, "scope.groups");
	say(to, "Scope", "in scope: %s%s%s%s%s", *bases.all ? "below " : *groups.all ? "" : "scope.users is all, and nothing excludes this user", bases.matching, *bases.all && *groups.all ? ", and " : "",
	    *groups.all ? "member of " : "", groups.matching);
}

/* ": "CN=Typo" is not there": what the rule in `why` could not find. */
static struct words not_there(struct explanation *to, const char *why)
{
	static const char *const keys[] = { "scope.protect", "scope.exclude_bases", "scope.exclude_groups", "scope.groups" };
	struct words words = { "" };
	for (size_t i = 0; strstr(why, "could not be") && i < sizeof keys / sizeof keys[0]; i++) {
		struct scope_names names = names_of(to, keys[i]);
		if (strstr(why, keys[i]) && *names.missing)
			snprintf(words.text, sizeof words.text, "; not there: %.280s", names.missing);
	}
	return words;
}

static void explain_outside(struct explanation *to, const char *why)
{
	struct words missing = not_there(to, why);
	static const struct { const char *key, *words; bool excludes; } rows[] = {
		{ "scope.exclude_bases", "below the excluded ", true }, { "scope.exclude_groups", "member of the excluded ", true }, { "scope.bases", "below none of ", false }, { "scope.groups", "member of none of ", false },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct scope_names names = names_of(to, rows[i].key);
		bool decides = rows[i].excludes ? *names.matching != 0 : *names.all && !*names.matching;
		if (decides && strstr(why, rows[i].key)) {
			say(to, "Scope", "OUT of scope: %s%s (%s)%s", rows[i].words, rows[i].excludes ? names.matching : names.all, rows[i].key, missing.text);
			return;
		}
	}
	say(to, "Scope", "OUT of scope: %s%s", why, missing.text);
}

/* adminCount alone tells nobody why: the groups by name. */
static struct words protected_groups(const struct account *account)
{
	struct words words;
	check_protected_groups(account, words.text, sizeof words.text);
	return words;
}

static void explain_protection(struct explanation *to, const char *why)
{
	struct scope_names local = names_of(to, "scope.protect");
	struct words groups = protected_groups(to->account);
	bool listed = strstr(why, "scope.protect") && *local.matching, grouped = *groups.text && !strstr(why, groups.text);
	say(to, "Protected", "YES: %s%s%s%s%s%s", why, not_there(to, why).text, listed ? ": " : "", listed ? local.matching : "", grouped ? "; member of " : "", grouped ? groups.text : "");
}

/* Who is let through by an exemption is an administrator all the same. */
static void explain_unprotected(struct explanation *to)
{
	struct words groups = protected_groups(to->account);
	if (!*groups.text) {
		say(to, "Protected", "no: %s", directory_words(located_directory(to->check->located))->unprotected);
		return;
	}
	say(to, "Protected", "EXEMPTED: an administrator (member of %s), let through by scope.exempt_administrators", groups.text);
	warn(to, "this is an administrator: whoever can speak for the service can become this user, as long as scope.exempt_administrators stands");
}

static void explain_scope(struct explanation *to)
{
	char why[512] = "";
	if (!realm_scope_known(to->check->realm)) {
		say(to, "Scope", "not known: the names in the scope could not be looked up yet");
		return;
	}
	enum status status = scope_judge(realm_scope(to->check->realm), to->account, why, sizeof why);
	if (status == STATUS_OK)
		explain_inside(to);
	else if (status == STATUS_USER_OUT_OF_SCOPE)
		explain_outside(to, why);
	else
		say(to, "Scope", "not asked, since the user is protected");
	if (status == STATUS_USER_PROTECTED)
		explain_protection(to, why);
	else if (status == STATUS_OK)
		explain_unprotected(to);
	else
		say(to, "Protected", "not asked, since the user is out of scope");
}

/* State ------------------------------------------------------------------------------------------------------------------------------------ */

static void explain_state(struct explanation *to)
{
	const struct account *account = to->account;
	int64_t now_s = clock_now_ms() / 1000;
	struct words state = { "" };
	char text[80];
	add(&state, account->uac & UAC_ACCOUNTDISABLE ? "DISABLED" : "enabled");
	if (account->account_expires_s != INT64_MAX) {
		snprintf(text, sizeof text, "%s %.40s", account->account_expires_s <= now_s ? "EXPIRED since" : "expires", moment(account->account_expires_s).text);
		add(&state, text);
	}
	if (account->uac & UAC_SMARTCARD_REQUIRED)
		add(&state, "a smart card is required: a password is of no use");
	if (account->cannot_change)
		add(&state, "the user may not change the password");
	if (account->uac & UAC_DONT_EXPIRE_PASSWORD)
		add(&state, "the password never expires, so must_change is refused");
	say(to, "State", "%s", state.text);
	if (!account->cannot_change_known && !account->is_entry)
		warn(to, "whether the user may change the password could not be read (the right Read permissions is missing); it is taken for yes");
}

static void explain_lock(struct explanation *to)
{
	const struct account *account = to->account;
	const struct password_policy *policy = &account->policy;
	struct words since = moment(account->lockout_began_s), until = { "" };
	int64_t ends_s = account->lockout_began_s + policy->lockout_duration_s;
	if (!account->locked) {
		say(to, "Locked", "no");
		return;
	}
	if (policy->source == POLICY_UNKNOWN)
		snprintf(until.text, sizeof until.text, "until an unlock, or the end of a time that could not be read");
	else if (policy->lockout_duration_s > 0 && account->lockout_began_s > 0)
		snprintf(until.text, sizeof until.text, "until %.40s, or an unlock or a reset before", moment(ends_s).text);
	else if (policy->lockout_duration_s > 0)
		snprintf(until.text, sizeof until.text, "for %.40s, or until an unlock or a reset", duration(policy->lockout_duration_s).text);
	else
		snprintf(until.text, sizeof until.text, "until an unlock or a reset");
	say(to, "Locked", "YES%s%s, %s", account->lockout_began_s > 0 ? " since " : "", account->lockout_began_s > 0 ? since.text : "", until.text);
}

static int64_t expires_s(const struct account *account)
{
	int64_t at_s = INT64_MAX;
	if (account->password_expires_s != 0)
		return account->password_expires_s;
	if (account->uac & UAC_DONT_EXPIRE_PASSWORD || (account->policy.source != POLICY_UNKNOWN && account->policy.max_age_s == 0))
		return INT64_MAX;
	return account->policy.source == POLICY_UNKNOWN || __builtin_add_overflow(account->pwd_last_set_s, account->policy.max_age_s, &at_s) ? 0 : at_s;
}

static void explain_password(struct explanation *to)
{
	const struct account *account = to->account;
	int64_t now_s = clock_now_ms() / 1000, end_s = expires_s(account);
	if (account->pwd_last_set_s == 0) {
		say(to, "Password", "must be changed at the next logon, or was never set");
		return;
	}
	struct words set = moment(account->pwd_last_set_s), ago = about(account->pwd_last_set_s - now_s), end = moment(end_s), ahead = about(end_s - now_s);
	if (end_s == 0 || end_s == INT64_MAX)
		say(to, "Password", "set %s (%s); %s", set.text, ago.text, end_s ? "it never expires" : "when it expires is not known");
	else
		say(to, "Password", "set %s (%s); %s %s (%s)", set.text, ago.text, end_s <= now_s ? "EXPIRED" : "expires", end.text, ahead.text);
}

/* Policy ----------------------------------------------------------------------------------------------------------------------------------- */

static struct words rules_of(const struct password_policy *policy)
{
	struct words rules = { "" };
	char text[160];
	snprintf(text, sizeof text, "at least %u characters", policy->min_length);
	add(&rules, policy->min_length ? text : "any length");
	if (policy->complexity)
		add(&rules, "characters of three kinds (capital and small letters, digits, signs, other letters), not the account's name nor a part of the display name");
	return rules;
}

static struct words limits_of(const struct password_policy *policy)
{
	struct words limits = { "" };
	char text[160];
	snprintf(text, sizeof text, "none of the last %u passwords", policy->history);
	add(&limits, policy->history ? text : "no history");
	snprintf(text, sizeof text, "not within %.40s of the last change", duration(policy->min_age_s).text);
	add(&limits, policy->min_age_s ? text : "no minimum age");
	snprintf(text, sizeof text, "expires after %.40s", duration(policy->max_age_s).text);
	add(&limits, policy->max_age_s ? text : "never expires");
	snprintf(text, sizeof text, "locked after %u wrong tries%s%.40s", policy->lockout_threshold, policy->lockout_duration_s ? " for " : " until it is unlocked", policy->lockout_duration_s ? duration(policy->lockout_duration_s).text : "");
	add(&limits, policy->lockout_threshold ? text : "never locked");
	return limits;
}

static void explain_policy(struct explanation *to)
{
	const struct directory_words *words = directory_words(located_directory(to->check->located));
	const struct password_policy *policy = &to->account->policy;
	if (policy->source == POLICY_UNKNOWN) {
		say(to, "Policy", "not known%s%s: it could not be read", policy->source_name ? ": " : "", policy->source_name ? policy->source_name : "");
		warn(to, "the password policy in effect could not be read: the agent cannot say beforehand what the directory will refuse, nor which rule it was. The missing right: %s", words->policy_right);
		return;
	}
	struct words rules = rules_of(policy), limits = limits_of(policy);
	say(to, "Policy", "%s (%s)", policy->source == POLICY_DOMAIN ? words->default_policy : words->own_policy, policy->source_name ? policy->source_name : "");
	say(to, "Rules", "%s", rules.text);
	say(to, "", "%s", limits.text);
}

static void explain_enforcement(struct explanation *to)
{
	const char *control = located_policy_control(to->check->located);
	bool required = realm_settings(to->check->realm)->policy_hints == POLICY_HINTS_REQUIRE;
	const char *missing = directory_words(located_directory(to->check->located))->policy_control;
	if (control)
		say(to, "Enforced", "yes: history and minimum age apply to resets too (control %s)", control);
	else
		say(to, "Enforced", required ? "NO, so resets are refused: this server lacks %s, and 'policy_hints' is require" : "NO: history and minimum age do not apply to resets; this server lacks %s", missing);
	int64_t possible_s = check_possible_s(to->check, false), change_s = check_possible_s(to->check, true);
	if (possible_s != INT64_MIN)
		say(to, "Next change", "not before %s: the minimum age", moment(possible_s).text);
	else if (change_s != INT64_MIN)
		say(to, "Next change", "possible at once by a reset; the user's own change not before %s: the minimum age", moment(change_s).text);
	else
		say(to, "Next change", "possible at once%s", to->account->policy.source == POLICY_UNKNOWN ? ", as far as is known" : "");
}

/* The agent -------------------------------------------------------------------------------------------------------------------------------- */

static void explain_rights(struct explanation *to)
{
	char missing[512] = "", unknown[512] = "";
	size_t index;
	json_t *row;
	json_array_foreach(to->check->rows, index, row) {
		const char *answer = json_string_value(json_object_get(row, "answer")), *question = json_string_value(json_object_get(row, "question"));
		char *list = !answer || strcmp(answer, "yes") == 0 || !json_is_true(json_object_get(row, "needed")) ? NULL : strcmp(answer, "no") == 0 ? missing : unknown;
		size_t used = list ? strlen(list) : 0;
		if (list)
			snprintf(list + used, sizeof missing - used, "%s%s", used ? ", " : "", question + strlen("right: "));
	}
	if (to->account->is_entry) {
		say(to, "Rights", "not known: this kind of directory does not tell them; a refusal names what is missing");
		return;
	}
	say(to, "Rights", "%s%s%s%s%s", *missing ? "MISSING: " : *unknown ? "" : "the agent's account has all that it needs", missing, *missing && *unknown ? "; " : "", *unknown ? "not known: " : "", unknown);
	if (*missing && to->check->status != STATUS_USER_PROTECTED && to->check->status != STATUS_USER_OUT_OF_SCOPE)
		warn(to, "rights are missing: 'writebackctl check --user' shows the commands that grant them");
}

static void explain_rest(struct explanation *to)
{
	unsigned allow = realm_scope(to->check->realm)->allow;
	const struct account *account = to->account;
	if (!to->check->rights)
		warn(to, "the rights of the agent's account could not be read");
	if (account->admin_count)
		warn(to, "adminCount is %lld: the account is or was in an administrative group; AdminSDHolder's access list takes no rights from its container", (long long)account->admin_count);
	if ((account->uac & UAC_ACCOUNTDISABLE && allow & SCOPE_ALLOW_DISABLED) || (account->uac & UAC_SMARTCARD_REQUIRED && allow & SCOPE_ALLOW_SMARTCARD) ||
	    (account->cannot_change && allow & SCOPE_ALLOW_CANNOT_CHANGE) || (account->account_expires_s <= clock_now_ms() / 1000 && allow & SCOPE_ALLOW_EXPIRED))
		warn(to, "the account's state would be refused, but 'scope.allow' in the configuration lets it through");
	if (to->check->missed != STATUS_OK)
		warn(to, "the directory \"%s\" could not be asked whether it has such a user too", realm_name(to->check->missed_realm));
}

static int64_t at_or_now(int64_t possible_s) { return possible_s == INT64_MIN ? 0 : possible_s; }

json_t *explain_user(const struct user_check *check)
{
	const struct account *account = located_account(check->located);
	struct explanation to = { check, account, json_array(), json_array() };
	bool good = check->status == STATUS_OK;
	if (good)
		say(&to, "Reset now", "yes: nothing that can be known beforehand speaks against it");
	else
		say(&to, "Reset now", "NO: %s (%s)", check->text, status_code(check->status));
	say(&to, "Found", "%s", account->dn);
	say(&to, "", "%s %s, on %s, directory %s", directory_words(located_directory(check->located))->user_id, account->guid, located_position(check->located)->server, realm_name(check->realm));
	explain_scope(&to);
	explain_state(&to);
	explain_lock(&to);
	explain_password(&to);
	explain_policy(&to);
	explain_enforcement(&to);
	explain_rights(&to);
	explain_rest(&to);
	const struct password_policy *policy = &account->policy;
	json_t *facts = json_pack("{s:b,s:b,s:I,s:I,s:I,s:I,s:I,s:b,s:s?,s:b}", "locked", account->locked, "cannot_change", account->cannot_change, "locked_at", (json_int_t)account->lockout_began_s, "password_set",
	                          (json_int_t)account->pwd_last_set_s, "password_expires", (json_int_t)(expires_s(account) == INT64_MAX ? -1 : expires_s(account)), "next_change",
	                          (json_int_t)at_or_now(check_possible_s(check, false)), "next_own_change", (json_int_t)at_or_now(check_possible_s(check, true)), "policy_known", policy->source != POLICY_UNKNOWN, "policy_source", policy->source_name,
	                          "policy_enforced", located_policy_control(check->located) != NULL);
	return json_pack("{s:b,s:s,s:s,s:s,s:s,s:s,s:s,s:o,s:o,s:o,s:O}", "ok", good, "code", good ? "plausible" : status_code(check->status), "text", good ? "" : check->text, "dn", account->dn, "guid", account->guid,
	                 "server", located_position(check->located)->server, "directory", realm_name(check->realm), "explanation", to.rows, "warnings", to.warnings, "facts", facts, "rows", check->rows);
}
