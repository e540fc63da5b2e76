/* Results. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/proto/message_twins.h"

#define AGENT "6f9619ff-8b86-4011-b42d-00cf4fc964ff"
#define JTI "0c2d9f6e-2f0e-4a8e-9d7c-3f1f2b6a7c11"
#define OPERATION "7d444840-9dc0-11d1-b245-5ffdce74fad2"

static const char full_text[] = "{\"iss\":\"" AGENT "\",\"aud\":\"https://reset.example\",\"iat\":1790000001,\"request_id\":\"" JTI "\",\"operation_id\":\"" OPERATION "\","
	"\"status\":\"refused\",\"code\":\"policy.complexity\",\"rules\":[{\"rule\":\"min_length\",\"required\":14,\"given\":9},"
	"{\"rule\":\"complexity\",\"required_classes\":3,\"given_classes\":2,\"missing\":[\"upper\",\"digit\"]},{\"rule\":\"contains_account_name\"},{\"rule\":\"contains_display_name\"},"
	"{\"rule\":\"min_age\",\"seconds\":86400,\"possible_at\":1790000000},{\"rule\":\"history\",\"remembered\":24},{\"rule\":\"history_or_filter\",\"remembered\":24}],"
	"\"retry_after\":60,\"user\":{\"object_guid\":\"" AGENT "\"},\"was_locked\":false,"
	"\"directory\":{\"name\":\"corp\",\"server\":\"dc1.corp.example\",\"diagnostic\":\"0000052D: Constraint violation\",\"result_code\":19},"
	"\"warnings\":[\"password_not_nfc\",\"policy_unreadable\"],\"durations_ms\":{\"verify\":0.055,\"locate\":3.25,\"total\":12.0}}";
static const char short_text[] = "{\"iss\":\"" AGENT "\",\"aud\":\"https://reset.example\",\"iat\":1790000001,\"request_id\":\"" JTI "\",\"operation_id\":\"" OPERATION "\",\"status\":\"applied\",\"code\":\"ok\"}";
#define DIGEST "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
static const char frame_text[] = "{\"iss\":\"" AGENT "\",\"aud\":\"https://reset.example\",\"iat\":1790000001,\"status\":\"refused\",\"code\":\"request.signature\",\"reason\":\"kid\",\"frame_sha256\":\"" DIGEST "\"}";

#define ACCOUNT_FLAGS "\"locked\":false,\"disabled\":true,\"expired\":false,\"must_change\":true,\"password_never_expires\":false,\"cannot_change\":false"
#define ACCOUNT "{\"user_principal_name\":\"anna@corp.example\",\"sam_account_name\":\"anna\",\"display_name\":\"Anna M\xc3\xbcller\"," ACCOUNT_FLAGS ",\"password_last_set\":1780000000,\"password_expires_at\":1799999999}"
#define POLICY_NUMBERS "\"min_length\":14,\"complexity\":true,\"history\":24,\"min_age\":86400,\"max_age\":3628800,\"possible_at\":1790003600,\"lockout_threshold\":10,\"lockout_duration\":0,\"enforced\":false"
#define FOUND(members) "{\"iss\":\"" AGENT "\",\"aud\":\"https://reset.example\",\"iat\":1790000001,\"request_id\":\"" JTI "\"," members "\"status\":\"answered\",\"code\":\"found\",\"user\":"
static const char account_text[] = FOUND("\"account\":" ACCOUNT ",") "{\"object_guid\":\"" AGENT "\"}}";
static const char entry_text[] = FOUND("\"account\":{\"uid\":\"anna\"," ACCOUNT_FLAGS "},") "{\"entry_uuid\":\"" AGENT "\"}}";
static const char policy_text[] = FOUND("\"policy\":{\"source\":\"pso\"," POLICY_NUMBERS "},") "{\"object_guid\":\"" AGENT "\"}}";
static const char unknown_policy_text[] = FOUND("\"policy\":{\"source\":\"unknown\"},") "{\"object_guid\":\"" AGENT "\"}}";

static enum status twin_result(struct bytes payload, const char **ret_member)
{
	struct result result;
	enum status status = result_parse(payload, &result, ret_member);

	result_clear(&result);
	result_clear(&result);
	return status;
}

#define BAD(member, value) { member, value, STATUS_LOCAL_INPUT }
#define GOOD(member, value) { member, value, STATUS_OK }
static const struct twin twins[] = {
	BAD("iss", NULL), BAD("aud", NULL), BAD("iat", NULL), BAD("iat", "0"), BAD("request_id", NULL), BAD("request_id", "\"1\""), BAD("operation_id", "\"1\""), GOOD("operation_id", NULL),
	BAD("status", NULL), BAD("status", "\"none\""), BAD("status", "\"later\""), BAD("status", "7"), { "status", "\"applied\"", STATUS_LOCAL_INPUT, "code" },
	BAD("code", NULL), BAD("code", "7"), BAD("code", "\"\""), BAD("code", "\"ok\""), BAD("code", "\"channel.timeout\""), GOOD("code", "\"policy.later\""),
	BAD("reason", "7"), GOOD("reason", "\"x\\ny\""),
	BAD("rules", "{}"), BAD("rules", "[1]"), BAD("rules", "[{}]"), BAD("rules", "[{\"rule\":\"min_length\"}]"), BAD("rules", "[{\"rule\":\"min_length\",\"required\":\"a\",\"given\":1}]"),
	BAD("rules", "[{\"rule\":\"min_length\",\"required\":-1,\"given\":1}]"), BAD("rules", "[{\"rule\":\"complexity\",\"required_classes\":3,\"given_classes\":2}]"),
	BAD("rules", "[{\"rule\":\"complexity\",\"required_classes\":3,\"given_classes\":2,\"missing\":[7]}]"), GOOD("rules", "[{\"rule\":\"later\",\"x\":1}]"), GOOD("rules", "[]"),
	BAD("retry_after", "-1"), BAD("retry_after", "\"1\""), BAD("user", "{}"), BAD("user", "\"" AGENT "\""), BAD("user", "{\"object_guid\":\"a\"}"),
	GOOD("user", "{\"entry_uuid\":\"" AGENT "\"}"), BAD("user", "{\"entry_uuid\":\"a\"}"), BAD("user", "{\"object_guid\":\"" AGENT "\",\"entry_uuid\":\"" AGENT "\"}"),
	BAD("was_locked", "1"), BAD("was_locked", "null"), BAD("directory", "\"corp\""), BAD("directory", "{\"result_code\":\"19\"}"), BAD("directory", "{\"result_code\":-1}"), BAD("directory", "{\"name\":7}"),
	GOOD("directory", "{}"), BAD("warnings", "\"a\""), BAD("warnings", "[7]"), GOOD("warnings", "[\"later\"]"),
	BAD("durations_ms", "[]"), BAD("durations_ms", "{\"verify\":\"1\"}"), BAD("durations_ms", "{\"verify\":-1}"), BAD("durations_ms", "{\"verify\":1e300}"), GOOD("durations_ms", "{\"verify\":1,\"later\":[]}"),
	/* either a request is answered or a frame */
	{ "frame_sha256", "\"" DIGEST "\"", STATUS_LOCAL_INPUT, "request_id" }, BAD("frame_sha256", "\"e3b0\""), BAD("frame_sha256", "7"), GOOD("later", "{}"),
};

static void results_are_exact(void **state)
{
	EXPECT_TWINS(full_text, twin_result, twins);
	expect_no_message(twin_result, STATUS_LOCAL_INPUT, "", full_text);
}

static void results_come_back(void **state)
{
	static const char *const texts[] = { full_text, short_text, frame_text, account_text, entry_text, policy_text, unknown_policy_text };

	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		struct result result;
		const char *member;

		assert_int_equal(result_parse(bytes_of_string(texts[i]), &result, &member), STATUS_OK);
		AUTO_FREE char *again = result_build(&result);
		assert_string_equal(again, texts[i]);
		result_clear(&result);
	}
}

static const struct twin found_twins[] = {
	BAD("account", "7"), BAD("account", "{}"), BAD("account", "{\"display_name\":7," ACCOUNT_FLAGS "}"), GOOD("account", "{" ACCOUNT_FLAGS "}"), GOOD("account", "{\"mood\":1," ACCOUNT_FLAGS "}"),
	BAD("account", "{\"password_last_set\":0," ACCOUNT_FLAGS "}"), BAD("account", "{\"password_expires_at\":1.5," ACCOUNT_FLAGS "}"), BAD("account", "{\"locked\":1}"),
	GOOD("account", "{\"display_name\":\"a\\nb\"," ACCOUNT_FLAGS "}"),
	BAD("policy", "\"strict\""), BAD("policy", "{}"), BAD("policy", "{\"source\":7}"), BAD("policy", "{\"source\":\"domain\"}"), BAD("policy", "{\"source\":\"domain\",\"min_length\":14}"),
	BAD("policy", "{" POLICY_NUMBERS "}"), GOOD("policy", "{\"source\":\"domain\"," POLICY_NUMBERS "}"), GOOD("policy", "{\"source\":\"subentry\"," POLICY_NUMBERS "}"),
	GOOD("policy", "{\"source\":\"unknown\"}"), GOOD("policy", "{\"source\":\"of later\"}"), { "code", "\"ok\"", STATUS_LOCAL_INPUT },
};

static void what_was_found_is_exact(void **state)
{
	EXPECT_TWINS(account_text, twin_result, found_twins);
	expect_no_message(twin_result, STATUS_LOCAL_INPUT, "", account_text);
	expect_no_message(twin_result, STATUS_LOCAL_INPUT, "", policy_text);
}

static void what_was_found_has_its_members(void **state)
{
	struct result result;
	const char *member;

	assert_int_equal(result_parse(bytes_of_string(account_text), &result, &member), STATUS_OK);
	assert_int_equal(result.code, STATUS_FOUND);
	assert_false(result.user_is_entry);
	assert_null(result.policy);
	assert_string_equal(result.account->user_principal_name, "anna@corp.example");
	assert_null(result.account->uid);
	assert_true(result.account->disabled && result.account->must_change);
	assert_false(result.account->locked || result.account->expired || result.account->password_never_expires || result.account->cannot_change);
	assert_int_equal(result.account->password_last_set, 1780000000);
	assert_int_equal(result.account->password_expires_at, 1799999999);
	result_clear(&result);
	assert_int_equal(result_parse(bytes_of_string(entry_text), &result, &member), STATUS_OK);
	assert_true(result.user_is_entry);
	assert_int_equal(result.account->password_expires_at, 0);
	result_clear(&result);
	assert_int_equal(result_parse(bytes_of_string(policy_text), &result, &member), STATUS_OK);
	assert_int_equal(result.policy->source, RESULT_POLICY_PSO);
	assert_int_equal(result.policy->min_length, 14);
	assert_int_equal(result.policy->possible_at, 1790003600);
	assert_true(result.policy->complexity && !result.policy->enforced);
	result_clear(&result);
}

/* A word of later with what this version knows how to show. */
static void an_answer_of_later_that_found_something_is_found(void **state)
{
	AUTO_FREE char *text = twin_text(account_text, "code", "\"found.partly\"");
	struct result result;
	const char *member;

	assert_int_equal(result_parse(bytes_of_string(text), &result, &member), STATUS_OK);
	assert_int_equal(result.code, STATUS_FOUND);
	assert_string_equal(result.reason, "found.partly");
	result_clear(&result);
}

static void what_is_absent_is_told_from_zero(void **state)
{
	struct result result;
	const char *member;

	assert_int_equal(result_parse(bytes_of_string(short_text), &result, &member), STATUS_OK);
	assert_int_equal(result.was_locked, -1);
	assert_int_equal(result.ldap_result, -1);
	assert_int_equal(result.duration_us[STAGE_WRITE], -1);
	assert_string_equal(result.user_guid, "");
	result.was_locked = 0;
	result.ldap_result = 0;
	result.duration_us[STAGE_WRITE] = 0;
	AUTO_FREE char *text = result_build(&result);
	assert_non_null(strstr(text, "\"was_locked\":false"));
	assert_non_null(strstr(text, "\"directory\":{\"result_code\":0}"));
	assert_non_null(strstr(text, "\"durations_ms\":{\"write\":0.0}"));
	result_clear(&result);
}

/* A newer agent's word is kept, and its status decides. */
static void a_code_of_later_is_taken_by_its_status(void **state)
{
	static const struct {
		const char *status;
		enum status code;
	} rows[] = { { "applied", STATUS_OK }, { "answered", STATUS_PLAUSIBLE }, { "refused", STATUS_POLICY_REJECTED }, { "failed", STATUS_AGENT_INTERNAL },
		{ "unknown", STATUS_OUTCOME_UNKNOWN }, { "settling", STATUS_SETTLING } };

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		AUTO_FREE char *text = NULL;
		struct result result;
		const char *member;

		assert_true(asprintf(&text, "{\"iss\":\"a\",\"aud\":\"b\",\"iat\":1,\"request_id\":\"" JTI "\",\"status\":\"%s\",\"code\":\"later.word\",\"reason\":\"x\"}", rows[i].status) > 0);
		assert_int_equal(result_parse(bytes_of_string(text), &result, &member), STATUS_OK);
		assert_string_equal(status_code(result.code), status_code(rows[i].code));
		assert_string_equal(result.reason, "later.word");
		result_clear(&result);
	}
}

static void every_code_with_an_outcome_travels(void **state)
{
	for (enum status code = 0; code < STATUS_COUNT; code++) {
		struct result result, again;
		const char *member;

		result_init(&result);
		result.agent_id = (char *)AGENT;
		result.issuer = (char *)"https://reset.example";
		result.iat = 1790000000;
		memcpy(result.request_id, JTI, UUID_SIZE);
		result.code = code;
		AUTO_FREE char *text = result_build(&result);
		assert_int_equal(text != NULL, status_outcome(code) != OUTCOME_NONE);
		if (!text)
			continue;
		assert_int_equal(result_parse(bytes_of_string(text), &again, &member), STATUS_OK);
		assert_int_equal(again.code, code);
		result_clear(&again);
	}
}

/* What a directory says is neither bounded nor always UTF-8. */
static void diagnostics_are_bounded_and_valid(void **state)
{
	char diagnostic[1000], expected[600];
	struct result result, again;
	const char *member;

	assert_int_equal(result_parse(bytes_of_string(short_text), &result, &member), STATUS_OK);
	strcpy(diagnostic, "a\n\xff\xc3\xa9\xc3");
	result.diagnostic = diagnostic;
	AUTO_FREE char *text = result_build(&result);
	assert_int_equal(result_parse(bytes_of_string(text), &again, &member), STATUS_OK);
	assert_string_equal(again.diagnostic, "a??\xc3\xa9?");
	result_clear(&again);
	/* cut at 512 bytes, not within a character */
	for (unsigned shift = 0; shift < 2; shift++) {
		memset(diagnostic, 'a', sizeof(diagnostic) - 1);
		diagnostic[sizeof(diagnostic) - 1] = '\0';
		for (size_t i = shift; i + 2 < sizeof(diagnostic); i += 2)
			memcpy(diagnostic + i, "\xc3\xa9", 2);
		snprintf(expected, sizeof(expected), "%.*s", shift ? 511 : 512, diagnostic);
		AUTO_FREE char *long_text = result_build(&result);
		assert_int_equal(result_parse(bytes_of_string(long_text), &again, &member), STATUS_OK);
		assert_string_equal(again.diagnostic, expected);
		result_clear(&again);
	}
	result.diagnostic = NULL;
	result_clear(&result);
}

static void a_result_has_an_address(void **state)
{
	struct result result;
	const char *member;

	assert_int_equal(result_parse(bytes_of_string(short_text), &result, &member), STATUS_OK);
	result.request_id[0] = '\0';
	assert_null(result_build(&result));
	result_clear(&result);
}

static void no_more_rules_than_there_is_room_for(void **state)
{
	json_t *rules = json_array();
	struct result result;
	const char *member;

	for (unsigned i = 0; i < 2 * MAX_RULES; i++)
		json_array_append_new(rules, json_pack("{ss si}", "rule", "history", "remembered", i));
	AUTO_FREE char *value = json_dumps(rules, 0), *text = twin_text(full_text, "rules", value);
	json_decref(rules);
	assert_int_equal(result_parse(bytes_of_string(text), &result, &member), STATUS_OK);
	assert_int_equal(result.rule_count, MAX_RULES);
	assert_int_equal(result.rules[MAX_RULES - 1].required, MAX_RULES - 1);
	result_clear(&result);
}

int main(void)
{
	secret_json_init();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(results_are_exact), cmocka_unit_test(results_come_back), cmocka_unit_test(what_is_absent_is_told_from_zero), cmocka_unit_test(a_code_of_later_is_taken_by_its_status),
		cmocka_unit_test(every_code_with_an_outcome_travels), cmocka_unit_test(diagnostics_are_bounded_and_valid), cmocka_unit_test(a_result_has_an_address),
		cmocka_unit_test(what_was_found_is_exact), cmocka_unit_test(what_was_found_has_its_members), cmocka_unit_test(an_answer_of_later_that_found_something_is_found),
		cmocka_unit_test(no_more_rules_than_there_is_room_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
