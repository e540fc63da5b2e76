/* refusals: what was answered to requests that the journal does not hold: it could not be written, or nothing was to be taken in. Such an answer says "nothing was changed", and the same
 * bytes, which whoever owns the channel may keep, must not make a lie of it: they get the same answer until time alone refuses them.
 *
 * In memory and bounded; time is a parameter. */
#ifndef AGENT_REFUSALS_H
#define AGENT_REFUSALS_H

#include "base/bytes.h"
#include "base/status.h"

struct refusals;
struct refusal {
	char request_id[UUID_SIZE];
	uint8_t frame_sha256[32];   /* as the journal's */
	int64_t exp;
	enum status code;
};

/* NULL when memory is out. */
struct refusals *refusals_new(unsigned limit);
void refusals_free(struct refusals *refusals);
/* True: it is remembered, so it may be told. False where `limit` of them live, or memory is out: then nothing may be told, and the service delivers the request again. */
bool refusals_add(struct refusals *refusals, const struct refusal *refusal, int64_t now_s) MUST_USE;
/* Valid until the next call; NULL where unknown. */
const struct refusal *refusals_find(const struct refusals *refusals, const char *request_id);
/* The highest exp of those that were dropped because it had passed: should the clock be set back, requests at or below it are refused. 0 at first. */
int64_t refusals_passed_exp(const struct refusals *refusals);

#endif
