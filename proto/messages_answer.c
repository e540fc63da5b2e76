/* What a lookup and a policy operation tell: the members `account` and `policy` of a result, proto/README.md section 7. */
#include "proto/messages_fields.h"

#include <string.h>

/* field_bool leaves a default out; these are said in either case: who shows them must not have to guess. */
static enum status parse_flag(const struct field *field, const json_t *value, void *object)
{
	return field_bool.parse(field, value, object);
}

static bool build_flag(const struct field *field, const void *object, json_t **ret_value)
{
	*ret_value = json_boolean(*FIELD_CONST(field, object, bool));
	return true;
}

static const struct field_type field_flag = { parse_flag, build_flag, NULL };

/* account ----------------------------------------------------------------------------------------------------------------------------- */

#define MAX_SHOWN 1024
#define ACCOUNT_TEXT(member) { #member, &field_loose_text, offsetof(struct result_account, member), 0, MAX_SHOWN, .optional = true }
#define ACCOUNT_FLAG(member) { #member, &field_flag, offsetof(struct result_account, member) }
#define ACCOUNT_TIME(member) { #member, &field_int64, offsetof(struct result_account, member), 1, MAX_TIME, .optional = true }
static const struct field account_fields[] = {
	ACCOUNT_TEXT(user_principal_name), ACCOUNT_TEXT(sam_account_name), ACCOUNT_TEXT(uid), ACCOUNT_TEXT(display_name),
	ACCOUNT_FLAG(locked), ACCOUNT_FLAG(disabled), ACCOUNT_FLAG(expired), ACCOUNT_FLAG(must_change), ACCOUNT_FLAG(password_never_expires), ACCOUNT_FLAG(cannot_change),
	ACCOUNT_TIME(password_last_set), ACCOUNT_TIME(password_expires_at),
};
static const struct form account_form = { FORM_FIELDS(account_fields), STATUS_LOCAL_INPUT };

json_t *account_json(const struct result_account *account)
{
	return form_json(&account_form, account);
}

static enum status parse_account(const struct field *field, const json_t *value, void *object)
{
	struct result_account **account = FIELD_AT(field, object, struct result_account *);
	const char *member;

	if (!*account)
		*account = calloc(1, sizeof(**account));
	return *account ? form_parse_json(&account_form, value, *account, &member) : STATUS_AGENT_INTERNAL;
}

static bool build_account(const struct field *field, const void *object, json_t **ret_value)
{
	const struct result_account *account = *FIELD_CONST(field, object, struct result_account *);

	*ret_value = account ? account_json(account) : NULL;
	return !account || *ret_value;
}

static void clear_account(const struct field *field, void *object)
{
	struct result_account **account = FIELD_AT(field, object, struct result_account *);

	if (*account)
		form_clear(&account_form, *account);
	free(*account);
	*account = NULL;
}

const struct field_type field_account = { parse_account, build_account, clear_account };

/* policy ------------------------------------------------------------------------------------------------------------------------------ */

static const char *const source_words[] = {
	[RESULT_POLICY_UNKNOWN] = "unknown", [RESULT_POLICY_DOMAIN] = "domain", [RESULT_POLICY_PSO] = "pso", [RESULT_POLICY_SUBENTRY] = "subentry",
};
#define SOURCE_COUNT (sizeof(source_words) / sizeof(*source_words))

/* A source of a later version is one that is not known here: what it says beside that is not believed either. */
static enum status parse_source(const struct field *field, const json_t *value, void *object)
{
	enum result_policy_source *source = FIELD_AT(field, object, enum result_policy_source);

	if (!field_is_plain(value, 1, 64))
		return STATUS_LOCAL_INPUT;
	for (size_t i = 0; i < SOURCE_COUNT; i++)
		if (strcmp(source_words[i], json_string_value(value)) == 0)
			*source = (enum result_policy_source)i;
	return STATUS_OK;
}

static bool build_source(const struct field *field, const void *object, json_t **ret_value)
{
	*ret_value = json_string(source_words[*FIELD_CONST(field, object, enum result_policy_source)]);
	return *ret_value != NULL;
}

static const struct field_type field_source = { parse_source, build_source, NULL };

#define POLICY_NUMBER(member) { #member, &field_int64, offsetof(struct result_policy, member), 0, MAX_INTEGER }
#define POLICY_FLAG(member) { #member, &field_flag, offsetof(struct result_policy, member) }
static const struct field policy_fields[] = {
	{ "source", &field_source, offsetof(struct result_policy, source) },
	POLICY_NUMBER(min_length), POLICY_FLAG(complexity), POLICY_NUMBER(history), POLICY_NUMBER(min_age), POLICY_NUMBER(max_age),
	{ "possible_at", &field_int64, offsetof(struct result_policy, possible_at), 1, MAX_TIME, .optional = true },
	POLICY_NUMBER(lockout_threshold), POLICY_NUMBER(lockout_duration), POLICY_FLAG(enforced),
};
static const struct form policy_form = { FORM_FIELDS(policy_fields), STATUS_LOCAL_INPUT };
/* Of a policy that could not be read nothing but that is said. */
static const struct form unknown_policy_form = { policy_fields, 1, STATUS_LOCAL_INPUT };

static const struct form *form_of_policy(const struct result_policy *policy)
{
	return policy->source == RESULT_POLICY_UNKNOWN ? &unknown_policy_form : &policy_form;
}

json_t *policy_json(const struct result_policy *policy)
{
	return form_json(form_of_policy(policy), policy);
}

static enum status parse_policy(const struct field *field, const json_t *value, void *object)
{
	struct result_policy **policy = FIELD_AT(field, object, struct result_policy *);
	const char *member;

	if (!*policy)
		*policy = calloc(1, sizeof(**policy));
	if (!*policy)
		return STATUS_AGENT_INTERNAL;
	enum status status = form_parse_json(&unknown_policy_form, value, *policy, &member);
	return status == STATUS_OK ? form_parse_json(form_of_policy(*policy), value, *policy, &member) : status;
}

static bool build_policy(const struct field *field, const void *object, json_t **ret_value)
{
	const struct result_policy *policy = *FIELD_CONST(field, object, struct result_policy *);

	*ret_value = policy ? policy_json(policy) : NULL;
	return !policy || *ret_value;
}

static void clear_policy(const struct field *field, void *object)
{
	struct result_policy **policy = FIELD_AT(field, object, struct result_policy *);

	free(*policy);
	*policy = NULL;
}

const struct field_type field_policy = { parse_policy, build_policy, clear_policy };
