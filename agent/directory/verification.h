/* verification: whether a password is a user's: one simple bind as him, on a connection of its own to the address that he was read from. It shares nothing with the agent's own connections
 * but the TLS context: no turn of the credential, no pipeline, no second try. At most VERIFICATIONS_MAX of a directory are under way; the others wait. Internal to agent/directory. */
#ifndef AGENT_DIRECTORY_VERIFICATION_H
#define AGENT_DIRECTORY_VERIFICATION_H

#include "agent/directory/internal.h"

enum { VERIFICATIONS_MAX = 8 };

/* `reply` as of an operation: STATUS_OK where the server answered, then ldap_result and diagnostic; else directory.unavailable, agent.internal. Fires once, on the loop; the verification is
 * gone then. The caller keeps the deadline. */
typedef void (*verification_done)(const struct reply *reply, void *arg);
/* `at`: a ready connection to the server. `password` is not empty, and borrowed until this returns; the copy is wiped as soon as it is encoded. agent.overloaded where too many wait. */
enum status verification_start(struct directory *directory, const struct connection *at, const char *dn, struct bytes password, verification_done done, void *arg,
                               struct verification **ret_verification) MUST_USE;
/* `done` will not fire. */
void verification_cancel(struct verification *verification);
/* The password has left, or is on its way. */
bool verification_sent(const struct verification *verification);
bool verification_waits(const struct verification *verification);
/* The end of the directory: every connection is closed; no callback fires. */
void verifications_end(struct directory *directory);

#endif
