#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "service/request.h"

#define ISSUER "https://reset.example.org"
#define OPERATION "6f9619ff-8b86-4011-b42d-00c04fc964ff"
#define NOW 1790000000

struct world {
	struct jose_key *signing, *decryption;
	struct agent agent;
	struct operation_question question;
};

static int set_up(void **state)
{
	static struct world world;
	world = (struct world){ 0 };
	assert_int_equal(jose_key_generate(JOSE_SIGN, &world.signing), STATUS_OK);
	assert_int_equal(jose_key_generate(JOSE_DECRYPT, &world.decryption), STATUS_OK);
	assert_int_equal(jose_key_public(world.decryption, &world.agent.decryption), STATUS_OK);
	strcpy(world.agent.row.agent_id, "11111111-1111-4111-8111-111111111111");
	world.question = (struct operation_question){ .operation_id = OPERATION, .op = OP_RESET, .subject = { SUBJECT_UPN, (char *)"alice@corp.example.test", NULL },
		.new_password = bytes_of_string("new password"), .must_change = true, .unlock = true, .enforce_policy = true };
	*state = &world;
	return 0;
}

static int tear_down(void **state)
{
	struct world *world = *state;
	jose_key_free(world->signing);
	jose_key_free(world->decryption);
	jose_key_free(world->agent.decryption);
	return 0;
}

static enum status make(struct world *world, struct request_row *ret_row)
{
	return request_make(&world->question, &world->agent, ISSUER, world->signing, NOW, 30, 4, ret_row);
}

/* As the agent reads it. */
static void read_back(struct world *world, const struct request_row *row, struct request_claims *ret_claims)
{
	static const char *const typs[] = { TYP_REQUEST, NULL };
	struct jose_keys *keys = jose_keys_new();
	struct jose_key *public;
	AUTO_FREE char *payload = NULL;
	const char *member;
	size_t size;
	assert_int_equal(jose_key_public(world->signing, &public), STATUS_OK);
	assert_int_equal(jose_keys_add(keys, public), STATUS_OK);
	assert_int_equal(jose_verify(bytes_of_string(row->frame), typs, keys, &payload, &size, NULL, NULL), JOSE_OK);
	assert_int_equal(request_parse(bytes_of(payload, size), ret_claims, &member), STATUS_OK);
	jose_keys_free(keys);
}

static void password_is_encrypted_to_the_agent(void **state)
{
	struct world *world = *state;
	struct request_row row = { 0 };
	struct request_claims claims = { 0 };
	struct secret_claims secret = { 0 };
	AUTO_SECRET struct secret plaintext = SECRET_EMPTY;
	struct jose_key *const keys[] = { world->decryption, NULL };
	const char *member;
	assert_int_equal(make(world, &row), STATUS_OK);
	read_back(world, &row, &claims);
	assert_string_equal(claims.issuer, ISSUER);
	assert_string_equal(claims.audience, world->agent.row.agent_id);
	assert_string_equal(claims.request_id, row.request_id);
	assert_string_equal(claims.operation_id, OPERATION);
	assert_int_equal(claims.iat, NOW);
	assert_int_equal(claims.exp, NOW + 30);
	assert_true(claims.must_change && claims.unlock && claims.enforce_policy);
	assert_int_equal(jose_decrypt(bytes_of_string(claims.secret), keys, &plaintext), JOSE_OK);
	assert_int_equal(secret_claims_parse(&plaintext, &claims, &secret, &member), STATUS_OK);
	assert_true(bytes_equal(secret_bytes(&secret.new_password), bytes_of_string("new password")));
	secret_claims_clear(&secret);
	request_claims_clear(&claims);
	request_row_clear(&row);
}

static void browsers_jwe_is_taken_as_it_is(void **state)
{
	struct world *world = *state;
	struct request_row row = { 0 };
	struct request_claims claims = { 0 };
	AUTO_FREE char *jwe = NULL;
	assert_int_equal(jose_encrypt(world->agent.decryption, bytes_of_string("{}"), &jwe), STATUS_OK);
	json_t *secrets = json_pack("{s:s}", jose_key_id(world->agent.decryption), jwe);
	world->question.secrets = secrets;
	assert_int_equal(make(world, &row), STATUS_OK);
	read_back(world, &row, &claims);
	assert_string_equal(claims.secret, jwe);
	request_claims_clear(&claims);
	request_row_clear(&row);
	/* One for another key, under this key's name. */
	struct jose_key *other;
	AUTO_FREE char *foreign = NULL;
	assert_int_equal(jose_key_generate(JOSE_DECRYPT, &other), STATUS_OK);
	assert_int_equal(jose_encrypt(other, bytes_of_string("{}"), &foreign), STATUS_OK);
	json_object_set_new(secrets, jose_key_id(world->agent.decryption), json_string(foreign));
	assert_int_equal(make(world, &row), STATUS_REQUEST_INVALID);
	json_object_set_new(secrets, jose_key_id(world->agent.decryption), json_string("a.b.c.d.e"));
	assert_int_equal(make(world, &row), STATUS_REQUEST_INVALID);
	json_object_clear(secrets);
	assert_int_equal(make(world, &row), STATUS_REQUEST_INVALID);
	jose_key_free(other);
	json_decref(secrets);
}

static void unlock_has_no_secret(void **state)
{
	struct world *world = *state;
	struct request_row row = { 0 };
	struct request_claims claims = { 0 };
	world->question.op = OP_UNLOCK;
	world->question.must_change = false;
	assert_int_equal(make(world, &row), STATUS_OK);
	read_back(world, &row, &claims);
	assert_null(claims.secret);
	request_claims_clear(&claims);
	request_row_clear(&row);
}

static void choice(void **state)
{
	struct world *world = *state;
	struct hello_directory corp = { (char *)"corp", (char *)"active-directory" }, lab = { (char *)"lab", (char *)"active-directory" };
	struct session *connected = (struct session *)world; /* only compared with NULL */
	struct agent c = { .session = connected, .decryption = world->agent.decryption, .on_wire = 1, .hello = { .max_in_flight = 8, .operations = 1u << OP_UNLOCK, .directories = &lab, .directory_count = 1 } };
	struct agent b = { .next = &c, .session = connected, .decryption = world->agent.decryption, .on_wire = 1, .queued = 2,
		.hello = { .max_in_flight = 8, .operations = 1u << OP_RESET | 1u << OP_UNLOCK, .directories = &corp, .directory_count = 1 } };
	struct agent a = { .next = &b, .session = connected, .decryption = world->agent.decryption, .on_wire = 2,
		.hello = { .max_in_flight = 8, .operations = 1u << OP_RESET, .directories = &corp, .directory_count = 1 } };
	assert_ptr_equal(operations_choose(&a, OP_RESET, NULL, NULL), &a);
	/* 2 of 4 are as many as 4 of 8, and more than 3 of 8; where the load is the same, the one that was chosen longest ago. */
	a.hello.max_in_flight = 4;
	assert_ptr_equal(operations_choose(&a, OP_RESET, NULL, NULL), &b);
	b.queued = 3;
	b.chosen = 1;
	assert_ptr_equal(operations_choose(&a, OP_RESET, NULL, NULL), &a);
	a.chosen = 2;
	assert_ptr_equal(operations_choose(&a, OP_RESET, NULL, NULL), &b);
	a.hello.max_in_flight = 8;
	b.queued = 2;
	a.on_wire = 4;
	assert_ptr_equal(operations_choose(&a, OP_RESET, NULL, NULL), &b);
	b.draining = true;
	assert_ptr_equal(operations_choose(&a, OP_RESET, "corp", NULL), &a);
	a.session = NULL;
	assert_null(operations_choose(&a, OP_RESET, NULL, NULL));
	b.draining = false;
	assert_ptr_equal(operations_choose(&a, OP_UNLOCK, NULL, NULL), &c);
	assert_ptr_equal(operations_choose(&a, OP_UNLOCK, "corp", NULL), &b);
	assert_null(operations_choose(&a, OP_UNLOCK, "other", NULL));
	assert_null(operations_choose(&a, OP_CHECK, NULL, NULL));
	json_t *secrets = json_pack("{s:s}", "another-key", "x");
	assert_null(operations_choose(&a, OP_RESET, NULL, secrets));
	json_object_set_new(secrets, jose_key_id(world->agent.decryption), json_string("x"));
	assert_ptr_equal(operations_choose(&a, OP_RESET, NULL, secrets), &b);
	json_decref(secrets);
}

static void answers(void **state)
{
	struct result result;
	result_init(&result);
	AUTO_FREE char *empty = answer_text(&result);
	assert_string_equal(empty, "{}");
	result.was_locked = 0;
	result.retry_after = 30;
	result.server = strdup("dc1");
	result.ldap_result = 19;
	result.rules[0] = (struct rule){ RULE_MIN_LENGTH, 14, 9, 0 };
	result.rule_count = 1;
	AUTO_FREE char *text = answer_text(&result);
	json_t *json = json_loads(text, 0, NULL);
	assert_true(json_is_false(json_object_get(json, "was_locked")));
	assert_int_equal(json_integer_value(json_object_get(json, "retry_after")), 30);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(json, "directory"), "result_code")), 19);
	assert_int_equal(json_array_size(json_object_get(json, "rules")), 1);
	json_decref(json);
	result_clear(&result);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(password_is_encrypted_to_the_agent, set_up, tear_down), cmocka_unit_test_setup_teardown(browsers_jwe_is_taken_as_it_is, set_up, tear_down),
		cmocka_unit_test_setup_teardown(unlock_has_no_secret, set_up, tear_down), cmocka_unit_test_setup_teardown(choice, set_up, tear_down), cmocka_unit_test(answers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
