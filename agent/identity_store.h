/* identity_store: brings the state directory to what an identity in memory says (identity.h has the order), on the identity's worker. At most one write of an identity is under way; what changes meanwhile
 * is written together behind it, so that nothing queues up. Inside agent/identity*.c, agent/enrolment.c alone. */
#ifndef AGENT_IDENTITY_STORE_H
#define AGENT_IDENTITY_STORE_H

#include "agent/identity.h"

void identity_pair_clear(struct identity_pair *pair);
/* Destroys, at once, the key files that a crash left over. */
void identity_store_tidy(const struct identity *identity);
/* Writes `take_fresh`, keys and all, in place of `identity`, which becomes it once that is durable, and stays what it was otherwise. */
void identity_replace(struct identity *identity, struct identity *take_fresh, identity_done done, void *arg);

#endif
