/* scope: whose password may be written at all: the premises' decision, by SID and DN, never by name and never by message.
 * Pure. Whoever is protected is refused whatever the configuration says; what cannot be read is a refusal. */
#ifndef AGENT_GATE_SCOPE_H
#define AGENT_GATE_SCOPE_H

#include "agent/account.h"
#include "base/status.h"

/* SCOPE_SELECTED needs at least a base or a group; SCOPE_ALL needs none, but is narrowed by those that are listed. Exclusions always win. */
enum scope_users { SCOPE_NONE, SCOPE_SELECTED, SCOPE_ALL };
/* States of an account that refuse it, unless the premises allow them. */
enum { SCOPE_ALLOW_DISABLED = 1, SCOPE_ALLOW_EXPIRED = 2, SCOPE_ALLOW_SMARTCARD = 4, SCOPE_ALLOW_CANNOT_CHANGE = 8 };
struct scope {
	enum scope_users users;
	const char *const *bases;          /* DNs of subtrees; NULL-terminated; SELECTED: inside one of them … */
	const char *const *exclude_bases;
	size_t exclude_bases_resolved;     /* how many of them are in the directory; below their number: a typo may be among them, which refuses everybody */
	const struct sid *groups;          /* … and, where any is listed, member of one of these */
	size_t group_count;
	size_t groups_configured;          /* above group_count while some could not be resolved: those match nobody */
	const struct sid *exclude_groups;
	size_t exclude_group_count;
	size_t exclude_groups_configured;  /* above exclude_group_count: an exclusion that could not be resolved refuses everybody */
	const struct sid *protect_groups;  /* local additions to the protected groups and accounts */
	size_t protect_group_count;
	size_t protect_groups_configured;  /* likewise */
	const struct sid *exempt_groups;   /* protected groups whose members may be written all the same; one that could not be resolved is not among them and exempts nobody */
	size_t exempt_group_count;
	unsigned allow;                    /* SCOPE_ALLOW_ bits */
	struct sid domain;                 /* the domain's SID; size 0: not known, which refuses */
};

/* The name of a protected group, wherever its SID was found: of BUILTIN, or of a domain, this one or another; NULL for all else. */
const char *scope_protected_group(const struct sid *sid);
/* Whether an exemption may name it: a protected group, and not one of controllers. */
bool scope_is_exemptible(const struct sid *sid);

/* An exemption counts only for a member of protected groups who is in no other protected one than those that are exempted; his adminCount is then not held against him. It never counts
 * for built-in accounts, controllers, computers, trusts, managed service accounts, accounts with a servicePrincipalName, the agent's own, and what protect_groups lists.
 * user.protected, user.out_of_scope or STATUS_OK. `why` (capacity bytes) gets the rule in words, for the log and `explain`: the group's SID and its name where it is well known. */
enum status scope_judge(const struct scope *scope, const struct account *account, char *why, size_t capacity) MUST_USE;

/* The state of the account: user.disabled, user.expired, user.smartcard, user.cannot_change, user.never_expires (must_change). An unlock asks only for disabled and expired.
 * What is in scope->allow is not asked for; must_change of a password that never expires is refused always. */
enum status scope_judge_state(const struct scope *scope, const struct account *account, bool sets_password, bool must_change, int64_t now_s) MUST_USE;

/* RFC 4514 names, compared as Active Directory does: is `dn` at or below `base`? Case-insensitive, escapes and blanks around separators normalized; a DN that cannot be parsed is below nothing. */
bool dn_is_below(const char *dn, const char *base);
/* `dn` can be parsed and is not empty: for judging a configuration. Numeric attribute types and the "#" form of values are not taken. */
bool dn_valid(const char *dn);

#endif
