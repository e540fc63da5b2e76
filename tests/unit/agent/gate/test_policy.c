#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/gate/policy.h"

#define P(text) bytes_of_string(text)

static const struct password_policy policy = { .source = POLICY_DOMAIN, .min_length = 8, .complexity = true, .history = 24, .min_age_s = 86400 };
static struct account user(const char *sam, const char *display)
{
	return (struct account){ .sam_account_name = (char *)(uintptr_t)sam, .display_name = (char *)(uintptr_t)display };
}

static struct rule rules[MAX_RULES];
static size_t count;

static enum status judge(const struct account *account, const char *password)
{
	return policy_judge(&policy, account, P(password), true, 1000000, rules, &count);
}

static void classes(void **state)
{
	assert_int_equal(policy_classes(P("")), 0);
	assert_int_equal(policy_classes(P("a")), CLASS_LOWER);
	assert_int_equal(policy_classes(P("aB3")), CLASS_LOWER | CLASS_UPPER | CLASS_DIGIT);
	assert_int_equal(policy_classes(P("\xc3\x84")), CLASS_UPPER);           /* Ä */
	assert_int_equal(policy_classes(P("\xc3\x9f")), CLASS_LOWER);           /* ß */
	assert_int_equal(policy_classes(P("\xce\xa9\xcf\x89")), CLASS_UPPER | CLASS_LOWER); /* Ω ω */
	assert_int_equal(policy_classes(P("\xd0\x96\xd0\xb6")), CLASS_UPPER | CLASS_LOWER); /* Ж ж */
	assert_int_equal(policy_classes(P("\xc4\x80")), CLASS_UPPER);           /* Ā, in a range of stride two */
	assert_int_equal(policy_classes(P("\xc4\x81")), CLASS_LOWER);           /* ā */
	assert_int_equal(policy_classes(P("\xe6\xbc\xa2")), CLASS_OTHER);       /* 漢 */
	assert_int_equal(policy_classes(P("\xd7\xa9")), CLASS_OTHER);           /* ש */
	assert_int_equal(policy_classes(P("\xe2\x82\xac\xc2\xa3")), 0);         /* € £: currency signs do not count */
	assert_int_equal(policy_classes(P("\xf0\x9f\x98\x80\x7f\x01")), 0);     /* an emoji, DEL, SOH */
	assert_int_equal(policy_classes(P(" ")), 0);
}

static void each_special_counts_and_no_other(void **state)
{
	static const char specials[] = "~!@#$%^&*_-+=`|\\(){}[]:;\"'<>,.?/";
	for (int c = 1; c < 0x80; c++) {
		char text[2] = { (char)c, 0 };
		assert_int_equal((policy_classes(P(text)) & CLASS_SPECIAL) != 0, strchr(specials, c) != NULL);
	}
}

static void three_of_five(void **state)
{
	struct account account = user("alice", "Alice Cooper");
	assert_int_equal(judge(&account, "zzZZ1111"), STATUS_OK);
	assert_int_equal(judge(&account, "zz!!1111"), STATUS_OK);
	assert_int_equal(judge(&account, "\xe6\xbc\xa2zzz1111"), STATUS_OK);
	assert_int_equal(judge(&account, "zzzz1111"), STATUS_POLICY_COMPLEXITY);
	assert_int_equal(count, 1);
	assert_int_equal(rules[0].kind, RULE_COMPLEXITY);
	assert_int_equal(rules[0].required, 3);
	assert_int_equal(rules[0].given, 2);
	assert_int_equal(rules[0].missing, CLASS_UPPER | CLASS_SPECIAL);
	assert_int_equal(judge(&account, "zzzz111\xe2\x82\xac"), STATUS_POLICY_COMPLEXITY);
	struct password_policy simple = policy;
	simple.complexity = false;
	assert_int_equal(policy_judge(&simple, &account, P("alicealice"), true, 1000000, rules, &count), STATUS_OK);
}

static void the_account_name(void **state)
{
	struct account account = user("alice", NULL), two = user("al", NULL), none = user(NULL, NULL), umlaut = user("\xc3\x84rzt", NULL);
	assert_int_equal(judge(&account, "xxAlIcExx-99"), STATUS_POLICY_COMPLEXITY);
	assert_int_equal(count, 1);
	assert_int_equal(rules[0].kind, RULE_ACCOUNT_NAME);
	assert_int_equal(judge(&account, "99-xxALICE"), STATUS_POLICY_COMPLEXITY);
	assert_int_equal(judge(&account, "xxAlic-exx-99"), STATUS_OK);
	assert_int_equal(judge(&account, "Alic99-xx"), STATUS_OK);
	assert_int_equal(judge(&two, "xxAlxx-99"), STATUS_OK); /* shorter than three is not looked for */
	assert_int_equal(judge(&none, "xxAlxx-99"), STATUS_OK);
	assert_int_equal(judge(&umlaut, "Xx\xc3\xa4RZT-99"), STATUS_POLICY_COMPLEXITY);
	struct account broken = user("\xff\xfe\xfd", NULL);
	assert_int_equal(judge(&broken, "xxAlxx-99"), STATUS_OK);
}

static void tokens_of_the_display_name(void **state)
{
	struct account account = user("u1", "Cooper, Alice-Ann.Lee_Wu #Jo\tMax van");
	static const char *const held[] = { "xxCOOPERx-9", "99-xalicexX", "X-annx999", "X-leex999", "X-maxx999", "X-vanx999" };
	static const char *const fine[] = { "X-Wux9999", "X-Jox9999", "X-coope99", "X-ali-ce9" };
	for (size_t i = 0; i < sizeof held / sizeof *held; i++) {
		assert_int_equal(judge(&account, held[i]), STATUS_POLICY_COMPLEXITY);
		assert_int_equal(count, 1);
		assert_int_equal(rules[0].kind, RULE_DISPLAY_NAME);
	}
	for (size_t i = 0; i < sizeof fine / sizeof *fine; i++)
		assert_int_equal(judge(&account, fine[i]), STATUS_OK);
}

static void length_in_utf16_units(void **state)
{
	struct account account = user("u1", NULL);
	assert_int_equal(judge(&account, "aB3-aB3"), STATUS_POLICY_TOO_SHORT);
	assert_int_equal(rules[0].kind, RULE_MIN_LENGTH);
	assert_int_equal(rules[0].required, 8);
	assert_int_equal(rules[0].given, 7);
	assert_int_equal(judge(&account, "aB3-aB3x"), STATUS_OK);
	assert_int_equal(judge(&account, "aB3-aB\xc3\xa4"), STATUS_POLICY_TOO_SHORT);           /* eight bytes, seven units */
	assert_int_equal(judge(&account, "aB3-aB\xf0\x9f\x98\x80"), STATUS_OK);                 /* a surrogate pair is two */
}

/* A Password Settings object may ask for as many as 255. */
static void the_longest_minimum(void **state)
{
	struct password_policy longest = policy;
	struct account account = user("u1", NULL);
	char text[256];
	longest.min_length = 255;
	memset(text, 'x', sizeof text);
	memcpy(text, "aB3-", 4);
	text[254] = 0;
	assert_int_equal(policy_judge(&longest, &account, P(text), true, 1000000, rules, &count), STATUS_POLICY_TOO_SHORT);
	assert_int_equal(rules[0].required, 255);
	assert_int_equal(rules[0].given, 254);
	text[254] = 'x';
	text[255] = 0;
	assert_int_equal(policy_judge(&longest, &account, P(text), true, 1000000, rules, &count), STATUS_OK);
}

static void all_broken_rules_are_told(void **state)
{
	struct account account = user("bob", "Rob Bobson");
	account.pwd_last_set_s = 999999;
	assert_int_equal(judge(&account, "bobson"), STATUS_POLICY_TOO_SHORT);
	assert_int_equal(count, 5);
	assert_int_equal(rules[1].kind, RULE_COMPLEXITY);
	assert_int_equal(rules[2].kind, RULE_ACCOUNT_NAME);
	assert_int_equal(rules[3].kind, RULE_DISPLAY_NAME);
	assert_int_equal(rules[4].kind, RULE_MIN_AGE);
}

static void minimum_age(void **state)
{
	struct account account = user("u1", NULL);
	struct bytes good = P("aB3-aB3x");
	account.pwd_last_set_s = 1000000;
	assert_int_equal(policy_judge(&policy, &account, good, true, 1086399, rules, &count), STATUS_POLICY_TOO_RECENT);
	assert_int_equal(rules[0].required, 86400);
	assert_int_equal(rules[0].given, 1086400);
	assert_int_equal(policy_judge(&policy, &account, good, true, 1086400, rules, &count), STATUS_OK);
	assert_int_equal(policy_judge(&policy, &account, good, false, 1000001, rules, &count), STATUS_OK); /* the server will not look */
	account.pwd_last_set_s = 0; /* must change: no age holds him */
	assert_int_equal(policy_judge(&policy, &account, good, true, 1, rules, &count), STATUS_OK);
	account.pwd_last_set_s = INT64_MAX;
	assert_int_equal(policy_judge(&policy, &account, good, true, 1, rules, &count), STATUS_POLICY_TOO_RECENT);
}

static void an_unknown_policy_judges_nothing(void **state)
{
	struct password_policy unknown = policy;
	struct account account = user("alice", "Alice");
	unknown.source = POLICY_UNKNOWN;
	assert_int_equal(policy_judge(&unknown, &account, P("alice"), true, 1, rules, &count), STATUS_OK);
	assert_int_equal(count, 0);
	assert_int_equal(policy_diagnose(&unknown, &account, P("alice"), true, STATUS_OK, 1, rules, &count), STATUS_POLICY_REJECTED);
	assert_int_equal(count, 0);
	assert_int_equal(policy_diagnose(&unknown, &account, P("alice"), true, STATUS_POLICY_TOO_SHORT, 1, rules, &count), STATUS_POLICY_TOO_SHORT);
	assert_int_equal(count, 0);
}

static void hints(void **state)
{
	assert_int_equal(policy_hint("0000052D: Unwilling to perform - check_password_restrictions: the password is too short. It should be equal to or longer than 10 characters!"),
		STATUS_POLICY_TOO_SHORT);
	assert_int_equal(policy_hint("0000052D: Constraint violation - check_password_restrictions: the password does not meet the complexity criteria!"),
		STATUS_POLICY_COMPLEXITY);
	assert_int_equal(policy_hint("0000052D: Unwilling to perform - check_password_restrictions: password is too young to change!"), STATUS_POLICY_TOO_RECENT);
	assert_int_equal(policy_hint("0000052D: Unwilling to perform - check_password_restrictions: the password was already used (in history)!"), STATUS_POLICY_HISTORY);
	assert_int_equal(policy_hint("0000052D: Constraint violation - check_password_restrictions: the password was already used (previous password)!"), STATUS_POLICY_HISTORY);
	assert_int_equal(policy_hint("0000052D: SvcErr: DSID-031A12D2, problem 5003 (WILL_NOT_PERFORM), data 0\n"), STATUS_OK);
	assert_int_equal(policy_hint("the password is too short"), STATUS_OK); /* not behind Samba's function name */
	assert_int_equal(policy_hint(""), STATUS_OK);
	assert_int_equal(policy_hint(NULL), STATUS_OK);
}

static enum status diagnose(const struct account *account, const char *password, bool enforced, enum status hint)
{
	return policy_diagnose(&policy, account, P(password), enforced, hint, 1000000, rules, &count);
}

static void diagnosis(void **state)
{
	struct account account = user("alice", "Alice");
	assert_int_equal(diagnose(&account, "aB3-aB3x", true, STATUS_OK), STATUS_POLICY_HISTORY_OR_FILTER);
	assert_int_equal(count, 1);
	assert_int_equal(rules[0].kind, RULE_HISTORY_OR_FILTER);
	assert_int_equal(rules[0].required, 24);
	assert_int_equal(diagnose(&account, "aB3-aB3x", false, STATUS_OK), STATUS_POLICY_HISTORY_OR_FILTER);
	assert_int_equal(rules[0].required, 0);
	assert_int_equal(diagnose(&account, "ab", true, STATUS_OK), STATUS_POLICY_TOO_SHORT);
	assert_int_equal(count, 2);
	assert_int_equal(diagnose(&account, "aB3-aB3x", true, STATUS_POLICY_HISTORY), STATUS_POLICY_HISTORY);
	assert_int_equal(count, 1);
	assert_int_equal(rules[0].kind, RULE_HISTORY);
	assert_int_equal(rules[0].required, 24);
	/* The server's own words before ours; rules that they do not name are left out. */
	assert_int_equal(diagnose(&account, "alice", true, STATUS_POLICY_COMPLEXITY), STATUS_POLICY_COMPLEXITY);
	assert_int_equal(count, 3);
	assert_int_equal(rules[0].kind, RULE_COMPLEXITY);
	assert_int_equal(rules[1].kind, RULE_ACCOUNT_NAME);
	assert_int_equal(diagnose(&account, "aB3-aB3x", true, STATUS_POLICY_TOO_SHORT), STATUS_POLICY_TOO_SHORT);
	assert_int_equal(count, 1);
	assert_int_equal(rules[0].given, 8);
	assert_int_equal(diagnose(&account, "aB3-aB3x", true, STATUS_POLICY_TOO_RECENT), STATUS_POLICY_TOO_RECENT);
	assert_int_equal(rules[0].kind, RULE_MIN_AGE);
}

static void form(void **state)
{
	char units[300];
	memset(units, 'a', sizeof units);
	assert_int_equal(policy_password_form(bytes_of(units, 256)), STATUS_OK);
	assert_int_equal(policy_password_form(bytes_of(units, 257)), STATUS_REQUEST_UNDECRYPTABLE);
	assert_int_equal(policy_password_form(bytes_of(units, 1)), STATUS_OK);
	assert_int_equal(policy_password_form(bytes_of(NULL, 0)), STATUS_REQUEST_UNDECRYPTABLE);
	assert_int_equal(policy_password_form(bytes_of("a\0b", 3)), STATUS_REQUEST_UNDECRYPTABLE);
	assert_int_equal(policy_password_form(P("\xed\xa0\x80")), STATUS_REQUEST_UNDECRYPTABLE); /* a lone surrogate */
	assert_int_equal(policy_password_form(P("\xc0\x80")), STATUS_REQUEST_UNDECRYPTABLE);
	assert_int_equal(policy_password_form(P("\"; id #$(id)`id`%s%n\n")), STATUS_OK);
}

static void whether_the_known_policy_explains_a_refusal(void **state)
{
	struct account account = user("alice", NULL);
	const struct password_policy unknown = { 0 };
	assert_false(policy_explains(&policy, &account, P("aB3-aB3x"), true, STATUS_OK, 1000000));
	assert_true(policy_explains(&policy, &account, P("aB3-"), true, STATUS_OK, 1000000));
	/* the server says otherwise than the policy that is known */
	assert_false(policy_explains(&policy, &account, P("aB3-"), true, STATUS_POLICY_COMPLEXITY, 1000000));
	assert_true(policy_explains(&policy, &account, P("aB3-"), true, STATUS_POLICY_TOO_SHORT, 1000000));
	assert_true(policy_explains(&policy, &account, P("aB3-aB3x"), true, STATUS_POLICY_HISTORY, 1000000));
	assert_false(policy_explains(&unknown, &account, P("aB3-"), true, STATUS_OK, 1000000));
	assert_false(policy_explains(&unknown, &account, P("aB3-"), true, STATUS_POLICY_TOO_SHORT, 1000000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(classes), cmocka_unit_test(each_special_counts_and_no_other), cmocka_unit_test(three_of_five), cmocka_unit_test(the_account_name),
		cmocka_unit_test(tokens_of_the_display_name), cmocka_unit_test(length_in_utf16_units), cmocka_unit_test(the_longest_minimum), cmocka_unit_test(all_broken_rules_are_told),
		cmocka_unit_test(minimum_age), cmocka_unit_test(an_unknown_policy_judges_nothing), cmocka_unit_test(hints), cmocka_unit_test(diagnosis),
		cmocka_unit_test(whether_the_known_policy_explains_a_refusal), cmocka_unit_test(form),
	};
	return cmocka_run_group_tests_name("policy", tests, NULL, NULL);
}
