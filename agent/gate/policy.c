#include "agent/gate/policy.h"

#include <string.h>

#include "agent/gate/letters.h"

enum { PASSWORD_UNITS_MAX = 256, NAME_UNITS_MIN = 3, CLASSES_REQUIRED = 3 };

/* Microsoft's "Password must meet complexity requirements": these and no others; currency signs such as the Euro or the Pound do not count. */
static const char specials[] = "~!@#$%^&*_-+=`|\\(){}[]:;\"'<>,.?/";
static const char display_name_delimiters[] = ",.-_ #\t";

struct findings {
	struct rule *rules;
	size_t count;
	enum status first;
};

static void find(struct findings *findings, enum status status, struct rule rule)
{
	if (findings->first == STATUS_OK)
		findings->first = status;
	if (findings->count < MAX_RULES)
		findings->rules[findings->count++] = rule;
}

static unsigned class_of(uint32_t code_point)
{
	if (code_point >= '0' && code_point <= '9')
		return CLASS_DIGIT;
	if (code_point && code_point < 0x80 && strchr(specials, (int)code_point))
		return CLASS_SPECIAL;
	return letter_class(code_point);
}

unsigned policy_classes(struct bytes password)
{
	unsigned classes = 0;
	for (size_t at = 0; at < password.size;)
		classes |= class_of(utf8_next(password, &at));
	return classes;
}

/* In place and code point by code point: no folded copy of the password is made. */
static bool starts_with_folded(struct bytes text, size_t at, struct bytes word)
{
	for (size_t i = 0; i < word.size;) {
		if (at >= text.size || letter_fold(utf8_next(text, &at)) != letter_fold(utf8_next(word, &i)))
			return false;
	}
	return true;
}

static bool contains_folded(struct bytes text, struct bytes word)
{
	for (size_t at = 0; at < text.size; utf8_next(text, &at)) {
		if (starts_with_folded(text, at, word))
			return true;
	}
	return false;
}

static bool contains_name(struct bytes password, struct bytes name)
{
	return utf8_valid(name) && utf8_utf16_units(name) >= NAME_UNITS_MIN && contains_folded(password, name);
}

static bool contains_account_name(struct bytes password, const struct account *account)
{
	return account->sam_account_name && contains_name(password, bytes_of_string(account->sam_account_name));
}

static bool contains_display_name(struct bytes password, const struct account *account)
{
	const char *at = account->display_name ? account->display_name : "";
	while (*at) {
		size_t size = strcspn(at, display_name_delimiters);
		if (contains_name(password, bytes_of(at, size)))
			return true;
		at += size + (at[size] != '\0');
	}
	return false;
}

static struct rule length_rule(const struct password_policy *policy, struct bytes password)
{
	return (struct rule){ .kind = RULE_MIN_LENGTH, .required = policy->min_length, .given = (int64_t)utf8_utf16_units(password) };
}

static struct rule classes_rule(struct bytes password)
{
	unsigned classes = policy_classes(password);
	/* "Other letters" are no advice to give to somebody who lacks a class. */
	return (struct rule){ .kind = RULE_COMPLEXITY, .required = CLASSES_REQUIRED, .given = __builtin_popcount(classes),
		.missing = (CLASS_UPPER | CLASS_LOWER | CLASS_DIGIT | CLASS_SPECIAL) & ~classes };
}

static struct rule age_rule(const struct password_policy *policy, const struct account *account)
{
	int64_t possible_at;
	if (__builtin_add_overflow(account->pwd_last_set_s, policy->min_age_s, &possible_at))
		possible_at = INT64_MAX;
	return (struct rule){ .kind = RULE_MIN_AGE, .required = policy->min_age_s, .given = possible_at };
}

static void judge_complexity(const struct account *account, struct bytes password, struct findings *findings)
{
	struct rule classes = classes_rule(password);
	if (classes.given < CLASSES_REQUIRED)
		find(findings, STATUS_POLICY_COMPLEXITY, classes);
	/* Windows looks at names, Samba does not: judged everywhere, so that one rule holds for all servers. */
	if (contains_account_name(password, account))
		find(findings, STATUS_POLICY_COMPLEXITY, (struct rule){ .kind = RULE_ACCOUNT_NAME });
	if (contains_display_name(password, account))
		find(findings, STATUS_POLICY_COMPLEXITY, (struct rule){ .kind = RULE_DISPLAY_NAME });
}

static void judge_age(const struct password_policy *policy, const struct account *account, int64_t now_s, struct findings *findings)
{
	/* pwdLastSet 0: must change at the next logon, so no age holds it back. */
	if (!policy->min_age_s || !account->pwd_last_set_s)
		return;
	struct rule age = age_rule(policy, account);
	if (age.given > now_s)
		find(findings, STATUS_POLICY_TOO_RECENT, age);
}

enum status policy_judge(const struct password_policy *policy, const struct account *account, struct bytes password, bool enforced, int64_t now_s,
                         struct rule rules[MAX_RULES], size_t *ret_count)
{
	struct findings findings = { .rules = rules, .first = STATUS_OK };
	if (policy->source != POLICY_UNKNOWN) {
		if (utf8_utf16_units(password) < policy->min_length)
			find(&findings, STATUS_POLICY_TOO_SHORT, length_rule(policy, password));
		if (policy->complexity)
			judge_complexity(account, password, &findings);
		if (enforced)
			judge_age(policy, account, now_s, &findings);
	}
	*ret_count = findings.count;
	return findings.first;
}

static bool rule_explains(enum rule_kind kind, enum status status)
{
	switch (status) {
	case STATUS_POLICY_TOO_SHORT:
		return kind == RULE_MIN_LENGTH;
	case STATUS_POLICY_COMPLEXITY:
		return kind == RULE_COMPLEXITY || kind == RULE_ACCOUNT_NAME || kind == RULE_DISPLAY_NAME;
	case STATUS_POLICY_TOO_RECENT:
		return kind == RULE_MIN_AGE;
	default:
		return false;
	}
}

/* The server named a rule that we did not find broken (our policy is unknown or outdated): its numbers as far as they are known. */
static bool rule_for_hint(enum status hint, const struct password_policy *policy, const struct account *account, struct bytes password, struct rule *ret_rule)
{
	bool known = policy->source != POLICY_UNKNOWN;
	if (hint == STATUS_POLICY_HISTORY)
		*ret_rule = (struct rule){ .kind = RULE_HISTORY, .required = known ? policy->history : 0 };
	else if (hint == STATUS_POLICY_COMPLEXITY)
		*ret_rule = classes_rule(password);
	else if (known && hint == STATUS_POLICY_TOO_SHORT)
		*ret_rule = length_rule(policy, password);
	else if (known && hint == STATUS_POLICY_TOO_RECENT)
		*ret_rule = age_rule(policy, account);
	else
		return false;
	return true;
}

static size_t keep_explaining(struct rule *rules, size_t count, enum status status)
{
	size_t kept = 0;
	for (size_t i = 0; i < count; i++) {
		if (rule_explains(rules[i].kind, status))
			rules[kept++] = rules[i];
	}
	return kept;
}

enum status policy_diagnose(const struct password_policy *policy, const struct account *account, struct bytes password, bool enforced, enum status hint,
                            int64_t now_s, struct rule rules[MAX_RULES], size_t *ret_count)
{
	enum status judged = policy_judge(policy, account, password, enforced, now_s, rules, ret_count);
	if (hint != STATUS_OK) {
		*ret_count = keep_explaining(rules, *ret_count, hint);
		if (!*ret_count)
			*ret_count = rule_for_hint(hint, policy, account, password, &rules[0]);
		return hint;
	}
	if (judged != STATUS_OK)
		return judged;
	if (policy->source == POLICY_UNKNOWN)
		return STATUS_POLICY_REJECTED;
	/* Windows never says which: the history where it was asked to look, or a password filter, of which an agent cannot know. */
	rules[0] = (struct rule){ .kind = RULE_HISTORY_OR_FILTER, .required = enforced ? policy->history : 0 };
	*ret_count = 1;
	return STATUS_POLICY_HISTORY_OR_FILTER;
}

bool policy_explains(const struct password_policy *policy, const struct account *account, struct bytes password, bool enforced, enum status hint, int64_t now_s)
{
	struct rule rules[MAX_RULES];
	size_t count;
	enum status judged = policy_judge(policy, account, password, enforced, now_s, rules, &count);
	if (hint == STATUS_OK || policy->source == POLICY_UNKNOWN)
		return judged != STATUS_OK;
	return hint == STATUS_POLICY_HISTORY ? policy->history > 0 : keep_explaining(rules, count, hint) > 0;
}

enum status policy_hint(const char *diagnostic)
{
	/* Samba's sentences behind "check_password_restrictions: " (source4/dsdb/samdb/ldb_modules/password_hash.c). */
	static const struct { const char *words; enum status status; } sentences[] = {
		{ "the password is too short", STATUS_POLICY_TOO_SHORT },
		{ "does not meet the complexity criteria", STATUS_POLICY_COMPLEXITY },
		{ "password is too young to change", STATUS_POLICY_TOO_RECENT },
		{ "was already used", STATUS_POLICY_HISTORY }, /* "(in history)"; "(previous password)" of a change */
	};
	const char *restrictions = diagnostic ? strstr(diagnostic, "check_password_restrictions:") : NULL;
	for (size_t i = 0; restrictions && i < sizeof sentences / sizeof *sentences; i++) {
		if (strstr(restrictions, sentences[i].words))
			return sentences[i].status;
	}
	return STATUS_OK;
}

enum status policy_password_form(struct bytes password)
{
	if (!password.size || !utf8_valid(password) || memchr(password.data, 0, password.size) || utf8_utf16_units(password) > PASSWORD_UNITS_MAX)
		return STATUS_REQUEST_UNDECRYPTABLE;
	return STATUS_OK;
}
