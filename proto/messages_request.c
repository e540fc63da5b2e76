/* Operations, subjects, requests and what stands inside their secret: proto/README.md sections 6 and 2.2. */
#include "proto/messages_fields.h"

#include <errno.h>
#include <string.h>

/* Operations ------------------------------------------------------------------------------------------------------------------------- */

static const struct operation_row {
	const char *name;
	bool secret, new_password, old_password;
} operations[] = {
	[OP_RESET] = { "reset", .secret = true, .new_password = true },
	[OP_UNLOCK] = { "unlock" },
	[OP_CHECK] = { "check", .secret = true, .new_password = true },
	[OP_CHANGE] = { "change", .secret = true, .new_password = true, .old_password = true },
	[OP_LOOKUP] = { "lookup" },
	[OP_VERIFY] = { "verify", .secret = true, .old_password = true },
	[OP_POLICY] = { "policy" },
};

const char *operation_name(enum operation op)
{
	return operations[op].name;
}

bool operation_from_name(const char *name, enum operation *ret_op)
{
	for (enum operation op = 0; op < OP_COUNT; op++)
		if (strcmp(operations[op].name, name) == 0) {
			*ret_op = op;
			return true;
		}
	return false;
}

/* Subjects --------------------------------------------------------------------------------------------------------------------------- */

static const struct subject_row {
	const char *format;
	bool is_uuid, has_domain;
} subjects[] = {
	[SUBJECT_OBJECT_GUID] = { "objectGUID", .is_uuid = true },
	[SUBJECT_CONSISTENCY_GUID] = { "mS-DS-ConsistencyGuid", .is_uuid = true },
	[SUBJECT_UPN] = { "userPrincipalName" },
	[SUBJECT_SAM] = { "sAMAccountName", .has_domain = true },
	[SUBJECT_ENTRY_UUID] = { "entryUUID", .is_uuid = true },
	[SUBJECT_UID] = { "uid" },
};
#define SUBJECT_COUNT (sizeof(subjects) / sizeof(*subjects))

#define MAX_ID 1024
#define MAX_NAME 255
#define MAX_FAILOVER_S 60

void subject_clear(struct subject *subject)
{
	free(subject->id);
	free(subject->domain);
	*subject = (struct subject){ 0 };
}

enum status subject_parse(const json_t *json, struct subject *ret_subject)
{
	const char *word = json_string_value(json_object_get(json, "format"));
	const json_t *id = json_object_get(json, "id"), *domain = json_object_get(json, "domain");
	size_t format = 0;

	*ret_subject = (struct subject){ 0 };
	while (word && format < SUBJECT_COUNT && strcmp(subjects[format].format, word) != 0)
		format++;
	if (!word || format == SUBJECT_COUNT)
		return STATUS_REQUEST_INVALID;
	const struct subject_row *row = &subjects[format];
	if (json_object_size(json) != (row->has_domain ? 3 : 2) || !field_is_plain(id, 1, MAX_ID) || (row->is_uuid && !uuid_valid(json_string_value(id))) ||
	    (row->has_domain && !field_is_plain(domain, 1, MAX_NAME)))
		return STATUS_REQUEST_INVALID;

	ret_subject->format = (enum subject_format)format;
	ret_subject->id = strdup(json_string_value(id));
	ret_subject->domain = row->has_domain ? strdup(json_string_value(domain)) : NULL;
	if (ret_subject->id && (ret_subject->domain || !row->has_domain))
		return STATUS_OK;
	subject_clear(ret_subject);
	return STATUS_AGENT_INTERNAL;
}

json_t *subject_json(const struct subject *subject)
{
	const struct subject_row *row = &subjects[subject->format];

	if (!subject->id)
		return NULL;
	return row->has_domain ? json_pack("{ss ss ss}", "format", row->format, "id", subject->id, "domain", subject->domain)
	                       : json_pack("{ss ss}", "format", row->format, "id", subject->id);
}

bool subject_equal(const struct subject *a, const struct subject *b)
{
	if (a->format != b->format || strcmp(a->id, b->id) != 0)
		return false;
	return !subjects[a->format].has_domain || strcmp(a->domain, b->domain) == 0;
}

/* Types of members ------------------------------------------------------------------------------------------------------------------- */

static enum status parse_subject(const struct field *field, const json_t *value, void *object)
{
	enum status status = subject_parse(value, FIELD_AT(field, object, struct subject));

	return status == STATUS_REQUEST_INVALID ? STATUS_LOCAL_INPUT : status;
}

static bool build_subject(const struct field *field, const void *object, json_t **ret_value)
{
	*ret_value = subject_json(FIELD_CONST(field, object, struct subject));
	return *ret_value != NULL;
}

static void clear_subject(const struct field *field, void *object)
{
	subject_clear(FIELD_AT(field, object, struct subject));
}

static const struct field_type field_subject = { parse_subject, build_subject, clear_subject };

/* OP_COUNT stands for a word that is not known, which is another failure than a malformed member. */
static enum status parse_operation(const struct field *field, const json_t *value, void *object)
{
	enum operation *op = FIELD_AT(field, object, enum operation);

	if (!field_is_plain(value, 1, 64))
		return STATUS_LOCAL_INPUT;
	if (!operation_from_name(json_string_value(value), op))
		*op = OP_COUNT;
	return STATUS_OK;
}

static bool build_operation(const struct field *field, const void *object, json_t **ret_value)
{
	*ret_value = json_string(operation_name(*FIELD_CONST(field, object, enum operation)));
	return *ret_value != NULL;
}

static const struct field_type field_operation = { parse_operation, build_operation, NULL };

/* An array, which RFC 7519 allows and this protocol does not, leaves NULL. */
static enum status parse_audience(const struct field *field, const json_t *value, void *object)
{
	return json_is_array(value) ? STATUS_OK : field_text.parse(field, value, object);
}

static bool build_audience(const struct field *field, const void *object, json_t **ret_value)
{
	return field_text.build(field, object, ret_value);
}

static void clear_audience(const struct field *field, void *object)
{
	field_text.clear(field, object);
}

static const struct field_type field_audience = { parse_audience, build_audience, clear_audience };

enum status actor_parse(const json_t *json, enum actor *ret_actor, const char **ret_id)
{
	const char *type = json_string_value(json_object_get(json, "type"));
	const json_t *id = json_object_get(json, "id");
	bool self = type && strcmp(type, "self") == 0 && json_object_size(json) == 1;

	if (!self && (!type || strcmp(type, "administrator") != 0 || json_object_size(json) != 2 || !field_is_plain(id, 1, MAX_ID)))
		return STATUS_REQUEST_INVALID;
	*ret_actor = self ? ACTOR_SELF : ACTOR_ADMINISTRATOR;
	*ret_id = self ? NULL : json_string_value(id);
	return STATUS_OK;
}

static enum status parse_actor(const struct field *field, const json_t *value, void *object)
{
	struct request_claims *request = object;
	const char *id;
	if (actor_parse(value, &request->actor, &id) != STATUS_OK)
		return STATUS_LOCAL_INPUT;
	return id ? field_set_text(&request->actor_id, id) : STATUS_OK;
}

static bool build_actor(const struct field *field, const void *object, json_t **ret_value)
{
	const struct request_claims *request = object;

	if (request->actor == ACTOR_SELF)
		return true;
	*ret_value = json_pack("{ss ss}", "type", "administrator", "id", request->actor_id);
	return *ret_value != NULL;
}

static void clear_actor(const struct field *field, void *object)
{
	struct request_claims *request = object;

	free(request->actor_id);
	request->actor_id = NULL;
}

static const struct field_type field_actor = { parse_actor, build_actor, clear_actor };

/* 1 to 256 UTF-16 code units, what the directory counts; jansson has refused U+0000 and unpaired surrogates. */
static bool password_valid(struct bytes text)
{
	return text.size >= 1 && utf8_valid(text) && memchr(text.data, 0, text.size) == NULL && utf8_utf16_units(text) <= 256;
}

static enum status parse_password(const struct field *field, const json_t *value, void *object)
{
	struct bytes text = bytes_of(json_string_value(value), json_string_length(value));

	return json_is_string(value) && password_valid(text) ? secret_from(text, FIELD_AT(field, object, struct secret)) : STATUS_LOCAL_INPUT;
}

static void clear_password(const struct field *field, void *object)
{
	secret_wipe(FIELD_AT(field, object, struct secret));
}

/* Never built through jansson: secret_claims_build. */
static bool build_password(const struct field *field, const void *object, json_t **ret_value)
{
	return true;
}

static const struct field_type field_password = { parse_password, build_password, clear_password };

/* Requests --------------------------------------------------------------------------------------------------------------------------- */

static const struct field request_fields[] = {
	{ "iss", &field_text, offsetof(struct request_claims, issuer), 1, 2048 },
	{ "aud", &field_audience, offsetof(struct request_claims, audience), 1, 2048 },
	{ "jti", &field_uuid, offsetof(struct request_claims, request_id) },
	{ "operation_id", &field_uuid, offsetof(struct request_claims, operation_id) },
	{ "iat", &field_int64, offsetof(struct request_claims, iat), 1, MAX_TIME },
	{ "exp", &field_int64, offsetof(struct request_claims, exp), 1, MAX_TIME },
	{ "op", &field_operation, offsetof(struct request_claims, op) },
	{ "sub_id", &field_subject, offsetof(struct request_claims, subject) },
	{ "secret", &field_text, offsetof(struct request_claims, secret), 1, MAX_FRAME_BYTES, .optional = true },
	{ "must_change", &field_bool, offsetof(struct request_claims, must_change), false, .optional = true },
	{ "unlock", &field_bool, offsetof(struct request_claims, unlock), true, .optional = true },
	{ "enforce_policy", &field_bool, offsetof(struct request_claims, enforce_policy), true, .optional = true },
	{ "directory", &field_text, offsetof(struct request_claims, directory), 1, MAX_NAME, .optional = true },
	{ "actor", &field_actor, 0, .optional = true },
	{ "first_iat", &field_int64, offsetof(struct request_claims, first_iat), 1, MAX_TIME, .optional = true },
	{ "prior_server", &field_text, offsetof(struct request_claims, prior_server), 1, MAX_NAME, .optional = true },
	{ "failover_after", &field_int64, offsetof(struct request_claims, failover_after), 1, MAX_FAILOVER_S, .optional = true },
};
static const struct form request_form = { FORM_FIELDS(request_fields), STATUS_REQUEST_INVALID, .closed = true, .whole = "payload" };

/* What a refusal is addressed by, and how long the journal keeps it. */
static const struct field address_fields[] = {
	{ "jti", &field_uuid, offsetof(struct request_claims, request_id) },
	{ "operation_id", &field_uuid, offsetof(struct request_claims, operation_id) },
	{ "exp", &field_int64, offsetof(struct request_claims, exp), 1, MAX_TIME },
};

static void read_address(const json_t *json, struct request_claims *request)
{
	for (size_t i = 0; i < sizeof(address_fields) / sizeof(*address_fields); i++) {
		const json_t *value = json_object_get(json, address_fields[i].name);

		/* What cannot be read stays empty: the form fails there too and names it. */
		if (value)
			address_fields[i].type->parse(&address_fields[i], value, request);
	}
}

void request_claims_clear(struct request_claims *request)
{
	form_clear(&request_form, request);
	*request = (struct request_claims){ 0 };
}

/* What depends on the operation. */
static enum status check_operation(const struct request_claims *request, const char **ret_member)
{
	if (!request->audience) {
		*ret_member = "aud";
		return STATUS_REQUEST_AUDIENCE;
	}
	if (request->op == OP_COUNT) {
		*ret_member = "op";
		return STATUS_REQUEST_UNSUPPORTED;
	}
	if ((request->secret != NULL) != operations[request->op].secret) {
		*ret_member = "secret";
		return STATUS_REQUEST_INVALID;
	}
	if (request->must_change && request->op != OP_RESET && request->op != OP_CHECK) {
		*ret_member = "must_change";
		return STATUS_REQUEST_INVALID;
	}
	return STATUS_OK;
}

enum status request_parse(struct bytes payload, struct request_claims *ret_request, const char **ret_member)
{
	struct request_claims address = { 0 };
	json_t *json = jose_json_parse(payload);
	bool no_memory = !json && errno == ENOMEM;

	*ret_request = (struct request_claims){ .unlock = true, .enforce_policy = true };
	*ret_member = "";
	if (no_memory)
		return STATUS_AGENT_INTERNAL;
	read_address(json, &address);
	enum status status = form_parse_json(&request_form, json, ret_request, ret_member);
	if (status == STATUS_OK)
		status = check_operation(ret_request, ret_member);
	json_decref(json);
	if (status != STATUS_OK && status != STATUS_REQUEST_UNSUPPORTED) {
		request_claims_clear(ret_request);
		*ret_request = address;
	}
	return status;
}

char *request_build(const struct request_claims *request)
{
	return form_build(&request_form, request);
}

/* The plaintext of a secret ---------------------------------------------------------------------------------------------------------- */

static const struct field secret_fields[] = {
	{ "operation_id", &field_uuid, offsetof(struct secret_claims, operation_id) },
	{ "op", &field_operation, offsetof(struct secret_claims, op) },
	{ "sub_id", &field_subject, offsetof(struct secret_claims, subject) },
	{ "new_password", &field_password, offsetof(struct secret_claims, new_password), .optional = true },
	{ "old_password", &field_password, offsetof(struct secret_claims, old_password), .optional = true },
};
static const struct form secret_form = { FORM_FIELDS(secret_fields), STATUS_REQUEST_UNDECRYPTABLE, .closed = true, .whole = "plaintext" };

void secret_claims_clear(struct secret_claims *claims)
{
	form_clear(&secret_form, claims);
	*claims = (struct secret_claims){ 0 };
}

/* Four hexadecimal digits behind \u, -1 where they are not there. */
static int escape_at(struct bytes text, size_t at)
{
	uint8_t pair[2];
	size_t size;

	if (at + 6 > text.size || text.data[at] != '\\' || text.data[at + 1] != 'u' || hex_decode(bytes_of(text.data + at + 2, 4), pair, sizeof(pair), &size) != STATUS_OK)
		return -1;
	return pair[0] << 8 | pair[1];
}

/* Reads a JSON string whose opening quote is at *at, to behind its closing one; true where it names U+0000 or half a surrogate pair. */
static bool skip_string(struct bytes text, size_t *at)
{
	bool bad = false;

	for (++*at; *at < text.size && text.data[*at] != '"'; ++*at) {
		if (text.data[*at] != '\\')
			continue;
		int unit = escape_at(text, *at);
		int next = unit >= 0xd800 && unit <= 0xdbff ? escape_at(text, *at + 6) : 0;
		bool pair = next >= 0xdc00 && next <= 0xdfff;

		bad = bad || unit == 0 || (unit >= 0xd800 && unit <= 0xdfff && !pair);
		*at += unit < 0 ? 1 : pair ? 11 : 5;
	}
	++*at;
	return bad;
}

static size_t skip_space(struct bytes text, size_t at)
{
	while (at < text.size && memchr(" \t\r\n", text.data[at], 4))
		at++;
	return at;
}

/* Where jansson refused the text: the password whose characters cannot be, so that its user is told and not the service's implementer. */
static const char *unsayable_password(struct bytes text)
{
	const char *const whole = secret_form.whole, *member = whole;

	for (size_t at = 0; at < text.size;) {
		size_t from = at;

		if (text.data[at] != '"') {
			at++;
			continue;
		}
		bool bad = skip_string(text, &at);
		if (bad)
			return member;
		struct bytes token = bytes_of(text.data + from, at <= text.size ? at - from : 0);
		at = skip_space(text, at);
		if (at >= text.size || text.data[at] != ':')
			continue;
		member = bytes_equal(token, bytes_of_string("\"new_password\"")) ? "new_password" : bytes_equal(token, bytes_of_string("\"old_password\"")) ? "old_password" : whole;
	}
	return whole;
}

static enum status check_presence(const struct secret_claims *claims, const char **ret_member)
{
	const struct operation_row *row = &operations[claims->op];

	if ((claims->new_password.size > 0) != row->new_password)
		*ret_member = "new_password";
	else if ((claims->old_password.size > 0) != row->old_password)
		*ret_member = "old_password";
	else
		return STATUS_OK;
	return STATUS_REQUEST_UNDECRYPTABLE;
}

static enum status check_binding(const struct secret_claims *claims, const struct request_claims *request, const char **ret_member)
{
	if (strcmp(claims->operation_id, request->operation_id) != 0)
		*ret_member = "operation_id";
	else if (claims->op != request->op)
		*ret_member = "op";
	else if (!subject_equal(&claims->subject, &request->subject))
		*ret_member = "sub_id";
	else
		return STATUS_OK;
	return STATUS_REQUEST_SECRET_MISMATCH;
}

enum status secret_claims_parse(const struct secret *plaintext, const struct request_claims *request, struct secret_claims *ret_claims, const char **ret_member)
{
	/* jansson's copies are wiped when they are freed: secret_json_init. */
	json_t *json = jose_json_parse(secret_bytes(plaintext));
	bool no_memory = !json && errno == ENOMEM;

	*ret_claims = (struct secret_claims){ 0 };
	enum status status = no_memory ? STATUS_AGENT_INTERNAL : form_parse_json(&secret_form, json, ret_claims, ret_member);
	if (!json && !no_memory)
		*ret_member = unsayable_password(secret_bytes(plaintext));
	json_decref(json);
	if (status == STATUS_OK)
		status = check_binding(ret_claims, request, ret_member);
	if (status == STATUS_OK)
		status = check_presence(ret_claims, ret_member);
	if (status != STATUS_OK)
		secret_claims_clear(ret_claims);
	return status;
}

/* Appends to a secret that has the room. */
static void append(struct secret *to, struct bytes text)
{
	memcpy(to->data + to->size, text.data, text.size);
	to->size += text.size;
}

static void append_password(struct secret *to, const char *before, struct bytes password)
{
	static const char digits[] = "0123456789abcdef";

	if (password.size == 0)
		return;
	append(to, bytes_of_string(before));
	for (size_t i = 0; i < password.size; i++) {
		const uint8_t c = password.data[i];
		const char escape[] = { '\\', 'u', '0', '0', digits[c >> 4], digits[c & 15] };

		if (c < 0x20 || c == '"' || c == '\\')
			append(to, bytes_of(escape, sizeof(escape)));
		else
			append(to, bytes_of(&c, 1));
	}
	append(to, bytes_of_string("\""));
}

enum status secret_claims_build(const struct request_claims *request, struct bytes new_password, struct bytes old_password, struct secret *ret_plaintext)
{
	const struct form bound = { secret_fields, 3, STATUS_LOCAL_INPUT };
	struct secret_claims claims = { .op = request->op, .subject = request->subject };

	*ret_plaintext = SECRET_EMPTY;
	if ((new_password.size > 0 && !password_valid(new_password)) || (old_password.size > 0 && !password_valid(old_password)))
		return STATUS_LOCAL_INPUT;
	memcpy(claims.operation_id, request->operation_id, UUID_SIZE);
	AUTO_FREE char *head = form_build(&bound, &claims);
	if (!head)
		return STATUS_AGENT_INTERNAL;
	enum status status = secret_new(strlen(head) + 64 + 6 * (new_password.size + old_password.size), ret_plaintext);
	if (status != STATUS_OK)
		return status;
	ret_plaintext->size = 0;
	append(ret_plaintext, bytes_of(head, strlen(head) - 1)); /* without its closing brace */
	append_password(ret_plaintext, ",\"new_password\":\"", new_password);
	append_password(ret_plaintext, ",\"old_password\":\"", old_password);
	append(ret_plaintext, bytes_of_string("}"));
	return STATUS_OK;
}
