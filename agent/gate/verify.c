#include "agent/gate/verify.h"

#include <string.h>

enum { AHEAD_MAX_S = 60, LIFETIME_MAX_S = 120 };

/* The only place that makes one: who holds it may rely on every check below. */
struct verified_request {
	struct request_claims claims;
};

static enum status fail(const char **ret_reason, const char *reason, enum status status)
{
	*ret_reason = reason;
	return status;
}

static enum status judge_audience(const struct request_claims *claims, const struct gate_identity *identity, const char **ret_reason)
{
	if (!claims->issuer || strcmp(claims->issuer, identity->issuer))
		return fail(ret_reason, "iss", STATUS_REQUEST_AUDIENCE);
	if (!claims->audience || strcmp(claims->audience, identity->agent_id))
		return fail(ret_reason, "aud", STATUS_REQUEST_AUDIENCE);
	return STATUS_OK;
}

static enum status judge_time(const struct request_claims *claims, const struct gate_identity *identity, int64_t now_s, const char **ret_reason)
{
	int64_t lifetime;
	if (__builtin_sub_overflow(claims->exp, claims->iat, &lifetime) || lifetime <= 0 || lifetime > LIFETIME_MAX_S)
		return fail(ret_reason, "exp", STATUS_REQUEST_INVALID);
	if (claims->iat > now_s + AHEAD_MAX_S)
		return fail(ret_reason, "iat", STATUS_REQUEST_NOT_YET_VALID);
	/* RFC 7519 section 4.1.4: on or after exp it is not accepted. */
	if (now_s >= claims->exp)
		return fail(ret_reason, "exp", STATUS_REQUEST_EXPIRED);
	if (claims->exp <= identity->not_before)
		return fail(ret_reason, "exp", STATUS_REQUEST_EXPIRED);
	return STATUS_OK;
}

static enum status judge_operation(const struct request_claims *claims, const struct gate_identity *identity, const char **ret_reason)
{
	if ((unsigned)claims->op >= OP_COUNT || !(identity->operations & 1u << claims->op))
		return fail(ret_reason, "op", STATUS_REQUEST_UNSUPPORTED);
	if (!claims->enforce_policy && !(claims->actor == ACTOR_ADMINISTRATOR && identity->allow_unenforced_policy))
		return fail(ret_reason, "enforce_policy", STATUS_REQUEST_UNSUPPORTED);
	return STATUS_OK;
}

static enum status judge(struct bytes payload, const struct gate_identity *identity, int64_t now_s, struct request_claims *claims, const char **ret_reason)
{
	enum status parsed = request_parse(payload, claims, ret_reason);
	/* An operation that is not known is said last, as one that is known and not allowed: only to whom the request is for, and while it is valid. */
	if (parsed != STATUS_OK && !(parsed == STATUS_REQUEST_UNSUPPORTED && claims->issuer && claims->audience && claims->exp))
		return parsed;
	const char *unsupported = *ret_reason;
	enum status status = judge_audience(claims, identity, ret_reason);
	if (status == STATUS_OK)
		status = judge_time(claims, identity, now_s, ret_reason);
	if (status == STATUS_OK && parsed != STATUS_OK)
		return fail(ret_reason, unsupported, parsed);
	return status == STATUS_OK ? judge_operation(claims, identity, ret_reason) : status;
}

enum status gate_verify(struct bytes payload, const struct gate_identity *identity, int64_t now_s,
                        struct verified_request **ret_request, struct request_ids *ret_ids, const char **ret_reason)
{
	*ret_request = NULL;
	*ret_reason = "";
	memset(ret_ids, 0, sizeof *ret_ids);
	struct verified_request *request = calloc(1, sizeof *request);
	if (!request)
		return STATUS_AGENT_INTERNAL;
	enum status status = judge(payload, identity, now_s, &request->claims, ret_reason);
	memcpy(ret_ids->request_id, request->claims.request_id, sizeof ret_ids->request_id);
	memcpy(ret_ids->operation_id, request->claims.operation_id, sizeof ret_ids->operation_id);
	ret_ids->op = request->claims.op;
	/* What will be valid one day must be remembered until then; anything else that is refused never will be, and its exp, which nobody has checked, is worth nothing. */
	bool ahead = status == STATUS_REQUEST_NOT_YET_VALID;
	ret_ids->exp = !ahead && request->claims.exp > now_s + AHEAD_MAX_S + LIFETIME_MAX_S ? now_s + AHEAD_MAX_S + LIFETIME_MAX_S : request->claims.exp;
	if (status == STATUS_OK)
		*ret_request = request;
	else
		verified_free(request);
	return status;
}

const struct request_claims *verified_claims(const struct verified_request *request)
{
	return &request->claims;
}

enum status verified_still_valid(const struct verified_request *request, int64_t now_s)
{
	return now_s >= request->claims.exp ? STATUS_REQUEST_EXPIRED : STATUS_OK;
}

void verified_free(struct verified_request *request)
{
	if (!request)
		return;
	request_claims_clear(&request->claims);
	free(request);
}
