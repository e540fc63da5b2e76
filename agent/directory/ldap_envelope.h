/* ldap_envelope: where one LDAPMessage ends and which it is (RFC 4511, sections 4.1.1 and 5.1), before libldap sees any of it: libldap 2.5 forgets a request for each answer that has no operation, keeps what
 * an unsolicited notification says, and waits for as long a message as it is promised. Pure. */
#ifndef AGENT_DIRECTORY_LDAP_ENVELOPE_H
#define AGENT_DIRECTORY_LDAP_ENVELOPE_H

#include <stdbool.h>

#include "base/bytes.h"

enum { LDAP_ENVELOPE_HEAD = 32 }; /* octets that say all of it */
struct ldap_envelope {
	size_t size;             /* of the whole message; 0: more octets are wanted to say */
	int32_t message_id;      /* 0: an unsolicited notification (section 4.4) */
	uint8_t operation;       /* its tag */
};

/* `head`: the first octets of what came. False: no LDAPMessage that a server sends (a SEQUENCE of definite length, a messageID of 0 to 2^31-1, an operation that lies within and is a constructed type of class
 * application), or one of more than `most` octets. */
bool ldap_envelope_read(struct bytes head, size_t most, struct ldap_envelope *ret_envelope) MUST_USE;

/* Whether the responseName of an ExtendedResponse (section 4.12; `message` is all of it) may be read by libldap 2.5, which ends the program where one begins with nothing or with U+0000. */
bool ldap_envelope_may_be_named(struct bytes message);
/* Result code and diagnostic text of an unsolicited notification, for people: "52 00002024: …", cut at `size` octets with its NUL; empty where they cannot be read. */
void ldap_envelope_words(struct bytes message, char *ret_words, size_t size);

#endif
