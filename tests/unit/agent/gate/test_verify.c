#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "agent/gate/verify.h"

#define NOW INT64_C(1790000000)
#define ISSUER "https://reset.example.com"
#define AGENT "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
#define JTI "11111111-1111-4111-8111-111111111111"
#define OPERATION "22222222-2222-4222-8222-222222222222"

static const struct gate_identity identity = { .issuer = ISSUER, .agent_id = AGENT, .operations = 1u << OP_RESET | 1u << OP_UNLOCK | 1u << OP_CHECK };

/* A good reset; each test changes one member. */
static json_t *good(void)
{
	json_t *request = json_pack("{ss ss ss ss sI sI ss s{ss ss} ss}", "iss", ISSUER, "aud", AGENT, "jti", JTI, "operation_id", OPERATION, "iat", (json_int_t)NOW,
		"exp", (json_int_t)(NOW + 30), "op", "reset", "sub_id", "format", "objectGUID", "id", "33333333-3333-4333-8333-333333333333", "secret", "a..b.c.d");
	assert_non_null(request);
	return request;
}

static struct request_ids ids;
static const char *reason;

static enum status verify_with(json_t *take_request, const struct gate_identity *who, int64_t now)
{
	struct verified_request *verified = (void *)1;
	char *text = json_dumps(take_request, JSON_COMPACT);
	reason = NULL;
	enum status status = gate_verify(bytes_of_string(text), who, now, &verified, &ids, &reason);
	assert_int_equal(status == STATUS_OK, verified != NULL);
	assert_non_null(reason);
	verified_free(verified);
	free(text);
	json_decref(take_request);
	return status;
}

static json_t *with(const char *name, json_t *take_value)
{
	json_t *request = good();
	if (take_value)
		json_object_set_new(request, name, take_value);
	else
		json_object_del(request, name);
	return request;
}

/* One member changed: which status and which reason. */
static void expect(json_t *take_request, enum status status, const char *member)
{
	enum status found = verify_with(take_request, &identity, NOW);
	if (found != status || strcmp(reason, member))
		fail_msg("%s (%s), should be %s (%s)", status_code(found), reason, status_code(status), member);
	assert_string_equal(ids.request_id, JTI);
	assert_string_equal(ids.operation_id, OPERATION);
}

static void a_good_request(void **state)
{
	struct verified_request *verified;
	json_t *request = good();
	char *text = json_dumps(request, JSON_COMPACT);
	assert_int_equal(gate_verify(bytes_of_string(text), &identity, NOW, &verified, &ids, &reason), STATUS_OK);
	const struct request_claims *claims = verified_claims(verified);
	assert_int_equal(claims->op, OP_RESET);
	assert_true(claims->unlock && claims->enforce_policy && !claims->must_change);
	assert_string_equal(claims->request_id, JTI);
	assert_true(ids.exp == NOW + 30);
	assert_int_equal(verified_still_valid(verified, NOW + 29), STATUS_OK);
	assert_int_equal(verified_still_valid(verified, NOW + 30), STATUS_REQUEST_EXPIRED);
	verified_free(verified);
	verified_free(NULL);
	free(text);
	json_decref(request);
}

static void form(void **state)
{
	static const char *const required[] = { "iss", "aud", "iat", "exp", "op", "sub_id", "secret" };
	for (size_t i = 0; i < sizeof required / sizeof *required; i++)
		expect(with(required[i], NULL), STATUS_REQUEST_INVALID, required[i]);
	expect(with("colour", json_string("blue")), STATUS_REQUEST_INVALID, "unknown_member");
	expect(with("must_change", json_string("true")), STATUS_REQUEST_INVALID, "must_change");
	expect(with("op", json_integer(1)), STATUS_REQUEST_INVALID, "op");
	json_t *unlock = with("op", json_string("unlock"));
	expect(json_incref(unlock), STATUS_REQUEST_INVALID, "secret");
	json_object_del(unlock, "secret");
	assert_int_equal(verify_with(unlock, &identity, NOW), STATUS_OK);
}

static void no_object_at_all(void **state)
{
	static const char *const texts[] = { "", "[]", "null", "{", "{}", "\xef\xbb\xbf{}", "{\"jti\":1,\"jti\":2}" };
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct verified_request *verified;
		assert_int_equal(gate_verify(bytes_of_string(texts[i]), &identity, NOW, &verified, &ids, &reason), STATUS_REQUEST_INVALID);
		assert_null(verified);
		assert_string_equal(ids.request_id, "");
		assert_true(ids.exp == 0);
	}
}

static void audience(void **state)
{
	expect(with("iss", json_string(ISSUER "/")), STATUS_REQUEST_AUDIENCE, "iss");
	expect(with("iss", json_string("https://RESET.example.com")), STATUS_REQUEST_AUDIENCE, "iss");
	expect(with("aud", json_string("6f9619ff-8b86-4d01-b42d-00cf4fc964fe")), STATUS_REQUEST_AUDIENCE, "aud");
	expect(with("aud", json_pack("[s]", AGENT)), STATUS_REQUEST_AUDIENCE, "aud");
}

static json_t *at(int64_t iat, int64_t exp)
{
	json_t *request = with("iat", json_integer(iat));
	json_object_set_new(request, "exp", json_integer(exp));
	return request;
}

static void times(void **state)
{
	expect(at(NOW + 60, NOW + 90), STATUS_OK, "");
	expect(at(NOW + 61, NOW + 91), STATUS_REQUEST_NOT_YET_VALID, "iat");
	expect(at(NOW, NOW + 120), STATUS_OK, "");
	expect(at(NOW, NOW + 121), STATUS_REQUEST_INVALID, "exp");
	expect(at(NOW, NOW), STATUS_REQUEST_INVALID, "exp");
	expect(at(NOW, NOW - 1), STATUS_REQUEST_INVALID, "exp");
	expect(at(NOW - 30, NOW + 1), STATUS_OK, "");
	expect(at(NOW - 30, NOW), STATUS_REQUEST_EXPIRED, "exp");
	expect(at(NOW - 31536000, NOW - 31535970), STATUS_REQUEST_EXPIRED, "exp"); /* a year old, valid once */
	expect(at(NOW + 61, NOW + 200), STATUS_REQUEST_INVALID, "exp"); /* no lifetime that will ever be valid */
	expect(at(1, INT64_MAX), STATUS_REQUEST_INVALID, "exp");
	expect(at(INT64_MAX, 1), STATUS_REQUEST_INVALID, "iat");
}

static void an_absurd_exp_is_not_remembered_for_ever(void **state)
{
	expect(at(NOW, NOW + 1000000), STATUS_REQUEST_INVALID, "exp");
	assert_true(ids.exp == NOW + 180);
	expect(at(NOW + 5000, NOW + 1000000), STATUS_REQUEST_INVALID, "exp");
	assert_true(ids.exp == NOW + 180);
	expect(at(NOW - 5, NOW + 25), STATUS_OK, "");
	assert_true(ids.exp == NOW + 25);
}

/* Told "not yet valid", it would be taken in when its time has come, were it forgotten before. */
static void what_is_not_yet_valid_is_remembered_until_its_end(void **state)
{
	expect(at(NOW + 5000, NOW + 5030), STATUS_REQUEST_NOT_YET_VALID, "iat");
	assert_true(ids.exp == NOW + 5030);
	struct gate_identity late = identity;
	late.not_before = ids.exp; /* forgotten then */
	assert_int_equal(verify_with(at(NOW + 5000, NOW + 5030), &late, NOW + 5005), STATUS_REQUEST_EXPIRED);
}

static void what_nobody_remembers_has_expired(void **state)
{
	struct gate_identity late = identity;
	late.not_before = NOW + 29; /* the clock was set back since */
	assert_int_equal(verify_with(good(), &late, NOW), STATUS_OK);
	late.not_before = NOW + 30;
	assert_int_equal(verify_with(good(), &late, NOW), STATUS_REQUEST_EXPIRED);
	assert_string_equal(reason, "exp");
}

static void operations(void **state)
{
	json_t *change = with("op", json_string("change"));
	expect(change, STATUS_REQUEST_UNSUPPORTED, "op"); /* known, not allowed here */
	expect(with("op", json_string("delete")), STATUS_REQUEST_UNSUPPORTED, "op");
	struct gate_identity unlocks = identity;
	unlocks.operations = 1u << OP_UNLOCK;
	assert_int_equal(verify_with(good(), &unlocks, NOW), STATUS_REQUEST_UNSUPPORTED);
	unlocks.operations |= 1u << OP_RESET;
	assert_int_equal(verify_with(good(), &unlocks, NOW), STATUS_OK);
}

static void an_unknown_operation_comes_last(void **state)
{
	json_t *request = with("op", json_string("delete"));
	json_object_set_new(request, "aud", json_string("6f9619ff-8b86-4d01-b42d-00cf4fc964fe"));
	expect(request, STATUS_REQUEST_AUDIENCE, "aud");
	request = at(NOW - 30, NOW);
	json_object_set_new(request, "op", json_string("delete"));
	expect(request, STATUS_REQUEST_EXPIRED, "exp");
}

static json_t *unenforced(json_t *take_actor)
{
	json_t *request = with("enforce_policy", json_false());
	if (take_actor)
		json_object_set_new(request, "actor", take_actor);
	return request;
}

static void policy_off(void **state)
{
	struct gate_identity allowing = identity;
	allowing.allow_unenforced_policy = true;
	json_t *administrator = json_pack("{ss ss}", "type", "administrator", "id", "a1");
	expect(unenforced(NULL), STATUS_REQUEST_UNSUPPORTED, "enforce_policy");
	expect(unenforced(json_incref(administrator)), STATUS_REQUEST_UNSUPPORTED, "enforce_policy");
	assert_int_equal(verify_with(unenforced(NULL), &allowing, NOW), STATUS_REQUEST_UNSUPPORTED);
	assert_int_equal(verify_with(unenforced(json_pack("{ss}", "type", "self")), &allowing, NOW), STATUS_REQUEST_UNSUPPORTED);
	assert_int_equal(verify_with(unenforced(json_incref(administrator)), &allowing, NOW), STATUS_OK);
	json_decref(administrator);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_request), cmocka_unit_test(form), cmocka_unit_test(no_object_at_all), cmocka_unit_test(audience), cmocka_unit_test(times),
		cmocka_unit_test(an_absurd_exp_is_not_remembered_for_ever), cmocka_unit_test(what_nobody_remembers_has_expired),
		cmocka_unit_test(what_is_not_yet_valid_is_remembered_until_its_end), cmocka_unit_test(operations),
		cmocka_unit_test(an_unknown_operation_comes_last), cmocka_unit_test(policy_off),
	};
	return cmocka_run_group_tests_name("verify", tests, NULL, NULL);
}
