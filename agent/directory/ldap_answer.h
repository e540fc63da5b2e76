/* ldap_answer: what OpenLDAP's and 389 Directory Server's answer to one operation means. Pure: tables of the texts that these servers send, of the password policy
 * control's errors and of result codes; the first that knows the answer decides. */
#ifndef AGENT_DIRECTORY_LDAP_ANSWER_H
#define AGENT_DIRECTORY_LDAP_ANSWER_H

#include "agent/directory/ad_answer.h"
#include "agent/directory/ppolicy.h"

/* STATUS_OK for result 0. `ppolicy` NULL: the answer had no such control. AD_BIND: a refusal is directory.credential, it is the agent's own. AD_VERIFY: the bind of a user:
 * STATUS_VERIFIED, credential.*, user.locked, user.disabled, directory.*; expired and must-change also where the server lets him in only to change it. */
enum status ldap_answer_status(enum ad_operation operation, int ldap_result, const char *diagnostic, const struct ppolicy_answer *ppolicy);

#endif
