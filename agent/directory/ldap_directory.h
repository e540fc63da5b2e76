/* ldap_directory: what the files of the flavor ldap share: OpenLDAP with the overlay ppolicy, and 389 Directory Server.
 *
 * How the two differ (as OpenLDAP 2.5 and 389 Directory Server 2.3 do it):
 *   entry's UUID   entryUUID                      | nsUniqueId, the same sixteen octets written 8-8-8-8
 *   password       RFC 3062, which hashes it      | a modify of userPassword, which hashes it and takes what else there is to write with it
 *   lockout        pwdAccountLockedTime; a        | accountUnlockTime with passwordRetryCount; a new password sets the count to 0
 *                  new password clears it         |
 *   must change    pwdReset, written afterwards:  | RFC 3062: the server writes pwdReset itself where its policy has passwordMustChange
 *                  a new password clears it       |
 *   disabled       pwdAccountLockedTime is        | nsAccountLock
 *                  000001010000Z                  |
 *
 * A change is the user's own write: RFC 3062 with the old password on a connection that is bound as him with it (verification.h). A wrong one is thus a failed logon, counted by the server.
 * Who must change his password is let in for that; who is past its age, only by a grace login. Both controls' answers are of the password policy control.
 *
 * What settling can rest on: when the password was set (pwdChangedTime, pwdUpdateTime, else modifyTimestamp: whole seconds), and who wrote last (modifiersName). So a lost
 * answer is `applied` where the time has moved and the agent's own account (a change: the user himself) wrote last, no later than ours could have been done (no server's time is known: by the agent's clock, with 5 s), unchanged where it has not moved, and unknown otherwise; unknown too where the password
 * before was only seconds old, since two writes within one second look like one (its record is young: when it was set is known, and settling does not go by it), and where the writer is a plugin, as on 389 without nsslapd-plugin-binddn-tracking.
 *
 * An answer that a proxy or load balancer may give behind a write that it passed on (operationsError, unavailable, other, a limit exceeded) is settled like one that was lost.
 *
 * There is no second write on another server: invocation_known stays false, since nothing here can be compared that says which of two writes survives replication. */
#ifndef AGENT_DIRECTORY_LDAP_DIRECTORY_H
#define AGENT_DIRECTORY_LDAP_DIRECTORY_H

#include "agent/directory/flavor.h"
#include "agent/directory/ldap_entry.h"

extern const char *const LDAP_USER_ATTRIBUTES[];
/* entryUUID or nsUniqueId. */
bool ldap_entry_guid(const struct entry *entry, uint8_t ret_guid[16]);
/* directory.denied where the entry does not show what everything rests on: DN, objectClass, and the entry's UUID. */
enum status ldap_user_from_entry(const struct view *view, const struct entry *entry, struct user_facts *ret_facts);
enum status ldap_read_user(const struct view *view, LDAP *ldap, LDAPMessage *message, struct user_facts *ret_facts);
void ldap_complete_user(const struct view *view, struct user_facts *facts, struct server_position *position);
enum status ldap_change_new(const struct view *view, const struct account *account, const struct directory_change *change, const char *control, struct change **ret_change,
                            struct change **ret_after);

#endif
