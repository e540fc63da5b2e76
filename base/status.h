/* status: how anything ended. One enum, one table, made from proto/codes.json.
 *
 * Every function that can fail for more than one reason returns `enum status`; STATUS_OK is zero.
 * Codes with an outcome travel to the service as a result's `code`; those without are local events
 * (a channel that cannot be had, a file with a wrong mode). A status is never folded into another one:
 * where two need the same handling, decide by status_outcome(). */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H

#include <stdbool.h>
#include <syslog.h> /* LOG_ERR … are the log levels everywhere */

#include "status_codes.h"

#define MUST_USE __attribute__((warn_unused_result))

/* The `status` of a result, RFC-style words in proto/README.md section 7. */
enum outcome { OUTCOME_NONE, OUTCOME_APPLIED, OUTCOME_ANSWERED, OUTCOME_REFUSED, OUTCOME_FAILED, OUTCOME_UNKNOWN, OUTCOME_SETTLING };

enum retry { RETRY_NEVER, RETRY_LATER, RETRY_CHANGED };

enum status {
#define X(name, code, outcome, level, retry, user, admin) name,
	STATUS_CODES(X)
#undef X
	STATUS_COUNT
};

/* The stable word, e.g. "policy.too_short". Never NULL. */
const char *status_code(enum status status);
enum outcome status_outcome(enum status status);
/* A syslog level, LOG_CRIT to LOG_INFO, for the line that reports this status. */
int status_level(enum status status);
/* What the end user may be told; NULL for local events. */
const char *status_user_text(enum status status);
/* What the administrator should do. Never NULL. */
const char *status_admin_text(enum status status);
/* The status of a code, or false where no row has it. */
bool status_from_code(const char *code, enum status *ret_status);

/* `return status_because(STATUS_…, ret_why, "%s: …", path);`: the sentence, malloc'ed, goes to *ret_why (where ret_why is not NULL); the status comes back. */
enum status status_because(enum status status, char **ret_why, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* "applied", "refused", …; "none" for OUTCOME_NONE. */
const char *outcome_name(enum outcome outcome);
bool outcome_from_name(const char *name, enum outcome *ret_outcome);
/* Final: everything but OUTCOME_NONE and OUTCOME_SETTLING. */
bool outcome_is_final(enum outcome outcome);

#endif
