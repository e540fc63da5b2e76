/* kerberos: one thread for one directory, on which everything runs that may wait for a KDC: tickets from the keytab, and the tokens of GSSAPI and GSS-SPNEGO. The loop hands work over,
 * keeps its own deadlines and never waits; an answer that nobody waits for any more is thrown away. A ticket is renewed at 80 % of its life, in the background,
 * and not more than once a minute unless it lives for less than two. A key that the KDC refused is not tried again for CREDENTIAL_PAUSE_S, unless an administrator asks. */
#ifndef AGENT_DIRECTORY_KERBEROS_H
#define AGENT_DIRECTORY_KERBEROS_H

#include <event2/event.h>

#include "agent/directory/directory.h"
#include "agent/directory/ticket.h"
#include "base/bytes.h"

enum { KERBEROS_QUEUE_MAX = 64 };
struct kerberos;
enum status kerberos_new(struct event_base *base, const struct directory_settings *settings, struct kerberos **ret_kerberos) MUST_USE;
/* After all its negotiations are freed. A thread that hangs in a KDC's silence is left behind after half a second; it ends by itself and touches nothing of ours. */
void kerberos_free(struct kerberos *kerberos);
/* A new ticket by the keytab as it is now. `discard`: the one that there is was refused. */
void kerberos_renew(struct kerberos *kerberos, bool discard);
void kerberos_facts(struct kerberos *kerberos, struct ticket_facts *ret_facts);
/* Why the last try for a ticket failed, also where the one before is still good; "" where it did not. */
void kerberos_fault(struct kerberos *kerberos, char *text, size_t capacity);

struct negotiation;
/* What one step came to. */
struct negotiation_answer {
	enum status status;
	bool complete;             /* this side has had enough */
	struct bytes token;        /* to be sent; data NULL: nothing. Borrowed until the next step */
	char why[256];             /* unless STATUS_OK */
};
typedef void (*negotiation_done)(const struct negotiation_answer *answer, void *arg);
/* The first token for `host`; `binding` as in sasl.h. `done` fires on the loop, once for this and once for each step, unless the negotiation is freed. */
enum status negotiation_new(struct kerberos *kerberos, const char *host, struct bytes binding, negotiation_done done, void *arg, struct negotiation **ret_negotiation) MUST_USE;
/* The server's token. STATUS_AGENT_INTERNAL while a step is under way. */
enum status negotiation_step(struct negotiation *negotiation, struct bytes input) MUST_USE;
/* It waits for a KDC, or for the thread. */
bool negotiation_waits(const struct negotiation *negotiation);
void negotiation_free(struct negotiation *negotiation);

#endif
