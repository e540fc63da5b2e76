#include "service/request.h"

#include <string.h>

static const struct { unsigned passwords; bool writes; } OPERATIONS[OP_COUNT] = {
	[OP_RESET] = { REQUEST_NEW_PASSWORD, true },
	[OP_CHANGE] = { REQUEST_NEW_PASSWORD | REQUEST_OLD_PASSWORD, true },
	[OP_UNLOCK] = { 0, true },
	[OP_CHECK] = { REQUEST_NEW_PASSWORD, false },
	[OP_VERIFY] = { REQUEST_OLD_PASSWORD, false },
	[OP_LOOKUP] = { 0, false },
	[OP_POLICY] = { 0, false },
};

unsigned request_passwords(enum operation op)
{
	return OPERATIONS[op].passwords;
}

bool request_writes(enum operation op)
{
	return OPERATIONS[op].writes;
}

static enum status take_jwe(const json_t *secrets, const char *kid, char **ret_jwe)
{
	char found[JOSE_KID_SIZE];
	const char *jwe = kid != NULL ? json_string_value(json_object_get(secrets, kid)) : NULL;
	if (jwe == NULL || jose_jwe_kid(bytes_of_string(jwe), found) != JOSE_OK || strcmp(found, kid) != 0)
		return STATUS_REQUEST_INVALID;
	*ret_jwe = strdup(jwe);
	return *ret_jwe != NULL ? STATUS_OK : STATUS_AGENT_INTERNAL;
}

static enum status encrypt(const struct request_claims *claims, const struct operation_question *question, struct jose_key *recipient, char **ret_jwe)
{
	AUTO_SECRET struct secret plaintext = SECRET_EMPTY;
	enum status status = secret_claims_build(claims, question->new_password, question->old_password, &plaintext);
	return status == STATUS_OK ? jose_encrypt(recipient, secret_bytes(&plaintext), ret_jwe) : status;
}

/* Signs `claims` with a fresh jti. */
static enum status seal(struct request_claims *claims, struct jose_key *signing, struct request_row *ret_request)
{
	uuid_random(claims->request_id);
	AUTO_FREE char *payload = request_build(claims);
	if (payload == NULL)
		return STATUS_AGENT_INTERNAL;
	*ret_request = (struct request_row){ .expires = claims->exp };
	enum status status = jose_sign(signing, TYP_REQUEST, bytes_of_string(payload), &ret_request->frame);
	if (status != STATUS_OK)
		return status;
	if (strlen(ret_request->frame) > MAX_FRAME_BYTES) {
		request_row_clear(ret_request);
		return STATUS_REQUEST_INVALID;
	}
	memcpy(ret_request->request_id, claims->request_id, UUID_SIZE);
	memcpy(ret_request->operation_id, claims->operation_id, UUID_SIZE);
	memcpy(ret_request->agent_id, claims->audience, UUID_SIZE);
	sha256(bytes_of_string(ret_request->frame), ret_request->frame_sha256);
	return STATUS_OK;
}

enum status request_secret(const struct operation_question *question, const struct agent *agent, char **ret_jwe)
{
	struct request_claims claims = { .op = question->op, .subject = question->subject };
	memcpy(claims.operation_id, question->operation_id, UUID_SIZE);
	*ret_jwe = NULL;
	if (request_passwords(question->op) == 0)
		return STATUS_OK;
	return question->secrets != NULL ? take_jwe(question->secrets, hub_secret_kid(agent, question->secrets), ret_jwe)
	                                 : encrypt(&claims, question, agent->decryption, ret_jwe);
}

enum status request_make(const struct operation_question *question, const struct agent *agent, const char *issuer, struct jose_key *signing,
                         int64_t now, int64_t lifetime_s, int64_t failover_after, struct request_row *ret_request)
{
	AUTO_FREE char *jwe = NULL;
	struct request_claims claims = {
		.issuer = (char *)issuer, .audience = (char *)agent->row.agent_id, .iat = now, .exp = now + lifetime_s, .op = question->op,
		.subject = question->subject, .must_change = question->must_change, .unlock = question->unlock, .enforce_policy = question->enforce_policy,
		.directory = (char *)question->directory, .actor = question->actor, .actor_id = (char *)question->actor_id, .failover_after = failover_after,
	};
	memcpy(claims.operation_id, question->operation_id, UUID_SIZE);
	enum status status = request_secret(question, agent, &jwe);
	claims.secret = jwe;
	return status == STATUS_OK ? seal(&claims, signing, ret_request) : status;
}

/* Our own frame: nothing to verify. */
static enum status read_claims(const char *frame, struct request_claims *ret_claims)
{
	char kid[JOSE_KID_SIZE];
	json_t *json = NULL;
	const char *member;
	if (jose_peek_unverified(bytes_of_string(frame), TYP_REQUEST, kid, &json) != JOSE_OK)
		return STATUS_AGENT_INTERNAL;
	AUTO_FREE char *payload = json_dumps(json, JSON_COMPACT);
	json_decref(json);
	return payload != NULL ? request_parse(bytes_of_string(payload), ret_claims, &member) : STATUS_AGENT_INTERNAL;
}

int64_t request_failover_after(const char *frame)
{
	struct request_claims claims = { 0 };
	int64_t seconds = read_claims(frame, &claims) == STATUS_OK ? claims.failover_after : 0;
	request_claims_clear(&claims);
	return seconds;
}

enum status request_make_again(const char *frame, const struct agent *agent, const char *jwe, const char *prior_server, struct jose_key *signing, int64_t now,
                               int64_t lifetime_s, int64_t failover_after, bool former_sent, struct request_row *ret_request)
{
	struct request_claims claims = { 0 };
	enum status status = read_claims(frame, &claims);
	if (status == STATUS_OK) {
		struct request_claims again = claims;
		again.first_iat = claims.first_iat != 0 ? claims.first_iat : former_sent ? claims.iat : 0;
		again.iat = now;
		again.exp = now + lifetime_s;
		again.audience = (char *)agent->row.agent_id;
		again.secret = (char *)jwe;
		again.prior_server = (char *)prior_server;
		again.failover_after = failover_after;
		status = seal(&again, signing, ret_request);
	}
	request_claims_clear(&claims);
	return status;
}

static void set_string(json_t *object, const char *name, const char *value)
{
	if (value != NULL && value[0] != '\0')
		json_object_set_new(object, name, json_string(value));
}

char *answer_text(const struct result *result)
{
	json_t *answer = json_object(), *directory = json_object();
	if (result->rule_count > 0)
		json_object_set_new(answer, "rules", rules_json(result->rules, result->rule_count));
	if (result->warnings != 0)
		json_object_set_new(answer, "warnings", warnings_json(result->warnings));
	if (result->retry_after > 0)
		json_object_set_new(answer, "retry_after", json_integer(result->retry_after));
	if (result->was_locked >= 0)
		json_object_set_new(answer, "was_locked", json_boolean(result->was_locked));
	if (result->user_guid[0] != '\0')
		json_object_set_new(answer, "user", json_pack("{s:s}", result->user_is_entry ? "entry_uuid" : "object_guid", result->user_guid));
	if (result->account != NULL)
		json_object_set_new(answer, "account", account_json(result->account));
	if (result->policy != NULL)
		json_object_set_new(answer, "policy", policy_json(result->policy));
	set_string(answer, "reason", result->reason);
	set_string(directory, "name", result->directory);
	set_string(directory, "server", result->server);
	if (result->ldap_result >= 0)
		json_object_set_new(directory, "result_code", json_integer(result->ldap_result));
	set_string(directory, "diagnostic", result->diagnostic);
	if (json_object_size(directory) > 0)
		json_object_set(answer, "directory", directory);
	char *text = json_dumps(answer, JSON_COMPACT);
	json_decref(directory);
	json_decref(answer);
	return text;
}
