/* request_answer: what is told of a user, from what was read of him: the members `account` and `policy` of a result (proto/README.md section 7). Pure. */
#ifndef AGENT_REQUEST_ANSWER_H
#define AGENT_REQUEST_ANSWER_H

#include "agent/account.h"
#include "proto/messages.h"

/* Malloc'ed, for struct result; NULL when memory is out. `now_s`: seconds since 1970. */
struct result_account *answer_account(const struct account *account, int64_t now_s) MUST_USE;
/* `enforced`: the server applies history and minimum age to a reset, too. */
struct result_policy *answer_rules(const struct account *account, bool enforced, int64_t now_s) MUST_USE;

#endif
