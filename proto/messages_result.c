/* Results: proto/README.md section 7. */
#include "proto/messages_fields.h"

#include <string.h>

#define MAX_DIAGNOSTIC 512

void result_init(struct result *result)
{
	*result = (struct result){ .was_locked = -1, .ldap_result = -1 };
	for (enum stage stage = 0; stage < STAGE_COUNT; stage++)
		result->duration_us[stage] = -1;
}

/* Words as bits ---------------------------------------------------------------------------------------------------------------------- */

static const char *const class_words[] = { "upper", "lower", "digit", "special", "other" };
static const char *const warning_words[] = { "password_not_nfc", "policy_not_enforced", "policy_unreadable", "must_change_not_set" };
#define WORDS(array) (array), sizeof(array) / sizeof(*(array))

static json_t *words_json(const char *const *words, size_t count, unsigned bits)
{
	json_t *json = json_array();

	for (size_t i = 0; i < count && json; i++)
		if (bits & 1u << i && json_array_append_new(json, json_string(words[i])) != 0) {
			json_decref(json);
			json = NULL;
		}
	return json;
}

/* Words of later versions are dropped. */
static bool words_parse(const char *const *words, size_t count, const json_t *json, unsigned *ret_bits)
{
	*ret_bits = 0;
	for (size_t i = 0; i < json_array_size(json); i++) {
		const char *word = json_string_value(json_array_get(json, i));

		if (!word)
			return false;
		for (size_t bit = 0; bit < count; bit++)
			if (strcmp(words[bit], word) == 0)
				*ret_bits |= 1u << bit;
	}
	return json_is_array(json);
}

json_t *warnings_json(unsigned warnings)
{
	return words_json(WORDS(warning_words), warnings);
}

/* Rules ------------------------------------------------------------------------------------------------------------------------------ */

static const struct rule_row {
	const char *word, *required, *given; /* NULL: the rule has no such member */
	bool missing;
} rule_rows[] = {
	[RULE_MIN_LENGTH] = { "min_length", "required", "given" },
	[RULE_COMPLEXITY] = { "complexity", "required_classes", "given_classes", .missing = true },
	[RULE_ACCOUNT_NAME] = { "contains_account_name" },
	[RULE_DISPLAY_NAME] = { "contains_display_name" },
	[RULE_MIN_AGE] = { "min_age", "seconds", "possible_at" },
	[RULE_HISTORY] = { "history", "remembered" },
	[RULE_HISTORY_OR_FILTER] = { "history_or_filter", "remembered" },
};
#define RULE_COUNT (sizeof(rule_rows) / sizeof(*rule_rows))

static json_t *rule_json(const struct rule *rule)
{
	const struct rule_row *row = &rule_rows[rule->kind];
	json_t *json = json_pack("{ss}", "rule", row->word);
	bool good = json && (!row->required || json_object_set_new(json, row->required, json_integer(rule->required)) == 0) &&
	            (!row->given || json_object_set_new(json, row->given, json_integer(rule->given)) == 0) &&
	            (!row->missing || json_object_set_new(json, "missing", words_json(WORDS(class_words), rule->missing)) == 0);

	if (good)
		return json;
	json_decref(json);
	return NULL;
}

json_t *rules_json(const struct rule *rules, size_t count)
{
	json_t *json = json_array();

	for (size_t i = 0; i < count && json; i++)
		if (json_array_append_new(json, rule_json(&rules[i])) != 0) {
			json_decref(json);
			json = NULL;
		}
	return json;
}

static bool rule_number(const json_t *json, const char *name, int64_t *ret_number)
{
	const json_t *value = name ? json_object_get(json, name) : NULL;

	*ret_number = json_integer_value(value);
	return !name || (json_is_integer(value) && *ret_number >= 0);
}

/* False where malformed; a rule that is not known leaves ret_rule->kind at RULE_COUNT. */
static bool rule_parse(const json_t *json, struct rule *ret_rule)
{
	const char *word = json_string_value(json_object_get(json, "rule"));
	unsigned kind = 0;

	if (!word)
		return false;
	while (kind < RULE_COUNT && strcmp(rule_rows[kind].word, word) != 0)
		kind++;
	*ret_rule = (struct rule){ .kind = (enum rule_kind)kind };
	if (kind == RULE_COUNT)
		return true;
	const struct rule_row *row = &rule_rows[kind];
	return rule_number(json, row->required, &ret_rule->required) && rule_number(json, row->given, &ret_rule->given) &&
	       (!row->missing || words_parse(WORDS(class_words), json_object_get(json, "missing"), &ret_rule->missing));
}

/* Types of members ------------------------------------------------------------------------------------------------------------------- */

static enum status parse_rules(const struct field *field, const json_t *value, void *object)
{
	struct result *result = object;
	struct rule rule;

	if (!json_is_array(value))
		return STATUS_LOCAL_INPUT;
	for (size_t i = 0; i < json_array_size(value); i++) {
		if (!rule_parse(json_array_get(value, i), &rule))
			return STATUS_LOCAL_INPUT;
		if ((unsigned)rule.kind < RULE_COUNT && result->rule_count < MAX_RULES)
			result->rules[result->rule_count++] = rule;
	}
	return STATUS_OK;
}

static bool build_rules(const struct field *field, const void *object, json_t **ret_value)
{
	const struct result *result = object;

	*ret_value = result->rule_count ? rules_json(result->rules, result->rule_count) : NULL;
	return result->rule_count == 0 || *ret_value;
}

static const struct field_type field_rules = { parse_rules, build_rules, NULL };

/* The code that stands for a status where the agent's own word is not known here. */
static const enum status code_of_outcome[] = {
	[OUTCOME_APPLIED] = STATUS_OK, [OUTCOME_ANSWERED] = STATUS_PLAUSIBLE, [OUTCOME_REFUSED] = STATUS_POLICY_REJECTED,
	[OUTCOME_FAILED] = STATUS_AGENT_INTERNAL, [OUTCOME_UNKNOWN] = STATUS_OUTCOME_UNKNOWN, [OUTCOME_SETTLING] = STATUS_SETTLING,
};

static enum status parse_status(const struct field *field, const json_t *value, void *object)
{
	struct result *result = object;
	enum outcome outcome;

	if (!json_is_string(value) || !outcome_from_name(json_string_value(value), &outcome) || outcome == OUTCOME_NONE)
		return STATUS_LOCAL_INPUT;
	result->code = code_of_outcome[outcome];
	return STATUS_OK;
}

static bool build_status(const struct field *field, const void *object, json_t **ret_value)
{
	enum outcome outcome = status_outcome(((const struct result *)object)->code);

	*ret_value = outcome == OUTCOME_NONE ? NULL : json_string(outcome_name(outcome));
	return *ret_value != NULL;
}

static const struct field_type field_status = { parse_status, build_status, NULL };

/* Its row follows those of `account`, `policy` and `status`, which have left what to fall back on, and precedes that of `reason`, which keeps the word. */
static enum status parse_code(const struct field *field, const json_t *value, void *object)
{
	struct result *result = object;
	enum status code;

	if (!field_is_plain(value, 1, 64))
		return STATUS_LOCAL_INPUT;
	if (!status_from_code(json_string_value(value), &code)) {
		if (result->code == STATUS_PLAUSIBLE && (result->account || result->policy))
			result->code = STATUS_FOUND;
		return field_set_text(&result->reason, json_string_value(value));
	}
	if (status_outcome(code) != status_outcome(result->code))
		return STATUS_LOCAL_INPUT;
	result->code = code;
	return STATUS_OK;
}

static bool build_code(const struct field *field, const void *object, json_t **ret_value)
{
	*ret_value = json_string(status_code(((const struct result *)object)->code));
	return *ret_value != NULL;
}

static const struct field_type field_code = { parse_code, build_code, NULL };

static enum status parse_user(const struct field *field, const json_t *value, void *object)
{
	const json_t *guid = json_object_get(value, "object_guid"), *entry = json_object_get(value, "entry_uuid");

	if (!guid == !entry)
		return STATUS_LOCAL_INPUT;
	((struct result *)object)->user_is_entry = entry != NULL;
	return field_uuid.parse(field, guid ? guid : entry, object);
}

static bool build_user(const struct field *field, const void *object, json_t **ret_value)
{
	const char *guid = FIELD_CONST(field, object, char);

	*ret_value = *guid ? json_pack("{ss}", ((const struct result *)object)->user_is_entry ? "entry_uuid" : "object_guid", guid) : NULL;
	return !*guid || *ret_value;
}

static const struct field_type field_user = { parse_user, build_user, NULL };

static enum status parse_was_locked(const struct field *field, const json_t *value, void *object)
{
	if (!json_is_boolean(value))
		return STATUS_LOCAL_INPUT;
	((struct result *)object)->was_locked = json_is_true(value);
	return STATUS_OK;
}

static bool build_was_locked(const struct field *field, const void *object, json_t **ret_value)
{
	int was_locked = ((const struct result *)object)->was_locked;

	*ret_value = was_locked < 0 ? NULL : json_boolean(was_locked);
	return true;
}

static const struct field_type field_was_locked = { parse_was_locked, build_was_locked, NULL };

/* The directory's members; ldap_result is apart because its absence is -1. */
static const struct field directory_fields[] = {
	{ "name", &field_text, offsetof(struct result, directory), 1, 255, .optional = true },
	{ "server", &field_text, offsetof(struct result, server), 1, 255, .optional = true },
	{ "diagnostic", &field_loose_text, offsetof(struct result, diagnostic), 0, MAX_DIAGNOSTIC, .optional = true },
};
static const struct form directory_form = { FORM_FIELDS(directory_fields), STATUS_LOCAL_INPUT };
static const struct field result_code_field = { "result_code", &field_int, offsetof(struct result, ldap_result), 0, INT32_MAX };

static enum status parse_directory(const struct field *field, const json_t *value, void *object)
{
	const json_t *code = json_object_get(value, "result_code");
	const char *member;
	enum status status = form_parse_json(&directory_form, value, object, &member);

	if (status == STATUS_OK && code)
		status = field_int.parse(&result_code_field, code, object);
	return status;
}

static bool build_directory(const struct field *field, const void *object, json_t **ret_value)
{
	const struct result *result = object;

	if (!result->directory && !result->server && !result->diagnostic && result->ldap_result < 0)
		return true;
	*ret_value = form_json(&directory_form, result);
	if (*ret_value && result->ldap_result >= 0 && json_object_set_new(*ret_value, "result_code", json_integer(result->ldap_result)) != 0) {
		json_decref(*ret_value);
		*ret_value = NULL;
	}
	return *ret_value != NULL;
}

static void clear_directory(const struct field *field, void *object)
{
	form_clear(&directory_form, object);
}

static const struct field_type field_directory = { parse_directory, build_directory, clear_directory };

static enum status parse_warnings(const struct field *field, const json_t *value, void *object)
{
	return words_parse(WORDS(warning_words), value, FIELD_AT(field, object, unsigned)) ? STATUS_OK : STATUS_LOCAL_INPUT;
}

static bool build_warnings(const struct field *field, const void *object, json_t **ret_value)
{
	unsigned warnings = *FIELD_CONST(field, object, unsigned);

	*ret_value = warnings ? warnings_json(warnings) : NULL;
	return !warnings || *ret_value;
}

static const struct field_type field_warnings = { parse_warnings, build_warnings, NULL };

static const char *const stage_names[] = {
	[STAGE_VERIFY] = "verify", [STAGE_LOCATE] = "locate", [STAGE_DECRYPT] = "decrypt", [STAGE_INTENT] = "intent",
	[STAGE_WRITE] = "write", [STAGE_RECORD] = "record", [STAGE_TOTAL] = "total",
};
#define MAX_DURATION_MS 1e9

static enum status parse_durations(const struct field *field, const json_t *value, void *object)
{
	struct result *result = object;

	if (!json_is_object(value))
		return STATUS_LOCAL_INPUT;
	for (enum stage stage = 0; stage < STAGE_COUNT; stage++) {
		const json_t *duration = json_object_get(value, stage_names[stage]);

		if (!duration)
			continue;
		if (!json_is_number(duration) || !(json_number_value(duration) >= 0 && json_number_value(duration) <= MAX_DURATION_MS))
			return STATUS_LOCAL_INPUT;
		result->duration_us[stage] = (int64_t)(json_number_value(duration) * 1000 + 0.5);
	}
	return STATUS_OK;
}

static bool build_durations(const struct field *field, const void *object, json_t **ret_value)
{
	const struct result *result = object;
	bool good = (*ret_value = json_object()) != NULL;

	for (enum stage stage = 0; stage < STAGE_COUNT && good; stage++)
		if (result->duration_us[stage] >= 0)
			good = json_object_set_new(*ret_value, stage_names[stage], json_real((double)result->duration_us[stage] / 1000)) == 0;
	if (good && json_object_size(*ret_value) > 0)
		return true;
	json_decref(*ret_value);
	*ret_value = NULL;
	return good;
}

static const struct field_type field_durations = { parse_durations, build_durations, NULL };

static enum status parse_digest(const struct field *field, const json_t *value, void *object)
{
	uint8_t octets[32];
	size_t size = 0;

	if (!json_is_string(value) || hex_decode(bytes_of_string(json_string_value(value)), octets, sizeof(octets), &size) != STATUS_OK || size != sizeof(octets))
		return STATUS_LOCAL_INPUT;
	hex_encode(bytes_of(octets, sizeof(octets)), FIELD_AT(field, object, char));
	return STATUS_OK;
}

static bool build_digest(const struct field *field, const void *object, json_t **ret_value)
{
	return field_uuid.build(field, object, ret_value);
}

static const struct field_type field_digest = { parse_digest, build_digest, NULL };

/* The result ------------------------------------------------------------------------------------------------------------------------- */

static const struct field result_fields[] = {
	{ "iss", &field_text, offsetof(struct result, agent_id), 1, 255 },
	{ "aud", &field_text, offsetof(struct result, issuer), 1, 2048 },
	{ "iat", &field_int64, offsetof(struct result, iat), 1, MAX_TIME },
	{ "request_id", &field_uuid, offsetof(struct result, request_id), .optional = true },
	{ "operation_id", &field_uuid, offsetof(struct result, operation_id), .optional = true },
	{ "account", &field_account, offsetof(struct result, account), .optional = true },
	{ "policy", &field_policy, offsetof(struct result, policy), .optional = true },
	{ "status", &field_status, 0 },
	{ "code", &field_code, 0 },
	{ "reason", &field_loose_text, offsetof(struct result, reason), 0, 128, .optional = true },
	{ "rules", &field_rules, 0, .optional = true },
	{ "retry_after", &field_int64, offsetof(struct result, retry_after), 0, MAX_INTEGER, .optional = true },
	{ "user", &field_user, offsetof(struct result, user_guid), .optional = true },
	{ "was_locked", &field_was_locked, 0, .optional = true },
	{ "directory", &field_directory, 0, .optional = true },
	{ "warnings", &field_warnings, offsetof(struct result, warnings), .optional = true },
	{ "durations_ms", &field_durations, 0, .optional = true },
	{ "frame_sha256", &field_digest, offsetof(struct result, frame_sha256), .optional = true },
};
static const struct form result_form = { FORM_FIELDS(result_fields), STATUS_LOCAL_INPUT };

void result_clear(struct result *result)
{
	form_clear(&result_form, result);
	result_init(result);
}

/* A result answers a request or, where that could not be verified, a frame. */
static bool is_addressed(const struct result *result)
{
	return (*result->request_id != '\0') != (*result->frame_sha256 != '\0');
}

enum status result_parse(struct bytes payload, struct result *ret_result, const char **ret_member)
{
	result_init(ret_result);
	enum status status = form_parse(&result_form, payload, ret_result, ret_member);
	if (status == STATUS_OK && !is_addressed(ret_result)) {
		*ret_member = "request_id";
		status = STATUS_LOCAL_INPUT;
	}
	if (status != STATUS_OK)
		result_clear(ret_result);
	return status;
}

char *result_build(const struct result *result)
{
	return is_addressed(result) ? form_build(&result_form, result) : NULL;
}
