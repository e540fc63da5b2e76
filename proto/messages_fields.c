#include "proto/messages_fields.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

/* Forms ------------------------------------------------------------------------------------------------------------------------------ */

static const struct field *find_field(const struct form *form, const char *name)
{
	for (size_t i = 0; i < form->count; i++)
		if (strcmp(form->fields[i].name, name) == 0)
			return &form->fields[i];
	return NULL;
}

static bool has_others(const struct form *form, const json_t *json)
{
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)json, name, value)
		if (!find_field(form, name))
			return true;
	return false;
}

enum status form_parse_json(const struct form *form, const json_t *json, void *object, const char **ret_member)
{
	*ret_member = form->whole ? form->whole : "";
	if (!json_is_object(json))
		return form->malformed;
	for (size_t i = 0; i < form->count; i++) {
		const struct field *field = &form->fields[i];
		const json_t *value = json_object_get(json, field->name);

		if (!value && field->optional)
			continue;
		enum status status = value ? field->type->parse(field, value, object) : STATUS_LOCAL_INPUT;
		if (status == STATUS_OK)
			continue;
		*ret_member = field->name;
		return status == STATUS_LOCAL_INPUT ? form->malformed : status;
	}
	if (form->closed && has_others(form, json)) {
		*ret_member = "unknown_member";
		return form->malformed;
	}
	*ret_member = "";
	return STATUS_OK;
}

enum status form_parse(const struct form *form, struct bytes payload, void *object, const char **ret_member)
{
	json_t *json = jose_json_parse(payload);
	bool no_memory = !json && errno == ENOMEM;
	enum status status = form_parse_json(form, json, object, ret_member);

	if (no_memory)
		status = STATUS_AGENT_INTERNAL;

	json_decref(json);
	if (status != STATUS_OK)
		form_clear(form, object);
	return status;
}

json_t *form_json(const struct form *form, const void *object)
{
	json_t *json = json_object();

	for (size_t i = 0; json && i < form->count; i++) {
		const struct field *field = &form->fields[i];
		json_t *value = NULL;
		bool good = field->type->build(field, object, &value);

		if (good && value)
			good = json_object_set_new(json, field->name, value) == 0;
		else if (good)
			good = field->optional;
		if (!good) {
			json_decref(json);
			json = NULL;
		}
	}
	return json;
}

static char *json_text(json_t *take_json)
{
	char *text = take_json ? json_dumps(take_json, JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;

	json_decref(take_json);
	return text; /* from malloc, with secret_json_init too */
}

char *form_build(const struct form *form, const void *object)
{
	return json_text(form_json(form, object));
}

void form_clear(const struct form *form, void *object)
{
	for (size_t i = 0; i < form->count; i++)
		if (form->fields[i].type->clear)
			form->fields[i].type->clear(&form->fields[i], object);
}

/* Text ------------------------------------------------------------------------------------------------------------------------------- */

static bool is_control(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0);
}

bool field_is_plain(const json_t *value, int64_t min, int64_t max)
{
	if (!json_is_string(value) || (int64_t)json_string_length(value) < min || (int64_t)json_string_length(value) > max)
		return false;
	struct bytes text = bytes_of(json_string_value(value), json_string_length(value));
	for (size_t offset = 0; offset < text.size;)
		if (is_control(utf8_next(text, &offset)))
			return false;
	return true;
}

enum status field_set_text(char **to, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		return STATUS_AGENT_INTERNAL;
	free(*to);
	*to = copy;
	return STATUS_OK;
}

/* The size of the valid UTF-8 sequence at `at`, 0 where there is none. */
static size_t sequence_size(const char *at, size_t left)
{
	for (size_t size = 1; size <= 4 && size <= left; size++)
		if (utf8_valid(bytes_of(at, size)))
			return size;
	return 0;
}

/* A malloc'ed copy of at most max bytes, invalid UTF-8 and control characters replaced by '?'. */
static char *shown_text(const char *text, size_t max)
{
	size_t left = strnlen(text, max + 4), used = 0;
	char *out = malloc(max + 1);

	while (out && left > 0) {
		size_t size = sequence_size(text, left), offset = 0;

		if (used + (size ? size : 1) > max)
			break;
		if (size == 0 || is_control(utf8_next(bytes_of(text, size), &offset))) {
			out[used++] = '?';
			size = size ? size : 1;
		} else {
			memcpy(out + used, text, size);
			used += size;
		}
		text += size;
		left -= size;
	}
	if (out)
		out[used] = '\0';
	return out;
}

static enum status parse_text(const struct field *field, const json_t *value, void *object)
{
	if (!field_is_plain(value, field->min, field->max))
		return STATUS_LOCAL_INPUT;
	return field_set_text(FIELD_AT(field, object, char *), json_string_value(value));
}

static bool build_text(const struct field *field, const void *object, json_t **ret_value)
{
	const char *text = *FIELD_CONST(field, object, char *);

	*ret_value = text ? json_string(text) : NULL;
	return !text || *ret_value;
}

static void clear_text(const struct field *field, void *object)
{
	char **text = FIELD_AT(field, object, char *);

	free(*text);
	*text = NULL;
}

const struct field_type field_text = { parse_text, build_text, clear_text };

static enum status parse_loose_text(const struct field *field, const json_t *value, void *object)
{
	char **text = FIELD_AT(field, object, char *);

	if (!json_is_string(value))
		return STATUS_LOCAL_INPUT;
	if (*text)
		return STATUS_OK;
	*text = shown_text(json_string_value(value), (size_t)field->max);
	return *text ? STATUS_OK : STATUS_AGENT_INTERNAL;
}

static bool build_loose_text(const struct field *field, const void *object, json_t **ret_value)
{
	const char *text = *FIELD_CONST(field, object, char *);
	AUTO_FREE char *shown = text ? shown_text(text, (size_t)field->max) : NULL;

	*ret_value = shown ? json_string(shown) : NULL;
	return !text || *ret_value;
}

const struct field_type field_loose_text = { parse_loose_text, build_loose_text, clear_text };

static enum status parse_uuid_text(const struct field *field, const json_t *value, void *object)
{
	if (!json_is_string(value) || !uuid_valid(json_string_value(value)))
		return STATUS_LOCAL_INPUT;
	return field_set_text(FIELD_AT(field, object, char *), json_string_value(value));
}

const struct field_type field_uuid_text = { parse_uuid_text, build_text, clear_text };

static enum status parse_uuid(const struct field *field, const json_t *value, void *object)
{
	if (!json_is_string(value) || !uuid_valid(json_string_value(value)))
		return STATUS_LOCAL_INPUT;
	memcpy(FIELD_AT(field, object, char), json_string_value(value), UUID_SIZE);
	return STATUS_OK;
}

static bool build_uuid(const struct field *field, const void *object, json_t **ret_value)
{
	const char *text = FIELD_CONST(field, object, char);

	*ret_value = *text ? json_string(text) : NULL;
	return !*text || *ret_value;
}

const struct field_type field_uuid = { parse_uuid, build_uuid, NULL };

static enum status parse_random(const struct field *field, const json_t *value, void *object)
{
	uint8_t octets[32];
	size_t size = 0;

	if (!json_is_string(value) || base64url_decode(bytes_of_string(json_string_value(value)), octets, sizeof(octets), &size) != STATUS_OK || size != sizeof(octets))
		return STATUS_LOCAL_INPUT;
	return field_set_text(FIELD_AT(field, object, char *), json_string_value(value));
}

const struct field_type field_random = { parse_random, build_text, clear_text };

/* Numbers ---------------------------------------------------------------------------------------------------------------------------- */

static bool in_range(const struct field *field, const json_t *value)
{
	return json_is_integer(value) && json_integer_value(value) >= field->min && json_integer_value(value) <= field->max;
}

static enum status parse_int64(const struct field *field, const json_t *value, void *object)
{
	if (!in_range(field, value))
		return STATUS_LOCAL_INPUT;
	*FIELD_AT(field, object, int64_t) = json_integer_value(value);
	return STATUS_OK;
}

static bool build_int64(const struct field *field, const void *object, json_t **ret_value)
{
	int64_t number = *FIELD_CONST(field, object, int64_t);
	bool absent = field->optional && number == 0;

	*ret_value = absent ? NULL : json_integer(number);
	return absent || *ret_value;
}

const struct field_type field_int64 = { parse_int64, build_int64, NULL };

static enum status parse_int(const struct field *field, const json_t *value, void *object)
{
	if (!in_range(field, value) || json_integer_value(value) > INT_MAX)
		return STATUS_LOCAL_INPUT;
	*FIELD_AT(field, object, int) = (int)json_integer_value(value);
	return STATUS_OK;
}

static bool build_int(const struct field *field, const void *object, json_t **ret_value)
{
	*ret_value = json_integer(*FIELD_CONST(field, object, int));
	return *ret_value != NULL;
}

const struct field_type field_int = { parse_int, build_int, NULL };

static enum status parse_unsigned(const struct field *field, const json_t *value, void *object)
{
	if (!in_range(field, value) || json_integer_value(value) > UINT_MAX)
		return STATUS_LOCAL_INPUT;
	*FIELD_AT(field, object, unsigned) = (unsigned)json_integer_value(value);
	return STATUS_OK;
}

static bool build_unsigned(const struct field *field, const void *object, json_t **ret_value)
{
	*ret_value = json_integer(*FIELD_CONST(field, object, unsigned));
	return *ret_value != NULL;
}

const struct field_type field_unsigned = { parse_unsigned, build_unsigned, NULL };

static enum status parse_bool(const struct field *field, const json_t *value, void *object)
{
	if (!json_is_boolean(value))
		return STATUS_LOCAL_INPUT;
	*FIELD_AT(field, object, bool) = json_is_true(value);
	return STATUS_OK;
}

static bool build_bool(const struct field *field, const void *object, json_t **ret_value)
{
	bool set = *FIELD_CONST(field, object, bool);

	*ret_value = set == (field->min != 0) ? NULL : json_boolean(set);
	return true;
}

const struct field_type field_bool = { parse_bool, build_bool, NULL };

/* Keys ------------------------------------------------------------------------------------------------------------------------------- */

enum status field_published_key(const json_t *jwk, enum jose_use use, struct jose_key **ret_key)
{
	return json_object_size(jwk) == 7 ? jose_key_from_jwk(jwk, use, false, ret_key) : STATUS_LOCAL_INPUT;
}

/* `min` of these rows is the key's use. */
static enum status parse_key(const struct field *field, const json_t *value, void *object)
{
	return field_published_key(value, (enum jose_use)field->min, FIELD_AT(field, object, struct jose_key *));
}

static bool build_key(const struct field *field, const void *object, json_t **ret_value)
{
	const struct jose_key *key = *FIELD_CONST(field, object, struct jose_key *);

	*ret_value = key ? jose_key_public_jwk(key) : NULL;
	return *ret_value || (!key && field->optional);
}

static void clear_key(const struct field *field, void *object)
{
	struct jose_key **key = FIELD_AT(field, object, struct jose_key *);

	jose_key_free(*key);
	*key = NULL;
}

const struct field_type field_key = { parse_key, build_key, clear_key };
