/* outbox: results on their way to the service: stamped with the time, and told again from the journal until the service acknowledges them.
 * Signing is done a few at a time, so that a long list does not hold up the loop. On the loop's thread. */
#ifndef AGENT_OUTBOX_H
#define AGENT_OUTBOX_H

#include <event2/event.h>

#include "agent/identity.h"
#include "agent/journal/journal.h"

struct outbox;
/* Signs and sends a payload; not STATUS_OK where nothing can be sent now. */
typedef enum status (*outbox_send_function)(struct bytes payload, void *arg);

struct outbox *outbox_new(struct event_base *base, struct journal *journal, const struct identity *identity, outbox_send_function send, void *arg);
void outbox_free(struct outbox *outbox);
/* `payload` as the journal keeps it, with `iat` set to now: malloc'ed; NULL where it is not this identity's or memory is out. */
char *outbox_stamp(const struct identity *identity, const char *payload, int64_t now_s);
/* Everything that is not acknowledged and whose outcome is older than `age_ms`. A round that is under way goes on instead. */
void outbox_repeat(struct outbox *outbox, int64_t age_ms);

#endif
