/* ad_rights: what the agent's account may do, by the descriptors that Active Directory shows (MS-ADTS 5.1.3) and the token that it says the connection has. Pure. */
#ifndef AGENT_DIRECTORY_AD_RIGHTS_H
#define AGENT_DIRECTORY_AD_RIGHTS_H

#include "agent/directory/ldap_entry.h"
#include "agent/directory/flavor.h"

/* The values of tokenGroups, the account's own SID where this is its entry, and those that every token has (S-1-1-0, S-1-5-11). Nothing where there is no value: an account is in one group at least. */
void ad_rights_token(const struct entry *entry, struct token *ret_token);
/* Answers what this entry can answer; the rest of `rights` stays. `token` may be empty: nothing is known then. */
void ad_rights_read(enum rights_entry of, const struct entry *entry, const struct token *token, struct directory_rights *rights);
/* The attribute is absent, and by the entry's descriptor `token` may not read it: nothing says that it has no value. False where descriptor or token are not known, too.
 * `attribute`: one that is read of a user. */
bool ad_rights_hide(const struct entry *entry, const struct token *token, const char *attribute);
/* "User cannot change password". False where the descriptor could not be read, or is malformed: `ret_known` says so. */
bool ad_rights_cannot_change(const struct entry *entry, const struct sid *user, bool *ret_known);

#endif
