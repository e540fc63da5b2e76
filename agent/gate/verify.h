/* verify: from a signed envelope's payload to a request that this agent may look at: the sole constructor of struct verified_request.
 * Pure: the time is a parameter. Proto/README.md section 6.2, step 3. */
#ifndef AGENT_GATE_VERIFY_H
#define AGENT_GATE_VERIFY_H

#include "proto/messages.h"

struct verified_request;

/* Who this agent is and what its configuration allows. Borrowed. */
struct gate_identity {
	const char *issuer;
	const char *agent_id;
	unsigned operations;           /* bits 1 << enum operation */
	bool allow_unenforced_policy;  /* enforce_policy false by an administrator */
	int64_t not_before;            /* requests whose exp is at or below it are request.expired, whatever the clock says: nobody remembers them any more */
};

/* Looks, in this order: payload's form (request.invalid), iss and aud (request.audience), exp more than 120 s behind iat or not behind it (request.invalid), iat more than 60 s ahead
 * (request.not_yet_valid), exp passed (request.expired), exp at or below not_before (request.expired), operation allowed (request.unsupported), enforce_policy.
 * `ret_reason`: the member or check, a static string. `ret_ids` are filled even on failure, as far as they could be read; an exp that
 * no acceptable request could have now is given as the latest one that could, so that it cannot be remembered for ever. */
struct request_ids { char request_id[UUID_SIZE]; char operation_id[UUID_SIZE]; int64_t exp; enum operation op; };
enum status gate_verify(struct bytes payload, const struct gate_identity *identity, int64_t now_s,
                        struct verified_request **ret_request, struct request_ids *ret_ids, const char **ret_reason) MUST_USE;
const struct request_claims *verified_claims(const struct verified_request *request);
/* request.expired at exp and after it: looked at again just before the write. */
enum status verified_still_valid(const struct verified_request *request, int64_t now_s) MUST_USE;
void verified_free(struct verified_request *request);

#endif
