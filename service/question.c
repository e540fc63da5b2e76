#include "service/question.h"

#include <string.h>

#include "service/request.h"

static bool read_bool(const json_t *value, bool *out)
{
	if (value != NULL && !json_is_boolean(value))
		return false;
	if (value != NULL)
		*out = json_is_true(value);
	return true;
}

static bool read_password(const json_t *password, bool wanted, struct bytes *ret_password)
{
	if (!wanted)
		return password == NULL;
	*ret_password = bytes_of(json_string_value(password), json_string_length(password));
	size_t units = json_is_string(password) ? utf8_utf16_units(*ret_password) : 0;
	return units >= 1 && units <= 256 && memchr(ret_password->data, 0, ret_password->size) == NULL;
}

/* NULL where good, else the member at fault. */
static const char *read_secret(const json_t *body, struct operation_question *question)
{
	const json_t *secrets = json_object_get(body, "secrets");
	unsigned wanted = request_passwords(question->op);
	question->secrets = secrets;
	if (secrets != NULL && (wanted == 0 || !json_is_object(secrets) || json_object_size(secrets) == 0))
		return "secrets";
	if (secrets != NULL)
		wanted = 0; /* they hold the passwords */
	if (!read_password(json_object_get(body, "new_password"), wanted & REQUEST_NEW_PASSWORD, &question->new_password))
		return "new_password or secrets";
	return read_password(json_object_get(body, "old_password"), wanted & REQUEST_OLD_PASSWORD, &question->old_password) ? NULL : "old_password or secrets";
}

static bool takes_must_change(enum operation op)
{
	return op == OP_RESET || op == OP_CHECK;
}

static bool read_wait(const json_t *wait, int64_t limit_ms, int64_t *ret_ms)
{
	*ret_ms = limit_ms;
	if (wait == NULL)
		return true;
	double seconds = json_number_value(wait);
	if (!json_is_number(wait) || !(seconds >= 0 && seconds <= 20))
		return false;
	*ret_ms = (int64_t)(seconds * 1000) < limit_ms ? (int64_t)(seconds * 1000) : limit_ms;
	return true;
}

const char *question_read(json_t *body, int64_t wait_limit_ms, struct operation_question *question)
{
	static const char *const known[] = { "operation_id", "op", "sub_id", "new_password", "old_password", "secrets", "must_change", "unlock", "directory", "actor", "wait", NULL };
	const char *name;
	json_t *value;
	json_object_foreach(body, name, value) {
		size_t i = 0;
		while (known[i] != NULL && strcmp(known[i], name) != 0)
			i++;
		if (known[i] == NULL)
			return "a member that is not known";
	}
	const char *id = json_string_value(json_object_get(body, "operation_id")), *op = json_string_value(json_object_get(body, "op"));
	const json_t *directory = json_object_get(body, "directory"), *actor = json_object_get(body, "actor");
	question->unlock = question->enforce_policy = true;
	question->directory = json_string_value(directory);
	if (id == NULL || !uuid_valid(id))
		return "operation_id";
	memcpy(question->operation_id, id, UUID_SIZE);
	if (op == NULL || !operation_from_name(op, &question->op))
		return "op";
	if (subject_parse(json_object_get(body, "sub_id"), &question->subject) != STATUS_OK)
		return "sub_id";
	const char *secret = read_secret(body, question);
	if (secret != NULL)
		return secret;
	if (!read_bool(json_object_get(body, "must_change"), &question->must_change) || (question->must_change && !takes_must_change(question->op)))
		return "must_change";
	if (!read_bool(json_object_get(body, "unlock"), &question->unlock))
		return "unlock";
	if (directory != NULL && (question->directory == NULL || question->directory[0] == '\0'))
		return "directory";
	if (actor != NULL && actor_parse(actor, &question->actor, &question->actor_id) != STATUS_OK)
		return "actor";
	return read_wait(json_object_get(body, "wait"), wait_limit_ms, &question->wait_ms) ? NULL : "wait";
}
