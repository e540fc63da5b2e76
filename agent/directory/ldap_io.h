/* ldap_io: libldap on top of a bufferevent. libldap reads and writes the bufferevent's buffers and nothing else, so it never blocks and knows nothing of TLS. */
#ifndef AGENT_DIRECTORY_LDAP_IO_H
#define AGENT_DIRECTORY_LDAP_IO_H

#include <event2/bufferevent.h>
#include <ldap.h>

#include "base/status.h"

/* What libldap writes in one turn of the loop becomes one TLS record. How much waits in the output at most before libldap is told to try again. */
struct ldap_io {
	struct bufferevent *bufferevent; /* borrowed; NULL once it is gone: libldap then sees an error */
	size_t readable;                 /* of the one message that libldap may read now */
	char notice[100];                /* what the server said last of its own accord (RFC 4511, section 4.4): why it disconnects */
	uint64_t written;                /* by libldap, in all */
	uint8_t *turn;                   /* of this turn; may hold passwords */
	size_t turn_size, turn_capacity;
	struct event *flush;
};
enum { LDAP_IO_OUTPUT_MAX = 1 << 20, LDAP_IO_INCOMING_MAX = 1 << 20 };

/* A new LDAP handle over `io`, which must outlive it: protocol 3, no referrals, no ldap.conf. */
enum status ldap_io_open(struct ldap_io *io, LDAP **ret_ldap) MUST_USE;
/* The next message that is there in whole and answers something: the caller's (ldap_msgfree), and its octets; NULL: none. Unsolicited notifications, and answers that nobody waits for, are left out: whoever disconnects
 * (RFC 4511, section 4.4.1) does so next. STATUS_DIRECTORY_PROTOCOL: what came is no LDAP, longer than LDAP_IO_INCOMING_MAX, or nothing
 * that libldap survives. */
enum status ldap_io_receive(struct ldap_io *io, LDAP *ldap, LDAPMessage **ret_message, size_t *ret_size) MUST_USE;
/* Before the bufferevent is freed; libldap sees an error from here. */
void ldap_io_close(struct ldap_io *io);
/* What has not been encrypted yet. */
size_t ldap_io_unsent(const struct ldap_io *io);

#endif
