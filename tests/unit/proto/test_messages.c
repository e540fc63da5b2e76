/* The key set, the greeting, the other control messages and enrolment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/proto/message_twins.h"

#define AGENT "6f9619ff-8b86-4011-b42d-00cf4fc964ff"
#define OTHER "0c2d9f6e-2f0e-4a8e-9d7c-3f1f2b6a7c11"
#define NONCE "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
#define NONCE2 "__________________________________________8"

/* name_twins(parser): a parser that clears, and the text that a struct builds to, for each message. */
#define PARSER(name) \
	static enum status twin_##name(struct bytes payload, const char **ret_member) \
	{ \
		struct name message; \
		enum status status = name##_parse(payload, &message, ret_member); \
		name##_clear(&message); \
		name##_clear(&message); \
		return status; \
	} \
	static void name##_comes_back(const char *text) \
	{ \
		struct name message; \
		const char *member; \
		assert_int_equal(name##_parse(bytes_of_string(text), &message, &member), STATUS_OK); \
		AUTO_FREE char *again = name##_build(&message); \
		assert_string_equal(again, text); \
		name##_clear(&message); \
	}
PARSER(challenge)
PARSER(hello)
PARSER(welcome)
PARSER(drain)
PARSER(ack)
PARSER(enroll)

#define BAD_TIMES(name) \
	{ name, NULL, STATUS_LOCAL_INPUT }, { name, "\"1790000000\"", STATUS_LOCAL_INPUT }, { name, "1790000000.5", STATUS_LOCAL_INPUT }, { name, "0", STATUS_LOCAL_INPUT }, \
	{ name, "-1", STATUS_LOCAL_INPUT }, { name, "null", STATUS_LOCAL_INPUT }, { name, "9223372036854775807", STATUS_LOCAL_INPUT }, { name, "true", STATUS_LOCAL_INPUT }
#define BAD_TEXTS(name) \
	{ name, NULL, STATUS_LOCAL_INPUT }, { name, "\"\"", STATUS_LOCAL_INPUT }, { name, "1", STATUS_LOCAL_INPUT }, { name, "[\"a\"]", STATUS_LOCAL_INPUT }, \
	{ name, "null", STATUS_LOCAL_INPUT }, { name, "\"a\\nb\"", STATUS_LOCAL_INPUT }, { name, "\"a\\u0080b\"", STATUS_LOCAL_INPUT }
#define BAD_UUIDS(name) \
	{ name, NULL, STATUS_LOCAL_INPUT }, { name, "\"\"", STATUS_LOCAL_INPUT }, { name, "7", STATUS_LOCAL_INPUT }, { name, "\"6F9619FF-8B86-4011-B42D-00CF4FC964FF\"", STATUS_LOCAL_INPUT }, \
	{ name, "\"6f9619ff8b864011b42d00cf4fc964ff\"", STATUS_LOCAL_INPUT }, { name, "\"{6f9619ff-8b86-4011-b42d-00cf4fc964ff}\"", STATUS_LOCAL_INPUT }
#define BAD_REQUEST_IDS \
	{ "request_ids", NULL, STATUS_LOCAL_INPUT }, { "request_ids", "[]", STATUS_LOCAL_INPUT }, { "request_ids", "\"" OTHER "\"", STATUS_LOCAL_INPUT }, { "request_ids", "[7]", STATUS_LOCAL_INPUT }, \
	{ "request_ids", "[\"" OTHER "\",\"\"]", STATUS_LOCAL_INPUT }, { "request_ids", "{}", STATUS_LOCAL_INPUT }, { "request_ids", "[\"" OTHER "\",null]", STATUS_LOCAL_INPUT }
#define BAD_RANDOM(name) \
	{ name, NULL, STATUS_LOCAL_INPUT }, { name, "\"\"", STATUS_LOCAL_INPUT }, { name, "\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg\"", STATUS_LOCAL_INPUT }, \
	{ name, "\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"", STATUS_LOCAL_INPUT }, { name, "\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9\"", STATUS_LOCAL_INPUT }, \
	{ name, "\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gIA\"", STATUS_LOCAL_INPUT }
#define OTHERS_ARE_IGNORED { "later", "{\"version\":2}", STATUS_OK }

static const char challenge_text[] = "{\"iss\":\"https://reset.example\",\"iat\":1790000000,\"nonce\":\"" NONCE "\"}";
static const struct twin challenge_twins[] = { BAD_TEXTS("iss"), BAD_TIMES("iat"), BAD_RANDOM("nonce"), OTHERS_ARE_IGNORED };

static void challenges(void **state)
{
	challenge_comes_back(challenge_text);
	EXPECT_TWINS(challenge_text, twin_challenge, challenge_twins);
	expect_no_message(twin_challenge, STATUS_LOCAL_INPUT, "", challenge_text);
}

static const char hello_text[] = "{\"iss\":\"" AGENT "\",\"aud\":\"https://reset.example\",\"iat\":1790000000,\"nonce\":\"" NONCE "\",\"agent_nonce\":\"" NONCE2 "\",\"instance_id\":\"" OTHER "\","
	"\"boot\":7,\"version\":1,\"software\":\"writebackd/0.1.0\",\"directories\":[{\"name\":\"corp\",\"flavor\":\"active-directory\"},{\"name\":\"labor\",\"flavor\":\"samba\"}],"
	"\"operations\":[\"reset\",\"unlock\",\"check\"],\"max_in_flight\":256,\"decryption_key\":\"" NONCE2 "\"}";
static const struct twin hello_twins[] = {
	BAD_TEXTS("iss"), BAD_TEXTS("aud"), BAD_TIMES("iat"), BAD_RANDOM("nonce"), BAD_RANDOM("agent_nonce"), BAD_RANDOM("decryption_key"), BAD_UUIDS("instance_id"),
	{ "boot", "-1", STATUS_LOCAL_INPUT }, { "boot", "0", STATUS_OK }, { "boot", NULL, STATUS_LOCAL_INPUT }, { "boot", "1.0", STATUS_LOCAL_INPUT },
	{ "version", "0", STATUS_LOCAL_INPUT }, { "version", "2", STATUS_OK }, { "version", "4294967297", STATUS_LOCAL_INPUT }, { "version", "\"1\"", STATUS_LOCAL_INPUT },
	{ "software", "1", STATUS_LOCAL_INPUT }, { "software", NULL, STATUS_LOCAL_INPUT }, { "software", "\"x\\u001b[2J\"", STATUS_OK },
	{ "directories", NULL, STATUS_LOCAL_INPUT }, { "directories", "{}", STATUS_LOCAL_INPUT }, { "directories", "[]", STATUS_OK }, { "directories", "[1]", STATUS_LOCAL_INPUT },
	{ "directories", "[{\"name\":\"a\",\"flavor\":\"b\"},{\"name\":\"a\"}]", STATUS_LOCAL_INPUT }, { "directories", "[{\"name\":\"\",\"flavor\":\"b\"}]", STATUS_LOCAL_INPUT },
	{ "directories", "[{\"name\":\"a\",\"flavor\":\"b\",\"later\":1}]", STATUS_OK },
	{ "operations", NULL, STATUS_LOCAL_INPUT }, { "operations", "\"reset\"", STATUS_LOCAL_INPUT }, { "operations", "[1]", STATUS_LOCAL_INPUT }, { "operations", "[\"later\"]", STATUS_OK },
	{ "max_in_flight", "0", STATUS_LOCAL_INPUT }, { "max_in_flight", "65537", STATUS_LOCAL_INPUT }, { "max_in_flight", NULL, STATUS_LOCAL_INPUT },
	OTHERS_ARE_IGNORED,
};

static void hellos(void **state)
{
	struct hello hello;
	const char *member;

	hello_comes_back(hello_text);
	EXPECT_TWINS(hello_text, twin_hello, hello_twins);
	expect_no_message(twin_hello, STATUS_LOCAL_INPUT, "", hello_text);
	AUTO_FREE char *text = twin_text(hello_text, "operations", "[\"policy\",\"later\",\"reset\",\"reset\"]");
	assert_int_equal(hello_parse(bytes_of_string(text), &hello, &member), STATUS_OK);
	assert_int_equal(hello.operations, 1u << OP_POLICY | 1u << OP_RESET);
	assert_int_equal(hello.directory_count, 2);
	assert_string_equal(hello.directories[1].flavor, "samba");
	hello_clear(&hello);
}

static void a_hello_has_at_most_64_directories(void **state)
{
	for (unsigned count = 63; count < 67; count++) {
		json_t *directories = json_array();
		const char *member;

		for (unsigned i = 0; i < count; i++)
			json_array_append_new(directories, json_pack("{ss ss}", "name", "a", "flavor", "b"));
		AUTO_FREE char *value = json_dumps(directories, 0), *text = twin_text(hello_text, "directories", value);
		json_decref(directories);
		assert_int_equal(twin_hello(bytes_of_string(text), &member), count <= 64 ? STATUS_OK : STATUS_LOCAL_INPUT);
	}
}

static const char welcome_text[] = "{\"iss\":\"https://reset.example\",\"aud\":\"" AGENT "\",\"iat\":1790000000,\"nonce\":\"" NONCE "\",\"session\":\"" OTHER "\",\"max_frame_bytes\":65536,\"time\":1790000000}";
static const struct twin welcome_twins[] = {
	BAD_TEXTS("iss"), BAD_TEXTS("aud"), BAD_RANDOM("nonce"), BAD_UUIDS("session"), { "iat", NULL, STATUS_LOCAL_INPUT }, { "iat", "\"a\"", STATUS_LOCAL_INPUT },
	{ "max_frame_bytes", "0", STATUS_LOCAL_INPUT }, { "max_frame_bytes", "-1", STATUS_LOCAL_INPUT }, { "max_frame_bytes", "4294967296", STATUS_LOCAL_INPUT },
	{ "time", "1790000001", STATUS_LOCAL_INPUT }, { "time", NULL, STATUS_LOCAL_INPUT }, OTHERS_ARE_IGNORED,
};

static void welcomes(void **state)
{
	welcome_comes_back(welcome_text);
	EXPECT_TWINS(welcome_text, twin_welcome, welcome_twins);
	expect_no_message(twin_welcome, STATUS_LOCAL_INPUT, "", welcome_text);
}

static const char drain_text[] = "{\"iss\":\"https://reset.example\",\"aud\":\"" AGENT "\",\"iat\":1790000000,\"session\":\"" OTHER "\",\"reason\":\"going down\"}";
static const struct twin drain_twins[] = {
	BAD_TEXTS("iss"), BAD_TEXTS("aud"), BAD_TIMES("iat"), BAD_UUIDS("session"), { "reason", NULL, STATUS_LOCAL_INPUT }, { "reason", "1", STATUS_LOCAL_INPUT },
	{ "reason", "\"\"", STATUS_OK }, { "reason", "\"two\\nlines\"", STATUS_OK }, OTHERS_ARE_IGNORED,
};

static void drains(void **state)
{
	struct drain drain;
	const char *member;

	drain_comes_back(drain_text);
	EXPECT_TWINS(drain_text, twin_drain, drain_twins);
	expect_no_message(twin_drain, STATUS_LOCAL_INPUT, "", drain_text);
	/* text for people never carries a line's end or an escape sequence into a log */
	AUTO_FREE char *text = twin_text(drain_text, "reason", "\"a\\r\\nb\\u001bc\\u0085\\u00e9\"");
	assert_int_equal(drain_parse(bytes_of_string(text), &drain, &member), STATUS_OK);
	assert_string_equal(drain.reason, "a??b?c?\xc3\xa9");
	drain_clear(&drain);
}

static const char ack_text[] = "{\"iss\":\"https://reset.example\",\"aud\":\"" AGENT "\",\"iat\":1790000000,\"request_ids\":[\"" OTHER "\"]}";
static const struct twin ack_twins[] = { BAD_TEXTS("iss"), BAD_TEXTS("aud"), BAD_TIMES("iat"), BAD_REQUEST_IDS, OTHERS_ARE_IGNORED };

static void acks(void **state)
{
	ack_comes_back(ack_text);
	EXPECT_TWINS(ack_text, twin_ack, ack_twins);
	expect_no_message(twin_ack, STATUS_LOCAL_INPUT, "", ack_text);
}

/* Enrolment -------------------------------------------------------------------------------------------------------------------------- */

static char *enroll_text(struct jose_key *signing, struct jose_key *decryption)
{
	const struct enroll enroll = { (char *)"https://reset.example", 1790000000, 1790000300,
		(char *)"wbt_" NONCE "." NONCE2, (char *)"dc-agent.example.net", signing, decryption };

	return enroll_build(&enroll);
}

static const struct twin enroll_twins[] = {
	BAD_TEXTS("aud"), BAD_TIMES("iat"), BAD_TIMES("exp"), BAD_TEXTS("ticket"), BAD_TEXTS("name"),
	{ "ticket", "\"wbt_" NONCE "." NONCE "A\"", STATUS_LOCAL_INPUT },
	{ "signing_key", NULL, STATUS_LOCAL_INPUT }, { "signing_key", "\"" NONCE "\"", STATUS_LOCAL_INPUT }, { "signing_key", "{}", STATUS_LOCAL_INPUT }, { "decryption_key", NULL, STATUS_LOCAL_INPUT },
	OTHERS_ARE_IGNORED,
};

static void enrolments(void **state)
{
	struct jose_key *signing, *decryption;
	const char *member;

	assert_int_equal(jose_key_generate(JOSE_SIGN, &signing), STATUS_OK);
	assert_int_equal(jose_key_generate(JOSE_DECRYPT, &decryption), STATUS_OK);
	AUTO_FREE char *text = enroll_text(signing, decryption), *swapped = enroll_text(decryption, signing);
	enroll_comes_back(text);
	EXPECT_TWINS(text, twin_enroll, enroll_twins);
	expect_no_message(twin_enroll, STATUS_LOCAL_INPUT, "", text);
	assert_int_equal(twin_enroll(bytes_of_string(swapped), &member), STATUS_LOCAL_INPUT);
	assert_string_equal(member, "signing_key");
	/* 64 characters, however many bytes */
	AUTO_FREE char *fits = letters(64), *long_name = letters(65), *text64 = twin_text(text, "name", fits), *text65 = twin_text(text, "name", long_name);
	assert_int_equal(twin_enroll(bytes_of_string(text64), &member), STATUS_OK);
	assert_int_equal(twin_enroll(bytes_of_string(text65), &member), STATUS_LOCAL_INPUT);
	assert_string_equal(member, "name");
	jose_key_free(signing);
	jose_key_free(decryption);
}

/* A key that is published has all seven members and no private part. */
static void a_published_key_is_whole(void **state)
{
	static const char *const members[] = { "kty", "crv", "x", "y", "kid", "alg", "use" };
	struct jose_key *signing, *decryption;
	AUTO_SECRET struct secret private = SECRET_EMPTY;
	const char *member;

	assert_int_equal(jose_key_generate(JOSE_SIGN, &signing), STATUS_OK);
	assert_int_equal(jose_key_generate(JOSE_DECRYPT, &decryption), STATUS_OK);
	AUTO_FREE char *text = enroll_text(signing, decryption);
	for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++) {
		json_t *json = json_loads(text, 0, NULL);

		json_object_del(json_object_get(json, "signing_key"), members[i]);
		AUTO_FREE char *less = json_dumps(json, 0);
		json_decref(json);
		assert_int_equal(twin_enroll(bytes_of_string(less), &member), STATUS_LOCAL_INPUT);
		assert_string_equal(member, "signing_key");
	}
	assert_int_equal(jose_key_private_jwk(signing, &private), STATUS_OK);
	private.data[private.size] = '\0';
	AUTO_FREE char *more = twin_text(text, "signing_key", (const char *)private.data);
	assert_int_equal(twin_enroll(bytes_of_string(more), &member), STATUS_LOCAL_INPUT);
	jose_key_free(signing);
	jose_key_free(decryption);
}

/* The key set ------------------------------------------------------------------------------------------------------------------------ */

struct fixture {
	struct jose_key *root, *keys[17];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_int_equal(jose_key_generate(JOSE_SIGN, &f->root), STATUS_OK);
	for (unsigned i = 0; i < 17; i++)
		assert_int_equal(jose_key_generate(JOSE_SIGN, &f->keys[i]), STATUS_OK);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	jose_key_free(f->root);
	for (unsigned i = 0; i < 17; i++)
		jose_key_free(f->keys[i]);
	free(f);
	return 0;
}

static enum status twin_key_set(struct bytes payload, const char **ret_member)
{
	struct key_set set;
	enum status status = key_set_parse(payload, &set, ret_member);

	key_set_clear(&set);
	return status;
}

static const struct twin key_set_twins[] = {
	BAD_TEXTS("iss"), { "iat", NULL, STATUS_LOCAL_INPUT }, { "iat", "0", STATUS_LOCAL_INPUT }, BAD_TIMES("exp"), { "exp", "1790000000", STATUS_LOCAL_INPUT },
	{ "version", NULL, STATUS_LOCAL_INPUT }, { "version", "0", STATUS_LOCAL_INPUT }, { "version", "-1", STATUS_LOCAL_INPUT }, { "version", "1.5", STATUS_LOCAL_INPUT },
	{ "version", "9007199254740991", STATUS_OK }, { "version", "9007199254740992", STATUS_LOCAL_INPUT },
	{ "keys", NULL, STATUS_LOCAL_INPUT }, { "keys", "[]", STATUS_LOCAL_INPUT }, { "keys", "{}", STATUS_LOCAL_INPUT }, { "keys", "[{}]", STATUS_LOCAL_INPUT }, OTHERS_ARE_IGNORED,
};

static void key_sets(void **state)
{
	struct fixture *f = *state;
	struct key_set set;
	const char *member;

	AUTO_FREE char *text = key_set_build("https://reset.example", 1790000000, 1800000000, 3, f->keys, 16);
	EXPECT_TWINS(text, twin_key_set, key_set_twins);
	assert_int_equal(key_set_parse(bytes_of_string(text), &set, &member), STATUS_OK);
	assert_int_equal(set.version, 3);
	assert_int_equal(jose_keys_count(set.keys), 16);
	for (unsigned i = 0; i < 17; i++)
		assert_int_equal(jose_keys_find(set.keys, jose_key_id(f->keys[i])) != NULL, i < 16);
	key_set_clear(&set);
	assert_null(key_set_build("https://reset.example", 1790000000, 1800000000, 3, f->keys, 17));
}

static void a_key_set_has_no_key_twice_and_none_to_encrypt_to(void **state)
{
	struct fixture *f = *state;
	struct jose_key *const twice[] = { f->keys[0], f->keys[1], f->keys[0] };
	struct jose_key *decryption;
	const char *member;

	AUTO_FREE char *text = key_set_build("https://reset.example", 1790000000, 1800000000, 1, twice, 3);
	assert_int_equal(twin_key_set(bytes_of_string(text), &member), STATUS_LOCAL_INPUT);
	assert_int_equal(jose_key_generate(JOSE_DECRYPT, &decryption), STATUS_OK);
	AUTO_FREE char *other = key_set_build("https://reset.example", 1790000000, 1800000000, 1, &decryption, 1);
	assert_int_equal(twin_key_set(bytes_of_string(other), &member), STATUS_LOCAL_INPUT);
	assert_string_equal(member, "keys");
	jose_key_free(decryption);
}

static enum status verify_set(const char *jws, struct jose_key *root, const char *issuer, int64_t now)
{
	struct key_set set;
	enum status status = key_set_verify(bytes_of_string(jws), root, issuer, now, &set);

	key_set_clear(&set);
	return status;
}

static void only_the_root_vouches_for_a_key_set(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *text = key_set_build("https://reset.example", 1790000000, 1800000000, 1, f->keys, 2);
	AUTO_FREE char *jws = NULL, *by_other = NULL, *of_other_typ = NULL, *no_set = NULL;

	assert_int_equal(jose_sign(f->root, TYP_KEYS, bytes_of_string(text), &jws), STATUS_OK);
	assert_int_equal(verify_set(jws, f->root, "https://reset.example", 1790000000), STATUS_OK);
	assert_int_equal(verify_set(jws, f->root, "https://reset.example", 1799999999), STATUS_OK);
	assert_int_equal(verify_set(jws, f->root, "https://reset.example", 1800000000), STATUS_LOCAL_TRUST);
	assert_int_equal(verify_set(jws, f->root, "https://reset.example", 0), STATUS_OK);
	assert_int_equal(verify_set(jws, f->root, "https://reset.example/", 0), STATUS_LOCAL_TRUST);
	assert_int_equal(verify_set(jws, f->keys[0], "https://reset.example", 0), STATUS_LOCAL_TRUST);
	/* a key of the set may not sign the set, though the channel knows it */
	assert_int_equal(jose_sign(f->keys[0], TYP_KEYS, bytes_of_string(text), &by_other), STATUS_OK);
	assert_int_equal(verify_set(by_other, f->root, "https://reset.example", 0), STATUS_LOCAL_TRUST);
	assert_int_equal(jose_sign(f->root, TYP_ACK, bytes_of_string(text), &of_other_typ), STATUS_OK);
	assert_int_equal(verify_set(of_other_typ, f->root, "https://reset.example", 0), STATUS_LOCAL_TRUST);
	assert_int_equal(jose_sign(f->root, TYP_KEYS, bytes_of_string("{}"), &no_set), STATUS_OK);
	assert_int_equal(verify_set(no_set, f->root, "https://reset.example", 0), STATUS_LOCAL_INPUT);
	assert_int_equal(verify_set("a.b", f->root, "https://reset.example", 0), STATUS_LOCAL_INPUT);
}

static void nonces_differ(void **state)
{
	char a[NONCE_SIZE], b[NONCE_SIZE];

	nonce_random(a);
	nonce_random(b);
	assert_int_equal(strlen(a), 43);
	assert_string_not_equal(a, b);
}

/* Memory that is out -------------------------------------------------------------------------------------------------------------------- */

static long allocations_left;

static void *scarce_malloc(size_t size)
{
	return allocations_left-- > 0 ? malloc(size) : NULL;
}

/* With n allocations of jansson's granted, for every n: nothing leaks, nothing is half built. */
static void scarce_memory_fails_whole(void **state)
{
	struct hello hello;
	const char *member;
	json_malloc_t json_malloc;
	json_free_t json_free;
	unsigned failed = 0;

	json_get_alloc_funcs(&json_malloc, &json_free);
	for (long granted = 0;; granted++) {
		allocations_left = granted;
		json_set_alloc_funcs(scarce_malloc, free);
		enum status status = hello_parse(bytes_of_string(hello_text), &hello, &member);
		json_set_alloc_funcs(json_malloc, json_free);
		hello_clear(&hello);
		if (status == STATUS_OK)
			break;
		failed++;
	}
	assert_true(failed > 20);
	assert_int_equal(hello_parse(bytes_of_string(hello_text), &hello, &member), STATUS_OK);
	for (long granted = 0;; granted++) {
		allocations_left = granted;
		json_set_alloc_funcs(scarce_malloc, free);
		AUTO_FREE char *text = hello_build(&hello);
		json_set_alloc_funcs(json_malloc, json_free);
		if (!text)
			continue;
		assert_string_equal(text, hello_text);
		break;
	}
	hello_clear(&hello);
}

int main(void)
{
	secret_json_init();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(challenges), cmocka_unit_test(hellos), cmocka_unit_test(a_hello_has_at_most_64_directories), cmocka_unit_test(welcomes), cmocka_unit_test(drains),
		cmocka_unit_test(acks), cmocka_unit_test(enrolments), cmocka_unit_test(a_published_key_is_whole), cmocka_unit_test_setup_teardown(key_sets, setup, teardown),
		cmocka_unit_test_setup_teardown(a_key_set_has_no_key_twice_and_none_to_encrypt_to, setup, teardown),
		cmocka_unit_test_setup_teardown(only_the_root_vouches_for_a_key_set, setup, teardown), cmocka_unit_test(nonces_differ), cmocka_unit_test(scarce_memory_fails_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
