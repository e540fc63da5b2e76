/* The key set, the greeting, the other control messages and enrolment. Requests and results have files of their own. */
#include "proto/messages_fields.h"

#include <string.h>

#include "proto/jose_internal.h"

void nonce_random(char out[NONCE_SIZE])
{
	uint8_t octets[32];

	random_bytes(octets, sizeof(octets));
	base64url_encode(bytes_of(octets, sizeof(octets)), out);
}

#define MAX_ISSUER 2048
#define MAX_AUDIENCE 255

/* Keys as members -------------------------------------------------------------------------------------------------------------------- */

static enum status parse_keys(const struct field *field, const json_t *value, void *object)
{
	struct jose_keys *keys = jose_keys_new();
	enum status status = keys ? STATUS_OK : STATUS_AGENT_INTERNAL;

	*FIELD_AT(field, object, struct jose_keys *) = keys;
	if (!json_is_array(value) || json_array_size(value) == 0)
		return STATUS_LOCAL_INPUT;
	for (size_t i = 0; i < json_array_size(value) && status == STATUS_OK; i++) {
		struct jose_key *key;

		status = field_published_key(json_array_get(value, i), JOSE_SIGN, &key);
		if (status == STATUS_OK)
			status = jose_keys_add(keys, key);
	}
	return status;
}

static bool build_keys(const struct field *field, const void *object, json_t **ret_value)
{
	const struct jose_keys *keys = *FIELD_CONST(field, object, struct jose_keys *);
	bool good = (*ret_value = json_array()) != NULL;

	for (unsigned i = 0; i < keys->count && good; i++)
		good = json_array_append_new(*ret_value, jose_key_public_jwk(keys->keys[i])) == 0;
	if (!good)
		json_decref(*ret_value);
	return good;
}

static void clear_keys(const struct field *field, void *object)
{
	struct jose_keys **keys = FIELD_AT(field, object, struct jose_keys *);

	jose_keys_free(*keys);
	*keys = NULL;
}

static const struct field_type field_keys = { parse_keys, build_keys, clear_keys };

/* The key set ------------------------------------------------------------------------------------------------------------------------ */

static const struct field key_set_fields[] = {
	{ "iss", &field_text, offsetof(struct key_set, issuer), 1, MAX_ISSUER },
	{ "iat", &field_int64, offsetof(struct key_set, iat), 1, MAX_TIME },
	{ "exp", &field_int64, offsetof(struct key_set, exp), 1, MAX_TIME },
	{ "version", &field_int64, offsetof(struct key_set, version), 1, MAX_INTEGER },
	{ "keys", &field_keys, offsetof(struct key_set, keys) },
};
static const struct form key_set_form = { FORM_FIELDS(key_set_fields), STATUS_LOCAL_INPUT };

void key_set_clear(struct key_set *set)
{
	form_clear(&key_set_form, set);
	*set = (struct key_set){ 0 };
}

enum status key_set_parse(struct bytes payload, struct key_set *ret_set, const char **ret_member)
{
	*ret_set = (struct key_set){ 0 };
	enum status status = form_parse(&key_set_form, payload, ret_set, ret_member);
	if (status == STATUS_OK && ret_set->exp <= ret_set->iat) {
		*ret_member = "exp";
		key_set_clear(ret_set);
		return STATUS_LOCAL_INPUT;
	}
	return status;
}

static enum status trust_status(enum jose_reason reason)
{
	static const enum status statuses[] = {
		[JOSE_OK] = STATUS_OK, [JOSE_FORM] = STATUS_LOCAL_INPUT, [JOSE_BASE64] = STATUS_LOCAL_INPUT, [JOSE_HEADER] = STATUS_LOCAL_INPUT,
		[JOSE_ALG] = STATUS_LOCAL_TRUST, [JOSE_ENC] = STATUS_LOCAL_TRUST, [JOSE_TYP] = STATUS_LOCAL_TRUST, [JOSE_KID] = STATUS_LOCAL_TRUST,
		[JOSE_EPK] = STATUS_LOCAL_TRUST, [JOSE_SIGNATURE] = STATUS_LOCAL_TRUST, [JOSE_DECRYPTION] = STATUS_LOCAL_TRUST, [JOSE_INTERNAL] = STATUS_AGENT_INTERNAL,
	};

	return statuses[reason];
}

enum status key_set_verify(struct bytes jws, struct jose_key *root, const char *issuer, int64_t now, struct key_set *ret_set)
{
	static const char *const typs[] = { TYP_KEYS, NULL };
	const struct jose_keys roots = { .count = 1, .keys = { root } };
	AUTO_FREE char *payload = NULL;
	const char *member;
	size_t size;

	*ret_set = (struct key_set){ 0 };
	enum status status = trust_status(jose_verify(jws, typs, &roots, &payload, &size, NULL, NULL));
	if (status == STATUS_OK)
		status = key_set_parse(bytes_of(payload, size), ret_set, &member);
	if (status == STATUS_OK && (strcmp(ret_set->issuer, issuer) != 0 || (now > 0 && ret_set->exp <= now))) {
		key_set_clear(ret_set);
		status = STATUS_LOCAL_TRUST;
	}
	return status;
}

char *key_set_build(const char *issuer, int64_t iat, int64_t exp, int64_t version, struct jose_key *const *keys, size_t count)
{
	struct jose_keys published = { 0 };
	struct key_set set = { .issuer = (char *)issuer, .iat = iat, .exp = exp, .version = version, .keys = &published };

	for (; published.count < count && published.count < JOSE_MAX_KEYS; published.count++)
		published.keys[published.count] = keys[published.count];
	return published.count == count ? form_build(&key_set_form, &set) : NULL;
}

/* The greeting ----------------------------------------------------------------------------------------------------------------------- */

static const struct field challenge_fields[] = {
	{ "iss", &field_text, offsetof(struct challenge, issuer), 1, MAX_ISSUER },
	{ "iat", &field_int64, offsetof(struct challenge, iat), 1, MAX_TIME },
	{ "nonce", &field_random, offsetof(struct challenge, nonce) },
};
static const struct form challenge_form = { FORM_FIELDS(challenge_fields), STATUS_LOCAL_INPUT };

enum status challenge_parse(struct bytes payload, struct challenge *ret_challenge, const char **ret_member)
{
	*ret_challenge = (struct challenge){ 0 };
	return form_parse(&challenge_form, payload, ret_challenge, ret_member);
}

char *challenge_build(const struct challenge *challenge)
{
	return form_build(&challenge_form, challenge);
}

void challenge_clear(struct challenge *challenge)
{
	form_clear(&challenge_form, challenge);
	*challenge = (struct challenge){ 0 };
}

#define MAX_DIRECTORIES 64

static const struct field hello_directory_fields[] = {
	{ "name", &field_text, offsetof(struct hello_directory, name), 1, 64 },
	{ "flavor", &field_text, offsetof(struct hello_directory, flavor), 1, 64 },
};
static const struct form hello_directory_form = { FORM_FIELDS(hello_directory_fields), STATUS_LOCAL_INPUT };

static enum status parse_directories(const struct field *field, const json_t *value, void *object)
{
	struct hello *hello = object;
	const char *member;

	if (!json_is_array(value) || json_array_size(value) > MAX_DIRECTORIES)
		return STATUS_LOCAL_INPUT;
	hello->directories = calloc(MAX_DIRECTORIES, sizeof(*hello->directories));
	if (!hello->directories)
		return STATUS_AGENT_INTERNAL;
	for (size_t i = 0; i < json_array_size(value); i++) {
		hello->directory_count = i + 1;
		enum status status = form_parse_json(&hello_directory_form, json_array_get(value, i), &hello->directories[i], &member);
		if (status != STATUS_OK)
			return status;
	}
	return STATUS_OK;
}

static bool build_directories(const struct field *field, const void *object, json_t **ret_value)
{
	const struct hello *hello = object;
	bool good = (*ret_value = json_array()) != NULL;

	for (size_t i = 0; i < hello->directory_count && good; i++)
		good = json_array_append_new(*ret_value, form_json(&hello_directory_form, &hello->directories[i])) == 0;
	if (!good)
		json_decref(*ret_value);
	return good;
}

static void clear_directories(const struct field *field, void *object)
{
	struct hello *hello = object;

	for (size_t i = 0; i < hello->directory_count; i++)
		form_clear(&hello_directory_form, &hello->directories[i]);
	free(hello->directories);
	hello->directories = NULL;
	hello->directory_count = 0;
}

static const struct field_type field_directories = { parse_directories, build_directories, clear_directories };

/* Words of later versions are left out. */
static enum status parse_operations(const struct field *field, const json_t *value, void *object)
{
	unsigned *operations = FIELD_AT(field, object, unsigned);
	enum operation op;

	if (!json_is_array(value))
		return STATUS_LOCAL_INPUT;
	for (size_t i = 0; i < json_array_size(value); i++) {
		const char *name = json_string_value(json_array_get(value, i));

		if (!name)
			return STATUS_LOCAL_INPUT;
		if (operation_from_name(name, &op))
			*operations |= 1u << op;
	}
	return STATUS_OK;
}

static bool build_operations(const struct field *field, const void *object, json_t **ret_value)
{
	unsigned operations = *FIELD_CONST(field, object, unsigned);
	bool good = (*ret_value = json_array()) != NULL;

	for (enum operation op = 0; op < OP_COUNT && good; op++)
		if (operations & 1u << op)
			good = json_array_append_new(*ret_value, json_string(operation_name(op))) == 0;
	if (!good)
		json_decref(*ret_value);
	return good;
}

static const struct field_type field_operations = { parse_operations, build_operations, NULL };

static const struct field hello_fields[] = {
	{ "iss", &field_text, offsetof(struct hello, agent_id), 1, MAX_AUDIENCE },
	{ "aud", &field_text, offsetof(struct hello, issuer), 1, MAX_ISSUER },
	{ "iat", &field_int64, offsetof(struct hello, iat), 1, MAX_TIME },
	{ "nonce", &field_random, offsetof(struct hello, nonce) },
	{ "agent_nonce", &field_random, offsetof(struct hello, agent_nonce) },
	{ "instance_id", &field_uuid_text, offsetof(struct hello, instance_id) },
	{ "boot", &field_int64, offsetof(struct hello, boot), 0, MAX_INTEGER },
	{ "version", &field_int, offsetof(struct hello, version), 1, 1000000 },
	{ "software", &field_loose_text, offsetof(struct hello, software), 0, 256 },
	{ "directories", &field_directories, 0 },
	{ "operations", &field_operations, offsetof(struct hello, operations) },
	{ "max_in_flight", &field_unsigned, offsetof(struct hello, max_in_flight), 1, 65536 },
	{ "decryption_key", &field_random, offsetof(struct hello, decryption_key) },
	{ "next_signing_key", &field_random, offsetof(struct hello, next_signing_key), .optional = true },
};
static const struct form hello_form = { FORM_FIELDS(hello_fields), STATUS_LOCAL_INPUT };

enum status hello_parse(struct bytes payload, struct hello *ret_hello, const char **ret_member)
{
	*ret_hello = (struct hello){ 0 };
	return form_parse(&hello_form, payload, ret_hello, ret_member);
}

char *hello_build(const struct hello *hello)
{
	return form_build(&hello_form, hello);
}

void hello_clear(struct hello *hello)
{
	form_clear(&hello_form, hello);
	*hello = (struct hello){ 0 };
}

/* `time` says `iat` once more. */
static enum status parse_same_int64(const struct field *field, const json_t *value, void *object)
{
	return json_is_integer(value) && json_integer_value(value) == *FIELD_AT(field, object, int64_t) ? STATUS_OK : STATUS_LOCAL_INPUT;
}

static bool build_same_int64(const struct field *field, const void *object, json_t **ret_value)
{
	return field_int64.build(field, object, ret_value);
}

static const struct field_type field_same_int64 = { parse_same_int64, build_same_int64, NULL };

static const struct field welcome_fields[] = {
	{ "iss", &field_text, offsetof(struct welcome, issuer), 1, MAX_ISSUER },
	{ "aud", &field_text, offsetof(struct welcome, agent_id), 1, MAX_AUDIENCE },
	{ "iat", &field_int64, offsetof(struct welcome, iat), 1, MAX_TIME },
	{ "nonce", &field_random, offsetof(struct welcome, nonce) },
	{ "session", &field_uuid_text, offsetof(struct welcome, session) },
	{ "max_frame_bytes", &field_unsigned, offsetof(struct welcome, max_frame_bytes), 1, MAX_INTEGER },
	{ "time", &field_same_int64, offsetof(struct welcome, iat) },
};
static const struct form welcome_form = { FORM_FIELDS(welcome_fields), STATUS_LOCAL_INPUT };

enum status welcome_parse(struct bytes payload, struct welcome *ret_welcome, const char **ret_member)
{
	*ret_welcome = (struct welcome){ 0 };
	return form_parse(&welcome_form, payload, ret_welcome, ret_member);
}

char *welcome_build(const struct welcome *welcome)
{
	return form_build(&welcome_form, welcome);
}

void welcome_clear(struct welcome *welcome)
{
	form_clear(&welcome_form, welcome);
	*welcome = (struct welcome){ 0 };
}

/* Drain and acknowledgement ---------------------------------------------------------------------------------------------------------- */

static const struct field drain_fields[] = {
	{ "iss", &field_text, offsetof(struct drain, issuer), 1, MAX_ISSUER },
	{ "aud", &field_text, offsetof(struct drain, audience), 1, MAX_ISSUER },
	{ "iat", &field_int64, offsetof(struct drain, iat), 1, MAX_TIME },
	{ "session", &field_uuid_text, offsetof(struct drain, session) },
	{ "reason", &field_loose_text, offsetof(struct drain, reason), 0, 512 },
};
static const struct form drain_form = { FORM_FIELDS(drain_fields), STATUS_LOCAL_INPUT };

enum status drain_parse(struct bytes payload, struct drain *ret_drain, const char **ret_member)
{
	*ret_drain = (struct drain){ 0 };
	return form_parse(&drain_form, payload, ret_drain, ret_member);
}

char *drain_build(const struct drain *drain)
{
	return form_build(&drain_form, drain);
}

void drain_clear(struct drain *drain)
{
	form_clear(&drain_form, drain);
	*drain = (struct drain){ 0 };
}

static enum status parse_request_ids(const struct field *field, const json_t *value, void *object)
{
	struct ack *ack = object;
	size_t count = json_array_size(value);

	if (count < 1 || count > MAX_ACKS)
		return STATUS_LOCAL_INPUT;
	ack->request_ids = calloc(count, sizeof(*ack->request_ids));
	if (!ack->request_ids)
		return STATUS_AGENT_INTERNAL;
	for (; ack->count < count; ack->count++) {
		const json_t *id = json_array_get(value, ack->count);
		if (!json_is_string(id) || json_string_length(id) != UUID_SIZE - 1 || !uuid_valid(json_string_value(id)))
			return STATUS_LOCAL_INPUT;
		memcpy(ack->request_ids[ack->count], json_string_value(id), UUID_SIZE);
	}
	return STATUS_OK;
}

static bool build_request_ids(const struct field *field, const void *object, json_t **ret_value)
{
	const struct ack *ack = object;
	json_t *ids = json_array();

	for (size_t i = 0; i < ack->count; i++)
		if (json_array_append_new(ids, json_string(ack->request_ids[i])) != 0) {
			json_decref(ids);
			return false;
		}
	*ret_value = ids;
	return ids && ack->count >= 1 && ack->count <= MAX_ACKS;
}

static void clear_request_ids(const struct field *field, void *object)
{
	struct ack *ack = object;

	free(ack->request_ids);
	ack->request_ids = NULL;
	ack->count = 0;
}

static const struct field_type field_request_ids = { parse_request_ids, build_request_ids, clear_request_ids };

static const struct field ack_fields[] = {
	{ "iss", &field_text, offsetof(struct ack, issuer), 1, MAX_ISSUER },
	{ "aud", &field_text, offsetof(struct ack, agent_id), 1, MAX_AUDIENCE },
	{ "iat", &field_int64, offsetof(struct ack, iat), 1, MAX_TIME },
	{ "request_ids", &field_request_ids, 0 },
};
static const struct form ack_form = { FORM_FIELDS(ack_fields), STATUS_LOCAL_INPUT };

enum status ack_parse(struct bytes payload, struct ack *ret_ack, const char **ret_member)
{
	*ret_ack = (struct ack){ 0 };
	return form_parse(&ack_form, payload, ret_ack, ret_member);
}

char *ack_build(const struct ack *ack)
{
	return form_build(&ack_form, ack);
}

void ack_clear(struct ack *ack)
{
	form_clear(&ack_form, ack);
	*ack = (struct ack){ 0 };
}

/* Enrolment -------------------------------------------------------------------------------------------------------------------------- */

#define TICKET_SIZE 91

static const struct field enroll_fields[] = {
	{ "aud", &field_text, offsetof(struct enroll, issuer), 1, MAX_ISSUER },
	{ "iat", &field_int64, offsetof(struct enroll, iat), 1, MAX_TIME },
	{ "exp", &field_int64, offsetof(struct enroll, exp), 1, MAX_TIME },
	{ "ticket", &field_text, offsetof(struct enroll, ticket), TICKET_SIZE, TICKET_SIZE },
	{ "name", &field_text, offsetof(struct enroll, name), 1, 256 },
	{ "signing_key", &field_key, offsetof(struct enroll, signing_key), JOSE_SIGN },
	{ "decryption_key", &field_key, offsetof(struct enroll, decryption_key), JOSE_DECRYPT },
};
static const struct form enroll_form = { FORM_FIELDS(enroll_fields), STATUS_LOCAL_INPUT };

void enroll_clear(struct enroll *enroll)
{
	form_clear(&enroll_form, enroll);
	*enroll = (struct enroll){ 0 };
}

/* The bound of `name` is in characters, that of its row in bytes. */
static size_t count_characters(const char *text)
{
	struct bytes bytes = bytes_of_string(text);
	size_t count = 0;

	for (size_t offset = 0; offset < bytes.size; count++)
		utf8_next(bytes, &offset);
	return count;
}

enum status enroll_parse(struct bytes payload, struct enroll *ret_enroll, const char **ret_member)
{
	*ret_enroll = (struct enroll){ 0 };
	enum status status = form_parse(&enroll_form, payload, ret_enroll, ret_member);
	if (status == STATUS_OK && count_characters(ret_enroll->name) > 64) {
		*ret_member = "name";
		enroll_clear(ret_enroll);
		return STATUS_LOCAL_INPUT;
	}
	return status;
}

char *enroll_build(const struct enroll *enroll)
{
	return form_build(&enroll_form, enroll);
}
