/* ppolicy: the answer of the password policy control, draft-behera-ldap-password-policy-11 section 6.2, as OpenLDAP and 389 Directory Server send it. Pure.
 *
 *     PasswordPolicyResponseValue ::= SEQUENCE {
 *         warning [0] CHOICE { timeBeforeExpiration [0] INTEGER, graceAuthNsRemaining [1] INTEGER } OPTIONAL,
 *         error   [1] ENUMERATED OPTIONAL } */
#ifndef AGENT_DIRECTORY_PPOLICY_H
#define AGENT_DIRECTORY_PPOLICY_H

#include <ldap.h>

#include "base/bytes.h"
#include "base/status.h"

#define PPOLICY_CONTROL "1.3.6.1.4.1.42.2.27.8.5.1"

enum ppolicy_error {
	PPOLICY_EXPIRED, PPOLICY_LOCKED, PPOLICY_CHANGE_AFTER_RESET, PPOLICY_MOD_NOT_ALLOWED, PPOLICY_MUST_SUPPLY_OLD, PPOLICY_QUALITY, PPOLICY_TOO_SHORT,
	PPOLICY_TOO_YOUNG, PPOLICY_IN_HISTORY, PPOLICY_TOO_LONG /* OpenLDAP's own */
};
struct ppolicy_answer {
	int error;                     /* enum ppolicy_error, or a number that is newer; -1: none */
	int64_t expires_in_s, grace;   /* the password's life, logins left after it; -1: not said */
};
/* STATUS_LOCAL_INPUT where it is malformed; then the answer says nothing. Lengths in long form (389 Directory Server's) are taken. */
enum status ppolicy_parse(struct bytes value, struct ppolicy_answer *ret_answer) MUST_USE;
/* The control among an answer's; false where it is not there or malformed. */
bool ppolicy_find(LDAPControl *const *controls, struct ppolicy_answer *ret_answer);

#endif
