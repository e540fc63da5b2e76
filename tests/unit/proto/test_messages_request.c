/* Requests, subjects and the plaintext of secrets. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/proto/message_twins.h"

#define AGENT "6f9619ff-8b86-4011-b42d-00cf4fc964ff"
#define JTI "0c2d9f6e-2f0e-4a8e-9d7c-3f1f2b6a7c11"
#define OPERATION "7d444840-9dc0-11d1-b245-5ffdce74fad2"

static const char reset_text[] = "{\"iss\":\"https://reset.example\",\"aud\":\"" AGENT "\",\"jti\":\"" JTI "\",\"operation_id\":\"" OPERATION "\",\"iat\":1790000000,\"exp\":1790000030,"
	"\"op\":\"reset\",\"sub_id\":{\"format\":\"sAMAccountName\",\"id\":\"m\xc3\xbcller\",\"domain\":\"CORP\"},\"secret\":\"a..b.c.d\",\"must_change\":true,\"unlock\":false,\"enforce_policy\":false,"
	"\"directory\":\"corp\",\"actor\":{\"type\":\"administrator\",\"id\":\"help desk 7\"},\"first_iat\":1789999990,\"prior_server\":\"dc1.corp.example\",\"failover_after\":4}";
static const char unlock_text[] = "{\"iss\":\"https://reset.example\",\"aud\":\"" AGENT "\",\"jti\":\"" JTI "\",\"operation_id\":\"" OPERATION "\",\"iat\":1790000000,\"exp\":1790000030,"
	"\"op\":\"unlock\",\"sub_id\":{\"format\":\"objectGUID\",\"id\":\"" AGENT "\"}}";

static enum status twin_request(struct bytes payload, const char **ret_member)
{
	struct request_claims request;
	enum status status = request_parse(payload, &request, ret_member);

	if (status != STATUS_OK && status != STATUS_REQUEST_UNSUPPORTED)
		assert_null(request.issuer);
	request_claims_clear(&request);
	request_claims_clear(&request);
	return status;
}

#define BAD(member, value) { member, value, STATUS_REQUEST_INVALID }
static const struct twin reset_twins[] = {
	BAD("iss", NULL), BAD("iss", "\"\""), BAD("iss", "7"),
	BAD("aud", NULL), BAD("aud", "\"\""), BAD("aud", "7"), BAD("aud", "null"), BAD("aud", "{}"), { "aud", "\"another\"", STATUS_OK },
	{ "aud", "[\"" AGENT "\"]", STATUS_REQUEST_AUDIENCE }, { "aud", "[\"" AGENT "\",\"" JTI "\"]", STATUS_REQUEST_AUDIENCE }, { "aud", "[]", STATUS_REQUEST_AUDIENCE },
	BAD("jti", NULL), BAD("jti", "\"1\""), BAD("jti", "\"0C2D9F6E-2F0E-4A8E-9D7C-3F1F2B6A7C11\""), BAD("jti", "7"),
	BAD("operation_id", NULL), BAD("operation_id", "\"\""),
	BAD("iat", NULL), BAD("iat", "1790000000.0"), BAD("iat", "\"1790000000\""), BAD("iat", "0"), BAD("iat", "-5"), BAD("iat", "9223372036854775807"),
	BAD("exp", NULL), BAD("exp", "1e300"), BAD("exp", "true"),
	BAD("op", NULL), BAD("op", "\"\""), BAD("op", "1"), { "op", "\"Reset\"", STATUS_REQUEST_UNSUPPORTED }, { "op", "\"delete\"", STATUS_REQUEST_UNSUPPORTED },
	BAD("sub_id", NULL), BAD("sub_id", "\"m\""),
	BAD("secret", NULL), BAD("secret", "\"\""), BAD("secret", "{}"), BAD("secret", "null"),
	BAD("must_change", "1"), BAD("must_change", "\"true\""), BAD("must_change", "null"), { "must_change", "false", STATUS_OK }, { "must_change", NULL, STATUS_OK },
	BAD("unlock", "0"), { "unlock", NULL, STATUS_OK }, BAD("enforce_policy", "\"no\""), { "enforce_policy", NULL, STATUS_OK },
	BAD("directory", "\"\""), BAD("directory", "7"), BAD("directory", "\"a\\u0007\""), { "directory", NULL, STATUS_OK },
	BAD("actor", "\"self\""), BAD("actor", "{}"), BAD("actor", "{\"type\":\"root\"}"), BAD("actor", "{\"type\":\"administrator\"}"), BAD("actor", "{\"type\":\"self\",\"id\":\"a\"}"),
	BAD("actor", "{\"type\":\"administrator\",\"id\":\"\"}"), BAD("actor", "{\"type\":\"administrator\",\"id\":\"a\",\"role\":1}"), BAD("actor", "{\"type\":7}"),
	{ "actor", "{\"type\":\"self\"}", STATUS_OK }, { "actor", NULL, STATUS_OK },
	BAD("first_iat", "0"), BAD("first_iat", "\"1\""), { "first_iat", NULL, STATUS_OK },
	BAD("prior_server", "\"\""), BAD("prior_server", "[]"), { "prior_server", NULL, STATUS_OK },
	BAD("failover_after", "0"), BAD("failover_after", "61"), BAD("failover_after", "1.5"), BAD("failover_after", "\"4\""), { "failover_after", "60", STATUS_OK }, { "failover_after", NULL, STATUS_OK },
	{ "sub", "\"m\"", STATUS_REQUEST_INVALID, "unknown_member" }, { "nbf", "1", STATUS_REQUEST_INVALID, "unknown_member" },
	{ "new_password", "\"x\"", STATUS_REQUEST_INVALID, "unknown_member" }, { "", "1", STATUS_REQUEST_INVALID, "unknown_member" },
};
static const struct twin unlock_twins[] = {
	BAD("secret", "\"a..b.c.d\""), BAD("must_change", "true"), { "must_change", "false", STATUS_OK }, { "unlock", "true", STATUS_OK },
	{ "op", "\"reset\"", STATUS_REQUEST_INVALID, "secret" }, { "op", "\"check\"", STATUS_REQUEST_INVALID, "secret" }, { "op", "\"change\"", STATUS_REQUEST_INVALID, "secret" },
	{ "op", "\"verify\"", STATUS_REQUEST_INVALID, "secret" }, { "op", "\"lookup\"", STATUS_OK }, { "op", "\"policy\"", STATUS_OK },
};

static void requests_are_exact(void **state)
{
	EXPECT_TWINS(reset_text, twin_request, reset_twins);
	EXPECT_TWINS(unlock_text, twin_request, unlock_twins);
	expect_no_message(twin_request, STATUS_REQUEST_INVALID, "payload", reset_text);
}

static void requests_come_back(void **state)
{
	static const char *const texts[] = { reset_text, unlock_text };

	for (size_t i = 0; i < 2; i++) {
		struct request_claims request;
		const char *member;

		assert_int_equal(request_parse(bytes_of_string(texts[i]), &request, &member), STATUS_OK);
		AUTO_FREE char *again = request_build(&request);
		assert_string_equal(again, texts[i]);
		request_claims_clear(&request);
	}
}

static void defaults_are_the_texts(void **state)
{
	struct request_claims request;
	const char *member;

	assert_int_equal(request_parse(bytes_of_string(unlock_text), &request, &member), STATUS_OK);
	assert_false(request.must_change);
	assert_true(request.unlock);
	assert_true(request.enforce_policy);
	assert_int_equal(request.actor, ACTOR_SELF);
	assert_null(request.actor_id);
	assert_null(request.directory);
	assert_null(request.secret);
	assert_int_equal(request.first_iat, 0);
	assert_int_equal(request.failover_after, 0);
	request_claims_clear(&request);
}

/* A refusal must be addressed to the request that it refuses. */
static void a_bad_request_still_has_its_address(void **state)
{
	struct request_claims request;
	const char *member;
	AUTO_FREE char *bad = twin_text(reset_text, "iss", "7"), *no_id = twin_text(reset_text, "jti", "7"), *unknown = twin_text(reset_text, "op", "\"later\"");

	assert_int_equal(request_parse(bytes_of_string(bad), &request, &member), STATUS_REQUEST_INVALID);
	assert_string_equal(request.request_id, JTI);
	assert_string_equal(request.operation_id, OPERATION);
	assert_int_equal(request.exp, 1790000030);
	assert_int_equal(request_parse(bytes_of_string(no_id), &request, &member), STATUS_REQUEST_INVALID);
	assert_string_equal(request.request_id, "");
	assert_string_equal(request.operation_id, OPERATION);
	assert_int_equal(request_parse(bytes_of_string("no json"), &request, &member), STATUS_REQUEST_INVALID);
	assert_string_equal(request.request_id, "");
	/* all of it, where only the operation is of a later version */
	assert_int_equal(request_parse(bytes_of_string(unknown), &request, &member), STATUS_REQUEST_UNSUPPORTED);
	assert_int_equal(request.op, OP_COUNT);
	assert_string_equal(request.audience, AGENT);
	assert_string_equal(request.request_id, JTI);
	request_claims_clear(&request);
}

static void operations_have_names(void **state)
{
	for (enum operation op = 0; op < OP_COUNT; op++) {
		enum operation found = OP_COUNT;

		assert_true(operation_from_name(operation_name(op), &found));
		assert_int_equal(found, op);
	}
	enum operation op;
	assert_false(operation_from_name("", &op));
	assert_false(operation_from_name("RESET", &op));
}

/* Subjects --------------------------------------------------------------------------------------------------------------------------- */

static enum status subject_status(const char *text)
{
	json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);
	struct subject subject;

	assert_non_null(json);
	enum status status = subject_parse(json, &subject);
	if (status == STATUS_OK) {
		json_t *again = subject_json(&subject);
		assert_true(json_equal(again, json));
		json_decref(again);
	} else {
		assert_null(subject.id);
	}
	subject_clear(&subject);
	json_decref(json);
	return status;
}

static void subjects_are_exact(void **state)
{
	static const struct {
		bool good;
		const char *text;
	} rows[] = {
		{ true, "{\"format\":\"objectGUID\",\"id\":\"" AGENT "\"}" },
		{ true, "{\"format\":\"mS-DS-ConsistencyGuid\",\"id\":\"" AGENT "\"}" },
		{ true, "{\"format\":\"userPrincipalName\",\"id\":\"a@b\"}" },
		{ true, "{\"format\":\"userPrincipalName\",\"id\":\"*)(objectClass=*\"}" },
		{ true, "{\"format\":\"sAMAccountName\",\"id\":\"a\",\"domain\":\"CORP\"}" },
		{ true, "{\"format\":\"entryUUID\",\"id\":\"" AGENT "\"}" },
		{ true, "{\"format\":\"uid\",\"id\":\"anna\"}" },
		{ false, "{\"format\":\"entryUUID\",\"id\":\"anna\"}" },
		{ false, "{\"format\":\"uid\",\"id\":\"anna\",\"domain\":\"CORP\"}" },
		{ false, "{\"format\":\"uid\",\"id\":\"\"}" },
		{ false, "{\"format\":\"objectGUID\",\"id\":\"6F9619FF-8B86-4011-B42D-00CF4FC964FF\"}" },
		{ false, "{\"format\":\"objectGUID\",\"id\":\"a@b\"}" },
		{ false, "{\"format\":\"objectGUID\",\"id\":\"" AGENT "\",\"domain\":\"CORP\"}" },
		{ false, "{\"format\":\"mS-DS-ConsistencyGuid\",\"id\":\"\"}" },
		{ false, "{\"format\":\"userPrincipalName\"}" },
		{ false, "{\"format\":\"userPrincipalName\",\"id\":\"\"}" },
		{ false, "{\"format\":\"userPrincipalName\",\"id\":\"a\\u0001\"}" },
		{ false, "{\"format\":\"userPrincipalName\",\"id\":7}" },
		{ false, "{\"format\":\"userprincipalname\",\"id\":\"a@b\"}" },
		{ false, "{\"format\":\"opaque\",\"id\":\"a\"}" },
		{ false, "{\"format\":\"sAMAccountName\",\"id\":\"a\"}" },
		{ false, "{\"format\":\"sAMAccountName\",\"id\":\"a\",\"domain\":\"\"}" },
		{ false, "{\"format\":\"sAMAccountName\",\"id\":\"a\",\"domain\":7}" },
		{ false, "{\"format\":\"sAMAccountName\",\"id\":\"a\",\"domain\":\"CORP\",\"x\":1}" },
		{ false, "{\"id\":\"a\"}" }, { false, "{\"format\":7,\"id\":\"a\"}" }, { false, "[]" }, { false, "{}" }, { false, "\"a\"" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		print_message("# %s\n", rows[i].text);
		assert_int_equal(subject_status(rows[i].text), rows[i].good ? STATUS_OK : STATUS_REQUEST_INVALID);
	}
}

static void an_id_has_at_most_1024_bytes(void **state)
{
	for (size_t size = 1023; size <= 1025; size++) {
		AUTO_FREE char *id = letters(size), *text = NULL;

		assert_true(asprintf(&text, "{\"format\":\"userPrincipalName\",\"id\":%s}", id) > 0);
		assert_int_equal(subject_status(text), size <= 1024 ? STATUS_OK : STATUS_REQUEST_INVALID);
	}
}

static void subjects_are_compared_whole(void **state)
{
	const struct subject a = { SUBJECT_SAM, (char *)"a", (char *)"CORP" }, b = { SUBJECT_SAM, (char *)"a", (char *)"LAB" }, c = { SUBJECT_SAM, (char *)"b", (char *)"CORP" };
	const struct subject upn = { SUBJECT_UPN, (char *)"a", NULL }, guid = { SUBJECT_OBJECT_GUID, (char *)AGENT, NULL }, anchor = { SUBJECT_CONSISTENCY_GUID, (char *)AGENT, NULL };

	assert_true(subject_equal(&a, &a));
	assert_true(subject_equal(&upn, &upn));
	assert_false(subject_equal(&a, &b));
	assert_false(subject_equal(&a, &c));
	assert_false(subject_equal(&a, &upn));
	assert_false(subject_equal(&guid, &anchor));
}

/* The plaintext of a secret ---------------------------------------------------------------------------------------------------------- */

static struct request_claims request_of(enum operation op)
{
	return (struct request_claims){ .op = op, .operation_id = OPERATION, .subject = { SUBJECT_SAM, (char *)"m\xc3\xbcller", (char *)"CORP" } };
}

#define BOUND "\"operation_id\":\"" OPERATION "\",\"op\":\"reset\",\"sub_id\":{\"format\":\"sAMAccountName\",\"id\":\"m\xc3\xbcller\",\"domain\":\"CORP\"}"
static const char secret_text[] = "{" BOUND ",\"new_password\":\"Winter is 2026!\"}";

static enum status parse_secret(const char *text, enum operation op, struct secret_claims *ret_claims, const char **ret_member)
{
	const struct request_claims request = request_of(op);
	AUTO_SECRET struct secret plaintext = SECRET_EMPTY;

	assert_int_equal(secret_from(bytes_of_string(text), &plaintext), STATUS_OK);
	return secret_claims_parse(&plaintext, &request, ret_claims, ret_member);
}

static enum status secret_status(const char *text, enum operation op, const char **ret_member)
{
	struct secret_claims claims;
	enum status status = parse_secret(text, op, &claims, ret_member);

	if (status != STATUS_OK) {
		assert_null(claims.new_password.data);
		assert_null(claims.subject.id);
	}
	secret_claims_clear(&claims);
	secret_claims_clear(&claims);
	return status;
}

static enum status twin_secret(struct bytes payload, const char **ret_member)
{
	AUTO_FREE char *text = strndup((const char *)payload.data, payload.size);

	return secret_status(text, OP_RESET, ret_member);
}

#define WRONG(member, value) { member, value, STATUS_REQUEST_UNDECRYPTABLE }
#define FOREIGN(member, value) { member, value, STATUS_REQUEST_SECRET_MISMATCH }
static const struct twin secret_twins[] = {
	WRONG("operation_id", NULL), WRONG("operation_id", "\"\""), WRONG("operation_id", "7"), FOREIGN("operation_id", "\"" JTI "\""),
	WRONG("op", NULL), WRONG("op", "7"), FOREIGN("op", "\"check\""), FOREIGN("op", "\"later\""),
	WRONG("sub_id", NULL), WRONG("sub_id", "{}"), FOREIGN("sub_id", "{\"format\":\"sAMAccountName\",\"id\":\"m\xc3\xbcller\",\"domain\":\"LAB\"}"),
	FOREIGN("sub_id", "{\"format\":\"sAMAccountName\",\"id\":\"M\xc3\xbcller\",\"domain\":\"CORP\"}"), FOREIGN("sub_id", "{\"format\":\"userPrincipalName\",\"id\":\"m\xc3\xbcller\"}"),
	WRONG("new_password", NULL), WRONG("new_password", "\"\""), WRONG("new_password", "7"), WRONG("new_password", "null"), WRONG("new_password", "[\"a\"]"),
	{ "new_password", "\"m\xc3\xbc\xf0\x9f\x94\x91\\u0001\"", STATUS_OK },
	WRONG("old_password", "\"a\""), { "later", "1", STATUS_REQUEST_UNDECRYPTABLE, "unknown_member" },
};

static void secrets_are_exact(void **state)
{
	EXPECT_TWINS(secret_text, twin_secret, secret_twins);
	expect_no_message(twin_secret, STATUS_REQUEST_UNDECRYPTABLE, "plaintext", secret_text);
}

/* Characters that no password can have are the password's fault; other bad JSON is not. */
static void half_characters_are_refused_by_name(void **state)
{
	static const struct {
		const char *text, *member;
	} rows[] = {
		{ "{" BOUND ",\"new_password\":\"a\\ud83d\"}", "new_password" }, { "{" BOUND ",\"new_password\":\"\\ud83da\"}", "new_password" },
		{ "{" BOUND ",\"new_password\":\"\\udd11\\ud83d\"}", "new_password" }, { "{" BOUND ",\"new_password\":\"\\ud83d\\n\"}", "new_password" },
		{ "{" BOUND ",\"new_password\":\"\\uD83D\\uD83D\"}", "new_password" }, { "{" BOUND ",\"new_password\" : \"a\\u0000b\"}", "new_password" },
		{ "{\"new_password\":\"\\\\\\udc00\"," BOUND "}", "new_password" }, { "{" BOUND ",\"new_password\":\"\\\"\\u0000\"}", "new_password" },
		{ "{" BOUND ",\"new_password\":\"a\",\"old_password\":\"\\ud800\"}", "old_password" },
		{ "{\"operation_id\":\"\\ud800\",\"new_password\":\"a\"}", "plaintext" }, { "{" BOUND ",\"new_password\":\"\\\\ud800\"", "plaintext" }, { "{" BOUND ",\"new_password\":\"a\\u12\"}", "plaintext" },
		{ "{" BOUND ",\"new_password\":\"\xff\"}", "plaintext" }, { "{\"\\ud800\":1}", "plaintext" }, { "{" BOUND ",\"new_password\":\"a\\", "plaintext" }, { "{" BOUND ",\"new_password\":\"", "plaintext" },
	};
	const char *member;

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		print_message("# %s\n", rows[i].text);
		assert_int_equal(secret_status(rows[i].text, OP_RESET, &member), STATUS_REQUEST_UNDECRYPTABLE);
		assert_string_equal(member, rows[i].member);
	}
	assert_int_equal(secret_status("{" BOUND ",\"new_password\":\"\\ud83d\\udd11\\\\ud800\"}", OP_RESET, &member), STATUS_OK);
}

/* The directory counts UTF-16 code units: a key emoji is two of them. */
static void a_password_has_at_most_256_units(void **state)
{
	for (unsigned pairs = 0; pairs <= 1; pairs++)
		for (size_t units = 254; units <= 258; units += 2) {
			AUTO_FREE char *password = calloc(1, 1200), *text = NULL;
			const char *member;

			for (size_t unit = 0; unit < units; unit += 2)
				strcat(password, pairs ? "\xf0\x9f\x94\x91" : "ab");
			assert_true(asprintf(&text, "{" BOUND ",\"new_password\":\"%s\"}", password) > 0);
			assert_int_equal(secret_status(text, OP_RESET, &member), units <= 256 ? STATUS_OK : STATUS_REQUEST_UNDECRYPTABLE);
		}
}

static void each_operation_has_its_passwords(void **state)
{
	static const struct {
		enum operation op;
		bool new_password, old_password;
	} rows[] = { { OP_RESET, true, false }, { OP_CHECK, true, false }, { OP_CHANGE, true, true }, { OP_VERIFY, false, true } };

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		for (unsigned given = 0; given < 4; given++) {
			AUTO_FREE char *text = NULL;
			const char *member;
			bool right = (given & 1) == rows[i].new_password && (given >> 1) == rows[i].old_password;

			assert_true(asprintf(&text, "{\"operation_id\":\"" OPERATION "\",\"op\":\"%s\",\"sub_id\":{\"format\":\"sAMAccountName\",\"id\":\"m\xc3\xbcller\",\"domain\":\"CORP\"}%s%s}",
			                     operation_name(rows[i].op), given & 1 ? ",\"new_password\":\"a\"" : "", given & 2 ? ",\"old_password\":\"b\"" : "") > 0);
			assert_int_equal(secret_status(text, rows[i].op, &member), right ? STATUS_OK : STATUS_REQUEST_UNDECRYPTABLE);
		}
}

static void built_secrets_come_back(void **state)
{
	static const char *const passwords[] = { "a", "\"quotes\" and \\ and /", "m\xc3\xbcller \xf0\x9f\x94\x91", "\x01\x1f\t\n\x7f", "e\xcc\x81" };

	for (size_t i = 0; i < sizeof(passwords) / sizeof(*passwords); i++) {
		const struct request_claims request = request_of(OP_CHANGE);
		AUTO_SECRET struct secret plaintext = SECRET_EMPTY;
		struct secret_claims claims;
		const char *member;

		assert_int_equal(secret_claims_build(&request, bytes_of_string(passwords[i]), bytes_of_string("old"), &plaintext), STATUS_OK);
		assert_int_equal(secret_claims_parse(&plaintext, &request, &claims, &member), STATUS_OK);
		assert_true(bytes_equal(secret_bytes(&claims.new_password), bytes_of_string(passwords[i])));
		assert_true(bytes_equal(secret_bytes(&claims.old_password), bytes_of_string("old")));
		secret_claims_clear(&claims);
	}
}

static void a_password_that_cannot_be_is_not_built(void **state)
{
	const struct request_claims request = request_of(OP_RESET);
	struct secret plaintext;

	assert_int_equal(secret_claims_build(&request, bytes_of("a\0b", 3), bytes_of(NULL, 0), &plaintext), STATUS_LOCAL_INPUT);
	assert_int_equal(secret_claims_build(&request, bytes_of_string("\xed\xa0\x80"), bytes_of(NULL, 0), &plaintext), STATUS_LOCAL_INPUT);
	AUTO_FREE char *text = letters(256);
	assert_int_equal(secret_claims_build(&request, bytes_of_string(text), bytes_of(NULL, 0), &plaintext), STATUS_LOCAL_INPUT);
	assert_int_equal(secret_claims_build(&request, bytes_of(text, 256), bytes_of(NULL, 0), &plaintext), STATUS_OK);
	secret_wipe(&plaintext);
}

static unsigned left;

static void *scarce_malloc(size_t size)
{
	if (left == 0) {
		errno = ENOMEM;
		return NULL;
	}
	left--;
	return malloc(size);
}

/* Whichever allocation of jansson's fails: the request is not called malformed, for it may have been applied when it came before. */
static void no_memory_is_not_an_invalid_request(void **state)
{
	struct request_claims request;
	struct secret plaintext;
	struct secret_claims claims;
	const char *member;
	enum status status = STATUS_AGENT_INTERNAL;
	unsigned failed = 0;

	json_set_alloc_funcs(scarce_malloc, free);
	for (; status != STATUS_OK; failed++) {
		left = failed;
		status = request_parse(bytes_of_string(reset_text), &request, &member);
		assert_true(status == STATUS_OK || status == STATUS_AGENT_INTERNAL);
		if (status == STATUS_OK)
			request_claims_clear(&request);
		assert_in_range(failed, 0, 1000);
	}
	assert_in_range(failed, 10, 1000);
	const struct request_claims asked = request_of(OP_RESET);
	left = 1000;
	assert_int_equal(secret_claims_build(&asked, bytes_of_string("Gr33n"), bytes_of(NULL, 0), &plaintext), STATUS_OK);
	left = 3;
	assert_int_equal(secret_claims_parse(&plaintext, &asked, &claims, &member), STATUS_AGENT_INTERNAL);
	secret_wipe(&plaintext);
	secret_json_init();
}

int main(void)
{
	secret_json_init();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_are_exact), cmocka_unit_test(requests_come_back), cmocka_unit_test(defaults_are_the_texts), cmocka_unit_test(a_bad_request_still_has_its_address),
		cmocka_unit_test(operations_have_names), cmocka_unit_test(subjects_are_exact), cmocka_unit_test(an_id_has_at_most_1024_bytes), cmocka_unit_test(subjects_are_compared_whole),
		cmocka_unit_test(secrets_are_exact), cmocka_unit_test(half_characters_are_refused_by_name), cmocka_unit_test(a_password_has_at_most_256_units),
		cmocka_unit_test(each_operation_has_its_passwords), cmocka_unit_test(built_secrets_come_back), cmocka_unit_test(a_password_that_cannot_be_is_not_built),
		cmocka_unit_test(no_memory_is_not_an_invalid_request),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
