/* The published vectors (proto/vectors), as an agent goes through them (signature, form, audience, times, secret) and as a service does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "agent/gate/verify.h"

static json_t *load(const char *name)
{
	AUTO_FREE char *path = NULL;
	const char *root = getenv("SOURCE_ROOT");

	assert_true(asprintf(&path, "%s/proto/vectors/%s", root ? root : ".", name) > 0);
	json_t *json = json_load_file(path, 0, NULL);
	assert_non_null(json);
	return json;
}

static const char *text_of(const json_t *json, const char *name)
{
	const char *text = json_string_value(json_object_get(json, name));

	assert_non_null(text);
	return text;
}

static struct jose_key *load_key(const char *name, enum jose_use use)
{
	json_t *keys = load("keys.json");
	struct jose_key *key;

	assert_int_equal(jose_key_from_jwk(json_object_get(keys, name), use, true, &key), STATUS_OK);
	json_decref(keys);
	return key;
}

/* Requests --------------------------------------------------------------------------------------------------------------------------- */

struct agent {
	struct gate_identity identity;
	struct key_set set;
	struct jose_key *decryption;
};

/* What the agent would answer: a code and its reason. */
static enum status check_secret(const struct agent *agent, const struct request_claims *claims, const json_t *vector, const char **ret_reason)
{
	struct jose_key *const keys[] = { agent->decryption, NULL };
	AUTO_SECRET struct secret plaintext = SECRET_EMPTY;
	struct secret_claims secret;

	enum jose_reason reason = jose_decrypt(bytes_of_string(claims->secret), keys, &plaintext);
	*ret_reason = jose_reason_name(reason);
	if (reason != JOSE_OK)
		return STATUS_REQUEST_UNDECRYPTABLE;
	enum status status = secret_claims_parse(&plaintext, claims, &secret, ret_reason);
	const char *expected = json_string_value(json_object_get(vector, "new_password")), *old = json_string_value(json_object_get(vector, "old_password"));
	if (status == STATUS_OK && expected)
		assert_true(bytes_equal(secret_bytes(&secret.new_password), bytes_of_string(expected)));
	if (status == STATUS_OK && old)
		assert_true(bytes_equal(secret_bytes(&secret.old_password), bytes_of_string(old)));
	secret_claims_clear(&secret);
	return status;
}

static enum status check_request(const struct agent *agent, const json_t *vector, const char **ret_reason)
{
	static const char *const typs[] = { TYP_REQUEST, NULL };
	const char *frame = text_of(vector, "frame");
	AUTO_FREE char *payload = NULL;
	struct verified_request *request;
	struct request_ids ids;
	size_t size;

	enum jose_reason reason = jose_verify(bytes_of_string(frame), typs, agent->set.keys, &payload, &size, NULL, NULL);
	*ret_reason = jose_reason_name(reason);
	if (reason != JOSE_OK)
		return STATUS_REQUEST_SIGNATURE;
	enum status status = gate_verify(bytes_of(payload, size), &agent->identity, json_integer_value(json_object_get(vector, "now")), &request, &ids, ret_reason);
	if (status == STATUS_OK && verified_claims(request)->secret)
		status = check_secret(agent, verified_claims(request), vector, ret_reason);
	if (status == STATUS_OK)
		*ret_reason = "";
	verified_free(request);
	return status;
}

static void requests(void **state)
{
	json_t *file = load("requests.json"), *vectors = json_object_get(file, "vectors");
	struct jose_key *root = load_key("root", JOSE_SIGN);
	struct agent agent = {
		.identity = { .issuer = text_of(file, "issuer"), .agent_id = text_of(file, "agent_id"), .operations = ((1u << OP_COUNT) - 1) & ~(1u << OP_VERIFY) },
		.decryption = load_key("agent_decryption", JOSE_DECRYPT),
	};
	unsigned accepted = 0;

	assert_int_equal(key_set_verify(bytes_of_string(text_of(file, "key_set")), root, agent.identity.issuer, 0, &agent.set), STATUS_OK);
	assert_true(json_array_size(vectors) > 150);
	for (size_t i = 0; i < json_array_size(vectors); i++) {
		const json_t *vector = json_array_get(vectors, i);
		const char *reason = NULL;

		print_message("# %s\n", text_of(vector, "name"));
		enum status status = check_request(&agent, vector, &reason);
		assert_string_equal(status_code(status), text_of(vector, "code"));
		assert_string_equal(reason, text_of(vector, "reason"));
		accepted += status == STATUS_OK;
	}
	assert_true(accepted >= 20);
	key_set_clear(&agent.set);
	jose_key_free(agent.decryption);
	jose_key_free(root);
	json_decref(file);
}

static void key_sets(void **state)
{
	json_t *file = load("key_sets.json"), *vectors = json_object_get(file, "vectors");
	struct jose_key *root = load_key("root", JOSE_SIGN);

	assert_string_equal(jose_key_id(root), text_of(file, "root"));
	assert_true(json_array_size(vectors) > 10);
	for (size_t i = 0; i < json_array_size(vectors); i++) {
		const json_t *vector = json_array_get(vectors, i);
		struct key_set set;

		print_message("# %s\n", text_of(vector, "name"));
		enum status status = key_set_verify(bytes_of_string(text_of(vector, "frame")), root, text_of(file, "issuer"), json_integer_value(json_object_get(vector, "now")), &set);
		assert_string_equal(status_code(status), text_of(vector, "code"));
		key_set_clear(&set);
	}
	jose_key_free(root);
	json_decref(file);
}

/* The octets of unicodePwd: in quotes, UTF-16LE. */
static void passwords(void **state)
{
	json_t *file = load("passwords.json"), *vectors = json_object_get(file, "vectors");

	assert_true(json_array_size(vectors) >= 10);
	for (size_t i = 0; i < json_array_size(vectors); i++) {
		const json_t *vector = json_array_get(vectors, i);
		AUTO_FREE char *quoted = NULL;
		uint8_t octets[1200];
		char hex[2 * sizeof(octets) + 1];

		print_message("# %s\n", text_of(vector, "name"));
		assert_true(asprintf(&quoted, "\"%s\"", text_of(vector, "password")) > 0);
		struct bytes text = bytes_of_string(quoted);
		assert_true(utf8_valid(text));
		utf8_to_utf16le(text, octets);
		hex_encode(bytes_of(octets, 2 * utf8_utf16_units(text)), hex);
		assert_string_equal(hex, text_of(vector, "unicode_pwd"));
	}
	json_decref(file);
}

/* What comes to a service: enrolments, hellos, results ------------------------------------------------------------------------------- */

/* The word of the first check that fails, "" where none does. */
struct verdict {
	const char *reason;
	int64_t number; /* the HTTP status of an enrolment, the close code after a hello */
	bool ack;
	enum status code;
};

struct check {
	bool fault;
	const char *member;
	int64_t number;
};

static struct verdict first_fault(const struct check *checks, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (checks[i].fault)
			return (struct verdict){ checks[i].member, checks[i].number };
	return (struct verdict){ "" };
}

static bool differs(const char *a, const char *b)
{
	return strcmp(a, b) != 0;
}

static struct jose_keys *one_key(const json_t *jwk)
{
	struct jose_keys *keys = jose_keys_new();
	struct jose_key *key;

	if (jose_key_from_jwk(jwk, JOSE_SIGN, false, &key) == STATUS_OK)
		assert_int_equal(jose_keys_add(keys, key), STATUS_OK);
	return keys;
}

/* Sections 2.1 and 4: the key comes from the payload. */
static struct verdict check_enrollment(const json_t *file, const json_t *vector)
{
	static const char *const typs[] = { TYP_ENROLL, NULL };
	struct bytes frame = bytes_of_string(text_of(vector, "frame"));
	int64_t now = json_integer_value(json_object_get(vector, "now"));
	AUTO_FREE char *payload = NULL;
	char kid[JOSE_KID_SIZE];
	json_t *unverified;
	const char *member;
	struct enroll enroll;
	size_t size;

	enum jose_reason reason = jose_peek_unverified(frame, TYP_ENROLL, kid, &unverified);
	if (reason != JOSE_OK)
		return (struct verdict){ jose_reason_name(reason), 400 };
	struct jose_keys *keys = one_key(json_object_get(unverified, "signing_key"));
	json_decref(unverified);
	bool has_key = jose_keys_count(keys) > 0;
	reason = jose_verify(frame, typs, keys, &payload, &size, NULL, NULL);
	jose_keys_free(keys);
	if (reason != JOSE_OK)
		return (struct verdict){ has_key ? jose_reason_name(reason) : "signing_key", 400 };
	if (enroll_parse(bytes_of(payload, size), &enroll, &member) != STATUS_OK)
		return (struct verdict){ member, 400 };
	const struct check checks[] = {
		{ differs(enroll.issuer, text_of(file, "issuer")), "aud", 400 },
		{ enroll.iat > now + 60, "iat", 400 },
		{ enroll.exp <= enroll.iat || enroll.exp > enroll.iat + 300 || enroll.exp + 60 < now, "exp", 400 },
		{ differs(enroll.ticket, text_of(file, "ticket")), "ticket", 401 },
	};
	struct verdict verdict = first_fault(checks, sizeof(checks) / sizeof(*checks));
	enroll_clear(&enroll);
	return *verdict.reason ? verdict : (struct verdict){ "", 201 };
}

static const json_t *find_by(const json_t *array, const char *member, const char *text)
{
	for (size_t i = 0; i < json_array_size(array); i++)
		if (!differs(text_of(json_array_get(array, i), member), text))
			return json_array_get(array, i);
	return NULL;
}

/* Section 5.1: the agent is found by the unverified `iss`. */
static struct verdict check_hello(const json_t *file, const json_t *vector)
{
	static const char *const typs[] = { TYP_HELLO, NULL };
	struct bytes frame = bytes_of_string(text_of(vector, "frame"));
	int64_t now = json_integer_value(json_object_get(vector, "now"));
	AUTO_FREE char *payload = NULL;
	char kid[JOSE_KID_SIZE];
	json_t *unverified;
	const char *member;
	struct hello hello;
	size_t size;

	enum jose_reason reason = jose_peek_unverified(frame, TYP_HELLO, kid, &unverified);
	if (reason != JOSE_OK)
		return (struct verdict){ jose_reason_name(reason), 1008 };
	const json_t *agent = find_by(json_object_get(file, "agents"), "agent_id", text_of(unverified, "iss"));
	json_decref(unverified);
	if (!agent || json_is_true(json_object_get(agent, "revoked")))
		return (struct verdict){ "iss", 4001 };
	struct jose_keys *keys = one_key(json_object_get(agent, "signing_key"));
	reason = jose_verify(frame, typs, keys, &payload, &size, NULL, NULL);
	jose_keys_free(keys);
	if (reason != JOSE_OK)
		return (struct verdict){ jose_reason_name(reason), 1008 };
	if (hello_parse(bytes_of(payload, size), &hello, &member) != STATUS_OK)
		return (struct verdict){ member, 1008 };
	const struct check checks[] = {
		{ differs(hello.agent_id, text_of(agent, "agent_id")), "iss", 1008 },
		{ differs(hello.issuer, text_of(file, "issuer")), "aud", 1008 },
		{ differs(hello.nonce, text_of(file, "nonce")), "nonce", 1008 },
		{ hello.version != 1, "version", 4002 },
		{ hello.iat > now + 60 || hello.iat < now - 60, "iat", 4005 },
		{ differs(hello.decryption_key, text_of(json_object_get(agent, "decryption_key"), "kid")), "decryption_key", 1008 },
	};
	struct verdict verdict = first_fault(checks, sizeof(checks) / sizeof(*checks));
	hello_clear(&hello);
	return verdict;
}

static bool has_request(const json_t *file, const char *request_id)
{
	const json_t *request = find_by(json_object_get(file, "requests"), "request_id", request_id);

	return request && !differs(text_of(request, "agent_id"), text_of(file, "agent_id"));
}

static struct verdict check_parsed_result(const json_t *file, const struct result *result)
{
	bool of_request = result->request_id[0] != '\0';
	const struct check checks[] = {
		{ differs(result->agent_id, text_of(file, "agent_id")), "iss" },
		{ differs(result->issuer, text_of(file, "issuer")), "aud" },
		{ of_request && !has_request(file, result->request_id), "request_id" },
	};
	struct verdict verdict = first_fault(checks, sizeof(checks) / sizeof(*checks));

	verdict.code = result->code;
	/* One that belongs to no request is acknowledged too, else it would come for ever. */
	verdict.ack = of_request && (!*verdict.reason || !differs(verdict.reason, "request_id")) && outcome_is_final(status_outcome(result->code));
	return verdict;
}

/* Section 1: what this version does not know is ignored where it is signed by the agent, and only there. */
static const char *type_reason(struct bytes frame, const struct jose_keys *keys)
{
	static const char *const known[] = { TYP_KEYS, TYP_CHALLENGE, TYP_HELLO, TYP_WELCOME, TYP_REQUEST, TYP_ACK, TYP_DRAIN, TYP_ENROLL, TYP_REKEYED, TYP_REKEY_PROOF };
	AUTO_FREE char *payload = NULL;
	char typ[JOSE_TYP_SIZE];
	size_t size;

	assert_int_equal(jose_peek_typ(NULL, frame, typ), JOSE_OK);
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (!differs(typ, known[i]))
			return "typ";
	enum jose_reason reason = jose_verify(frame, (const char *const[]){ typ, NULL }, keys, &payload, &size, NULL, NULL);
	return reason == JOSE_OK ? "ignored" : jose_reason_name(reason);
}

/* Section 7. */
static struct verdict check_result(const json_t *file, const json_t *vector)
{
	static const char *const typs[] = { TYP_RESULT, NULL };
	struct bytes frame = bytes_of_string(text_of(vector, "frame"));
	struct jose_keys *keys = one_key(json_object_get(file, "signing_key"));
	AUTO_FREE char *payload = NULL;
	const char *member;
	struct result result;
	size_t size;

	enum jose_reason reason = jose_verify(frame, typs, keys, &payload, &size, NULL, NULL);
	struct verdict verdict = { reason == JOSE_TYP ? type_reason(frame, keys) : jose_reason_name(reason) };
	jose_keys_free(keys);
	if (reason != JOSE_OK)
		return verdict;
	if (result_parse(bytes_of(payload, size), &result, &member) != STATUS_OK)
		return (struct verdict){ *member ? member : "payload" };
	verdict = check_parsed_result(file, &result);
	result_clear(&result);
	return verdict;
}

/* Section 5.3. */
static struct verdict check_rekey(const json_t *file, const json_t *vector)
{
	static const char *const typs[] = { TYP_REKEY, NULL };
	struct bytes frame = bytes_of_string(text_of(vector, "frame"));
	int64_t now = json_integer_value(json_object_get(vector, "now"));
	struct jose_keys *keys = one_key(json_object_get(file, "signing_key"));
	AUTO_FREE char *payload = NULL;
	const char *member;
	struct rekey rekey;
	size_t size;

	enum jose_reason reason = jose_verify(frame, typs, keys, &payload, &size, NULL, NULL);
	struct verdict verdict = { reason == JOSE_TYP ? type_reason(frame, keys) : jose_reason_name(reason), 1008 };
	if (!differs(verdict.reason, "ignored"))
		verdict.number = 0;
	jose_keys_free(keys);
	if (reason != JOSE_OK)
		return verdict;
	if (rekey_parse(bytes_of(payload, size), &rekey, &member) != STATUS_OK)
		return (struct verdict){ *member ? member : "payload", 1008 };
	const struct check checks[] = {
		{ differs(rekey.agent_id, text_of(file, "agent_id")), "iss", 1008 },
		{ differs(rekey.issuer, text_of(file, "issuer")), "aud", 1008 },
		{ rekey.iat > now + 60 || rekey.iat < now - 60, "iat", 1008 },
		{ differs(rekey.session, text_of(file, "session")), "session", 1008 },
		{ rekey_proven(&rekey) != JOSE_OK, "proof", 1008 },
	};
	verdict = first_fault(checks, sizeof(checks) / sizeof(*checks));
	rekey_clear(&rekey);
	return verdict;
}

static const struct service_file {
	const char *name, *number; /* the member that has struct verdict's number */
	struct verdict (*check)(const json_t *file, const json_t *vector);
} enrollments_file = { "enrollments.json", "status", check_enrollment }, hellos_file = { "hellos.json", "close", check_hello }, results_file = { "results.json", NULL, check_result },
  rekeys_file = { "rekeys.json", "close", check_rekey };

static void judge(const struct service_file *row, const json_t *file, const json_t *vector)
{
	bool accept = json_is_true(json_object_get(vector, "accept"));
	const char *expected = accept ? "" : text_of(vector, "reason");
	struct verdict verdict = row->check(file, vector);

	/* Where the payload is read before it is verified, that it is none has no word of its own. */
	if (row->number && row != &rekeys_file && strcmp(expected, "payload") == 0)
		expected = "form";
	assert_string_equal(verdict.reason, expected);
	if (row->number) {
		assert_int_equal(verdict.number, json_integer_value(json_object_get(vector, row->number)));
		return;
	}
	assert_int_equal(verdict.ack, json_is_true(json_object_get(vector, "ack")));
	if (accept)
		assert_string_equal(outcome_name(status_outcome(verdict.code)), text_of(vector, "status"));
}

static void to_service(void **state)
{
	const struct service_file *row = *state;
	json_t *file = load(row->name), *vectors = json_object_get(file, "vectors");
	size_t accepted = 0;

	assert_true(json_array_size(vectors) > 80);
	for (size_t i = 0; i < json_array_size(vectors); i++) {
		const json_t *vector = json_array_get(vectors, i);

		print_message("# %s\n", text_of(vector, "name"));
		judge(row, file, vector);
		accepted += json_is_true(json_object_get(vector, "accept"));
	}
	assert_true(accepted >= 7);
	json_decref(file);
}

/* Examples: each parses as what it says it is --------------------------------------------------------------------------------------- */

#define EXAMPLE(name) \
	static enum status parse_##name(struct bytes payload, const char **ret_member) \
	{ \
		struct name message; \
		enum status status = name##_parse(payload, &message, ret_member); \
		name##_clear(&message); \
		return status; \
	}
EXAMPLE(key_set)
EXAMPLE(challenge)
EXAMPLE(hello)
EXAMPLE(welcome)
EXAMPLE(drain)
EXAMPLE(ack)
EXAMPLE(enroll)
EXAMPLE(rekeyed)

/* The proof inside it is an example of its own: whoever can read the one can read the other. */
static enum status parse_rekey(struct bytes payload, const char **ret_member)
{
	struct rekey rekey;
	enum status status = rekey_parse(payload, &rekey, ret_member);

	if (status == STATUS_OK)
		assert_int_equal(rekey_proven(&rekey), JOSE_OK);
	rekey_clear(&rekey);
	return status;
}

EXAMPLE(result)

static enum status parse_request(struct bytes payload, const char **ret_member)
{
	struct request_claims request;
	enum status status = request_parse(payload, &request, ret_member);

	request_claims_clear(&request);
	return status;
}

static const struct {
	const char *typ;
	enum status (*parse)(struct bytes payload, const char **ret_member);
} parsers[] = {
	{ TYP_KEYS, parse_key_set }, { TYP_CHALLENGE, parse_challenge }, { TYP_HELLO, parse_hello }, { TYP_WELCOME, parse_welcome }, { TYP_REQUEST, parse_request },
	{ TYP_RESULT, parse_result }, { TYP_ACK, parse_ack }, { TYP_DRAIN, parse_drain }, { TYP_ENROLL, parse_enroll },
	{ TYP_REKEY, parse_rekey }, { TYP_REKEYED, parse_rekeyed },
};

static void examples(void **state)
{
	static const char *const names[] = { "root", "service", "agent_signing", "next_signing" };
	json_t *file = load("examples.json"), *messages = json_object_get(file, "messages");
	struct jose_keys *keys = jose_keys_new();
	unsigned seen = 0;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		assert_int_equal(jose_keys_add(keys, load_key(names[i], JOSE_SIGN)), STATUS_OK);
	for (size_t i = 0; i < json_array_size(messages); i++) {
		const json_t *message = json_array_get(messages, i);
		const char *const typs[] = { text_of(message, "typ"), NULL };
		AUTO_FREE char *payload = NULL;
		const char *member = NULL;
		struct jose_key *key;
		size_t size;

		print_message("# %s\n", typs[0]);
		assert_int_equal(jose_verify(bytes_of_string(text_of(message, "frame")), typs, keys, &payload, &size, NULL, &key), JOSE_OK);
		assert_string_equal(jose_key_id(key), text_of(message, "kid"));
		for (size_t parser = 0; parser < sizeof(parsers) / sizeof(*parsers); parser++)
			if (strcmp(parsers[parser].typ, typs[0]) == 0) {
				assert_int_equal(parsers[parser].parse(bytes_of(payload, size), &member), STATUS_OK);
				seen |= 1u << parser;
			}
	}
	assert_int_equal(seen, (1u << sizeof(parsers) / sizeof(*parsers)) - 1);
	jose_keys_free(keys);
	json_decref(file);
}

int main(void)
{
	secret_json_init();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests),
		cmocka_unit_test(key_sets),
		cmocka_unit_test(passwords),
		{ "enrollments", to_service, NULL, NULL, (void *)&enrollments_file },
		{ "hellos", to_service, NULL, NULL, (void *)&hellos_file },
		{ "results", to_service, NULL, NULL, (void *)&results_file },
		{ "rekeys", to_service, NULL, NULL, (void *)&rekeys_file },
		cmocka_unit_test(examples),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
