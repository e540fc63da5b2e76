/* verification: whether a password is a user's: one simple bind as him, on a connection of its own to the address that he was read from; and, where there is one, one write in his own right
 * on that same connection, once the server has let him in. It shares nothing with the agent's own connections but the TLS context: no turn of the credential, no pipeline, no second try. At
 * most VERIFICATIONS_MAX of a directory are under way; the others wait. Internal to agent/directory. */
#ifndef AGENT_DIRECTORY_VERIFICATION_H
#define AGENT_DIRECTORY_VERIFICATION_H

#include "agent/directory/internal.h"

enum { VERIFICATIONS_MAX = 8 };

/* How far one has come. TRIED: the password has left, or is on its way; ACCEPTED: the server let him in, if only to change it; WRITTEN: the write has left, or is on its way. */
enum verification_stage { VERIFICATION_WAITS, VERIFICATION_CONNECTS, VERIFICATION_TRIED, VERIFICATION_ACCEPTED, VERIFICATION_WRITTEN };
/* `reply` as of an operation: STATUS_OK where the server answered, then ldap_result and diagnostic; else directory.unavailable, agent.internal, or what the change's still_wanted says. `stage`: up to TRIED it is of the bind, from
 * ACCEPTED of the write. Fires once, on the loop; the verification is gone then. The caller keeps the deadline. */
typedef void (*verification_done)(enum verification_stage stage, const struct reply *reply, void *arg);
/* `at`: a ready connection to the server. `password` is not empty, and borrowed until this returns; the copy is wiped as soon as it is encoded. `take_change`: an extended operation, sent where
 * the bind's result is success, whatever its controls say: that is how who must change his password does it. NULL: the bind is all. agent.overloaded where too many wait. */
enum status verification_start(struct directory *directory, const struct connection *at, const char *dn, struct bytes password, struct change *take_change, verification_done done, void *arg,
                               struct verification **ret_verification) MUST_USE;
/* `done` will not fire. */
void verification_cancel(struct verification *verification);
enum verification_stage verification_stage(const struct verification *verification);
/* The end of the directory: every connection is closed; no callback fires. */
void verifications_end(struct directory *directory);

#endif
