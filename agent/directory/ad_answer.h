/* ad_answer: what Active Directory's (and Samba's) answer to one operation means. Pure: a table.
 * The result code alone says too little: the first eight hexadecimal digits of the diagnostic message are a Win32 code; a bind's text has it behind "data ". */
#ifndef AGENT_DIRECTORY_AD_ANSWER_H
#define AGENT_DIRECTORY_AD_ANSWER_H

#include <stddef.h>

#include "base/status.h"
#include <stdint.h>

/* AD_VERIFY: a bind as a user, to see whether his password is right; AD_BIND: the agent's own. */
enum ad_operation { AD_READ, AD_BIND, AD_RESET, AD_UNLOCK, AD_CHANGE, AD_VERIFY };

/* STATUS_OK for result 0, STATUS_VERIFIED where that of AD_VERIFY. `diagnostic` may be NULL, and so may `ret_win32`: its Win32 code, 0 where there is none. */
enum status ad_answer_status(enum ad_operation operation, int ldap_result, const char *diagnostic, uint32_t *ret_win32);
/* A diagnostic message made fit for a log: valid UTF-8, control characters become spaces, none at its end, cut at capacity. */
void ad_answer_text(const char *diagnostic, char *out, size_t capacity);
/* What a bind's sub-code says of the account, for the administrator: "the password is wrong", …; NULL for an unknown one. */
const char *ad_answer_bind_reason(uint32_t win32);

#endif
