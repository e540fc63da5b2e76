/* request: makes the frame for an agent from what was asked, and the stored answer from what the agent said. Pure but for the randomness of cryptography. */
#ifndef SERVICE_REQUEST_H
#define SERVICE_REQUEST_H

#include "service/operations.h"

/* Signs a request for `agent`; the password is encrypted to its decryption key, or the JWE for that key is taken from `secrets`.
 * `failover_after` is the claim, 0: none. `ret_request` is complete but for created_ms. STATUS_REQUEST_INVALID where a JWE is none or not for the key it stands under. */
enum status request_make(const struct operation_question *question, const struct agent *agent, const char *issuer, struct jose_key *signing,
                         int64_t now, int64_t lifetime_s, int64_t failover_after, struct request_row *ret_request) MUST_USE;
/* The JWE for this agent alone; NULL where the operation has none. */
enum status request_secret(const struct operation_question *question, const struct agent *agent, char **ret_jwe) MUST_USE;
/* The same operation for another agent: new jti and times, `jwe` for that agent, prior_server where one is known; first_iat unless no attempt before it, nor the one of `frame` (`former_sent`), has left. */
enum status request_make_again(const char *frame, const struct agent *agent, const char *jwe, const char *prior_server, struct jose_key *signing, int64_t now,
                               int64_t lifetime_s, int64_t failover_after, bool former_sent, struct request_row *ret_request) MUST_USE;
/* The claim of this frame; 0: none. */
int64_t request_failover_after(const char *frame);
/* The passwords that this operation carries: REQUEST_ bits; 0: it has no secret. */
enum { REQUEST_NEW_PASSWORD = 1, REQUEST_OLD_PASSWORD = 2 };
unsigned request_passwords(enum operation op);
/* Whether its good outcome is a write (`applied`) and not an answer (`answered`). */
bool request_writes(enum operation op);
/* What the agent said besides status and code, as JSON text; NULL when memory is out. */
char *answer_text(const struct result *result);

#endif
