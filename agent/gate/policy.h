/* policy: the password policy in effect, applied beforehand to what can be known, and used afterwards to say which rule made the directory refuse.
 * Pure. The complexity rule is Windows' passfilt.dll (MS-SAMR 3.1.1.7.2 and Microsoft's "Password must meet complexity requirements"). */
#ifndef AGENT_GATE_POLICY_H
#define AGENT_GATE_POLICY_H

#include "agent/account.h"
#include "proto/messages.h"

/* Before the directory is asked: too short, not complex, contains a name, too recent (only where `enforced`: the server will apply age and history). STATUS_OK, or the code of the first rule broken;
 * `rules` gets all that are broken. An unknown policy judges nothing. `password` is valid UTF-8. */
enum status policy_judge(const struct password_policy *policy, const struct account *account, struct bytes password, bool enforced, int64_t now_s,
                         struct rule rules[MAX_RULES], size_t *ret_count) MUST_USE;

/* After the directory answered policy.rejected: which rule it must have been. `hint` is what the server's text itself said (Samba names the rule), STATUS_OK where it said nothing. Never STATUS_OK:
 * the hint if there is one; else what policy_judge finds; else history_or_filter where a history is kept and enforced (or a filter may be there); policy.rejected where the policy is unknown. */
enum status policy_diagnose(const struct password_policy *policy, const struct account *account, struct bytes password, bool enforced, enum status hint, int64_t now_s,
                            struct rule rules[MAX_RULES], size_t *ret_count);

/* Whether the policy as it is known gives a reason for that refusal; one that does not may be outdated. */
bool policy_explains(const struct password_policy *policy, const struct account *account, struct bytes password, bool enforced, enum status hint, int64_t now_s) MUST_USE;

/* The rule that a server's diagnostic text names: Samba's check_password_restrictions sentences; STATUS_OK for Windows' texts, which name none. */
enum status policy_hint(const char *diagnostic);

/* CLASS_ bits of the character classes in the password. */
unsigned policy_classes(struct bytes password);

/* Forms of well-formedness that no policy changes: 1 to 256 UTF-16 units, no U+0000, valid UTF-8. STATUS_REQUEST_UNDECRYPTABLE otherwise. */
enum status policy_password_form(struct bytes password) MUST_USE;

#endif
